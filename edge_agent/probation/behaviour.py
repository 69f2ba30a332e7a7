"""A candidate's behaviour beside the incumbent's on the same slices: the counts, and when they are out of bounds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from edge_agent.probation.bounds import Bounds, BoundsLike
from edge_agent.probation.evidence import Count, Stakes, evidence
from edge_agent.probation.said import Said, contradicted, one_more, other_answers, times
from protocol.labels import LABELS, Label

RECENT = 31
"""Costs of the incumbent that the candidate's are compared with: their median forgets in half as many slices."""
FEWEST_RECENT = 5
"""Below it there is no median to speak of."""
COST_FLOOR_MS = 2.0
"""Differences of this size are the clock's and the cache's."""

FINDINGS = tuple(label for label in LABELS if label is not Label.NORMAL)

WEIGHTS: Mapping[str, float] = {
    "findings": 0.41,
    "all": 0.24,
    "label": 0.03,
    "shift": 0.02,
    "abstention": 0.045,
    "slow": 0.045,
    "kept findings": 0.02,
    "kept label": 0.03,
}
"""Shares of the stake, 1 over all fourteen signals (three labels, three shifts, three kept labels). The mean of
e-processes is one itself, under any dependence (Vovk and Wang 2021, "E-values: calibration, combination and
applications"), so signals that speak together add up, which shares of alpha would not. Findings have the most because
they are rare: with 80 % Normal one run of 54 meets no more than four in 50 slices, and these four have to do. Kept
slices are many: a small share is enough for them."""
STAKES: Mapping[str, Stakes] = {
    "findings": {1.0: 0.96, 0.9: 0.04},
    "all": {1 / 3: 0.9, 1 / 9: 0.1},
    "label": {1.0: 0.7, 0.9: 0.3},
    "shift": {1.0: 0.5, 1 / 3: 0.4, 1 / 9: 0.1},
    "abstention": {1.0: 0.5, 1 / 3: 0.4, 1 / 9: 0.1},
    "slow": {1.0: 0.5, 1 / 3: 0.4, 1 / 9: 0.1},
    "kept findings": {1.0: 0.7, 0.9: 0.3},
    "kept label": {1.0: 0.7, 0.9: 0.3},
}


class Answer(Protocol):
    """What either network said of a slice."""

    @property
    def label(self) -> Label: ...
    @property
    def uncertain(self) -> bool: ...


@dataclass(frozen=True)
class Paired:
    """One slice as both networks read it, and what each reading cost, measured by the same clock."""

    candidate: Answer
    incumbent: Answer
    candidate_ms: float
    incumbent_ms: float


@dataclass(frozen=True)
class Signal:
    """One way to be out of bounds, and how often it happened."""

    kind: str
    what: str
    where: str
    count: Count
    bound: float
    slices: str = "slices"

    @property
    def evidence(self) -> float:
        """Return this signal's part of the fortune."""
        return WEIGHTS[self.kind] * evidence(self.count, self.bound, STAKES[self.kind])

    def __str__(self) -> str:
        often = f"{self.count.events} of {self.count.trials} {self.slices}"
        return f"{self.what} {self.where} on {often} (allowed {self.bound:.0%})"


class Comparison(BaseModel):
    """What is known of a candidate after some slices; a few counts, so that it outlives a restart as JSON."""

    model_config = ConfigDict(frozen=True)

    bounds: Bounds
    incumbent: str
    pairs: int = 0
    said: Said = {}
    """Where the incumbent was certain: uncertainty claims nothing."""
    kept_pairs: NonNegativeInt = 0
    """Kept slices that were read; they count as no pairs."""
    kept: Said = {}
    """The same of kept slices, apart: what a candidate gets right there covers up for nothing today."""
    abstained: Count = Count()
    slow: Count = Count()
    recent_ms: tuple[float, ...] = ()
    broken: str = ""
    """The first verdict stays: what was out of bounds once is not talked back."""

    @classmethod
    def begin(cls, bounds: BoundsLike, *, incumbent: str = "the incumbent") -> Self:
        """Return a comparison without slices; the incumbent's name is for the verdict ("release 6")."""
        return cls(bounds=Bounds.model_validate(bounds), incumbent=incumbent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return what `to_json` wrote; raises `ValueError`."""
        return cls.model_validate_json(text)

    def to_json(self) -> str:
        """Write all that is known."""
        return self.model_dump_json()

    def with_pair(self, pair: Paired) -> Self:
        """Return the comparison after one more slice."""
        recent = (*self.recent_ms, pair.incumbent_ms)[-RECENT:]
        changes: dict[str, object] = {"pairs": self.pairs + 1, "recent_ms": recent}
        if not pair.incumbent.uncertain:
            changes["said"] = one_more(self.said, pair.incumbent.label, pair.candidate.label)
            changes["abstained"] = self.abstained.plus(pair.candidate.uncertain)
        if len(recent) >= FEWEST_RECENT:
            limit_ms = self.bounds.max_latency_ratio * median(recent) + COST_FLOOR_MS
            changes["slow"] = self.slow.plus(pair.candidate_ms > limit_ms)
        return self._judged(changes)

    def with_kept(self, pair: Paired) -> Self:
        """Return the comparison after one more kept slice: a word on its label alone, since the site is not like it."""
        changes: dict[str, object] = {"kept_pairs": self.kept_pairs + 1}
        if not pair.incumbent.uncertain:
            changes["kept"] = one_more(self.kept, pair.incumbent.label, pair.candidate.label)
        return self._judged(changes)

    def verdict(self) -> str:
        """Say what is out of bounds; empty while nothing is."""
        return self.broken

    @property
    def evidence(self) -> float:
        """Return the evidence that some bound does not hold; within all it ever exceeds 1 / alpha by chance alpha."""
        return sum(signal.evidence for signal in self.signals())

    def signals(self) -> Iterator[Signal]:
        """Yield each way to be out of bounds."""
        bounds, said = self.bounds, self.said
        all_slices = contradicted(said)
        yield Signal("all", "gave another label", f"than {self.incumbent}", all_slices, bounds.max_disagreement)
        yield from self._contradictions(said)
        for label in LABELS:
            gained = Count(trials=all_slices.trials, events=times(said, _but(label), (label,)))
            yield Signal("shift", f"said {label}", f"where {self.incumbent} did not", gained, bounds.max_shift)
        where = f"where {self.incumbent} was certain"
        yield Signal("abstention", "was uncertain", where, self.abstained, bounds.max_abstention)
        what, where = f"took over {bounds.max_latency_ratio:g} times as long", f"as {self.incumbent} usually does"
        yield Signal("slow", what, where, self.slow, bounds.max_slow_share)
        yield from self._contradictions(self.kept, "kept ")

    def _contradictions(self, said: Said, kept: str = "") -> Iterator[Signal]:
        for kind, group in (("findings", FINDINGS), *(("label", (label,)) for label in LABELS)):
            answers = other_answers(said, group)
            what = f"said {answers[0]}" if len(answers) == 1 else "gave another label"
            where = f"where {self.incumbent} said {' or '.join(group)}"
            count, bound = contradicted(said, group), self.bounds.max_contradiction
            yield Signal(kept + kind, what, where, count, bound, f"{kept}slices")

    def _judged(self, changes: Mapping[str, object]) -> Self:
        after = self.model_copy(update=changes)
        if after.broken or after.evidence < 1 / after.bounds.alpha:
            return after
        worst = max(after.signals(), key=lambda signal: signal.evidence)
        return after.model_copy(update={"broken": str(worst)})


def _but(label: Label) -> list[Label]:
    return [other for other in LABELS if other is not label]
