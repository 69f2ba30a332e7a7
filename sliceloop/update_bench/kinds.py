"""Good and bad candidates as streams of paired readings, made up or read by real networks."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from edge_agent.probation import Answer, Paired
from protocol.labels import LABELS, Label

NORMAL, PNEUMONIA, COVID_19 = Label.NORMAL, Label.PNEUMONIA, Label.COVID_19
COST_MS = 10.0
COST_SPREAD = 0.1
SPIKE_SHARE, SPIKE_TIMES = 0.05, 3.0
"""One reading in twenty costs three times as much: other work evicts caches, the clock rate falls."""
MISSED_SHARE = 0.3
"""Of one class the incumbent of a better candidate gets so many wrong."""
READ_BEFORE = 3_000
"""Slices that an edge read before the candidate came, some weeks of work."""
KEPT_SLICES = 64
"""Of each label that the incumbent gave, as `edge.kept_slices` is by default."""

MIXES: Mapping[str, tuple[float, float, float]] = {
    "balanced": (1.0, 1.0, 1.0),
    "80 % Normal": (8.0, 1.0, 1.0),
    "95 % Normal": (38.0, 1.0, 1.0),
}
"""How often the slices are truly of each label."""


@dataclass(frozen=True)
class Said:
    """One network's answer."""

    label: Label
    uncertain: bool = False


Draw = Callable[[Label, random.Random], tuple[Answer, Answer]]
"""Draws what the candidate and the incumbent say of a slice that is truly of a label."""

Pool = Mapping[Label, Sequence[tuple[Answer, Answer]]]
"""What both say of each slice, by its true label."""


@dataclass(frozen=True)
class Kind:
    """A kind of candidate: whether probation has to keep it, and what it answers."""

    name: str
    good: bool
    draw: Draw
    times_slower: float = 1.0
    real: bool = False
    """Read by networks, not made up."""
    gate: Draw | None = None
    """Draws the slices that its gate sees, where they are other patients' than those that an edge reads."""
    pool: Pool = field(default_factory=dict)
    """Where there are so many slices and no more; an edge keeps none twice."""

    def pairs(self, mix: Sequence[float], seed: int) -> Iterator[Paired]:
        """Yield paired readings without end; the same seed gives the same."""
        chance = random.Random(f"{self.name} {seed}")  # noqa: S311  a simulation
        while True:
            candidate, incumbent = self.draw(chance.choices(LABELS, mix)[0], chance)
            yield Paired(candidate, incumbent, _cost_ms(chance) * self.times_slower, _cost_ms(chance))

    def kept(self, mix: Sequence[float], seed: int) -> Iterator[Paired]:
        """Yield both readings of the slices that an edge has kept so far."""
        chance, full = random.Random(f"{self.name} kept {seed}"), dict.fromkeys(LABELS, 0)  # noqa: S311
        for candidate, incumbent in self._read_before(mix, chance):
            if not incumbent.uncertain and full[incumbent.label] < KEPT_SLICES:
                full[incumbent.label] += 1
                yield Paired(candidate, incumbent, 0.0, 0.0)

    def accuracy(self, mix: Sequence[float]) -> tuple[float, float] | None:
        """Return how many of such slices candidate and incumbent call rightly; None without a pool."""
        if not self.pool:
            return None
        candidate, incumbent = (_right(self.pool, mix, side) for side in (0, 1))
        return candidate, incumbent

    def _read_before(self, mix: Sequence[float], chance: random.Random) -> Iterator[tuple[Answer, Answer]]:
        left = {label: chance.sample(said, len(said)) for label, said in self.pool.items()}
        for label in chance.choices(LABELS, mix, k=READ_BEFORE):
            if not left:
                yield self.draw(label, chance)
            elif left[label]:
                yield left[label].pop()


def made_up() -> tuple[Kind, ...]:
    """Return the kinds whose incumbent is always right, but for those with a better candidate."""
    return (
        Kind("always Normal", False, _beside_truth(_always(NORMAL))),
        Kind("always COVID-19", False, _beside_truth(_always(COVID_19))),
        Kind("each label another", False, _beside_truth(_permuted((PNEUMONIA, COVID_19, NORMAL)))),
        Kind("findings exchanged", False, _beside_truth(_permuted((NORMAL, COVID_19, PNEUMONIA)))),
        Kind("random answers", False, _beside_truth(lambda _, chance: Said(chance.choice(LABELS)))),
        Kind("always uncertain", False, _beside_truth(lambda truth, _: Said(truth, uncertain=True))),
        Kind("5 times slower", False, _beside_truth(lambda truth, _: Said(truth)), times_slower=5.0),
        Kind("identical", True, _beside_truth(lambda truth, _: Said(truth))),
        Kind("10 % other", True, _beside_truth(_differing(0.1))),
        Kind("20 % other", True, _beside_truth(_differing(0.2))),
        Kind("better at COVID-19", True, _better(COVID_19)),
        Kind("better at Normal", True, _better(NORMAL)),
    )


@dataclass(frozen=True)
class Match:
    """Two networks that read the same slices, by their names, and whether the candidate is one to keep."""

    name: str
    good: bool
    candidate: str
    incumbent: str


def read_by_networks(
    matches: Sequence[Match],
    answers: Mapping[str, Sequence[Answer]],
    truth: Sequence[Label],
    patients: Sequence[str],
) -> Iterator[Kind]:
    """Yield a kind for each match; half of the patients are held back for its gate, the others come to the edge.

    `truth` and `patients` tell what the slices are and whose. They are drawn with replacement, but for those that an
    edge keeps. Each half needs slices of every label.
    """
    at_gate = [sha256(patient.encode()).digest()[0] % 2 == 0 for patient in patients]
    at_edge = [not held_back for held_back in at_gate]
    for match in matches:
        said = list(zip(answers[match.candidate], answers[match.incumbent], strict=True))
        gate, edge = (_pool(said, truth, here) for here in (at_gate, at_edge))
        yield Kind(match.name, match.good, _one_of(edge), real=True, gate=_one_of(gate), pool=edge)


def _pool(said: Sequence[tuple[Answer, Answer]], truth: Sequence[Label], here: Sequence[bool]) -> Pool:
    rows = list(zip(said, truth, here, strict=True))
    return {label: [each for each, true, chosen in rows if chosen and true is label] for label in LABELS}


def _right(pool: Pool, mix: Sequence[float], side: int) -> float:
    shares = [sum(said[side].label is label for said in pool[label]) / len(pool[label]) for label in LABELS]
    return sum(share * weight for share, weight in zip(shares, mix, strict=True)) / sum(mix)


def _one_of(pool: Pool) -> Draw:
    return lambda truth, chance: chance.choice(pool[truth])


def _beside_truth(candidate: Callable[[Label, random.Random], Said]) -> Draw:
    return lambda truth, chance: (candidate(truth, chance), Said(truth))


def _always(label: Label) -> Callable[[Label, random.Random], Said]:
    return lambda truth, chance: Said(label)  # noqa: ARG005  whatever they are


def _permuted(order: tuple[Label, ...]) -> Callable[[Label, random.Random], Said]:
    return lambda truth, _: Said(order[LABELS.index(truth)])


def _differing(share: float) -> Callable[[Label, random.Random], Said]:
    return lambda truth, chance: Said(_other(truth, chance) if chance.random() < share else truth)


def _better(at: Label) -> Draw:
    def draw(truth: Label, chance: random.Random) -> tuple[Answer, Answer]:
        missed = truth is at and chance.random() < MISSED_SHARE
        return Said(truth), Said(_other(truth, chance) if missed else truth)

    return draw


def _other(label: Label, chance: random.Random) -> Label:
    return chance.choice([other for other in LABELS if other is not label])


def _cost_ms(chance: random.Random) -> float:
    spike = SPIKE_TIMES if chance.random() < SPIKE_SHARE else 1.0
    return COST_MS * spike * chance.lognormvariate(0, COST_SPREAD)
