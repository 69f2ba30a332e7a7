"""A payload is returned from its envelope only when enough trusted keys signed exactly these bytes as a manifest."""

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from protocol.errors import (
    EnvelopeError,
    MessageTooLargeError,
    SignatureError,
    TamperedError,
    TooFewSignaturesError,
    TrustError,
    WrongKeyError,
)
from protocol.signing import (
    MANIFEST_PAYLOAD_TYPE,
    MAX_ENVELOPE_BYTES,
    TrustedKeys,
    countersign,
    generate_signer,
    load_public_key,
    payload_of,
    public_key_json,
    sign,
    verify,
)

ALICE, BOB, CAROL, MALLORY = (generate_signer() for _ in range(4))
PAYLOAD = b'{"type":"sliceloop.manifest"}'


def trust(*signers: CryptoSigner, threshold: int = 1) -> TrustedKeys:
    return TrustedKeys(tuple(signer.public_key for signer in signers), threshold)


def changed(envelope: bytes, **members: Any) -> bytes:
    return json.dumps({**json.loads(envelope), **members}).encode()


def flipped(text: str, bit: int) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    return base64.b64encode(raw).decode()


@given(st.binary(max_size=500))
@example(b"")
def test_what_was_signed_comes_back(payload: bytes) -> None:
    """Any bytes survive signing and verifying."""
    assert verify(sign(payload, [ALICE]), trust(ALICE)) == payload


def test_a_public_key_survives_its_file() -> None:
    """A key that was written and read again verifies, under the same key id."""
    key = load_public_key(public_key_json(ALICE))
    assert key.keyid == ALICE.public_key.keyid
    assert verify(sign(PAYLOAD, [ALICE]), TrustedKeys((key,))) == PAYLOAD


def test_a_public_key_file_holds_no_secret() -> None:
    """The file for the edge's trust folder names key id, type and public value, and nothing else."""
    fields = json.loads(public_key_json(ALICE))
    assert set(fields) == {"keyid", "keytype", "scheme", "keyval"}
    assert set(fields["keyval"]) == {"public"}


@given(st.integers(0, 8 * len(PAYLOAD) - 1))
def test_a_flipped_bit_in_the_payload_is_refused(bit: int) -> None:
    """No bit of the payload can change under the signature."""
    envelope = sign(PAYLOAD, [ALICE])
    with pytest.raises(TamperedError):
        verify(changed(envelope, payload=flipped(json.loads(envelope)["payload"], bit)), trust(ALICE))


@given(st.integers(0, 8 * 64 - 1))
def test_a_flipped_bit_in_the_signature_is_refused(bit: int) -> None:
    """No bit of the 64-byte signature can change."""
    envelope = sign(PAYLOAD, [ALICE])
    (signature,) = json.loads(envelope)["signatures"]
    signature["sig"] = flipped(signature["sig"], bit)
    with pytest.raises(TamperedError):
        verify(changed(envelope, signatures=[signature]), trust(ALICE))


@settings(max_examples=200)
@given(st.data())
def test_a_changed_byte_anywhere_never_changes_the_payload(data: st.DataObject) -> None:
    """Whatever byte of an envelope changes, it is refused or still gives exactly the signed payload."""
    envelope = bytearray(sign(PAYLOAD, [ALICE]))
    place = data.draw(st.integers(0, len(envelope) - 1))
    envelope[place] = data.draw(st.integers(0, 255))
    with suppress(TrustError):
        assert verify(bytes(envelope), trust(ALICE)) == PAYLOAD


@given(st.integers(0, 400))
def test_a_truncated_envelope_is_refused(end: int) -> None:
    """An envelope that was cut off is no envelope."""
    envelope = sign(PAYLOAD, [ALICE])
    with pytest.raises(EnvelopeError):
        verify(envelope[: min(end, len(envelope) - 1)], trust(ALICE))


def test_an_untrusted_key_is_refused() -> None:
    """A good signature by a key that is not trusted counts for nothing, and the error says who is trusted."""
    with pytest.raises(WrongKeyError, match=ALICE.public_key.keyid[:12]):
        verify(sign(PAYLOAD, [MALLORY]), trust(ALICE))


def test_an_untrusted_key_under_a_trusted_id_is_refused() -> None:
    """Claiming a trusted key id does not make a signature trusted."""
    envelope = sign(PAYLOAD, [MALLORY])
    (signature,) = json.loads(envelope)["signatures"]
    claimed = {**signature, "keyid": ALICE.public_key.keyid}
    with pytest.raises(TamperedError):
        verify(changed(envelope, signatures=[claimed]), trust(ALICE))


def test_an_unsigned_envelope_is_refused() -> None:
    """Without signatures there is no release."""
    with pytest.raises(WrongKeyError):
        verify(sign(PAYLOAD, []), trust(ALICE))


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_below_one_never_trusts(threshold: int) -> None:
    """A mistaken threshold does not open the door, neither for signed nor for unsigned envelopes."""
    for signers, error in (([], WrongKeyError), ([ALICE], TooFewSignaturesError)):
        with pytest.raises(error):
            verify(sign(PAYLOAD, signers), trust(ALICE, threshold=threshold))


def test_an_edge_without_keys_trusts_nobody() -> None:
    """An empty trust folder refuses every release and says that it is empty."""
    with pytest.raises(WrongKeyError, match="none"):
        verify(sign(PAYLOAD, [ALICE]), TrustedKeys(()))


@pytest.mark.parametrize("signers", [[ALICE, BOB], [CAROL, ALICE], [ALICE, BOB, CAROL], [MALLORY, BOB, CAROL]])
def test_two_of_three_keys_are_enough(signers: Sequence[CryptoSigner]) -> None:
    """With a threshold of 2, any two of the three trusted keys release, whoever else signs too."""
    assert verify(sign(PAYLOAD, signers), trust(ALICE, BOB, CAROL, threshold=2)) == PAYLOAD


@pytest.mark.parametrize(
    ("signers", "error"),
    [
        ([], WrongKeyError),
        ([MALLORY], WrongKeyError),
        ([ALICE], TooFewSignaturesError),
        ([ALICE, MALLORY], TooFewSignaturesError),
    ],
)
def test_one_of_three_keys_is_too_few(signers: Sequence[CryptoSigner], error: type[SignatureError]) -> None:
    """With a threshold of 2, one trusted key is too few, whoever else signs; none is a wrong key."""
    with pytest.raises(error):
        verify(sign(PAYLOAD, signers), trust(ALICE, BOB, CAROL, threshold=2))


def test_a_good_signature_beside_a_damaged_one_is_too_few() -> None:
    """A trusted signature that is not one of these bytes counts for nothing, and does not spoil the good one."""
    envelope = sign(PAYLOAD, [ALICE, BOB])
    good, bad = json.loads(envelope)["signatures"]
    spoilt = changed(envelope, signatures=[good, {**bad, "sig": flipped(bad["sig"], 3)}])
    assert verify(spoilt, trust(ALICE, BOB)) == PAYLOAD
    with pytest.raises(TooFewSignaturesError, match="1 of 2"):
        verify(spoilt, trust(ALICE, BOB, threshold=2))


def test_a_damaged_signature_beside_two_good_ones_does_no_harm() -> None:
    """Two good signatures release even where the third is garbage of any length."""
    envelope = sign(PAYLOAD, [ALICE, BOB, CAROL])
    first, *good = json.loads(envelope)["signatures"]
    for garbage in ("", "AAAA", "A" * 88):
        spoilt = changed(envelope, signatures=[{**first, "sig": garbage}, *good])
        assert verify(spoilt, trust(ALICE, BOB, CAROL, threshold=2)) == PAYLOAD


def test_the_same_signature_twice_does_not_count_twice() -> None:
    """Repeating a signature in the envelope does not reach a threshold of 2."""
    envelope = sign(PAYLOAD, [ALICE])
    twice = changed(envelope, signatures=json.loads(envelope)["signatures"] * 2)
    with pytest.raises(EnvelopeError):
        verify(twice, trust(ALICE, BOB, threshold=2))


def test_the_same_key_twice_in_the_trust_folder_does_not_count_twice() -> None:
    """Trusting one key twice does not let it reach a threshold of 2 alone."""
    with pytest.raises(TooFewSignaturesError):
        verify(sign(PAYLOAD, [ALICE, ALICE]), trust(ALICE, ALICE, threshold=2))


def test_one_key_under_two_ids_does_not_count_twice() -> None:
    """A key that lies in the trust folder under two ids is one key: refused on loading, or counted once."""
    fields = {**json.loads(public_key_json(ALICE)), "keyid": "alias"}
    envelope = sign(PAYLOAD, [ALICE])
    (signature,) = json.loads(envelope)["signatures"]
    aliased = changed(envelope, signatures=[signature, {**signature, "keyid": "alias"}])
    with pytest.raises(EnvelopeError):
        verify(aliased, TrustedKeys((ALICE.public_key, load_public_key(json.dumps(fields))), threshold=2))


def test_a_payload_signed_as_another_type_is_refused() -> None:
    """A signature over another payload type cannot be passed off as one over a manifest."""
    foreign = Envelope(PAYLOAD, "application/vnd.in-toto+json", {})
    foreign.sign(ALICE)
    envelope = json.dumps(foreign.to_dict()).encode()
    with pytest.raises(EnvelopeError, match="payload type"):
        verify(envelope, trust(ALICE))
    with pytest.raises(TamperedError):
        verify(changed(envelope, payloadType=MANIFEST_PAYLOAD_TYPE), trust(ALICE))


@pytest.mark.parametrize("payload_type", ["", MANIFEST_PAYLOAD_TYPE + " ", MANIFEST_PAYLOAD_TYPE.upper(), None, 1, []])
def test_a_manifest_relabelled_as_another_type_is_refused(payload_type: object) -> None:
    """Only the exact payload type is read."""
    with pytest.raises(EnvelopeError):
        verify(changed(sign(PAYLOAD, [ALICE]), payloadType=payload_type), trust(ALICE))


@pytest.mark.parametrize("member", ["payload", "payloadType", "signatures"])
def test_an_envelope_without_a_member_is_refused(member: str) -> None:
    """Payload, payload type and signatures must all be there."""
    fields = json.loads(sign(PAYLOAD, [ALICE]))
    del fields[member]
    with pytest.raises(EnvelopeError):
        verify(json.dumps(fields).encode(), trust(ALICE))


def test_signatures_are_gathered_one_after_the_other() -> None:
    """Who adds a signature changes neither payload nor other signatures; the same one again changes nothing."""
    first = sign(PAYLOAD, [ALICE])
    both = countersign(first, [BOB])
    assert verify(both, trust(ALICE, BOB, threshold=2)) == PAYLOAD
    assert payload_of(both) == payload_of(first) == PAYLOAD
    assert countersign(first, [ALICE]) == first
    with pytest.raises(TooFewSignaturesError):
        verify(countersign(first, [ALICE]), trust(ALICE, BOB, threshold=2))


@pytest.mark.parametrize("garbage", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 60_000])
def test_nothing_is_added_to_what_is_no_envelope(garbage: bytes) -> None:
    """Neither a signature nor a look without trust can be had of garbage."""
    with pytest.raises(EnvelopeError):
        countersign(garbage, [ALICE])
    with pytest.raises(EnvelopeError):
        payload_of(garbage)


def test_an_envelope_that_no_edge_would_read_is_not_signed() -> None:
    """A payload whose envelope would be too large is found by who signs it, and by who adds a signature."""
    with pytest.raises(MessageTooLargeError):
        sign(bytes(MAX_ENVELOPE_BYTES), [ALICE])
    full = sign(bytes(MAX_ENVELOPE_BYTES * 3 // 4 - 300), [ALICE])
    with pytest.raises(MessageTooLargeError):
        countersign(full, [BOB, CAROL])
