"""What became of every number that an edge gave to a slice: pure functions over what ledger and edge know."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from cloud_worker.ledger.records import Doubled, Missing, Period
from protocol.ranges import Range, size, within, without

MAX_LISTED = 1_000
"""Ranges and doublings that are told of one edge; all of them are counted."""
ALL_NUMBERS = (1, 2**63 - 1)
Item = TypeVar("Item")


class Fate(StrEnum):
    """What became of a number, or of an original, of which the ledger has nothing."""

    REFUSED = "refused"
    """Quarantined by the worker: it lies in the object store."""
    WAITING = "waiting"
    """In the edge's outbox."""
    SET_ASIDE = "set aside"
    """Lost or given up, and the edge knows it."""
    LOST = "lost"
    UNKNOWN = "unknown"
    """The edge has not said yet what became of it."""


LOSSES = (Fate.LOST, Fate.SET_ASIDE)


@dataclass(frozen=True)
class EdgeWord:
    """What an edge says of its numbers; ranges are ascending and apart, None where it does not tell what waits."""

    source: str
    at: datetime | None
    last_sequence: int
    waiting: Sequence[Range] | None
    waiting_originals: Sequence[Range] | None = None
    set_aside: Sequence[Range] = ()
    dropped_originals: Sequence[Range] = ()
    refused_frames: int = 0


@dataclass(frozen=True)
class EdgeFacts:
    """What an audit looks at; the iterables are read once, ascending, and none of them has to fit into memory."""

    site: str
    edge: str
    period: Period
    word: EdgeWord | None
    stored: int
    """Numbers stored, of slices captured in the period."""
    highest: tuple[int, datetime] | None
    """The highest number stored, at any time."""
    missing: Iterable[Missing]
    """All that is missing below it, whatever the period."""
    refused: Sequence[Range]
    refused_originals: Sequence[Range]
    without_original: Iterable[Range]
    """Numbers of slices that promise an original of which none came."""
    doubled: Iterable[Doubled]
    unnumbered: int
    """Quarantined slices that did not say their number."""


@dataclass(frozen=True)
class Finding:
    """Numbers of one fate; their slices were captured after `before` and ahead of `after`."""

    fate: Fate
    first: int
    last: int
    before: datetime | None
    after: datetime | None


@dataclass(frozen=True)
class EdgeAudit:
    """The numbers of one edge in one period, each counted once."""

    site: str
    edge: str
    word: EdgeWord | None
    stored: int
    fates: dict[Fate, int]
    findings: tuple[Finding, ...]
    doubled: int
    doublings: tuple[Doubled, ...]
    originals: dict[Fate, int]
    original_findings: tuple[tuple[Fate, Range], ...]
    unnumbered: int

    @property
    def issued(self) -> int:
        """Return how many numbers were given."""
        return self.stored + sum(self.fates.values())

    @property
    def lost(self) -> int:
        """Return how many slices will not come."""
        return sum(self.fates[fate] for fate in LOSSES)

    @property
    def originals_missing(self) -> int:
        """Return how many promised originals will not come, without those that the edge gave up to make room."""
        return self.originals[Fate.LOST]

    @property
    def clean(self) -> bool:
        """Say whether nothing is lost or doubled; what waits, was refused or is not known yet does not count."""
        return not (self.lost or self.doubled or self.originals_missing)


def audit(facts: EdgeFacts) -> EdgeAudit:
    """Account for every number of an edge; what cannot be told without the edge's word is unknown, never lost."""
    word = facts.word
    told = (word.waiting, word.set_aside, word.last_sequence) if word else (None, (), 0)
    judges = _judges(facts.refused, *told)
    slices = _Tally[Finding]()
    for gap in _gaps(facts):
        for fate, (first, last) in _judge((gap.first, gap.last), judges):
            slices.add(fate, last - first + 1, Finding(fate, first, last, gap.before, gap.after))
    originals = _Tally[tuple[Fate, Range]]()
    told = (word.waiting_originals, word.dropped_originals, word.last_sequence) if word else (None, (), 0)
    original_judges = _judges(facts.refused_originals, *told)
    for promised in facts.without_original:
        for fate, part in _judge(promised, original_judges):
            originals.add(fate, size([part]), (fate, part))
    doubled, doublings = _first_of(facts.doubled)
    return EdgeAudit(
        site=facts.site,
        edge=facts.edge,
        word=facts.word,
        stored=facts.stored,
        fates=slices.fates(),
        findings=tuple(slices.listed),
        doubled=doubled,
        doublings=doublings,
        originals=originals.fates(),
        original_findings=tuple(originals.listed),
        unnumbered=facts.unnumbered,
    )


Judges = Sequence[tuple[Fate, Sequence[Range]]]


def _judges(
    refused: Sequence[Range], waiting: Sequence[Range] | None, set_aside: Sequence[Range], last_sequence: int
) -> Judges:
    """Return the fates in the order in which they count, each with the numbers that it can be said of."""
    if waiting is None:
        return (Fate.REFUSED, refused), (Fate.UNKNOWN, [ALL_NUMBERS])
    return (
        (Fate.REFUSED, refused),
        (Fate.WAITING, waiting),
        (Fate.SET_ASIDE, set_aside),
        (Fate.LOST, [(1, last_sequence)] if last_sequence else []),
        (Fate.UNKNOWN, [ALL_NUMBERS]),
    )


def _judge(numbers: Range, judges: Judges) -> list[tuple[Fate, Range]]:
    """Split the numbers by the first fate that can be said of each; ascending."""
    rest, judged = [numbers], list[tuple[Fate, Range]]()
    for fate, ranges in judges:
        said = [part for piece in rest for part in within(ranges, piece)]
        judged += [(fate, part) for part in said]
        rest = without(rest, said)
    return sorted(judged, key=lambda each: each[1])


def _gaps(facts: EdgeFacts) -> Iterator[Missing]:
    """Yield what is missing in the period, also above the highest stored number."""
    highest, captured_at = facts.highest or (0, None)
    issued = max(facts.word.last_sequence if facts.word else 0, facts.refused[-1][1] if facts.refused else 0)
    for gap in facts.missing:
        # what was stored above the highest number since that was asked for is for the next audit
        if gap.first < highest and facts.period.meets(*_window(gap)):
            yield gap
    if issued > highest and facts.period.meets(captured_at, None):
        yield Missing(highest + 1, issued, captured_at, None)


def _window(gap: Missing) -> tuple[datetime | None, datetime | None]:
    """Return the time between a gap's neighbours, also where the edge's clock was set back between them."""
    if gap.before is None or gap.after is None:
        return gap.before, gap.after
    return min(gap.before, gap.after), max(gap.before, gap.after)


def _first_of(doubled: Iterable[Doubled]) -> tuple[int, tuple[Doubled, ...]]:
    count, listed = 0, list[Doubled]()
    for each in doubled:
        count += 1
        if len(listed) < MAX_LISTED:
            listed.append(each)
    return count, tuple(listed)


class _Tally(Generic[Item]):
    """Counts by fate, and keeps the first of what is counted."""

    def __init__(self) -> None:
        self._counts = Counter[Fate]()
        self.listed: list[Item] = []

    def add(self, fate: Fate, count: int, item: Item) -> None:
        self._counts[fate] += count
        if len(self.listed) < MAX_LISTED:
            self.listed.append(item)

    def fates(self) -> dict[Fate, int]:
        return {fate: self._counts[fate] for fate in Fate}
