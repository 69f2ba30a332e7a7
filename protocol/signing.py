"""Sign and verify bytes in a DSSE envelope with Ed25519 keys, by securesystemslib; each document has its own type."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from protocol.errors import (
    EnvelopeError,
    MessageTooLargeError,
    TamperedError,
    TooFewSignaturesError,
    WrongKeyError,
)
from protocol.topics import Kind

MANIFEST_PAYLOAD_TYPE = "application/vnd.sliceloop.manifest+json"
ASSIGNMENT_PAYLOAD_TYPE = "application/vnd.sliceloop.assignment+json"
ROTATION_PAYLOAD_TYPE = "application/vnd.sliceloop.key-rotation+json"
MAX_ENVELOPE_BYTES = 128 * 1024
"""AWS IoT Core's message limit; a manifest has some 4 KB, its chunks are listed elsewhere."""


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys whose signatures count, and how many different ones a release needs."""

    keys: tuple[SSlibKey, ...]
    threshold: int = 1


def generate_signer() -> CryptoSigner:
    """Make a new Ed25519 key pair."""
    return CryptoSigner.generate_ed25519()


def public_key_json(signer: CryptoSigner) -> str:
    """Return the public key with its key id, as JSON for the edge's trust folder."""
    return json.dumps({"keyid": signer.public_key.keyid, **signer.public_key.to_dict()}, indent=2) + "\n"


def load_public_key(text: str) -> SSlibKey:
    """Read an Ed25519 key as written by `public_key_json`; raises `EnvelopeError` for anything else.

    The key id must be the one that belongs to the key: otherwise one key could pass for two.
    """
    try:
        fields = json.loads(text)
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(fields["keyval"]["public"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EnvelopeError(f"not a public key as `sliceloop keys new` writes it ({error})") from error
    key: SSlibKey = SSlibKey.from_crypto(public)
    if fields != {"keyid": key.keyid, **key.to_dict()}:
        raise EnvelopeError(f"key id, type or scheme do not belong to the public key {key.keyid[:12]}")
    return key


def sign(payload: bytes, signers: Sequence[CryptoSigner], payload_type: str = MANIFEST_PAYLOAD_TYPE) -> bytes:
    """Return the DSSE envelope (JSON bytes) over the payload, with one signature a signer.

    Raises `MessageTooLargeError` for one that no edge would read.
    """
    return _signed(Envelope(payload, payload_type, {}), signers)


def countersign(envelope: bytes, signers: Sequence[CryptoSigner], payload_type: str = MANIFEST_PAYLOAD_TYPE) -> bytes:
    """Return the envelope with further signatures over the same payload.

    Raises `EnvelopeError`, for an envelope of another type too: nobody signs a set of keys who means a release.
    """
    parsed = _parse(envelope)
    if parsed.payload_type != payload_type:
        raise EnvelopeError(f"payload type {parsed.payload_type[:80]!r} is not {payload_type}")
    return _signed(parsed, signers)


def verify(envelope: bytes, trusted: TrustedKeys, payload_type: str = MANIFEST_PAYLOAD_TYPE) -> bytes:
    """Return the payload of an envelope of this type that enough trusted keys signed.

    Raises `EnvelopeError` for bytes that are no such envelope, `WrongKeyError` when no trusted key has signed,
    `TamperedError` when one has signed other bytes, `TooFewSignaturesError` below the threshold.
    """
    parsed = _parse(envelope)
    if parsed.payload_type != payload_type:
        raise EnvelopeError(f"payload type {parsed.payload_type[:80]!r} is not {payload_type}")
    named = [key for key in trusted.keys if key.keyid in parsed.signatures]
    signed_by = {str(key.keyval["public"]) for key in named if _is_signed_by(parsed, key)}
    known = ", ".join(key.keyid[:12] for key in trusted.keys) or "none"
    if not named:
        raise WrongKeyError(f"signed by no trusted key (trusted: {known}); are the keys here those of who signs this?")
    if not signed_by:
        raise TamperedError(f"the signature of {named[0].keyid[:12]} is not one of these bytes")
    if not 1 <= trusted.threshold <= len(signed_by):
        raise TooFewSignaturesError(f"signed by {len(signed_by)} of {trusted.threshold} trusted keys ({known})")
    return bytes(parsed.payload)


def payload_of(envelope: bytes) -> bytes:
    """Return what an envelope holds, WITHOUT any trust: for those who show or store it; raises `EnvelopeError`."""
    return bytes(_parse(envelope).payload)


def _signed(envelope: Envelope, signers: Sequence[CryptoSigner]) -> bytes:
    for signer in signers:
        envelope.sign(signer)
    signed = json.dumps(envelope.to_dict(), separators=(",", ":")).encode()
    if len(signed) > MAX_ENVELOPE_BYTES:
        raise MessageTooLargeError(Kind.MODEL_DESIRED, len(signed), MAX_ENVELOPE_BYTES)
    return signed


def _is_signed_by(envelope: Envelope, key: SSlibKey) -> bool:
    try:
        envelope.verify([key], 1)
    except (VerificationError, ValueError):
        return False
    return True


def _parse(envelope: bytes) -> Envelope:
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError(f"{len(envelope):,} bytes exceed the limit of {MAX_ENVELOPE_BYTES:,}")
    try:
        parsed = Envelope.from_dict(json.loads(envelope))
    except Exception as error:  # noqa: BLE001  the library raises bare KeyError, TypeError, AttributeError on garbage
        raise EnvelopeError(f"not a DSSE envelope ({type(error).__name__}: {str(error)[:120]})") from None
    if not isinstance(parsed.payload_type, str):
        raise EnvelopeError("not a DSSE envelope (payloadType is no string)")
    return parsed
