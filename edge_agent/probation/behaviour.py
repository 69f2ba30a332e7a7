"""A candidate's behaviour beside the incumbent's on the same slices: the counts, and when they are out of bounds."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.probation.evidence import Count, Stakes, evidence
from protocol.labels import LABELS, Label

RECENT = 31
"""Costs of the incumbent that the candidate's are compared with: their median forgets in half as many slices."""
FEWEST_RECENT = 5
"""Below it there is no median to speak of."""
COST_FLOOR_MS = 2.0
"""Differences of this size are the clock's and the cache's."""

ONE_SIDED = 4
"""A candidate contradicts a finding one-sidedly while it does so as many times as often as it finds what the incumbent
did not. Where findings are rare, most that either network makes are false alarms, and two good networks have different
ones: one then contradicts the other often, but makes as many of its own."""

FINDINGS = tuple(label for label in LABELS if label is not Label.NORMAL)
GROUPS: Mapping[str, tuple[Label, ...]] = {"findings": FINDINGS, **{label.value: (label,) for label in LABELS}}
"""Labels whose contradiction is a signal of its own."""

WEIGHTS = {
    "findings": 0.43,
    "all": 0.28,
    "label": 0.03,
    "shift": 0.02,
    "abstention": 0.06,
    "slow": 0.06,
    "kept findings": 0.02,
}
"""Shares of the stake, 1 over all eleven signals (three labels, three shifts). The mean of e-processes is one itself,
under any dependence (Vovk and Wang 2021, "E-values: calibration, combination and applications"), so signals that speak
together add up, which shares of alpha would not. Findings have the most because they are rare: with 80 % Normal one
run of 54 meets no more than four in 50 slices, and these four have to do."""
FOR_FINDINGS: Stakes = {1.0: 0.92, 0.9: 0.08}
FOR_LABELS: Stakes = {1.0: 0.7, 0.9: 0.3}
FOR_ALL: Stakes = {1 / 3: 0.9, 1 / 9: 0.1}
FOR_OTHERS: Stakes = {1.0: 0.5, 1 / 3: 0.4, 1 / 9: 0.1}


class BoundsLike(Protocol):
    """What a signed release says that it may differ from the one before it."""

    @property
    def max_disagreement(self) -> float: ...
    @property
    def max_shift(self) -> float: ...
    @property
    def max_abstention(self) -> float: ...
    @property
    def max_latency_ratio(self) -> float: ...
    @property
    def max_slow_share(self) -> float: ...
    @property
    def alpha(self) -> float: ...


class Bounds(BaseModel):
    """Bounds of a behaviour; the defaults hold for a release that answers differently in up to a quarter of slices."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    max_disagreement: float = Field(0.25, ge=0, le=1)
    """Share of slices that may get another label: of all, and one-sidedly of those with a finding or with one label."""
    max_shift: float = Field(0.25, ge=0, le=1)
    """Share of all slices that may get a label which they did not have, for each label."""
    max_abstention: float = Field(0.25, ge=0, le=1)
    """Share of slices that may be uncertain where they were not."""
    max_latency_ratio: float = Field(2.0, ge=1)
    """A reading that costs more than so many times the incumbent's is slow."""
    max_slow_share: float = Field(0.2, ge=0, le=1)
    """Share of readings that may be slow."""
    alpha: float = Field(0.01, gt=0, lt=1)
    """Chance that a model within all bounds is ever called out of bounds."""


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

    what: str
    where: str
    count: Count
    bound: float
    kind: str
    stakes: Stakes

    @property
    def evidence(self) -> float:
        """Return this signal's part of the fortune."""
        return WEIGHTS[self.kind] * evidence(self.count, self.bound, self.stakes)

    def __str__(self) -> str:
        return (
            f"{self.what} {self.where} on {self.count.events} of {self.count.trials} slices (allowed {self.bound:.0%})"
        )


class Comparison(BaseModel):
    """What is known of a candidate after some slices; a few counts, so that it outlives a restart as JSON."""

    model_config = ConfigDict(frozen=True)

    bounds: Bounds
    incumbent: str
    pairs: int = 0
    said: dict[Label, dict[Label, int]] = {}
    """By the incumbent's label the candidate's, where the incumbent was certain: uncertainty claims nothing."""
    contradicted: dict[str, Count] = {}
    """By the name of a group of labels."""
    kept_pairs: int = 0
    """Kept slices that were read; they count as no pairs."""
    kept: dict[Label, dict[Label, int]] = {}
    """The same as `said`, of kept slices."""
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
            changes["said"] = _one_more(self.said, pair.incumbent.label, pair.candidate.label)
            changes["contradicted"] = self._contradicted(pair.incumbent.label, pair.candidate.label)
            changes["abstained"] = self.abstained.plus(pair.candidate.uncertain)
        if len(recent) >= FEWEST_RECENT:
            limit_ms = self.bounds.max_latency_ratio * median(recent) + COST_FLOOR_MS
            changes["slow"] = self.slow.plus(pair.candidate_ms > limit_ms)
        after = self.model_copy(update=changes)
        return after if after.broken else after.model_copy(update={"broken": after._judge()})

    def with_kept(self, pair: Paired) -> Self:
        """Return the comparison after one more kept slice: a word on its label alone, since the site is not like it."""
        changes: dict[str, object] = {"kept_pairs": self.kept_pairs + 1}
        if not pair.incumbent.uncertain:
            changes["kept"] = _one_more(self.kept, pair.incumbent.label, pair.candidate.label)
        after = self.model_copy(update=changes)
        return after if after.broken else after.model_copy(update={"broken": after._judge()})

    def verdict(self) -> str:
        """Say what is out of bounds; empty while nothing is."""
        return self.broken

    @property
    def evidence(self) -> float:
        """Return the evidence that some bound does not hold; within all it ever exceeds 1 / alpha by chance alpha."""
        return sum(signal.evidence for signal in self.signals())

    @property
    def findings(self) -> int:
        """Count the compared slices in which the incumbent saw a finding."""
        return self._times(FINDINGS, LABELS)

    @property
    def could_tell(self) -> bool:
        """Tell whether a candidate that calls everything Normal would be out of bounds by now."""
        return self.findings >= findings_needed(self.bounds)

    def signals(self) -> Iterator[Signal]:
        """Yield each way to be out of bounds."""
        bounds, slices = self.bounds, self._times(LABELS, LABELS)
        same = sum(self._times((label,), (label,)) for label in LABELS)
        other = Count(trials=slices, events=slices - same)
        yield Signal("gave another label", f"than {self.incumbent}", other, bounds.max_disagreement, "all", FOR_ALL)
        for name, group in GROUPS.items():
            yield self._contradiction(name, group)
        for label in LABELS:
            gained = Count(trials=slices, events=self._times(_but(label), (label,)))
            where = f"where {self.incumbent} did not"
            yield Signal(f"said {label}", where, gained, bounds.max_shift, "shift", FOR_OTHERS)
        yield self._kept_findings()
        where = f"where {self.incumbent} was certain"
        yield Signal("was uncertain", where, self.abstained, bounds.max_abstention, "abstention", FOR_OTHERS)
        what, where = f"took over {bounds.max_latency_ratio:g} times as long", f"as {self.incumbent} usually does"
        yield Signal(what, where, self.slow, bounds.max_slow_share, "slow", FOR_OTHERS)

    def _judge(self) -> str:
        if self.evidence < 1 / self.bounds.alpha:
            return ""
        return str(max(self.signals(), key=lambda signal: signal.evidence))

    def _contradiction(self, name: str, group: tuple[Label, ...]) -> Signal:
        answers = [label for label in LABELS if self._times([given for given in group if given is not label], (label,))]
        what = f"said {answers[0]}" if len(answers) == 1 else "gave another label"
        where = f"where {self.incumbent} said {' or '.join(group)}"
        kind, stakes = ("findings", FOR_FINDINGS) if group is FINDINGS else ("label", FOR_LABELS)
        count = self.contradicted.get(name, Count())
        return Signal(what, where, count, self.bounds.max_disagreement, kind, stakes)

    def _kept_findings(self) -> Signal:
        rows = [(given, answer, n) for given in FINDINGS for answer, n in self.kept.get(given, {}).items()]
        events = sum(n for given, answer, n in rows if answer is not given)
        count = Count(trials=sum(n for _, _, n in rows), events=events)
        where = f"where {self.incumbent} kept a finding"
        return Signal("gave another label", where, count, self.bounds.max_disagreement, "kept findings", FOR_FINDINGS)

    def _contradicted(self, given: Label, answer: Label) -> dict[str, Count]:
        """Count the slice in its groups where the slices before it say so: what is chosen by the past stays fair."""
        counted = dict(self.contradicted)
        for name, group in GROUPS.items():
            if given in group and self._one_sided(group):
                counted[name] = counted.get(name, Count()).plus(answer is not given)
        return counted

    def _one_sided(self, group: tuple[Label, ...]) -> bool:
        others = [label for label in LABELS if label not in group]
        same = sum(self._times((label,), (label,)) for label in group)
        return self._times(group, LABELS) - same >= ONE_SIDED * self._times(others, group)

    def _times(self, given: Iterable[Label], answers: Iterable[Label]) -> int:
        """Count the slices in which the incumbent said one of the first and the candidate one of the second."""
        wanted = tuple(answers)
        return sum(self.said.get(label, {}).get(answer, 0) for label in given for answer in wanted)


def findings_needed(bounds: BoundsLike) -> int:
    """Return how many findings a probation has to meet before it can tell a model that calls everything Normal.

    0 where the bounds allow just that.
    """
    if bounds.max_disagreement >= 1:
        return 0
    needed = 1
    while (
        WEIGHTS["findings"] * evidence(Count(trials=needed, events=needed), bounds.max_disagreement, FOR_FINDINGS)
        < 1 / bounds.alpha
    ):
        needed += 1
    return needed


def _one_more(said: dict[Label, dict[Label, int]], given: Label, answer: Label) -> dict[Label, dict[Label, int]]:
    row = said.get(given, {})
    return {**said, given: {**row, answer: row.get(answer, 0) + 1}}


def _but(label: Label) -> list[Label]:
    return [other for other in LABELS if other is not label]
