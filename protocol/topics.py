"""Where each thing is said: `sliceloop/v1/{site}/{edge}/...` for edges, `sliceloop/v1/cloud/...` for training."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from protocol.errors import InvalidIdError, UnknownTopicError

ROOT = "sliceloop/v1"
ID_PATTERN = r"^[a-z0-9-]{1,32}$"
RESERVED_SITES = frozenset({"cloud", "fleet"})
"""Sites of these names would collide with the topics of the trainers and of the whole fleet."""

TopicId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


class Kind(StrEnum):
    """What a topic carries; the value is what follows the site and edge (or `cloud`) in the topic."""

    STATUS = "status"
    SLICE = "slice"
    FRAME = "frame"
    DIAGNOSIS = "diagnosis"
    RECEIPT = "receipt"
    VERDICT = "verdict"
    MODEL_DESIRED = "model/desired"
    MODEL_ASSIGNED = "model/assigned"
    MODEL_KEYS = "model/keys"
    MODEL_REPORTED = "model/reported"
    MODEL_GET = "model/get"
    MODEL_CHUNK = "model/chunk"
    RETRAIN_REQUEST = "retrain/request"
    RETRAIN_STATUS = "retrain/status"
    RETRAIN_RESULT = "retrain/result"


CLOUD_KINDS = frozenset({Kind.RETRAIN_REQUEST, Kind.RETRAIN_STATUS, Kind.RETRAIN_RESULT})
FLEET_DESIRED = f"{ROOT}/fleet/{Kind.MODEL_DESIRED}"
FLEET_KEYS = f"{ROOT}/fleet/{Kind.MODEL_KEYS}"
FLEET_CHUNKS = f"{ROOT}/fleet/{Kind.MODEL_CHUNK}/+"
"""Topic filter of the chunks that are published once for all edges that wait for them."""
_FLEET_CHUNK = re.compile(rf"{ROOT}/fleet/{Kind.MODEL_CHUNK}/([0-9a-f]{{64}})")


@dataclass(frozen=True)
class Address:
    """A parsed topic: `site` and `edge` are empty for the cloud and the fleet, `sha256` is a chunk's."""

    kind: Kind
    site: str = ""
    edge: str = ""
    sha256: str = ""


def edge_topic(site: str, edge: str, kind: Kind, sha256: str = "") -> str:
    """Name the topic of one edge, `sha256` for a chunk only.

    Raises `InvalidIdError` for ids that may not stand in a topic, `UnknownTopicError` for what `parse` would refuse.
    """
    check_edge_ids(site, edge)
    topic = f"{ROOT}/{site}/{edge}/{kind}" + (f"/{sha256}" if sha256 else "")
    parse(topic)
    return topic


def chunk_filter(site: str, edge: str) -> str:
    """Return the topic filter for every chunk that one edge is sent; raises `InvalidIdError`."""
    check_edge_ids(site, edge)
    return f"{ROOT}/{site}/{edge}/{Kind.MODEL_CHUNK}/+"


def fleet_chunk(sha256: str) -> str:
    """Name the topic of a chunk for all edges that wait for it; raises `UnknownTopicError`."""
    topic = f"{ROOT}/fleet/{Kind.MODEL_CHUNK}/{sha256}"
    parse(topic)
    return topic


def cloud_topic(kind: Kind) -> str:
    """Name a topic of the retraining trigger messages; raises `UnknownTopicError` for any other kind."""
    topic = f"{ROOT}/cloud/{kind}"
    parse(topic)
    return topic


def every_edge(kind: Kind) -> str:
    """Return the topic filter for one kind from all edges.

    `+/+/status` also matches `cloud/retrain/status`: whoever subscribes to it routes by `parse`.
    """
    return f"{ROOT}/+/+/{kind}"


def shared(topic_filter: str) -> str:
    """Share a subscription among its subscribers, each message going to one of them (MQTT 5, 4.8.2).

    The group is named after the filter: rumqttd deals a group's messages to all its members, whatever they asked for.
    """
    group = re.sub(r"[^a-z0-9]+", "-", topic_filter.removeprefix(ROOT)).strip("-")
    return f"$share/{group}/{topic_filter}"


def check_edge_ids(site: str, edge: str) -> None:
    """Raise `InvalidIdError` unless both ids may stand in a topic."""
    for what, value in (("site", site), ("edge", edge)):
        if not re.fullmatch(ID_PATTERN, value) or (what == "site" and value in RESERVED_SITES):
            raise InvalidIdError(what, value)


def parse(topic: str) -> Address:
    """Split a topic into its address; raises `UnknownTopicError`."""
    levels = topic.split("/")
    if levels[:2] != ROOT.split("/") or len(levels) < 4:
        raise UnknownTopicError(topic)
    rest = "/".join(levels[3:])
    if levels[2] == "cloud" and rest in CLOUD_KINDS:
        return Address(Kind(rest))
    if topic == FLEET_DESIRED:
        return Address(Kind.MODEL_DESIRED)
    if topic == FLEET_KEYS:
        return Address(Kind.MODEL_KEYS)
    if chunk := _FLEET_CHUNK.fullmatch(topic):
        return Address(Kind.MODEL_CHUNK, sha256=chunk.group(1))
    return _edge_address(topic, levels)


def _edge_address(topic: str, levels: list[str]) -> Address:
    site, edge, rest = levels[2], levels[3], "/".join(levels[4:])
    try:
        check_edge_ids(site, edge)
    except InvalidIdError:
        raise UnknownTopicError(topic) from None
    chunk = re.fullmatch(rf"{Kind.MODEL_CHUNK}/([0-9a-f]{{64}})", rest)
    if chunk:
        return Address(Kind.MODEL_CHUNK, site, edge, chunk.group(1))
    if rest in set(Kind) - CLOUD_KINDS - {Kind.MODEL_CHUNK, Kind.MODEL_KEYS}:
        return Address(Kind(rest), site, edge)
    raise UnknownTopicError(topic)
