"""Judge a run by what was collected: is every file stored exactly once, and is it what was given?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SliceFact:
    """A row of the ledger's slices, and the SHA-256 of the object that it names (empty: there is none)."""

    edge: str
    sequence: int
    frame_sha256: str
    image_sha256: str
    object_sha256: str
    frames: tuple[tuple[str, str], ...]
    """Of each frame row: the SHA-256 that it states, and that of its object."""


@dataclass(frozen=True)
class Facts:
    """What was given, and what is found afterwards."""

    given: Mapping[str, Sequence[str]]
    slices: Sequence[SliceFact]
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Messages in each edge's outbox."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Files that each edge refused for good."""
    dead_letters: Sequence[str] = ()
    """Their reasons, besides those that the run caused on purpose."""
    audit: Sequence[str] = ()
    """What `sliceloop audit` finds of each edge that is not as it should be."""
    ended: Sequence[str] = ()
    """Processes that ended by themselves, with their last words."""


@dataclass(frozen=True)
class Verdict:
    """Every list names what is wrong; all empty is right."""

    given: int
    stored: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    mismatches: tuple[str, ...]
    foreign: tuple[str, ...]
    gaps: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Tell whether nothing is wrong."""
        return not (self.lost or self.doubled or self.mismatches or self.foreign or self.gaps or self.others)


def judge(facts: Facts) -> Verdict:
    """Compare what was given with what is stored."""
    given = [sha256 for files in facts.given.values() for sha256 in files]
    stored = Counter(row.frame_sha256 for row in facts.slices)
    return Verdict(
        given=len(given),
        stored=sum(sha256 in stored for sha256 in given),
        lost=tuple(sha256 for sha256 in given if sha256 not in stored),
        doubled=tuple(sha256 for sha256, count in stored.items() if count > 1),
        mismatches=tuple(fault for row in facts.slices for fault in _mismatches(row)),
        foreign=tuple(stored.keys() - set(given)),
        gaps=tuple(_gaps(facts)),
        others=tuple(_others(facts)),
    )


def _mismatches(row: SliceFact) -> list[str]:
    """Say where objects are not what the ledger says; each slice has the one frame that it names."""
    name, faults = f"{row.edge} #{row.sequence}", []
    if row.object_sha256 != row.image_sha256:
        faults.append(f"{name}: the slice's object is {_short(row.object_sha256)}, not {_short(row.image_sha256)}")
    if [stated for stated, _ in row.frames] != [row.frame_sha256]:
        faults.append(f"{name}: {len(row.frames)} frames stored, one is right")
    faults += [
        f"{name}: the frame's object is {_short(found)}, not {_short(stated)}"
        for stated, found in row.frames
        if found != stated
    ]
    return faults


def _gaps(facts: Facts) -> list[str]:
    faults = []
    for edge, files in facts.given.items():
        numbers = sorted(row.sequence for row in facts.slices if row.edge == edge)
        if numbers != list(range(1, len(files) + 1)):
            missing = sorted(set(range(1, len(files) + 1)) - set(numbers))
            faults.append(f"{edge}: {len(numbers)} numbers for {len(files)} files, missing {missing[:10]}")
    return faults


def _others(facts: Facts) -> list[str]:
    return [
        *(f"{edge}: {count} messages still in the outbox" for edge, count in facts.waiting.items() if count),
        *(f"{edge}: {count} files refused" for edge, count in facts.refused.items() if count),
        *(f"dead letter: {reason}" for reason in facts.dead_letters),
        *(f"audit: {finding}" for finding in facts.audit),
        *(f"ended by itself: {words}" for words in facts.ended),
    ]


def _short(sha256: str) -> str:
    return sha256[:12] or "missing"
