"""What a release, an assignment and a key rotation say when all is well, and the keys that sign them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from securesystemslib.signer import CryptoSigner

from protocol.chunks import describe
from protocol.labels import LABELS
from protocol.manifest import GOLDEN_FILE, MODEL_FILE
from protocol.rotation import KeyRotation, KeySet, sign_rotation
from protocol.signing import ASSIGNMENT_PAYLOAD_TYPE, TrustedKeys, generate_signer, public_key_json, sign

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RELEASER, ASSIGNER, STRANGER = generate_signer(), generate_signer(), generate_signer()
RELEASE_KEYS = TrustedKeys((RELEASER.public_key,))
ASSIGN_KEYS = TrustedKeys((ASSIGNER.public_key,))
URL = "https://store.example/model.onnx?X-Amz-Signature=5ec2e7"
SECRET = "5ec2e7"
"""What of a presigned URL must never be said."""


def trust(*signers: CryptoSigner, threshold: int = 1) -> TrustedKeys:
    """Trust these signers' public keys."""
    return TrustedKeys(tuple(signer.public_key for signer in signers), threshold)


def manifest_fields(**changes: Any) -> dict[str, Any]:
    """Say what a good manifest of version 7 says, with these changes; a value of None leaves the field out."""
    good = {
        "type": "sliceloop.manifest",
        "major": 2,
        "name": "squeezenet",
        "version": 7,
        "architecture": "squeezenet1_1",
        "created_at": NOW.isoformat(),
        "expires_at": (NOW + timedelta(days=30)).isoformat(),
        "labels": [str(label) for label in LABELS],
        "preprocessing_version": 1,
        "temperature": 1.3,
        "uncertain_below": 0.5,
        "golden_tolerance": 0.01,
        "files": {MODEL_FILE: file_fields(b"network"), GOLDEN_FILE: file_fields(b"golden")},
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def file_fields(data: bytes, **changes: Any) -> dict[str, Any]:
    """Say what a manifest says of a file."""
    return {**describe(data).file.model_dump(mode="json"), **changes}


def released(*signers: CryptoSigner, **changes: Any) -> bytes:
    """Sign such a manifest, by the release key unless others are named."""
    return sign(json.dumps(manifest_fields(**changes)).encode(), signers or [RELEASER])


def assignment_fields(**changes: Any) -> dict[str, Any]:
    """Say what a good assignment of ward/edge-1 says, with these changes; a value of None leaves the field out."""
    good = {
        "type": "sliceloop.assignment",
        "major": 1,
        "site": "ward",
        "edge": "edge-1",
        "sequence": 5,
        "version": 7,
        "manifest_sha256": "a" * 64,
        "ring": "canary",
        "issued_at": NOW.isoformat(),
        "expires_at": (NOW + timedelta(days=3)).isoformat(),
        "urls": {MODEL_FILE: URL},
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def assigned(*signers: CryptoSigner, **changes: Any) -> bytes:
    """Sign such an assignment, by the worker's key unless others are named."""
    return sign(json.dumps(assignment_fields(**changes)).encode(), signers or [ASSIGNER], ASSIGNMENT_PAYLOAD_TYPE)


def key_set(release: Sequence[CryptoSigner], assign: CryptoSigner = ASSIGNER, *, threshold: int = 1) -> KeySet:
    """Make the set of keys of an edge's settings."""
    return KeySet(trust(*release, threshold=threshold), trust(assign))


def rotation(version: int, release: Sequence[CryptoSigner], assign: CryptoSigner = ASSIGNER, **changes: Any) -> Any:
    """Say which keys come next."""
    fields = {
        "version": version,
        "created_at": NOW,
        "release_keys": tuple(map(key_fields, release)),
        "release_threshold": 1,
        "assign_keys": (key_fields(assign),),
    }
    return KeyRotation.model_validate({**fields, **changes})


def rotated(
    version: int, old: Sequence[CryptoSigner], new: Sequence[CryptoSigner], assign: CryptoSigner = ASSIGNER, **more: Any
) -> bytes:
    """Sign the rotation from these keys to those."""
    return sign_rotation(rotation(version, new, assign, **more), old, new)


def key_fields(signer: CryptoSigner) -> dict[str, Any]:
    """Say a public key as its file does."""
    fields: dict[str, Any] = json.loads(public_key_json(signer))
    return fields
