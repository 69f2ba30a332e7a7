"""What the dashboard remembers: small frozen rows of plain values, cleaned of whatever a terminal would obey."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from protocol.labels import LABELS, Label
from protocol.messages import ModelPhase, NetworkReading, RetrainPhase

PHANTOM_PREFIX = "phantom"
MAX_TEXT = 120
MAX_REASON = 400
MAX_NUMBER = 999_999_999
"""A sender may state any integer; beyond this one nobody reads the digits."""

EdgeState = Literal["unknown", "online", "lost", "stopped"]


@dataclass(frozen=True)
class EdgeId:
    """An edge by its site and name."""

    site: str
    edge: str

    def __str__(self) -> str:
        """Name it as its topics do."""
        return f"{self.site}/{self.edge}"


@dataclass(frozen=True)
class SliceKey:
    """What makes a slice the same slice, however often and on whatever topic it arrives."""

    edge: EdgeId
    slice_id: str


@dataclass(frozen=True)
class Reading:
    """What a network said; `probabilities` in the order of `LABELS`."""

    label: Label
    uncertain: bool
    probabilities: tuple[float, ...]
    version: int
    latency_ms: float

    @property
    def confidence(self) -> float:
        """Return the probability of the label, 0..1."""
        return self.probabilities[LABELS.index(self.label)]


@dataclass(frozen=True)
class ReviewRow:
    """A person's word."""

    label: Label
    reviewer: str
    at: datetime


AUDIT = "audit"
"""Both readers agree, and the slice was drawn for review all the same."""


@dataclass(frozen=True)
class SliceRow:
    """A slice, as far as it is known: `reading` comes with the diagnosis or the slice, the rest with the verdict."""

    key: SliceKey
    received_at: datetime
    captured_at: datetime | None = None
    source: str = ""
    reading: Reading | None = None
    pictured: bool = False
    judged: bool = False
    second: Reading | None = None
    disagreement: str = ""
    review: ReviewRow | None = None

    @property
    def open(self) -> bool:
        """Say whether the disagreement still waits for a person."""
        return bool(self.disagreement) and self.review is None

    @property
    def phantom(self) -> bool:
        """Say whether the slice was drawn, not scanned."""
        return is_phantom(self.source)


@dataclass(frozen=True)
class LastSlice:
    """The newest slice whose pixels came, still as PNG: decoding waits until somebody looks."""

    key: SliceKey
    image: bytes = field(repr=False)


@dataclass(frozen=True)
class EdgeRow:
    """An edge: what it says of itself, and when it was last heard."""

    id: EdgeId
    state: EdgeState = "unknown"
    since: datetime | None = None
    boot_id: str = ""
    status_at: datetime | None = None
    last_seen: datetime | None = None
    outbox_depth: int = 0
    outbox_fullness: float = 0.0
    last_sequence: int = 0
    problem: str = ""
    guidance: str = ""
    refusals: tuple[tuple[str, int], ...] = ()
    """Refused pictures by reason code, the most frequent first."""
    running_version: int = 0
    running_at: datetime | None = None
    phase: ModelPhase = ModelPhase.NONE
    phase_at: datetime | None = None
    desired_version: int = 0
    chunks_done: int = 0
    chunks_total: int = 0
    compared: int = 0
    """Slices that the desired release and its predecessor have both read."""


@dataclass(frozen=True)
class TrainingRow:
    """A retraining, from the trainer's first word to the gate's verdict."""

    request_id: str
    seen_at: datetime
    at: datetime | None = None
    phase: RetrainPhase | None = None
    epoch: int = 0
    epochs: int = 0
    fraction: float = 0.0
    loss: float | None = None
    balanced_accuracy: float | None = None
    outcome: Literal["", "candidate", "failed"] = ""
    outcome_reason: str = ""
    verdict: str = ""
    released_version: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Refusal:
    """An edge that did not keep a release, and why."""

    phase: ModelPhase
    reason: str
    at: datetime


@dataclass(frozen=True)
class VersionRow:
    """A model version: announced (which proves nothing), asked for, running, refused."""

    version: int
    seen_at: datetime
    name: str = ""
    announced_at: datetime | None = None
    running_since: Mapping[EdgeId, datetime] = field(default_factory=dict)
    refusals: Mapping[EdgeId, Refusal] = field(default_factory=dict)


def small_reading(reading: NetworkReading) -> Reading:
    """Keep what is shown of a reading."""
    return Reading(
        label=reading.label,
        uncertain=reading.uncertain,
        probabilities=tuple(reading.probabilities.get(label, 0.0) for label in LABELS),
        version=bounded(reading.model.version),
        latency_ms=min(reading.latency_ms, float(MAX_NUMBER)),
    )


def is_phantom(source: str) -> bool:
    """Say whether a source names drawn slices."""
    return source.lower().startswith(PHANTOM_PREFIX)


def plain(text: str, limit: int = MAX_TEXT) -> str:
    """Return one printable line: no escape sequence, line break or direction mark from a message meets the terminal."""
    line = "".join(character if character.isprintable() else " " for character in text[: 2 * limit])
    return " ".join(line.split())[:limit]


def bounded(number: int) -> int:
    """Return the number, or the largest that is shown."""
    return min(number, MAX_NUMBER)
