"""Which fault strikes whom, and when: drawn from a seed, its moments tied to how many slices were given."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

Choice = TypeVar("Choice")

SHORTEST_S, LONGEST_S = 0.3, 3.0
FIRST_SHARE, LAST_SHARE = 0.03, 0.97
"""Of the slices: none before the first is well on its way, none after the stream."""


class Kind(StrEnum):
    """What can go wrong."""

    KILL = "kill -9"
    STOP = "stopped for a while"
    BROKER_RESTART = "broker restarted, persistence kept"
    BROKER_WIPE = "broker restarted, persistence wiped"
    S3_SLOW = "S3 answers slowly"
    S3_500 = "S3 answers 500"
    S3_503 = "S3 answers 503"
    S3_CUT_REQUEST = "S3 connection cut in the request"
    S3_CUT_ANSWER = "S3 connection cut in the answer"
    MQTT_CUT = "MQTT connection cut"
    MQTT_DELAY = "MQTT delayed"
    MQTT_NARROW = "MQTT at half bandwidth"
    MQTT_TAKEOVER = "MQTT session taken over"
    MQTT_BLACK_HOLE = "MQTT black hole"
    DISK_FULL = "disk full"
    CLOCK_FORWARD = "clock an hour ahead"
    CLOCK_BACK = "clock an hour behind"
    AGAIN = "messages again, shuffled"


SHARES = {Kind.KILL: 4, Kind.STOP: 2}
"""Those that can strike the most targets are drawn so many times as often as others."""


@dataclass(frozen=True)
class Fault:
    """Strikes when `at_slice` slices were given, and lasts `seconds`."""

    at_slice: int
    kind: Kind
    target: str
    seconds: float


def draw(seed: int, slices: int, faults: int, available: Mapping[Kind, Sequence[str]]) -> list[Fault]:
    """Draw faults of the available kinds and their targets, in the order of their moments; each kind by its share."""
    rng = random.Random(seed)  # noqa: S311  a schedule, not a secret
    kinds, moments = (
        _dealt([kind for kind in available for _ in range(SHARES.get(kind, 1))], rng),
        _moments(slices, faults, rng),
    )
    targets = {kind: _dealt(list(names), rng) for kind, names in available.items()}
    drawn = []
    for moment in moments:
        kind = next(kinds)
        drawn.append(Fault(moment, kind, next(targets[kind]), round(rng.uniform(SHORTEST_S, LONGEST_S), 2)))
    return drawn


def _moments(slices: int, faults: int, rng: random.Random) -> list[int]:
    first, last = max(1, int(slices * FIRST_SHARE)), max(1, int(slices * LAST_SHARE))
    return sorted(rng.randint(first, last) for _ in range(faults))


def _dealt(choices: list[Choice], rng: random.Random) -> Iterator[Choice]:
    """Give every choice once in a shuffled order, then again in another."""
    while True:
        yield from rng.sample(choices, len(choices))
