"""Two networks' answers to the same slices, as seeded streams."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge_agent.probation import Bounds, Comparison, Paired
from protocol.labels import LABELS, Label

BALANCED = (1.0, 1.0, 1.0)
MOSTLY_NORMAL = (8.0, 1.0, 1.0)
COST_MS = 10.0


@dataclass(frozen=True)
class Said:
    """One network's answer."""

    label: Label
    uncertain: bool = False


Candidate = Callable[[Label, random.Random], Said]
"""Answers, given what the incumbent said."""


def stream(candidate: Candidate, mix: tuple[float, ...], seed: int, *, times_slower: float = 1.0) -> Iterator[Paired]:
    """Yield paired readings without end; every twentieth of either costs three times as much, as on a busy box."""
    chance = random.Random(seed)
    while True:
        incumbent = chance.choices(LABELS, mix)[0]
        costs = [COST_MS * chance.choices((1.0, 3.0), (19, 1))[0] for _ in range(2)]
        yield Paired(candidate(incumbent, chance), Said(incumbent), costs[0] * times_slower, costs[1])


def caught_at(pairs: Iterator[Paired], within: int, bounds: Bounds | None = None) -> int | None:
    """Return the number of the slice that brought a verdict, None where none did."""
    comparison = Comparison.begin(bounds or Bounds())
    for number, pair in zip(range(1, within + 1), pairs, strict=False):
        comparison = comparison.with_pair(pair)
        if comparison.verdict():
            return number
    return None


def same(incumbent: Label, chance: random.Random) -> Said:
    """Say the same."""
    return Said(incumbent)


def always(label: Label) -> Candidate:
    """Say one label whatever the slice."""
    return lambda incumbent, chance: Said(label)


def differing(share: float) -> Candidate:
    """Say another label, drawn at random, on a share of the slices."""

    def answer(incumbent: Label, chance: random.Random) -> Said:
        others = [label for label in LABELS if label is not incumbent]
        return Said(chance.choice(others) if chance.random() < share else incumbent)

    return answer


def at_random(incumbent: Label, chance: random.Random) -> Said:
    """Say any label."""
    return Said(chance.choice(LABELS))


def unsure(incumbent: Label, chance: random.Random) -> Said:
    """Say the same, but uncertain."""
    return Said(incumbent, uncertain=True)


def permuted(order: tuple[Label, ...]) -> Candidate:
    """Say the label that stands at the same place of another class order."""
    return lambda incumbent, chance: Said(order[LABELS.index(incumbent)])
