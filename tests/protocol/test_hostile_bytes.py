"""Nothing that arrives makes the protocol raise anything but its own errors."""

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from message_strategies import contexts, digests, frames, message_ids, messages, plain_values, topic_ids
from pydantic import ValidationError
from signed_documents import assignment_fields, manifest_fields, rotation

from protocol.assignment import Seen, trusted_assignment
from protocol.chunks import ManifestFile, read_index, sha256_of
from protocol.codec import EventContext, decode, decode_frame, encode, encode_frame, schema_uri
from protocol.errors import EnvelopeError, ProtocolError, TrustError, UnknownTopicError
from protocol.manifest import EdgeFacts, shown_manifest, stored_manifest, trusted_manifest
from protocol.messages import KIND_OF, MESSAGE_TYPES, Frame, Message
from protocol.rotation import KeySet, follow, rotate, unbundle
from protocol.signing import (
    ASSIGNMENT_PAYLOAD_TYPE,
    MANIFEST_PAYLOAD_TYPE,
    ROTATION_PAYLOAD_TYPE,
    TrustedKeys,
    generate_signer,
    load_public_key,
    public_key_json,
    sign,
    verify,
)
from protocol.topics import ROOT, Kind, parse

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SIGNER = generate_signer()
TRUSTED = TrustedKeys((SIGNER.public_key,))
KEYS = KeySet(TRUSTED, TRUSTED)
TYPES = (MANIFEST_PAYLOAD_TYPE, ASSIGNMENT_PAYLOAD_TYPE, ROTATION_PAYLOAD_TYPE)
kinds = st.sampled_from(Kind)

texts = st.text(st.characters(codec=None), max_size=12)
"""With lone surrogates, which JSON can spell and UTF-8 cannot."""
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
cbor_values: st.SearchStrategy[Any] = st.recursive(
    json_values | st.binary(max_size=20) | st.datetimes(timezones=st.just(UTC)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.binary(max_size=3), inner, max_size=4)
        | st.builds(cbor2.CBORTag, st.integers(0, 300) | st.integers(0, 2**64 - 1), inner)
    ),
    max_leaves=12,
)
attribute_names = st.sampled_from(
    [
        "id",
        "source",
        "type",
        "time",
        "specversion",
        "subject",
        "dataschema",
        "datacontenttype",
        "sliceid",
        "framesha256",
    ]
)
user_properties = st.lists(st.tuples(attribute_names | texts, texts | topic_ids | digests), max_size=8)


def expected(kind: Kind) -> list[tuple[str, str]]:
    major = MESSAGE_TYPES[kind].schema_major if kind in MESSAGE_TYPES else 1
    return [("id", "m-1"), ("dataschema", schema_uri(kind, major))]


def only_own_errors(kind: Kind, payload: bytes, attributes: list[tuple[str, str]]) -> None:
    with suppress(ProtocolError):
        decode(kind, payload, attributes)
    with suppress(ProtocolError):
        decode_frame(payload, attributes)


@given(kinds, st.binary(max_size=300), user_properties)
def test_any_bytes_with_any_properties(kind: Kind, payload: bytes, attributes: list[tuple[str, str]]) -> None:
    """Arbitrary bytes with arbitrary user properties are refused by an error of ours."""
    only_own_errors(kind, payload, attributes)


@settings(max_examples=150)
@given(kinds, st.binary(max_size=300))
@example(Kind.STATUS, b"[" * 60_000)
@example(Kind.STATUS, b'{"a":' * 10_000)
@example(Kind.STATUS, b"9" * 60_000)
@example(Kind.STATUS, "{}".encode("utf-16"))
@example(Kind.STATUS, b"\xff\xfe\x00\x00{")
@example(Kind.SLICE, b"\x81" * 100_000)
@example(Kind.SLICE, b"\xd8\x1c" * 60_000)
@example(Kind.SLICE, b"\xbb\x7f" + b"\xff" * 7)
@example(Kind.SLICE, b"\x9b\x00\x00\x10" + b"\x00" * 5)
@example(Kind.SLICE, b"\x5b\x7f" + b"\xff" * 7)
@example(Kind.SLICE, b"\xc2\x5a\x00\x01\x00\x00" + b"\xff" * 65536)
@example(Kind.SLICE, b"\xd8\x1e\x82\x01\x00")
@example(Kind.SLICE, b"\xd8\x1c\xa1\x61a\xd8\x1d\x00")
def test_any_bytes_that_claim_to_be_a_message(kind: Kind, payload: bytes) -> None:
    """Arbitrary bytes under the right schema, nested or announced without end, are refused by an error of ours."""
    only_own_errors(kind, payload, expected(kind))


@settings(max_examples=150)
@given(st.sampled_from(sorted(MESSAGE_TYPES)), json_values)
def test_any_json_value(kind: Kind, value: Any) -> None:
    """Any JSON value, with NaN, lone surrogates and huge numbers, is a message or is refused by an error of ours."""
    only_own_errors(kind, json.dumps(value).encode(), expected(kind))


@settings(max_examples=200)
@given(cbor_values)
def test_any_cbor_value(value: Any) -> None:
    """Any CBOR value, with any tag, is a message or is refused by an error of ours."""
    only_own_errors(Kind.SLICE, cbor_of(value), expected(Kind.SLICE))


def cbor_of(value: Any) -> bytes:
    """Encode the value, or reject the example that CBOR cannot spell."""
    try:
        return cbor2.dumps(value)
    except (cbor2.CBOREncodeError, UnicodeEncodeError):
        return reject()


@settings(max_examples=150)
@given(messages, contexts, st.data())
def test_a_message_with_one_field_of_a_wrong_type(message: Message, context: EventContext, data: st.DataObject) -> None:
    """A message with a field left out or replaced by any value is a message or is refused by an error of ours."""
    kind = KIND_OF[type(message)]
    encoded = encode(message, context)
    fields = cbor2.loads(encoded.payload) if message.encoding == "cbor" else json.loads(encoded.payload)
    field = data.draw(st.sampled_from(sorted(fields)))
    if data.draw(st.booleans()):
        del fields[field]
    elif message.encoding == "cbor":
        fields[field] = data.draw(plain_values | st.binary(max_size=9))
    else:
        fields[field] = data.draw(json_values)
    payload = cbor2.dumps(fields) if message.encoding == "cbor" else json.dumps(fields).encode()
    only_own_errors(kind, payload, list(encoded.user_properties))


@settings(max_examples=150)
@given(messages, contexts, st.data())
def test_a_message_that_was_damaged(message: Message, context: EventContext, data: st.DataObject) -> None:
    """A valid message with bytes changed, cut off or doubled is a message or is refused by an error of ours."""
    encoded = encode(message, context)
    only_own_errors(KIND_OF[type(message)], data.draw(damaged(encoded.payload)), list(encoded.user_properties))


@given(frames, contexts, user_properties)
def test_a_frame_with_foreign_properties(frame: Frame, context: EventContext, more: list[tuple[str, str]]) -> None:
    """An original whose user properties are overwritten is a frame or is refused by an error of ours."""
    encoded = encode_frame(frame, context)
    only_own_errors(Kind.FRAME, encoded.payload, [*encoded.user_properties, *more])


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    places = st.integers(0, len(whole) - 1)
    changed = st.tuples(places, st.binary(min_size=1, max_size=4)).map(
        lambda change: whole[: change[0]] + change[1] + whole[change[0] + len(change[1]) :]
    )
    return changed | places.map(lambda end: whole[:end]) | places.map(lambda start: whole + whole[start:])


@pytest.mark.parametrize("payload", [b'{"state":"online","state":"lost"}', b"\xa2\x61a\x01\x61a\x02"])
def test_a_key_that_appears_twice(payload: bytes) -> None:
    """A map with a doubled key raises nothing but an error of ours."""
    for kind in MESSAGE_TYPES:
        only_own_errors(kind, payload, expected(kind))


@settings(max_examples=300)
@given(
    texts | st.lists(texts | topic_ids | kinds | st.just(""), max_size=7).map(lambda levels: "/".join([ROOT, *levels]))
)
@example("")
@example("/" * 70_000)
@example("sliceloop/v1")
@example("sliceloop/v1/ward/edge/model/chunk/" + "0" * 65)
def test_any_topic(topic: str) -> None:
    """Any string is a topic of ours or raises `UnknownTopicError`."""
    with suppress(UnknownTopicError):
        parse(topic)


def only_trust_errors(envelope: bytes) -> None:
    with suppress(TrustError):
        verify(envelope, TRUSTED)
    with suppress(TrustError):
        trusted_manifest(envelope, TRUSTED, EdgeFacts(1), now=NOW)
    with suppress(TrustError):
        stored_manifest(envelope, TRUSTED, 1)
    with suppress(TrustError):
        shown_manifest(envelope)
    with suppress(TrustError):
        trusted_assignment(envelope, TRUSTED, site="ward", edge="edge-1", seen=Seen(), now=NOW)
    with suppress(TrustError):
        rotate(KEYS, envelope)
    with suppress(TrustError):
        follow(KEYS, [envelope])
    with suppress(TrustError):
        follow(KEYS, unbundle(envelope))


@given(st.binary(max_size=200) | json_values.map(json.dumps).map(str.encode))
@example(b"[" * 100_000)
@example(b'{"payload":' * 10_000)
@example(b"9" * 10_000)
@example(b"\xff" * 200_000)
def test_any_bytes_as_an_envelope(envelope: bytes) -> None:
    """Arbitrary bytes and arbitrary JSON are refused as an envelope by a `TrustError`."""
    only_trust_errors(envelope)


encoded_bytes = st.binary(max_size=64).map(base64.b64encode).map(bytes.decode)
signatures = st.fixed_dictionaries(
    {"keyid": st.just(SIGNER.public_key.keyid) | texts | json_values, "sig": encoded_bytes | json_values}
)


@settings(max_examples=150)
@given(
    st.fixed_dictionaries(
        {
            "payload": encoded_bytes | json_values,
            "payloadType": st.sampled_from(TYPES) | json_values,
            "signatures": st.lists(signatures | json_values, max_size=3) | json_values,
        }
    )
)
def test_any_envelope_of_the_right_shape(envelope: dict[str, Any]) -> None:
    """An envelope whose three members hold anything at all is refused by a `TrustError`."""
    only_trust_errors(json.dumps(envelope).encode())


@settings(max_examples=40)
@given(st.binary(max_size=200) | json_values.map(json.dumps).map(str.encode))
@example(b"[" * 50_000)
@example(b'{"labels":' * 5_000)
@example(b'{"version":' + b"9" * 20_000 + b"}")
def test_anything_that_was_signed(payload: bytes) -> None:
    """Even what a trusted key signed is refused by a `TrustError` unless it is a document of its type."""
    for payload_type in TYPES:
        only_trust_errors(sign(payload, [SIGNER], payload_type))


DOCUMENTS = {
    MANIFEST_PAYLOAD_TYPE: manifest_fields(
        returns_from=[8], deltas=[], metrics={"accuracy": 0.9}, trial={}, probation={}
    ),
    ASSIGNMENT_PAYLOAD_TYPE: assignment_fields(),
    ROTATION_PAYLOAD_TYPE: rotation(2, [SIGNER]).model_dump(mode="json"),
}


@settings(max_examples=300)
@given(st.sampled_from(TYPES), st.data())
def test_a_signed_document_with_one_field_of_a_wrong_type(payload_type: str, data: st.DataObject) -> None:
    """A signed document with a field left out or replaced by any value is one, or is refused by a `TrustError`."""
    fields = dict(DOCUMENTS[payload_type])
    field = data.draw(st.sampled_from(sorted(fields)))
    if data.draw(st.booleans()):
        del fields[field]
    else:
        fields[field] = data.draw(json_values)
    only_trust_errors(sign(json.dumps(fields).encode(), [SIGNER], payload_type))


@given(json_values, json_values)
def test_a_signed_manifest_with_any_files(name: Any, file: Any) -> None:
    """Whatever a signed manifest says of its files, it can be fetched, or is refused by a `TrustError`."""
    files = {**manifest_fields()["files"], str(name): file}
    only_trust_errors(sign(json.dumps(manifest_fields(files=files)).encode(), [SIGNER]))
    only_trust_errors(sign(json.dumps(manifest_fields(files=name, deltas=file)).encode(), [SIGNER]))


@given(st.lists(st.binary(max_size=80), max_size=3), st.integers(1, 10**6), st.integers(0, 300))
def test_any_bytes_as_an_index(index: list[bytes], size: int, count: int) -> None:
    """Even when their hashes were signed, any bytes list the chunks of the file or raise a `TrustError`."""
    hashes = tuple(map(sha256_of, index))
    with suppress(TrustError, ValidationError):
        file = ManifestFile(sha256="f" * 64, size=size, chunk_count=count, index=hashes)
        assert sum(chunk.size for chunk in read_index(file, index)) == size


KEY_FIELDS = json.loads(public_key_json(SIGNER))


@settings(max_examples=150)
@given(
    texts
    | json_values.map(json.dumps)
    | st.tuples(st.sampled_from(sorted(KEY_FIELDS)), json_values).map(
        lambda new: json.dumps({**KEY_FIELDS, new[0]: new[1]})
    )
    | json_values.map(lambda public: json.dumps({**KEY_FIELDS, "keyval": {"public": public}}))
)
@example("[" * 100_000)
@example('{"keyid":' * 50_000)
@example("9" * 10_000)
def test_any_text_as_a_public_key(text: str) -> None:
    """Any text is a public key or raises `EnvelopeError`; what loads can be used to verify."""
    with suppress(EnvelopeError):
        key = load_public_key(text)
        with suppress(TrustError):
            verify(sign(b"payload", [SIGNER]), TrustedKeys((key,)))


@pytest.mark.parametrize("spoil", ["zz".__add__, lambda public: public[2:], lambda _: ""])
def test_a_public_key_that_is_no_key_is_refused_when_it_is_loaded(spoil: Callable[[str], str]) -> None:
    """A damaged key file is found where it is read, not at the first release."""
    spoilt = {**KEY_FIELDS, "keyval": {"public": spoil(KEY_FIELDS["keyval"]["public"])}}
    with pytest.raises(EnvelopeError):
        load_public_key(json.dumps(spoilt))


@given(message_ids)
def test_nothing_is_refused_for_its_attributes_order(identity: str) -> None:
    """The order of user properties says nothing: MQTT 5 keeps it, bridges may not."""
    payload = b'{"state":"online","boot_id":"b","at":"2026-03-01T12:00:00Z","software":"x"}'
    attributes = [("id", identity), *expected(Kind.STATUS)[1:]]
    assert decode(Kind.STATUS, payload, attributes) == decode(Kind.STATUS, payload, attributes[::-1])
