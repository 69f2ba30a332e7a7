"""A candidate's behaviour beside the incumbent's on the same slices: the counts, and when they are out of bounds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from edge_agent.probation.bounds import Bounds, BoundsLike
from edge_agent.probation.evidence import Count
from edge_agent.probation.said import Said, contradicted, one_more, times
from edge_agent.probation.signal import Signal
from protocol.labels import LABELS, Label

RECENT = 31
"""Costs of the incumbent that the candidate's are compared with: their median forgets in half as many slices."""
FEWEST_RECENT = 5
"""Below it there is no median to speak of."""
COST_FLOOR_MS = 2.0
"""Differences of this size are the clock's and the cache's."""

FINDINGS = tuple(label for label in LABELS if label is not Label.NORMAL)

GROUPS = (("findings", FINDINGS), *(("label", (label,)) for label in LABELS))
"""Labels whose contradiction is a signal of its own."""


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
        slow = False
        if not pair.incumbent.uncertain:
            changes["said"] = one_more(self.said, pair.incumbent.label, pair.candidate.label)
            changes["abstained"] = self.abstained.plus(pair.candidate.uncertain)
        if len(recent) >= FEWEST_RECENT:
            slow = pair.candidate_ms > self.bounds.max_latency_ratio * median(recent) + COST_FLOOR_MS
            changes["slow"] = self.slow.plus(slow)
        return self._judged(changes, otherwise=slow or pair.candidate.uncertain or _differ(pair))

    def with_kept(self, pair: Paired) -> Self:
        """Return the comparison after one more kept slice: a word on its label alone, since the site is not like it."""
        changes: dict[str, object] = {"kept_pairs": self.kept_pairs + 1}
        if not pair.incumbent.uncertain:
            changes["kept"] = one_more(self.kept, pair.incumbent.label, pair.candidate.label)
        return self._judged(changes, otherwise=_differ(pair))

    def verdict(self) -> str:
        """Say what is out of bounds; empty while nothing is."""
        return self.broken

    @property
    def evidence(self) -> float:
        """Return the evidence that some bound does not hold; within all it ever exceeds 1 / alpha by chance alpha."""
        return sum(signal.evidence for signal in self.signals())

    def signals(self) -> Iterator[Signal]:
        """Yield each way to be out of bounds."""
        bounds, changed = self.bounds, contradicted(self.said)
        yield Signal("all", changed, bounds.max_disagreement)
        for label in LABELS:
            gained = Count(trials=changed.trials, events=times(self.said, _but(label), label))
            yield Signal("shift", gained, bounds.max_shift, (label,))
        yield Signal("abstention", self.abstained, bounds.max_abstention)
        yield Signal("slow", self.slow, bounds.max_slow_share)
        for kept, said in (("", self.said), ("kept ", self.kept)):
            for kind, group in GROUPS:
                yield Signal(kept + kind, contradicted(said, group), bounds.max_contradiction, group, said)

    def _judged(self, changes: Mapping[str, object], *, otherwise: bool) -> Self:
        after = self.model_copy(update=changes)
        if after.broken or not otherwise or after.evidence < 1 / after.bounds.alpha:  # where all is as it was, it falls
            return after
        worst = max(after.signals(), key=lambda signal: signal.evidence)
        return after.model_copy(update={"broken": worst.say(after.incumbent, after.bounds)})


def _differ(pair: Paired) -> bool:
    return pair.candidate.label is not pair.incumbent.label


def _but(label: Label) -> list[Label]:
    return [other for other in LABELS if other is not label]
