"""What is encoded is what is decoded, for every kind of message, with the attributes that CloudEvents 1.0 asks for."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import cbor2
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from message_strategies import MESSAGES, contexts, frame_of, frames, messages, named_values

from protocol.codec import (
    MAX_SEQUENCE,
    Encoded,
    EventContext,
    decode,
    decode_frame,
    encode,
    encode_frame,
    schema_uri,
    stated_sequence,
)
from protocol.errors import MalformedPayloadError, ProtocolError, UnknownSchemaMajorError
from protocol.messages import KIND_OF, MESSAGE_TYPES, Frame, Message, Status
from protocol.topics import Kind

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANY_FRAME = frame_of(b"bytes", "slice-1", "image/png")
CONTEXT = EventContext(id="m-1", source="sliceloop/v1/ward/edge-1", time=NOON, subject="slice-1")
STATUS = {"state": "online", "boot_id": "boot", "at": "2026-03-01T12:00:00Z", "software": "sliceloop 0.1"}
KINDS = sorted(MESSAGE_TYPES)


def our_major(kind: Kind) -> int:
    return MESSAGE_TYPES[kind].schema_major if kind in MESSAGE_TYPES else 1


def properties(kind: Kind, major: object = None) -> list[tuple[str, str]]:
    return [("id", "m-1"), ("dataschema", schema_uri(kind, our_major(kind) if major is None else major))]


def json_status(**changes: object) -> bytes:
    return json.dumps({**STATUS, **changes}).encode()


def again(message: Message, kind: Kind) -> Message:
    encoded = encode(message, CONTEXT)
    return decode(kind, encoded.payload, encoded.user_properties).message


def test_the_strategies_make_every_type_of_message() -> None:
    """No type of message is left out of the properties below."""
    assert set(MESSAGES) == set(MESSAGE_TYPES.values())


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), context=contexts)
def test_every_message_survives_encoding_and_decoding(kind: Kind, data: st.DataObject, context: EventContext) -> None:
    """Every type of message comes back equal, of its own type, with its id and source."""
    message = data.draw(MESSAGES[MESSAGE_TYPES[kind]])
    encoded = encode(message, context)
    event = decode(kind, encoded.payload, encoded.user_properties)
    assert event.message == message
    assert type(event.message) is type(message)
    assert (event.id, event.source) == (context.id, context.source)


@given(frames, contexts)
def test_every_frame_survives_encoding_and_decoding(frame: Frame, context: EventContext) -> None:
    """An original comes back byte for byte, with its slice id, hash, media type and message id."""
    encoded = encode_frame(frame, context)
    event = decode_frame(encoded.payload, encoded.user_properties)
    assert event.frame == frame
    assert event.id == context.id


@given(messages, contexts)
def test_a_message_carries_the_attributes_of_cloudevents(message: Message, context: EventContext) -> None:
    """The required attributes of CloudEvents 1.0 are there, with legal names and values of the legal form."""
    check_cloudevents(encode(message, context), KIND_OF[type(message)], context)


@given(frames, contexts)
def test_a_frame_carries_the_attributes_of_cloudevents(frame: Frame, context: EventContext) -> None:
    """An original is a CloudEvent too, whose own two attributes follow the naming rule for extensions."""
    check_cloudevents(encode_frame(frame, context), Kind.FRAME, context)


def check_cloudevents(encoded: Encoded, kind: Kind, context: EventContext) -> None:
    attributes = dict(encoded.user_properties)
    assert len(attributes) == len(encoded.user_properties), "an attribute appears twice"
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in attributes)
    assert all(isinstance(value, str) for value in attributes.values())
    assert attributes["specversion"] == "1.0"
    assert attributes["id"] == context.id
    assert attributes["source"] == context.source
    assert attributes["type"] == f"sliceloop.{kind.replace('/', '.')}"
    assert attributes["datacontenttype"] == encoded.content_type
    assert re.fullmatch(r"[a-z][a-z0-9+.-]*:[!-~]+", attributes["dataschema"]), "dataschema is an absolute URI"
    assert attributes.get("subject", "") == context.subject
    assert attributes.get("subject") != "", "subject is left out where there is none"
    assert stated_sequence(encoded.user_properties) == (context.sequence or None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", attributes["time"]), "RFC 3339"
    assert datetime.fromisoformat(attributes["time"]) == context.time


@pytest.mark.parametrize(
    "context",
    [
        pytest.param(lambda: EventContext("", CONTEXT.source, NOON), id="empty-id"),
        pytest.param(lambda: EventContext("no spaces please", CONTEXT.source, NOON), id="malformed-id"),
        pytest.param(lambda: EventContext("m-1", "", NOON), id="empty-source"),
        pytest.param(lambda: EventContext("m-1", CONTEXT.source, NOON.replace(tzinfo=None)), id="naive-time"),
        pytest.param(lambda: EventContext("m-1", CONTEXT.source, NOON, sequence=-1), id="negative-number"),
        pytest.param(lambda: EventContext("m-1", CONTEXT.source, NOON, sequence=2**63), id="number-beyond-64-bits"),
    ],
)
def test_attributes_that_break_cloudevents_are_refused_before_publishing(context: Any) -> None:
    """A message that no receiver of ours would take, or whose attributes break CloudEvents, is never sent."""
    message = decode(Kind.STATUS, json_status(), properties(Kind.STATUS)).message
    with pytest.raises(ProtocolError):
        encode(message, context())


@given(st.integers(1, MAX_SEQUENCE), st.integers(1, MAX_SEQUENCE))
def test_numbers_sort_as_text(one: int, other: int) -> None:
    """The attribute `sequence` sorts as text as its numbers do, which CloudEvents asks of it."""
    stated = [
        dict(encode_frame(ANY_FRAME, EventContext("m-1", CONTEXT.source, NOON, sequence=n)).user_properties)["sequence"]
        for n in (one, other)
    ]
    assert (stated[0] < stated[1]) == (one < other)


@pytest.mark.parametrize("stated", ["", "0", "-1", "+1", "1.0", "1e3", "\u0663", " 1", "9" * 19, "1" * 30, "one"])
def test_a_number_that_is_none_is_none(stated: str) -> None:
    """What is no positive number of 64 bits in plain digits is no sequence number, and no fault of the message."""
    assert stated_sequence((("sequence", stated),)) is None


def test_a_message_without_a_number_stays_valid() -> None:
    """A message of an edge that states no number beside the payload is decoded as before."""
    assert stated_sequence(properties(Kind.STATUS)) is None
    assert isinstance(decode(Kind.STATUS, json_status(), properties(Kind.STATUS)).message, Status)


@given(messages, named_values)
def test_fields_of_a_newer_peer_are_kept(message: Message, news: dict[str, Any]) -> None:
    """Unknown fields of the same major survive decoding and encoding, at the top and inside the parts."""
    newer = type(message).model_validate({**news, **message.model_dump()})
    assert again(newer, KIND_OF[type(message)]).model_dump() == newer.model_dump()


def test_a_field_of_a_newer_peer_inside_a_part_is_kept() -> None:
    """A model reference that has learnt a new field keeps it on the way through an older peer."""
    model = {"name": "squeezenet", "version": 3, "sha256": "0" * 64, "quantised": True}
    message = decode(Kind.STATUS, json_status(model=model), properties(Kind.STATUS)).message
    assert again(message, Kind.STATUS).model_dump()["model"]["quantised"] is True


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@given(any_json)
@example("\ud800")
@example(float("nan"))
@example(float("inf"))
@example(nested(300))
@example(10**4000)
def test_an_unknown_json_value_is_kept_or_refused(value: Any) -> None:
    """Whatever a newer peer puts in a new field of JSON, it is kept as it is, or the message is refused."""
    kept_or_refused(Kind.STATUS, json_status(news=value))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(cbor2.CBORTag(28, [cbor2.CBORTag(29, 0)]), id="cycle"),
        pytest.param(cbor2.CBORTag(36, "To: x\n\nhello"), id="mime-message"),
        pytest.param(cbor2.CBORTag(30, [1, 3]), id="fraction"),
        pytest.param(cbor2.CBORTag(4, [2, 15]), id="decimal"),
        pytest.param(cbor2.CBORTag(35, "a+"), id="regular-expression"),
        pytest.param(cbor2.CBORTag(258, ["a"]), id="set"),
        pytest.param(cbor2.CBORTag(999, ["a"]), id="unknown-tag"),
        pytest.param(cbor2.undefined, id="undefined"),
        pytest.param(float("nan"), id="nan"),
        pytest.param(nested(33), id="nested"),
        pytest.param(NOON, id="time"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param({b"bytes": 1}, id="bytes-as-key"),
    ],
)
def test_an_unknown_cbor_value_is_kept_or_refused(value: Any) -> None:
    """Whatever a newer peer puts in a new field of CBOR, it is kept as it is, or the message is refused."""
    kept_or_refused(Kind.SLICE, cbor2.dumps({**slice_fields(), "news": value}))


def kept_or_refused(kind: Kind, payload: bytes) -> None:
    try:
        message = decode(kind, payload, properties(kind)).message
    except MalformedPayloadError:
        return
    assert repr(again(message, kind).model_extra) == repr(message.model_extra)


def slice_fields(**changes: object) -> dict[str, object]:
    model = {"name": "squeezenet", "version": 1, "sha256": "0" * 64}
    reading = {"label": "Normal", "uncertain": False, "probabilities": {"Normal": 1.0}, "latency_ms": 1.0}
    fields = {"slice_id": "s", "boot_id": "b", "sequence": 1, "captured_at": NOON, "source": "replay"}
    hashes = dict.fromkeys(("patient_key", "frame_sha256", "image_sha256"), "0" * 64)
    rest = {"preprocessing_version": 1, "image": b"12345678", "reading": {**reading, "model": model}}
    return {**fields, **hashes, **rest, **changes}


@pytest.mark.parametrize("kind", [*KINDS, Kind.FRAME])
@given(major=st.integers(0, 999_999))
@example(major=1)
@example(major=2)
def test_an_unknown_schema_major_is_refused_by_name(kind: Kind, major: int) -> None:
    """Another major is refused before the payload is looked at, and the error names it and what we know."""
    assume(major != our_major(kind))
    with pytest.raises(UnknownSchemaMajorError, match=f":{major}'") as refused:
        if kind is Kind.FRAME:
            decode_frame(b"whatever", properties(kind, major))
        else:
            decode(kind, b"whatever", properties(kind, major))
    assert (refused.value.kind, refused.value.known_major) == (kind, our_major(kind))
    assert refused.value.dataschema.endswith(f":{major}")


@pytest.mark.parametrize("stated", ["", "1.0", "-1", "one", "1 ", "1\n", "\u0661"])
def test_a_major_that_is_no_plain_number_is_refused(stated: str) -> None:
    """Only ASCII digits state a major; anything else is malformed."""
    with pytest.raises(MalformedPayloadError):
        decode(Kind.STATUS, json_status(), properties(Kind.STATUS, stated))


@pytest.mark.parametrize("stated", [("specversion", "0.3"), ("type", "sliceloop.receipt")])
def test_attributes_of_another_event_are_refused(stated: tuple[str, str]) -> None:
    """Another CloudEvents version or type than the topic's is refused by name."""
    with pytest.raises(MalformedPayloadError, match=stated[0]):
        decode(Kind.STATUS, json_status(), [*properties(Kind.STATUS), stated])


def test_an_original_with_another_hash_than_stated_is_refused() -> None:
    """Bytes that are not those which the edge hashed are no original."""
    frame = Frame(slice_id="s", sha256="0" * 64, media_type="image/png", data=b"pixels")
    with pytest.raises(MalformedPayloadError, match="SHA-256"):
        decode_frame(frame.data, encode_frame(frame, CONTEXT).user_properties)


def test_the_schema_of_another_kind_is_refused() -> None:
    """A receipt's schema on the status topic is malformed, even where the payload would fit."""
    with pytest.raises(MalformedPayloadError, match="dataschema"):
        decode(Kind.STATUS, json_status(), properties(Kind.RECEIPT))


@pytest.mark.parametrize("kind", sorted(set(Kind) - set(MESSAGE_TYPES)))
def test_a_kind_that_carries_raw_bytes_is_no_message(kind: Kind) -> None:
    """Frames, envelopes and chunks are refused by the decoder of messages."""
    with pytest.raises(MalformedPayloadError, match="raw bytes"):
        decode(kind, b"{}", properties(kind))


@pytest.mark.parametrize("identity", [None, "", "with space", "x" * 65, "m-1\n"])
def test_a_message_without_a_usable_id_is_refused(identity: str | None) -> None:
    """Without an id, storing twice would not be storing once, so the message is refused."""
    attributes = properties(Kind.STATUS)[1:] + ([("id", identity)] if identity is not None else [])
    with pytest.raises(MalformedPayloadError, match="id"):
        decode(Kind.STATUS, json_status(), attributes)


def test_bytes_after_the_message_are_refused() -> None:
    """What stands behind the message in JSON or CBOR is refused, not silently dropped."""
    with pytest.raises(MalformedPayloadError):
        decode(Kind.STATUS, json_status() + b"{}", properties(Kind.STATUS))
    with pytest.raises(MalformedPayloadError):
        decode(Kind.SLICE, cbor2.dumps(slice_fields()) + b"\x00", properties(Kind.SLICE))


@pytest.mark.parametrize(
    "sequence",
    [
        pytest.param(10**30, id="beyond-64-bits"),
        pytest.param(10**5000, id="beyond-what-can-be-printed"),
        pytest.param(cbor2.CBORTag(4, [100_000, 1]), id="nine-bytes-that-become-41-kilobytes"),
        pytest.param(cbor2.CBORTag(5, [300_000, 1]), id="bigfloat"),
    ],
)
def test_a_number_that_no_ledger_can_hold_is_refused(sequence: object) -> None:
    """A sequence number beyond 64 bits is refused at the border: it could be neither printed nor stored."""
    with pytest.raises(MalformedPayloadError, match=r"sequence|CBOR"):
        decode(Kind.SLICE, cbor2.dumps(slice_fields(sequence=sequence)), properties(Kind.SLICE))
