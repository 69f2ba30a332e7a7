"""What the ledger answers: frozen records of plain values and of the protocol's parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from protocol.labels import Label
from protocol.messages import Disagreement, NetworkReading, RetrainRequest, Review, UploadedFile

Reader = Literal["edge", "second"]
RequestState = Literal["open", "candidate", "failed"]
DeadLetterState = Literal["open", "replayed", "discarded"]
CandidateVerdict = Literal["pending", "accepted", "refused"]
RolloutState = Literal["running", "paused", "complete", "superseded", "aborted", "withdrawn"]


@dataclass(frozen=True)
class StoredSlice:
    """A slice as it was received; its pixels are in the object store under `image_key`."""

    slice_id: str
    message_id: str
    site: str
    edge: str
    boot_id: str
    sequence: int
    captured_at: datetime
    received_at: datetime
    source: str
    patient_key: str
    preprocessing_version: int
    image_key: str
    image_sha256: str
    frame_sha256: str
    frame_omitted: str


@dataclass(frozen=True)
class StoredFrame:
    """The captured original of a slice."""

    message_id: str
    slice_id: str
    sha256: str
    frame_key: str
    media_type: str
    received_at: datetime


@dataclass(frozen=True)
class VerdictParts:
    """What a verdict message is made of, and which edge it goes to."""

    slice_id: str
    site: str
    edge: str
    first: NetworkReading
    second: NetworkReading | None
    disagreement: Disagreement | None
    review: Review | None


@dataclass(frozen=True)
class OpenDisagreement:
    """A slice that waits for a person's word."""

    slice: StoredSlice
    first: NetworkReading
    second: NetworkReading | None
    disagreement: Disagreement
    opened_at: datetime

    def age(self, now: datetime) -> timedelta:
        """Return for how long it has waited."""
        return now - self.opened_at


@dataclass(frozen=True)
class StoredLabel:
    """A person's word on a slice, and when the edge was told."""

    id: int
    slice_id: str
    site: str
    edge: str
    label: Label
    reviewer: str
    why: str
    at: datetime
    published_at: datetime | None


@dataclass(frozen=True)
class LabelledSlice:
    """A slice to learn from, with its newest label."""

    slice_id: str
    image_key: str
    image_sha256: str
    patient_key: str
    source: str
    label: Label
    label_id: int


@dataclass(frozen=True)
class RetrainDecision:
    """Why the policy fired, or why it did not, from `at` until the next decision."""

    id: int
    at: datetime
    fired: bool
    reason: str
    new_labels: int


@dataclass(frozen=True)
class StoredRequest:
    """A retrain request; `labels_used` is the highest label id that its data set covers."""

    request_id: str
    requested_at: datetime
    last_published_at: datetime | None
    last_heard_at: datetime | None
    reason: str
    base_version: int
    dataset_sha256: str
    dataset_key: str
    labels_used: int
    message: RetrainRequest
    state: RequestState
    closed_at: datetime | None


@dataclass(frozen=True)
class Candidate:
    """What a trainer made of a request, and what the gate said."""

    request_id: str
    received_at: datetime
    architecture: str
    temperature: float
    files: Mapping[str, UploadedFile]
    validation: Mapping[str, Any]
    training_data_sha256: str | None
    split_sha256: str | None
    gate: Mapping[str, Any] | None
    verdict: CandidateVerdict
    reason: str
    decided_at: datetime | None


@dataclass(frozen=True)
class Release:
    """A released model: the signed envelope, and the object keys of its files by name."""

    version: int
    name: str
    sha256: str
    architecture: str
    released_at: datetime
    envelope: bytes
    files: Mapping[str, str]
    checkpoint_key: str
    checkpoint_sha256: str
    request_id: str | None = None
    gate: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EdgeRecord:
    """The last that an edge said of itself and of its model."""

    site: str
    edge: str
    status: Mapping[str, Any] | None
    status_at: datetime | None
    reported: Mapping[str, Any] | None
    reported_at: datetime | None


@dataclass(frozen=True)
class Rollout:
    """How far a release has come through the fleet; `ring` counts from 0."""

    version: int
    state: RolloutState
    ring: int
    ring_started_at: datetime
    reason: str = ""


@dataclass(frozen=True)
class Rollback:
    """A manifest by which edges of the versions `returns_from` go back to `version`."""

    id: int
    version: int
    returns_from: tuple[int, ...]
    why: str
    at: datetime
    envelope: bytes


@dataclass(frozen=True)
class Pin:
    """An edge that runs one version, whatever is rolled out."""

    site: str
    edge: str
    version: int
    at: datetime


@dataclass(frozen=True)
class StoredAssignment:
    """The newest assignment of an edge: `told_at` is when it first heard of this version; version 0 is none."""

    site: str
    edge: str
    sequence: int
    version: int
    ring: str
    manifest_sha256: str
    envelope: bytes
    issued_at: datetime
    expires_at: datetime
    told_at: datetime
    progress: str
    progress_at: datetime


@dataclass(frozen=True)
class Teacher:
    """A labelled slice as a retraining saw it, and why it had been looked at; None where nobody disagreed."""

    slice_id: str
    site: str
    edge: str
    image_sha256: str
    patient_key: str
    source: str
    label: Label
    label_id: int
    reviewer: str
    labelled_at: datetime
    disagreement: str | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Gap:
    """Sequence numbers `first` to `last` that never came; `boot_id` is that of the slice after them."""

    first: int
    last: int
    boot_id: str

    @property
    def missing(self) -> int:
        """Return how many numbers are missing."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be taken in; `payload` may be cut, `size` and `sha256` are of the whole."""

    id: int
    at: datetime
    topic: str
    reason: str
    sha256: str
    size: int
    payload: bytes
    site: str | None
    edge: str | None
    kind: str | None
    message_id: str | None
    sequence: int | None
    user_properties: tuple[tuple[str, str], ...]
    state: DeadLetterState
    tries: int
    why: str
    closed_at: datetime | None

    @property
    def whole(self) -> bool:
        """Say whether the payload is not cut."""
        return len(self.payload) == self.size


@dataclass(frozen=True)
class Period:
    """From `since` on, to before `until`; None is without bound."""

    since: datetime | None = None
    until: datetime | None = None

    def meets(self, begin: datetime | None, end: datetime | None) -> bool:
        """Say whether a window has a part in the period; a bound of None is open."""
        ends_before = end is not None and self.since is not None and end < self.since
        begins_after = begin is not None and self.until is not None and begin >= self.until
        return not ends_before and not begins_after


@dataclass(frozen=True)
class Missing:
    """Numbers `first` to `last` of which there is no slice, and when the slices before and after were captured."""

    first: int
    last: int
    before: datetime | None
    after: datetime | None


@dataclass(frozen=True)
class Doubled:
    """Slices that are there more than once: `slice_ids` of one number, or of one capture under several numbers."""

    what: Literal["number", "capture"]
    sequence: int
    rows: int
    slice_ids: tuple[str, ...]
    captured_at: datetime


@dataclass(frozen=True)
class StoredObject:
    """An object that the ledger says is there, with the hash of its bytes."""

    key: str
    sha256: str
    slice_id: str
