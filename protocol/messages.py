"""Every message that is exchanged: frozen, typed, versioned, made of plain values.

A message's schema major travels as the CloudEvents attribute `dataschema`. Fields that a newer peer adds are kept.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from protocol.labels import Label
from protocol.topics import Kind, TopicId

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
MessageId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
SliceId = TopicId
PatientKey = Sha256
"""HMAC-SHA-256 of the patient's id under a secret of the site: tells patients apart, and names nobody."""
ShortText = Annotated[str, StringConstraints(max_length=200)]
LongText = Annotated[str, StringConstraints(max_length=2000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
"""Sequence numbers from the first to the last, both of them included."""
Url = Annotated[str, StringConstraints(pattern=r"^https?://", max_length=4000)]

KIB = 1024
MAX_STATUS_RANGES = 64
MAX_CHUNK_BYTES = 64 * KIB
MAX_CHUNKS = 16_384
"""Of one file: a bitmap of them has 2 KiB."""
MAX_INDEX_PIECES = 64
"""Asked for at once."""
MAX_SLICE_PNG_BYTES = 96 * KIB
"""A 256x256 8-bit PNG cannot exceed 66 KB; with the envelope the message stays below AWS IoT Core's 128 KiB."""


class Part(BaseModel):
    """Something that messages are made of: frozen, and keeps the fields that a newer peer adds."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, protected_namespaces=())


class Message(Part):
    """Something that is said on a topic; subclasses are in `MESSAGE_TYPES`."""

    schema_major: ClassVar[int] = 1
    max_bytes: ClassVar[int] = 64 * KIB
    encoding: ClassVar[Literal["json", "cbor"]] = "json"


class ModelRef(Part):
    """Which network: a version that only grows, and the SHA-256 of its ONNX file."""

    name: ShortText
    version: int = Field(ge=1)
    sha256: Sha256


class NetworkReading(Part):
    """What a network says of a slice; `probabilities` is over all labels, `uncertain` where none stands out."""

    label: Label
    uncertain: bool
    probabilities: dict[Label, Probability]
    model: ModelRef
    latency_ms: float = Field(ge=0)

    @model_validator(mode="after")
    def _label_has_a_probability(self) -> Self:
        if self.label not in self.probabilities:
            raise ValueError(f"no probability for the label {self.label}")
        return self

    @property
    def confidence(self) -> float:
        """Return the probability of the label, 0..1."""
        return self.probabilities[self.label]


class Status(Message):
    """An edge's birth, heartbeat and will."""

    state: Literal["online", "lost", "stopped"]
    boot_id: TopicId
    at: AwareDatetime
    software: ShortText
    model: ModelRef | None = None
    outbox_depth: int = Field(default=0, ge=0)
    outbox_bytes: int = Field(default=0, ge=0)
    outbox_fullness: Probability = 0.0
    """The larger share of the outbox's bounds in rows and in bytes."""
    outbox_high_water: Probability = 0.0
    """The highest fullness since the outbox was empty."""
    last_sequence: int = Field(default=0, ge=0)
    problem: LongText = ""
    guidance: ShortText = ""
    """What the person with the camera should do now."""
    refusals: dict[ShortText, Annotated[int, Field(ge=0)]] = Field(default_factory=dict, max_length=100)
    """Pictures that were refused since this boot, by reason code."""
    refused_frames: int = Field(default=0, ge=0)
    """Captured frames that never became slices, since the outbox was made; they have no number."""
    waiting: Annotated[tuple[Range, ...], Field(max_length=MAX_STATUS_RANGES)] | None = None
    """Numbers of slices that wait in the outbox; None where an edge does not tell.

    With more ranges than fit, the last ones are one, gaps included: it over-states, and never leaves out what waits.
    """
    waiting_originals: Annotated[tuple[Range, ...], Field(max_length=MAX_STATUS_RANGES)] | None = None
    """Numbers of slices whose original waits, told as `waiting` is."""
    set_aside: Annotated[tuple[Range, ...], Field(max_length=MAX_STATUS_RANGES)] = ()
    """Numbers that the edge knows to have lost or given up: they will not come."""
    dropped_originals: Annotated[tuple[Range, ...], Field(max_length=MAX_STATUS_RANGES)] = ()
    """Numbers of slices whose original the edge has given up: it will not come."""


class Diagnosis(Message):
    """A reading without pixels, for the live view."""

    slice_id: SliceId
    captured_at: AwareDatetime
    source: ShortText
    reading: NetworkReading


class SliceRead(Message):
    """A captured slice and its local reading: the event that must never be lost."""

    max_bytes: ClassVar[int] = 128 * KIB
    encoding: ClassVar[Literal["json", "cbor"]] = "cbor"

    slice_id: SliceId
    boot_id: TopicId
    sequence: int = Field(ge=1)
    captured_at: AwareDatetime
    source: ShortText
    patient_key: PatientKey
    preprocessing_version: int = Field(ge=1)
    frame_sha256: Sha256
    frame_omitted: ShortText = ""
    image: Annotated[bytes, Field(min_length=8, max_length=MAX_SLICE_PNG_BYTES)]
    image_sha256: Sha256
    reading: NetworkReading


class Receipt(Message):
    """The message ids that are stored for good; the outbox deletes on this alone."""

    message_ids: tuple[MessageId, ...] = Field(min_length=1, max_length=500)


class Disagreement(Part):
    """Why a slice needs a person; `audit` is one drawn at random although both readings agree."""

    kind: Literal["label", "uncertain", "confidence", "audit"]
    reasons: tuple[ShortText, ...]


class Review(Part):
    """A person's word on a slice."""

    label: Label
    reviewer: ShortText
    at: AwareDatetime


class Verdict(Message):
    """The second reading of a slice, whether it disagrees, and the review when there is one."""

    slice_id: SliceId
    first: NetworkReading
    second: NetworkReading | None
    disagreement: Disagreement | None = None
    review: Review | None = None


class ModelPhase(StrEnum):
    """Where an edge stands with the release that it was told to run."""

    NONE = "none"
    DOWNLOADING = "downloading"
    TESTING = "testing"
    SHADOW = "shadow"
    PROBATION = "probation"
    ACTIVE = "active"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled-back"


class ModelReported(Message):
    """What an edge runs, how far it is with the desired release, and why it refused one."""

    phase: ModelPhase
    at: AwareDatetime
    running: ModelRef | None = None
    desired_version: int = Field(default=0, ge=0)
    chunks_done: int = Field(default=0, ge=0)
    chunks_total: int = Field(default=0, ge=0)
    compared: int = Field(default=0, ge=0)
    """Slices that release and predecessor have both read, in the phases shadow and probation."""
    assignment: int = Field(default=0, ge=0)
    """Number of the newest assignment that the edge follows."""
    keys_version: int = Field(default=0, ge=0)
    """Of the set of trusted keys; 1 is that of the settings."""
    banned: Annotated[tuple[int, ...], Field(max_length=100)] = ()
    """Versions that this edge does not run whatever is assigned: they failed here, or were withdrawn."""
    reason: LongText = ""


class ChunkRequest(Message):
    """What an edge wants next of a release: pieces of its files' indices, and chunks by their places in these."""

    schema_major: ClassVar[int] = 2

    version: int = Field(ge=1)
    pieces: tuple[Sha256, ...] = Field(default=(), max_length=MAX_INDEX_PIECES)
    wanted: dict[ShortText, Annotated[str, StringConstraints(max_length=MAX_CHUNKS // 6 + 4)]] = Field(
        default_factory=dict, max_length=8
    )
    """By file name: a bitmap of places, as `protocol.chunks.to_bitmap` writes it."""
    shared: bool = False
    """The edge hears chunks that are published for all; otherwise they are published for it alone."""
    fresh: bool = False
    """Nothing more is on its way to the edge: of what was published before it has only what it does not ask for."""

    @model_validator(mode="after")
    def _wants_something(self) -> Self:
        if not self.pieces and not any(self.wanted.values()):
            raise ValueError("asks for nothing")
        return self


class RetrainRequest(Message):
    """The retraining trigger message: what to learn from, where to start, and where to put the candidate.

    The URLs are presigned: a trainer needs no key of the object store. They are credentials, and are not logged.
    """

    request_id: TopicId
    reason: LongText
    requested_at: AwareDatetime
    architecture: ShortText
    base_version: int = Field(ge=1)
    base_checkpoint_url: Url
    base_checkpoint_sha256: Sha256
    dataset_url: Url
    dataset_sha256: Sha256
    upload_urls: dict[ShortText, Url]
    seed: int = Field(ge=0)


class RetrainPhase(StrEnum):
    """Where a trainer stands with a request."""

    ACCEPTED = "accepted"
    LOADING = "loading"
    TRAINING = "training"
    EXPORTING = "exporting"


class RetrainStatus(Message):
    """A trainer's progress; `fraction` 0..1 is of the training alone."""

    request_id: TopicId
    trainer: ShortText
    phase: RetrainPhase
    at: AwareDatetime
    epoch: int = Field(default=0, ge=0)
    epochs: int = Field(default=0, ge=0)
    fraction: Probability = 0.0
    loss: float | None = None
    validation_balanced_accuracy: Probability | None = None


class UploadedFile(Part):
    """A file that the trainer put to its presigned URL."""

    sha256: Sha256
    size: int = Field(ge=1)


class RetrainResult(Message):
    """A candidate, or why there is none; said again by the worker when its gate has decided.

    `verdict` is empty where a trainer speaks; the worker says `refused` (then `outcome` is failed, so that a peer who
    does not know the field sees that nothing came of it) or `released`, as `released_version`.
    """

    request_id: TopicId
    outcome: Literal["candidate", "failed"]
    at: AwareDatetime
    trainer: ShortText
    reason: LongText = ""
    architecture: ShortText = ""
    files: dict[ShortText, UploadedFile] = Field(default_factory=dict)
    temperature: float = Field(default=1.0, gt=0)
    training_data_sha256: Sha256 | None = None
    split_sha256: Sha256 | None = None
    validation: dict[str, Any] = Field(default_factory=dict)
    seconds: float = Field(default=0, ge=0)
    verdict: ShortText = ""
    released_version: int = Field(default=0, ge=0)


class DatasetSlice(Part):
    """One labelled slice of a retraining data set, and where to get its prepared 256x256 PNG."""

    image_sha256: Sha256
    url: Url
    label: Label
    patient_key: PatientKey
    source: ShortText
    split: Literal["train", "val"]


class HeldBackRule(Part):
    """By what the worker holds patients back: `share` of them, drawn by `seed`, known by their key alone."""

    share: Probability
    seed: int = Field(ge=0)


class Dataset(Part):
    """What a retrain request's `dataset_url` leads to; held-back patients are not in it, but the rule for them is."""

    created_at: AwareDatetime
    slices: tuple[DatasetSlice, ...]
    held_back: HeldBackRule | None = None


class Frame(Part):
    """The captured original; its bytes are the payload, the rest travels as user properties."""

    max_bytes: ClassVar[int] = 2 * 1024 * KIB

    slice_id: SliceId
    sha256: Sha256
    media_type: ShortText
    data: bytes = Field(repr=False)


MESSAGE_TYPES: dict[Kind, type[Message]] = {
    Kind.STATUS: Status,
    Kind.SLICE: SliceRead,
    Kind.DIAGNOSIS: Diagnosis,
    Kind.RECEIPT: Receipt,
    Kind.VERDICT: Verdict,
    Kind.MODEL_REPORTED: ModelReported,
    Kind.MODEL_GET: ChunkRequest,
    Kind.RETRAIN_REQUEST: RetrainRequest,
    Kind.RETRAIN_STATUS: RetrainStatus,
    Kind.RETRAIN_RESULT: RetrainResult,
}
"""`frame`, `model/desired`, `model/assigned`, `model/keys` and `model/chunk` carry raw bytes: see `Frame`, `manifest`,
`assignment`, `rotation` and `chunks`."""

KIND_OF: dict[type[Message], Kind] = {message_type: kind for kind, message_type in MESSAGE_TYPES.items()}
