"""What a release is, and the rules by which an edge trusts it: pure functions from bytes to a verified manifest."""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError, model_validator

from protocol.errors import (
    EnvelopeError,
    ExpiredManifestError,
    HashMismatchError,
    LengthMismatchError,
    OldVersionError,
    UnsupportedManifestError,
)
from protocol.labels import LABELS, Label
from protocol.messages import MAX_CHUNK_BYTES, ModelRef, Part, Probability, Sha256, ShortText
from protocol.plain import plain_fields
from protocol.signing import TrustedKeys, verify

MANIFEST_TYPE = "sliceloop.manifest"
MANIFEST_MAJOR = 1
MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.cbor"
MAX_MODEL_BYTES = 64 * 1024 * 1024
"""What one envelope of 128 KiB can list: 1,024 chunks of 64 KiB, at 67 characters a hash, are 91,478 bytes in base64.

The rest, 39 KB, is for the signatures and for all else that the manifest says. `sign` refuses what does not fit.
"""

FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]


class ManifestFile(Part):
    """One file of a release, cut into chunks of `chunk_bytes` (the last may be shorter)."""

    sha256: Sha256
    size: int = Field(ge=1, le=MAX_MODEL_BYTES)
    chunk_bytes: int = Field(ge=1, le=MAX_CHUNK_BYTES)
    chunks: tuple[Sha256, ...]

    @model_validator(mode="after")
    def _chunks_cover_the_file(self) -> Self:
        if len(self.chunks) != -(-self.size // self.chunk_bytes):
            raise ValueError(f"{len(self.chunks)} chunks of {self.chunk_bytes} bytes do not make {self.size} bytes")
        return self


class Manifest(Part):
    """What is signed: the network, how to read its answer, how to test it, and what it was measured to do."""

    type: Literal["sliceloop.manifest"] = "sliceloop.manifest"
    major: int = MANIFEST_MAJOR
    name: ShortText
    version: int = Field(ge=1)
    architecture: ShortText
    created_at: AwareDatetime
    expires_at: AwareDatetime
    labels: tuple[Label, ...]
    preprocessing_version: int = Field(ge=1)
    temperature: float = Field(gt=0)
    uncertain_below: Probability
    golden_tolerance: float = Field(gt=0)
    files: dict[FileName, ManifestFile]
    training_data_sha256: Sha256 | None = None
    split_sha256: Sha256 | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    notice: ShortText = "research use only; not for diagnosis"

    @property
    def model_ref(self) -> ModelRef:
        """Name the network as readings name it."""
        return ModelRef(name=self.name, version=self.version, sha256=self.files[MODEL_FILE].sha256)


def trusted_manifest(
    envelope: bytes, trusted: TrustedKeys, *, now: datetime, running_version: int, preprocessing_version: int
) -> Manifest:
    """Return the manifest of a release that this edge may fetch, or raise the `TrustError` that says why not.

    The order is that of TUF's client workflow: signatures before parsing, then version, then expiry.
    """
    payload = verify(envelope, trusted)
    manifest = _parse(payload)
    if manifest.version <= running_version:
        raise OldVersionError(
            f"version {manifest.version} is not newer than {running_version}, which runs here", manifest.version
        )
    if manifest.expires_at <= now:
        raise ExpiredManifestError(
            f"version {manifest.version} expired at {manifest.expires_at.isoformat()}", manifest.version
        )
    if manifest.preprocessing_version != preprocessing_version:
        raise UnsupportedManifestError(
            f"version {manifest.version} needs preprocessing {manifest.preprocessing_version}, "
            f"this edge has {preprocessing_version}; update the edge's software",
            manifest.version,
        )
    return manifest


def describe_file(data: bytes, chunk_bytes: int = MAX_CHUNK_BYTES) -> ManifestFile:
    """Describe a file as a manifest lists it."""
    return ManifestFile(
        sha256=sha256_of(data),
        size=len(data),
        chunk_bytes=chunk_bytes,
        chunks=tuple(sha256_of(chunk) for chunk in cut(data, chunk_bytes)),
    )


def cut(data: bytes, chunk_bytes: int) -> Iterator[bytes]:
    """Cut a file into its chunks, in order."""
    for start in range(0, len(data), chunk_bytes):
        yield data[start : start + chunk_bytes]


def check_chunk(sha256: str, data: bytes, limit: int = MAX_CHUNK_BYTES) -> None:
    """Raise `LengthMismatchError` or `HashMismatchError` unless these are the chunk's bytes."""
    if not 0 < len(data) <= limit:
        raise LengthMismatchError(f"a chunk of {len(data):,} bytes; 1 to {limit:,} are allowed")
    if sha256_of(data) != sha256:
        raise HashMismatchError(f"chunk {sha256[:12]} has another hash; it is asked for again")


def check_file(name: str, described: ManifestFile, data: bytes) -> None:
    """Raise `LengthMismatchError` or `HashMismatchError` unless these are the file's bytes."""
    if len(data) != described.size:
        raise LengthMismatchError(f"{name} has {len(data):,} bytes, the manifest says {described.size:,}")
    if sha256_of(data) != described.sha256:
        raise HashMismatchError(f"{name} has another SHA-256 than the manifest says")


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _parse(payload: bytes) -> Manifest:
    _check_supported(payload)
    try:
        manifest = Manifest.model_validate_json(payload)
    except ValidationError as error:
        raise EnvelopeError(f"the signed payload is no manifest ({str(error).splitlines()[0]})") from None
    if not {MODEL_FILE, GOLDEN_FILE} <= set(manifest.files):
        raise EnvelopeError(f"the manifest lists {sorted(manifest.files)}, not {MODEL_FILE} and {GOLDEN_FILE}")
    return manifest


def _check_supported(payload: bytes) -> None:
    """Look at major and labels alone: a newer manifest is refused as such, whatever has become of its other fields."""
    try:
        stated = plain_fields(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise EnvelopeError(f"the signed payload is no manifest ({str(error)[:120]})") from None
    major, labels = stated.get("major", MANIFEST_MAJOR), stated.get("labels")
    if major != MANIFEST_MAJOR:
        raise UnsupportedManifestError(f"manifest major {str(major)[:20]} is unknown here; update the edge's software")
    if isinstance(labels, list) and sorted(map(str, labels)) != sorted(LABELS):
        raise UnsupportedManifestError(f"labels {str(labels)[:120]} are not ours")
