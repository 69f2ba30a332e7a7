"""Bytes become messages here, once: CBOR or JSON payload, CloudEvents 1.0 attributes as MQTT 5 user properties."""

import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import cbor2
from pydantic import TypeAdapter, ValidationError

from protocol.errors import MalformedPayloadError, MessageTooLargeError, UnknownSchemaMajorError
from protocol.messages import KIND_OF, MESSAGE_TYPES, Frame, Message, MessageId
from protocol.plain import MAX_NESTING, plain_fields
from protocol.topics import Kind

UserProperties = tuple[tuple[str, str], ...]

SPEC_VERSION = "1.0"
CONTENT_TYPES = {"json": "application/json", "cbor": "application/cbor"}
SCHEMA_AUTHORITY = "tag:sliceloop,2026"
"""Begins the absolute URI of every schema, by RFC 4151: nothing is to be fetched there."""
MAX_SEQUENCE = 2**63 - 1
SEQUENCE_DIGITS = len(str(MAX_SEQUENCE))
_message_id = TypeAdapter(MessageId)


@dataclass(frozen=True)
class EventContext:
    """The CloudEvents attributes that the sender chooses: a unique id, who says it, when, and about what.

    `sequence` is the edge's number of the slice that the message belongs to, 0 for none. It travels as the extension
    attribute `sequence`, so that a message that cannot be decoded still says which number it is.
    """

    id: str
    source: str
    time: datetime
    subject: str = ""
    sequence: int = 0


@dataclass(frozen=True)
class Encoded:
    """A message as MQTT carries it."""

    payload: bytes
    content_type: str
    user_properties: UserProperties


@dataclass(frozen=True)
class Event:
    """A received message with the id that makes storing it twice storing it once."""

    id: str
    source: str
    message: Message


@dataclass(frozen=True)
class FrameEvent:
    """A received original with its message id."""

    id: str
    frame: Frame


def encode(message: Message, context: EventContext) -> Encoded:
    """Encode a message; raises `MessageTooLargeError`, or `MalformedPayloadError` for a context that no peer takes."""
    kind = KIND_OF[type(message)]
    if message.encoding == "cbor":
        payload = cbor2.dumps(message.model_dump(mode="python"))
    else:
        payload = message.model_dump_json().encode()
    _check_size(kind, len(payload), message.max_bytes)
    content_type = CONTENT_TYPES[message.encoding]
    return Encoded(payload, content_type, _attributes(kind, message.schema_major, context, content_type))


def decode(kind: Kind, payload: bytes, user_properties: Sequence[tuple[str, str]]) -> Event:
    """Decode what arrived on a topic of this kind; raises a `ProtocolError`, and nothing else, for anything foreign."""
    message_type = MESSAGE_TYPES.get(kind)
    if message_type is None:
        raise MalformedPayloadError(kind, "carries raw bytes, not a message")
    _check_size(kind, len(payload), message_type.max_bytes)
    attributes = dict(user_properties)
    _check_attributes(kind, attributes, message_type.schema_major)
    fields = _load_cbor(kind, payload) if message_type.encoding == "cbor" else _load_json(kind, payload)
    try:
        message = message_type.model_validate(fields)
    except ValidationError as error:
        raise MalformedPayloadError(kind, _first_fault(error)) from None
    return Event(_checked_id(kind, attributes.get("id", "")), attributes.get("source", ""), message)


def encode_frame(frame: Frame, context: EventContext) -> Encoded:
    """Encode an original: its bytes are the payload, slice id and SHA-256 are user properties; raises as `encode`."""
    _check_size(Kind.FRAME, len(frame.data), frame.max_bytes)
    attributes = _attributes(Kind.FRAME, 1, context, frame.media_type)
    return Encoded(
        frame.data, frame.media_type, (*attributes, ("sliceid", frame.slice_id), ("framesha256", frame.sha256))
    )


def decode_frame(payload: bytes, user_properties: Sequence[tuple[str, str]]) -> FrameEvent:
    """Decode an original whose bytes have the stated SHA-256; raises a `ProtocolError` for anything foreign."""
    _check_size(Kind.FRAME, len(payload), Frame.max_bytes)
    attributes = dict(user_properties)
    _check_attributes(Kind.FRAME, attributes, 1)
    try:
        frame = Frame(
            slice_id=attributes.get("sliceid", ""),
            sha256=attributes.get("framesha256", ""),
            media_type=attributes.get("datacontenttype", ""),
            data=payload,
        )
    except ValidationError as error:
        raise MalformedPayloadError(Kind.FRAME, _first_fault(error)) from None
    if hashlib.sha256(payload).hexdigest() != frame.sha256:
        raise MalformedPayloadError(Kind.FRAME, "the bytes have another SHA-256 than stated")
    return FrameEvent(_checked_id(Kind.FRAME, attributes.get("id", "")), frame)


def stated_id(user_properties: Sequence[tuple[str, str]]) -> str | None:
    """Return the id that a message states; None where it states none that may stand in a receipt."""
    try:
        return _message_id.validate_python(dict(user_properties).get("id", ""))
    except ValidationError:
        return None


def stated_sequence(user_properties: Sequence[tuple[str, str]]) -> int | None:
    """Return the number that a message states beside its payload; None where it states none, or nonsense."""
    stated = dict(user_properties).get("sequence", "")
    if not re.fullmatch(rf"[0-9]{{1,{SEQUENCE_DIGITS}}}", stated):
        return None
    return int(stated) if 1 <= int(stated) <= MAX_SEQUENCE else None


def schema_uri(kind: Kind, major: int) -> str:
    """Name the schema of a kind, as the CloudEvents attribute `dataschema` does."""
    return f"{SCHEMA_AUTHORITY}:{kind}:{major}"


def _attributes(kind: Kind, major: int, context: EventContext, content_type: str) -> UserProperties:
    if not context.source or context.time.utcoffset() is None:
        raise MalformedPayloadError(kind, "not sent: the CloudEvents attributes need a source and an aware time")
    if not 0 <= context.sequence <= MAX_SEQUENCE:
        raise MalformedPayloadError(kind, f"not sent: {context.sequence} is no sequence number")
    attributes = {
        "specversion": SPEC_VERSION,
        "id": _checked_id(kind, context.id),
        "source": context.source,
        "type": _type_name(kind),
        "time": context.time.isoformat(),
        "datacontenttype": content_type,
        "dataschema": schema_uri(kind, major),
    }
    if context.subject:
        attributes["subject"] = context.subject
    if context.sequence:
        # CloudEvents wants it to sort as text
        attributes["sequence"] = f"{context.sequence:0{SEQUENCE_DIGITS}}"
    return tuple(attributes.items())


def _type_name(kind: Kind) -> str:
    return f"sliceloop.{kind.replace('/', '.')}"


def _check_attributes(kind: Kind, attributes: dict[str, str], known_major: int) -> None:
    for name, ours in (("specversion", SPEC_VERSION), ("type", _type_name(kind))):
        if attributes.get(name, ours) != ours:
            raise MalformedPayloadError(kind, f"{name} {attributes[name][:80]!r} is not {ours!r}")
    dataschema = attributes.get("dataschema", "")
    stated = re.fullmatch(rf"{re.escape(SCHEMA_AUTHORITY)}:{kind}:([0-9]{{1,6}})", dataschema)
    if not stated:
        raise MalformedPayloadError(kind, f"dataschema {dataschema[:80]!r} is not {SCHEMA_AUTHORITY}:{kind}:MAJOR")
    if int(stated.group(1)) != known_major:
        raise UnknownSchemaMajorError(kind, dataschema, known_major)


def _checked_id(kind: Kind, identity: str) -> str:
    if stated_id((("id", identity),)) is None:
        raise MalformedPayloadError(kind, "the CloudEvents attribute 'id' is missing or malformed")
    return identity


def _load_json(kind: Kind, payload: bytes) -> dict[str, Any]:
    try:
        return plain_fields(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise MalformedPayloadError(kind, f"not JSON of ours ({str(error)[:120]})") from None


def _load_cbor(kind: Kind, payload: bytes) -> dict[str, Any]:
    try:
        return plain_fields(_one_cbor_item(payload))
    except Exception as error:  # noqa: BLE001  the decoder raises more than it documents
        raise MalformedPayloadError(kind, f"not CBOR of ours ({str(error)[:120]})") from None


def _one_cbor_item(payload: bytes) -> object:
    stream = io.BytesIO(payload)
    item = cbor2.load(
        stream,
        tag_hook=_refuse_tag,
        semantic_decoders=_OnlyTimes(),
        max_depth=MAX_NESTING,
        strict_hashable_types=True,
        allow_indefinite=False,
    )
    if stream.read(1):
        raise ValueError("more bytes than one message")
    return item


class _OnlyTimes(dict[int, Callable[[Any, bool], Any]]):
    """Leaves the tags 0 and 1 (times) to cbor2, and refuses all others before it builds anything from them.

    Nine bytes of tag 5 (a bigfloat) would otherwise keep it busy for seconds.
    """

    def __missing__(self, tag: int) -> Callable[[Any, bool], Any]:
        if tag in (0, 1):
            raise KeyError(tag)
        return _refuse_tag


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("only times may be tagged")


def _check_size(kind: Kind, size: int, limit: int) -> None:
    if size > limit:
        raise MessageTooLargeError(kind, size, limit)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"[:200]
