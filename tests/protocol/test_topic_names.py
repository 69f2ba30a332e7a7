"""Every topic that we build we can read, within the limits of the brokers, and we read no other."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from message_strategies import digests, topic_ids

from protocol.errors import InvalidIdError, ProtocolError, UnknownTopicError
from protocol.topics import (
    CLOUD_KINDS,
    FLEET_CHUNKS,
    FLEET_DESIRED,
    FLEET_KEYS,
    RESERVED_SITES,
    ROOT,
    Address,
    Kind,
    check_edge_ids,
    chunk_filter,
    cloud_topic,
    edge_topic,
    every_edge,
    fleet_chunk,
    parse,
)

MAX_SLASHES = 7
"""AWS IoT Core's limit."""
EDGE_KINDS = sorted(set(Kind) - CLOUD_KINDS - {Kind.MODEL_KEYS})
sites = topic_ids.filter(lambda site: site not in RESERVED_SITES)
WRONG_IDS = ["", "A", "a" * 33, "a_b", "a/b", "+", "#", "a b", "a\n", "\u00e9", "\u0661", "$sys", "a\0", ".."]


@given(sites, topic_ids, st.sampled_from(EDGE_KINDS), digests)
def test_an_edge_topic_is_read_as_it_was_built(site: str, edge: str, kind: Kind, sha256: str) -> None:
    """Site, edge, kind and chunk come back from every topic of an edge."""
    chunk = sha256 if kind is Kind.MODEL_CHUNK else ""
    topic = edge_topic(site, edge, kind, chunk)
    assert parse(topic) == Address(kind, site, edge, chunk)
    assert topic.count("/") <= MAX_SLASHES
    assert len(topic) <= 256


@pytest.mark.parametrize("kind", sorted(CLOUD_KINDS))
def test_a_cloud_topic_is_read_as_it_was_built(kind: Kind) -> None:
    """The retraining topics belong to no edge."""
    assert parse(cloud_topic(kind)) == Address(kind)
    assert cloud_topic(kind).count("/") <= MAX_SLASHES


def test_the_fleet_topic_is_read_as_a_release_for_all() -> None:
    """The fleet's desired release has the kind of an edge's, and no edge."""
    assert parse(FLEET_DESIRED) == Address(Kind.MODEL_DESIRED)


def test_the_topic_of_keys_is_the_fleets_alone() -> None:
    """Key rotations are said once to all: no edge and no cloud has a topic for them."""
    assert parse(FLEET_KEYS) == Address(Kind.MODEL_KEYS)
    with pytest.raises(UnknownTopicError):
        edge_topic("ward", "edge-1", Kind.MODEL_KEYS)
    with pytest.raises(UnknownTopicError):
        parse(f"{ROOT}/ward/edge-1/model/keys")


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.MODEL_DESIRED, Kind.MODEL_KEYS}))
def test_the_fleet_has_no_other_topics(kind: Kind) -> None:
    """Nothing but a release, keys and chunks is said to all edges; an assignment least of all."""
    with pytest.raises(UnknownTopicError):
        parse(f"{ROOT}/fleet/{kind}")


@given(digests)
def test_a_chunk_for_all_is_read_as_it_was_built(sha256: str) -> None:
    """A chunk for all has its hash and no edge, and the filter for such chunks matches it."""
    assert parse(fleet_chunk(sha256)) == Address(Kind.MODEL_CHUNK, sha256=sha256)
    assert FLEET_CHUNKS.replace("+", sha256) == fleet_chunk(sha256)
    assert fleet_chunk(sha256).count("/") <= MAX_SLASHES


@given(sites, topic_ids, digests)
def test_a_chunk_for_all_is_no_edges_chunk(site: str, edge: str, sha256: str) -> None:
    """No edge's filter matches the chunks for all, and the filter for these matches no edge's."""
    mine = edge_topic(site, edge, Kind.MODEL_CHUNK, sha256)
    assert mine.count("/") != fleet_chunk(sha256).count("/")


@pytest.mark.parametrize("wrong", WRONG_IDS)
def test_an_id_that_may_not_stand_in_a_topic_is_refused(wrong: str) -> None:
    """Wrong ids are refused when a topic is built, by name, and when one is read."""
    with pytest.raises(InvalidIdError) as refused:
        edge_topic(wrong, "edge-1", Kind.STATUS)
    assert (refused.value.what, refused.value.value) == ("site", wrong)
    with pytest.raises(InvalidIdError) as refused:
        edge_topic("ward", wrong, Kind.STATUS)
    assert refused.value.what == "edge"
    with pytest.raises(UnknownTopicError):
        parse(f"{ROOT}/ward/{wrong}/status")
    with pytest.raises(UnknownTopicError):
        parse(f"{ROOT}/{wrong}/edge-1/status")


@given(st.text(max_size=40), st.text(max_size=40))
def test_ids_are_accepted_or_refused_by_name(site: str, edge: str) -> None:
    """What passes as ids makes a topic that reads back; everything else is an `InvalidIdError`."""
    try:
        check_edge_ids(site, edge)
    except InvalidIdError:
        return
    assert parse(edge_topic(site, edge, Kind.STATUS)) == Address(Kind.STATUS, site, edge)


@pytest.mark.parametrize("site", sorted(RESERVED_SITES))
@pytest.mark.parametrize("kind", EDGE_KINDS)
def test_a_reserved_site_is_refused(site: str, kind: Kind) -> None:
    """No edge can sit at `cloud` or `fleet`, where it would speak on everyone's topics."""
    with pytest.raises(InvalidIdError):
        edge_topic(site, "edge-1", kind)
    with pytest.raises(UnknownTopicError):
        parse(f"{ROOT}/{site}/edge-1/{kind}")


@pytest.mark.parametrize("sha256", ["", "#", "../x", "0" * 63, "F" * 64, "0" * 64 + "/x"])
def test_a_chunk_topic_needs_a_hash(sha256: str) -> None:
    """A topic for a chunk without a proper SHA-256 is not built: it could hold a wildcard."""
    with pytest.raises(ProtocolError):
        edge_topic("ward", "edge-1", Kind.MODEL_CHUNK, sha256)
    with pytest.raises(UnknownTopicError):
        parse(f"{ROOT}/ward/edge-1/model/chunk/{sha256}")
    with pytest.raises(UnknownTopicError):
        fleet_chunk(sha256)


@pytest.mark.parametrize("kind", sorted(CLOUD_KINDS))
def test_an_edge_has_no_retraining_topics(kind: Kind) -> None:
    """Retraining messages have no topic under an edge, neither to build nor to read."""
    with pytest.raises(UnknownTopicError):
        parse(f"{ROOT}/ward/edge-1/{kind}")
    with pytest.raises(ProtocolError):
        edge_topic("ward", "edge-1", kind)


@given(sites, topic_ids, digests)
def test_the_filter_for_chunks_matches_every_chunk_of_one_edge(site: str, edge: str, sha256: str) -> None:
    """An edge subscribes to its own chunks, whatever their hash, and its ids cannot widen the filter."""
    assert chunk_filter(site, edge).replace("+", sha256) == edge_topic(site, edge, Kind.MODEL_CHUNK, sha256)
    with pytest.raises(InvalidIdError):
        chunk_filter("+", edge)


def test_only_a_chunk_has_a_hash_in_its_topic() -> None:
    """A hash after any other kind makes no topic of ours."""
    with pytest.raises(UnknownTopicError):
        edge_topic("ward", "edge-1", Kind.STATUS, "0" * 64)


@pytest.mark.parametrize("kind", EDGE_KINDS)
def test_the_cloud_has_no_topics_of_an_edge(kind: Kind) -> None:
    """Only retraining is said under `cloud`."""
    with pytest.raises(UnknownTopicError):
        cloud_topic(kind)
    with pytest.raises(UnknownTopicError):
        parse(f"{ROOT}/cloud/{kind}")


@given(st.text(max_size=30), sites, topic_ids)
def test_nothing_outside_our_root_is_accepted(root: str, site: str, edge: str) -> None:
    """The same levels under any other root are none of ours."""
    assume(root != ROOT)
    with pytest.raises(UnknownTopicError):
        parse(f"{root}/{site}/{edge}/status")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "sliceloop",
        "sliceloop/v1",
        "sliceloop/v1/",
        "sliceloop/v1/ward",
        "sliceloop/v1/ward/edge-1",
        "sliceloop/v1/ward/edge-1/",
        "sliceloop/v1/ward/edge-1/status/",
        "sliceloop/v1/ward/edge-1/status/more",
        "sliceloop/v1/ward/edge-1/unknown",
        "sliceloop/v1/ward/edge-1/model",
        "sliceloop/v1/ward/edge-1/model/chunk",
        "sliceloop/v2/ward/edge-1/status",
        "Sliceloop/v1/ward/edge-1/status",
        "/sliceloop/v1/ward/edge-1/status",
        "sliceloop/v1//ward/edge-1/status",
        "sliceloop/v1/+/+/status",
        "sliceloop/v1/#",
        "sliceloop/v1/fleet/status",
        "sliceloop/v1/fleet/model/reported",
        "sliceloop/v1/fleet/model/assigned",
        "sliceloop/v1/fleet/model/keys/more",
        "sliceloop/v1/fleet/model/chunk",
        "sliceloop/v1/fleet/model/chunk/+",
        "sliceloop/v1/cloud/model/keys",
        "$SYS/broker/version",
        "$share/workers/sliceloop/v1/ward/edge-1/status",
    ],
)
def test_a_topic_that_only_looks_like_ours_is_refused(topic: str) -> None:
    """Too few levels, too many, another version, a filter in place of a topic: none of ours."""
    with pytest.raises(UnknownTopicError) as refused:
        parse(topic)
    assert refused.value.topic == topic


@given(sites, topic_ids, st.sampled_from(sorted(set(EDGE_KINDS) - {Kind.MODEL_CHUNK})))
def test_the_filter_for_every_edge_matches_each_edge(site: str, edge: str, kind: Kind) -> None:
    """The topic filter for a kind has a single-level wildcard where site and edge stand, and nowhere else."""
    topic_levels, filter_levels = edge_topic(site, edge, kind).split("/"), every_edge(kind).split("/")
    assert len(topic_levels) == len(filter_levels)
    assert all(wanted in ("+", level) for wanted, level in zip(filter_levels, topic_levels, strict=True))
    assert filter_levels.count("+") == 2
