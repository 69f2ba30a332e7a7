"""How the trusted keys are exchanged: each set signed by the one before and by itself, from the settings' set on."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, ValidationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from protocol.errors import EnvelopeError, KeyRotationError, MessageTooLargeError
from protocol.messages import Part
from protocol.signed_payload import supported_fields
from protocol.signing import (
    MAX_ENVELOPE_BYTES,
    ROTATION_PAYLOAD_TYPE,
    TrustedKeys,
    load_public_key,
    payload_of,
    sign,
    verify,
)
from protocol.topics import Kind

ROTATION_MAJOR = 1
MAX_KEYS = 16


class KeyRotation(Part):
    """The next set of keys; what TUF calls root metadata.

    It does not expire: an edge that was off for a year follows the chain, and what it then is told has to be fresh.
    """

    type: Literal["sliceloop.key-rotation"] = "sliceloop.key-rotation"
    major: int = ROTATION_MAJOR
    version: int = Field(ge=2)
    created_at: AwareDatetime
    release_keys: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=MAX_KEYS)]
    release_threshold: int = Field(ge=1, le=MAX_KEYS)
    assign_keys: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=MAX_KEYS)]


@dataclass(frozen=True)
class KeySet:
    """Whose signatures count: on releases (and on the next set), and on assignments. Version 1 is the settings'."""

    release: TrustedKeys
    assign: TrustedKeys
    version: int = 1


def rotate(keys: KeySet, envelope: bytes) -> KeySet:
    """Return the set of keys that follows, or raise the `TrustError` that says why it does not (TUF 5.3.4 to 5.3.6)."""
    payload = verify(envelope, keys.release, ROTATION_PAYLOAD_TYPE)  # 5.3.4: by the keys in use
    _stated(payload)
    try:
        rotation = KeyRotation.model_validate_json(payload)
        new = KeySet(_trusted(rotation.release_keys, rotation.release_threshold), _trusted(rotation.assign_keys, 1))
    except ValidationError as error:
        raise EnvelopeError(f"the signed payload is no key rotation ({str(error).splitlines()[0]})") from None
    verify(envelope, new.release, ROTATION_PAYLOAD_TYPE)  # 5.3.4: and by its own, so that they are known to sign
    if rotation.version != keys.version + 1:  # 5.3.5: one after another, none left out
        raise KeyRotationError(f"keys of version {rotation.version} do not follow version {keys.version}")
    both = {key.keyid for key in new.release.keys} & {key.keyid for key in new.assign.keys}
    if both:
        raise KeyRotationError(f"key {min(both)[:12]} is to release and to assign: a worker must not release")
    return KeySet(new.release, new.assign, rotation.version)


def follow(keys: KeySet, envelopes: Iterable[bytes]) -> KeySet:
    """Follow a chain of rotations from a set of keys; those that lead to it, or before it, are passed over."""
    for envelope in envelopes:
        if _version(envelope) > keys.version:
            keys = rotate(keys, envelope)
    return keys


def bundle(envelopes: Sequence[bytes]) -> bytes:
    """Put a chain of rotations into one message; raises `MessageTooLargeError` for one that no edge would read."""
    data = json.dumps({"rotations": [json.loads(envelope) for envelope in envelopes]}).encode()
    if len(data) > MAX_ENVELOPE_BYTES:
        raise MessageTooLargeError(Kind.MODEL_KEYS, len(data), MAX_ENVELOPE_BYTES)
    return data


def unbundle(data: bytes) -> tuple[bytes, ...]:
    """Return the envelopes of such a message; raises `EnvelopeError`."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError(f"{len(data):,} bytes of key rotations exceed the limit of {MAX_ENVELOPE_BYTES:,}")
    try:
        return tuple(json.dumps(envelope).encode() for envelope in json.loads(data)["rotations"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EnvelopeError(f"not a chain of key rotations ({type(error).__name__})") from None


def sign_rotation(rotation: KeyRotation, old: Sequence[CryptoSigner], new: Sequence[CryptoSigner]) -> bytes:
    """Sign a new set of keys by the old and by the new ones."""
    signers = {signer.public_key.keyid: signer for signer in (*old, *new)}
    return sign(rotation.model_dump_json().encode(), list(signers.values()), ROTATION_PAYLOAD_TYPE)


def _trusted(keys: Sequence[dict[str, Any]], threshold: int) -> TrustedKeys:
    loaded: dict[str, SSlibKey] = {}
    for fields in keys:
        key = load_public_key(json.dumps(fields))
        loaded[key.keyid] = key
    if threshold > len(loaded):
        raise KeyRotationError(f"{len(loaded)} keys cannot give {threshold} signatures")
    return TrustedKeys(tuple(loaded.values()), threshold)


def _version(envelope: bytes) -> int:
    """Look at the version without trust: only to pass over what was followed before."""
    version = _stated(payload_of(envelope)).get("version")
    if not isinstance(version, int):
        raise EnvelopeError("a key rotation says no version")
    return version


def _stated(payload: bytes) -> dict[str, Any]:
    return supported_fields(payload, "key rotation", frozenset({ROTATION_MAJOR}))
