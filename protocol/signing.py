"""Sign and verify bytes in a DSSE envelope with Ed25519 keys, by securesystemslib."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from protocol.errors import EnvelopeError, MessageTooLargeError, SignatureError
from protocol.topics import Kind

MANIFEST_PAYLOAD_TYPE = "application/vnd.sliceloop.manifest+json"
MAX_ENVELOPE_BYTES = 128 * 1024
"""AWS IoT Core's message limit; a ResNet-18 at 64 KiB a chunk needs about 62 KB."""


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


def sign(payload: bytes, signers: Sequence[CryptoSigner]) -> bytes:
    """Return the DSSE envelope (JSON bytes) over the payload, with one signature a signer.

    Raises `MessageTooLargeError` for one that no edge would read.
    """
    envelope = Envelope(payload, MANIFEST_PAYLOAD_TYPE, {})
    for signer in signers:
        envelope.sign(signer)
    signed = json.dumps(envelope.to_dict(), separators=(",", ":")).encode()
    if len(signed) > MAX_ENVELOPE_BYTES:
        raise MessageTooLargeError(Kind.MODEL_DESIRED, len(signed), MAX_ENVELOPE_BYTES)
    return signed


def verify(envelope: bytes, trusted: TrustedKeys) -> bytes:
    """Return the payload of an envelope that enough trusted keys signed.

    Raises `EnvelopeError` for bytes that are no envelope, `SignatureError` for too few valid signatures.
    """
    parsed = _parse(envelope)
    if parsed.payload_type != MANIFEST_PAYLOAD_TYPE:
        raise EnvelopeError(f"payload type {parsed.payload_type[:80]!r} is not {MANIFEST_PAYLOAD_TYPE}")
    signed_by = {str(key.keyval["public"]) for key in trusted.keys if _is_signed_by(parsed, key)}
    if not 1 <= trusted.threshold <= len(signed_by):
        known = ", ".join(key.keyid[:12] for key in trusted.keys) or "none"
        raise SignatureError(f"signed by {len(signed_by)} of {trusted.threshold} trusted key(s) (trusted: {known})")
    return bytes(parsed.payload)


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
