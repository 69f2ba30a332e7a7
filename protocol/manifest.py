"""What a release is, and the rules by which an edge trusts it: pure functions from bytes to a verified manifest."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError, model_validator

from protocol.chunks import MAX_MODEL_BYTES, FileName, ManifestFile, sha256_of
from protocol.errors import (
    EnvelopeError,
    ExpiredManifestError,
    OldVersionError,
    OtherArchitectureError,
    OtherPreprocessingError,
    OversizeError,
    UnsafeNameError,
    UnsupportedManifestError,
    VersionTakenTwiceError,
)
from protocol.labels import LABELS, Label
from protocol.messages import ModelRef, Part, Probability, Sha256, ShortText
from protocol.signed_payload import supported_fields
from protocol.signing import TrustedKeys, payload_of, verify

MANIFEST_MAJOR = 2
READABLE_MAJORS = frozenset({1, MANIFEST_MAJOR})
"""A release of major 1 that runs on an edge goes on; it cannot be fetched any more."""
MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.cbor"
MAX_DELTAS = 4
MAX_FILES = 2 + MAX_DELTAS
_NAME: TypeAdapter[str] = TypeAdapter(FileName)


class ProbationBounds(Part):
    """What a network may do otherwise than its predecessor before an edge takes it back; shares are of slices, 0..1."""

    max_disagreement: Probability = 0.25
    """How many slices may get another label."""
    max_contradiction: Probability = Field(default_factory=lambda bounds: bounds["max_disagreement"])
    """Of the slices to which the predecessor gives a finding, or one label, how many may get another one, whatever
    the slices of a site are. A release from before there was this bound meant the first one by both."""
    max_shift: Probability = 0.25
    """How many slices may get a label that the predecessor did not give them; for each label."""
    max_abstention: Probability = 0.25
    """How many slices may become uncertain that were not."""
    max_latency_ratio: float = Field(default=2.0, gt=1)
    """How many times as long as the predecessor's median a reading may take."""
    max_slow_share: Probability = 0.2
    """How many readings may take longer than that."""
    alpha: float = Field(default=0.01, gt=0, lt=1)
    """The chance to take a network back that keeps to all of this, however long it is watched."""


class TrialBounds(Part):
    """What a network may take on any edge, beside its golden slices."""

    latency_ms: float = Field(default=5_000, gt=0)
    """Median time to read a slice."""
    memory_mb: float = Field(default=2_000, gt=0)
    """Highest resident memory of a process that does nothing else."""


class Delta(Part):
    """A file of the release from which, with the base's network, this one's can be made: the result has its hash."""

    file: FileName
    base_sha256: Sha256


class Manifest(Part):
    """What is signed: the network, how to read its answer, how to test it, and what it was measured to do."""

    type: Literal["sliceloop.manifest"] = "sliceloop.manifest"
    major: int = MANIFEST_MAJOR
    name: ShortText
    version: int = Field(ge=1)
    returns_from: tuple[int, ...] = Field(default=(), max_length=100)
    """A signed rollback: an edge whose newest version is one of these goes back to this one, and bans those."""
    architecture: ShortText
    created_at: AwareDatetime
    expires_at: AwareDatetime
    labels: tuple[Label, ...]
    preprocessing_version: int = Field(ge=1)
    temperature: float = Field(gt=0)
    uncertain_below: Probability
    golden_tolerance: float = Field(gt=0)
    trial: TrialBounds = TrialBounds()
    probation: ProbationBounds = ProbationBounds()
    files: dict[FileName, ManifestFile] = Field(max_length=MAX_FILES)
    deltas: tuple[Delta, ...] = Field(default=(), max_length=MAX_DELTAS)
    training_data_sha256: Sha256 | None = None
    split_sha256: Sha256 | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    notice: ShortText = "research use only; not for diagnosis"

    @model_validator(mode="after")
    def _deltas_are_files(self) -> Self:
        if not {delta.file for delta in self.deltas} <= set(self.files) - {MODEL_FILE, GOLDEN_FILE}:
            raise ValueError("a delta is none of the release's further files")
        return self

    @model_validator(mode="after")
    def _returns_from_later_versions(self) -> Self:
        if min(self.returns_from, default=self.version + 1) <= self.version:
            raise ValueError(f"version {self.version} returns from no later one, and would ban itself or its elders")
        return self

    @property
    def model_ref(self) -> ModelRef:
        """Name the network as readings name it."""
        return ModelRef(name=self.name, version=self.version, sha256=self.files[MODEL_FILE].sha256)

    @property
    def fetched(self) -> tuple[str, ...]:
        """Name the files that every edge needs, in order; deltas are another way to one of them."""
        return (MODEL_FILE, GOLDEN_FILE)


@dataclass(frozen=True)
class EdgeFacts:
    """What a release has to fit: the edge's preprocessing, its network, and the newest version that it has seen."""

    preprocessing_version: int
    running: ModelRef | None = None
    highest_version: int = 0
    architectures: frozenset[str] = frozenset()
    """Those that the edge is fit for; none named means any."""
    max_bytes: int = 2**63


def trusted_manifest(envelope: bytes, trusted: TrustedKeys, facts: EdgeFacts, *, now: datetime) -> Manifest:
    """Return the manifest of a release that this edge may fetch, or raise the `TrustError` that says why not.

    The numbers are those of the TUF specification's client workflow, 1.0.33, section 5; a manifest is what TUF calls
    targets metadata. What its timestamp and snapshot roles are for, the assignment does (see `assignment`).
    """
    payload = verify(envelope, trusted)  # 5.6.3: the threshold of the role's keys, before anything is parsed
    manifest = _parse(payload)
    _check_version(manifest, facts)  # 5.6.4: never backwards
    if manifest.expires_at <= now:  # 5.6.5: an expired one is not taken; one that runs here goes on
        when = manifest.expires_at.isoformat()
        raise ExpiredManifestError(f"version {manifest.version} expired at {when}", manifest.version)
    _check_fit(manifest, facts)  # Uptane 5.4.4.2, 10 and 11: it is for this kind of edge
    _check_fetchable(manifest, facts)
    return manifest


def stored_manifest(envelope: bytes, trusted: TrustedKeys, preprocessing_version: int) -> Manifest:
    """Return the manifest of a release that is on this edge already, or raise the `TrustError` that says why not.

    No look at version or expiry here: a box without a network must not stop reading.
    """
    manifest = _parse(verify(envelope, trusted))
    _check_fit(manifest, EdgeFacts(preprocessing_version))
    return manifest


def shown_manifest(envelope: bytes) -> Manifest:
    """Return what an envelope holds WITHOUT any trust: for the eye, and for what verified it before."""
    return _parse(payload_of(envelope))


def manifest_digest(envelope: bytes) -> str:
    """Return the SHA-256 of what is signed, by which an assignment names it: signatures may be added later."""
    return sha256_of(payload_of(envelope))


def _check_version(manifest: Manifest, facts: EdgeFacts) -> None:
    running = facts.running.version if facts.running else 0
    if manifest.version == running and manifest.model_ref != facts.running:
        raise VersionTakenTwiceError(
            f"version {manifest.version} runs here with another network: a version is given once", manifest.version
        )
    newest = max(running, facts.highest_version)
    # a way back begins at what runs: a later version that was seen and is not run has failed here
    left = running if running > manifest.version else newest
    if manifest.version < newest and left not in manifest.returns_from and manifest.version != running:
        raise OldVersionError(
            f"version {manifest.version} is older than {left}, which this edge has seen, and no signed rollback from "
            "there",
            manifest.version,
        )


def _check_fit(manifest: Manifest, facts: EdgeFacts) -> None:
    version = manifest.version
    if manifest.preprocessing_version != facts.preprocessing_version:
        raise OtherPreprocessingError(
            f"version {version} needs preprocessing {manifest.preprocessing_version}, "
            f"this edge has {facts.preprocessing_version}; update the edge's software",
            version,
        )
    if facts.architectures and manifest.architecture not in facts.architectures:
        known = ", ".join(sorted(facts.architectures))
        raise OtherArchitectureError(f"version {version} is a {manifest.architecture}, this edge runs {known}", version)
    size = sum(file.size for file in manifest.files.values())
    if size > facts.max_bytes:
        raise OversizeError(f"version {version} has {size:,} bytes, this edge takes {facts.max_bytes:,}", version)


def _check_fetchable(manifest: Manifest, facts: EdgeFacts) -> None:
    bare = [name for name, file in manifest.files.items() if not file.index]
    if bare and manifest.model_ref != facts.running:
        raise UnsupportedManifestError(
            f"version {manifest.version} has no index of the chunks of {bare[0]}: it can run where it is, and not be "
            "fetched; release it anew",
            manifest.version,
        )


def _parse(payload: bytes) -> Manifest:
    _check_supported(payload)
    try:
        manifest = Manifest.model_validate_json(payload)
    except ValidationError as error:
        raise EnvelopeError(f"the signed payload is no manifest ({_first(error)})") from None
    if not {MODEL_FILE, GOLDEN_FILE} <= set(manifest.files):
        raise EnvelopeError(f"the manifest lists {sorted(manifest.files)}, not {MODEL_FILE} and {GOLDEN_FILE}")
    return manifest


def _check_supported(payload: bytes) -> None:
    """Look at a few fields alone: a newer manifest is refused as such, whatever has become of its other fields."""
    stated = supported_fields(payload, "manifest", READABLE_MAJORS)
    labels, files = stated.get("labels"), stated.get("files")
    if isinstance(labels, list) and sorted(map(str, labels)) != sorted(LABELS):
        raise UnsupportedManifestError(f"labels {str(labels)[:120]} are not ours")
    if isinstance(files, dict):
        _check_names_and_sizes(files)


def _check_names_and_sizes(files: dict[str, Any]) -> None:
    """Name the two tricks that a signed manifest could play on a disk, before they drown in a validator's words."""
    for name, file in files.items():
        try:
            _NAME.validate_python(name)
        except ValidationError:
            raise UnsafeNameError(f"file name {name[:80]!r} is not one of [a-z0-9.-]") from None
        size = file.get("size") if isinstance(file, dict) else None
        if isinstance(size, int | float) and size > MAX_MODEL_BYTES:
            raise OversizeError(f"{name} claims {size:,} bytes; at most {MAX_MODEL_BYTES:,} are taken")


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, found['loc']))[:80]}: {found['msg'][:120]}"
