"""What a release envelope claims: read without keys, so it is only ever shown as announced, never as verified."""

import base64
import binascii
import json
from dataclasses import dataclass

from protocol.errors import MalformedPayloadError
from protocol.signing import MAX_ENVELOPE_BYTES
from protocol.topics import Kind


@dataclass(frozen=True)
class Announcement:
    """Name and version that an envelope's payload states; nobody checked the signature here."""

    name: str
    version: int


def read_announcement(envelope: bytes) -> Announcement:
    """Read the claim out of a DSSE envelope; raises `MalformedPayloadError` for bytes that make none."""
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise MalformedPayloadError(Kind.MODEL_DESIRED, f"{len(envelope):,} bytes exceed {MAX_ENVELOPE_BYTES:,}")
    claim = _json_object(_payload_of(_json_object(envelope)))
    name, version = claim.get("name"), claim.get("version")
    if not isinstance(name, str) or not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise MalformedPayloadError(Kind.MODEL_DESIRED, "the payload states no name and version")
    return Announcement(name, version)


def _payload_of(envelope: dict[str, object]) -> bytes:
    payload = envelope.get("payload")
    if not isinstance(payload, str):
        raise MalformedPayloadError(Kind.MODEL_DESIRED, "not a DSSE envelope (no payload)")
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedPayloadError(Kind.MODEL_DESIRED, "not a DSSE envelope (payload is not base64)") from None


def _json_object(data: bytes) -> dict[str, object]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedPayloadError(Kind.MODEL_DESIRED, "not JSON") from None
    if not isinstance(fields, dict):
        raise MalformedPayloadError(Kind.MODEL_DESIRED, "not a JSON object")
    return fields
