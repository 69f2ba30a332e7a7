"""Keys are exchanged by the keys in use and by the new ones, one set after the other, and by nobody else."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from signed_documents import ASSIGNER, NOW, STRANGER, assigned, key_fields, key_set, released, rotated, rotation, trust

from protocol.assignment import Seen, trusted_assignment
from protocol.errors import (
    EnvelopeError,
    KeyRotationError,
    MessageTooLargeError,
    TamperedError,
    TooFewSignaturesError,
    TrustError,
    UnsupportedManifestError,
    WrongKeyError,
)
from protocol.manifest import EdgeFacts, trusted_manifest
from protocol.rotation import MAX_KEYS, KeySet, bundle, follow, rotate, sign_rotation, unbundle
from protocol.signing import MAX_ENVELOPE_BYTES, ROTATION_PAYLOAD_TYPE, countersign, generate_signer, sign

ALICE, BOB, CAROL, DAVE = (generate_signer() for _ in range(4))
NEW_ASSIGNER = generate_signer()
SETTINGS = key_set([ALICE])


def refused(error: type[TrustError], keys: KeySet, envelope: bytes) -> TrustError:
    """Demand this very error, alone and in a chain."""
    with pytest.raises(error) as caught:
        rotate(keys, envelope)
    assert caught.type is error
    return caught.value


def chain() -> list[bytes]:
    """Hand the keys on from Alice to Bob to Carol to Dave."""
    people = [ALICE, BOB, CAROL, DAVE]
    return [rotated(at + 2, [people[at]], [people[at + 1]]) for at in range(3)]


def signed_fields(*signers: Any, **changes: Any) -> bytes:
    """Sign what says something else than a rotation may."""
    fields = {**rotation(2, [BOB]).model_dump(mode="json"), **changes}
    payload = json.dumps({name: value for name, value in fields.items() if value is not None})
    return sign(payload.encode(), signers or [ALICE, BOB], ROTATION_PAYLOAD_TYPE)


def test_the_next_keys_follow_the_ones_in_use() -> None:
    """A rotation by old and new keys leads to the new set, under its own version."""
    keys = rotate(SETTINGS, rotated(2, [ALICE], [BOB], NEW_ASSIGNER))
    assert keys == KeySet(trust(BOB), trust(NEW_ASSIGNER), 2)


def test_a_chain_is_followed_from_any_of_its_sets() -> None:
    """An edge that was off for years follows every link; one that has some passes over these."""
    assert follow(SETTINGS, chain()) == KeySet(trust(DAVE), trust(ASSIGNER), 4)
    for known in range(4):
        assert follow(follow(SETTINGS, chain()[:known]), chain()).version == 4


def test_a_chain_survives_its_message() -> None:
    """A chain in one message leads where its links lead."""
    assert follow(SETTINGS, unbundle(bundle(chain()))) == follow(SETTINGS, chain())
    assert unbundle(bundle([])) == ()


def test_a_chain_with_a_link_left_out_is_refused() -> None:
    """Nobody skips a set of keys, not even who has the keys on both sides of the gap (TUF 5.3.5)."""
    first, second, third = chain()
    with pytest.raises(WrongKeyError):
        follow(SETTINGS, [second, third])
    with pytest.raises(WrongKeyError):
        follow(SETTINGS, [first, third])
    refused(KeyRotationError, SETTINGS, rotated(3, [ALICE], [BOB]))
    refused(KeyRotationError, SETTINGS, rotated(2**62, [ALICE], [BOB]))


def test_a_rotation_is_not_followed_twice_or_backwards() -> None:
    """A set of keys that was left is not returned to: the same version again is none that follows."""
    keys = rotate(SETTINGS, rotated(2, [ALICE], [ALICE, BOB]))
    refused(KeyRotationError, keys, rotated(2, [ALICE], [ALICE]))
    assert follow(keys, [rotated(2, [ALICE], [STRANGER])]) == keys


# Who signs.


def test_a_rotation_by_the_old_keys_alone_is_refused() -> None:
    """Keys that have not signed themselves may be lost ones: the fleet would trust keys that nobody has."""
    refused(WrongKeyError, SETTINGS, sign_rotation(rotation(2, [BOB]), [ALICE], []))


def test_a_rotation_by_the_new_keys_alone_is_refused() -> None:
    """Nobody makes himself trusted."""
    refused(WrongKeyError, SETTINGS, sign_rotation(rotation(2, [STRANGER]), [], [STRANGER]))


def test_the_key_that_assigns_cannot_rotate() -> None:
    """The worker's key exchanges no keys: neither the release's nor its own."""
    refused(WrongKeyError, SETTINGS, rotated(2, [ASSIGNER], [BOB]))


def test_a_rotation_that_was_tampered_with_is_refused() -> None:
    """A key that was slipped into a signed rotation makes it another one."""
    envelope = json.loads(rotated(2, [ALICE], [BOB]))
    forged = {**envelope, "payload": json.loads(signed_fields(release_keys=[key_fields(STRANGER)]))["payload"]}
    refused(TamperedError, SETTINGS, json.dumps(forged).encode())


def test_another_document_is_no_rotation() -> None:
    """A release or an assignment by a release key exchanges no keys."""
    refused(EnvelopeError, SETTINGS, released(ALICE))
    refused(EnvelopeError, SETTINGS, assigned(ALICE))


@pytest.mark.parametrize("few", ["old", "new"])
def test_both_thresholds_bind(few: str) -> None:
    """As many old keys as they need, and as many new ones as these will need, must have signed."""
    settings = key_set([ALICE, BOB], threshold=2)
    told = rotation(2, [CAROL, DAVE], release_threshold=2)
    old, new = ([ALICE], [CAROL, DAVE]) if few == "old" else ([ALICE, BOB], [CAROL])
    refused(TooFewSignaturesError, settings, sign_rotation(told, old, new))
    assert rotate(settings, sign_rotation(told, [ALICE, BOB], [CAROL, DAVE])).release.threshold == 2


def test_signatures_may_be_gathered() -> None:
    """Those who keep the keys need not meet: each adds a signature to the same rotation."""
    envelope = sign_rotation(rotation(2, [BOB]), [ALICE], [])
    assert rotate(SETTINGS, countersign(envelope, [BOB])).version == 2


def test_a_key_that_stays_signs_once_for_both_sets() -> None:
    """A raised threshold counts the key that stays, and each new one."""
    raised = rotation(2, [ALICE, BOB], release_threshold=2)
    keys = rotate(SETTINGS, sign_rotation(raised, [ALICE], [ALICE, BOB]))
    with pytest.raises(TooFewSignaturesError):
        trusted_manifest(released(ALICE), keys.release, EdgeFacts(1), now=NOW)
    assert trusted_manifest(released(ALICE, BOB), keys.release, EdgeFacts(1), now=NOW).version == 7
    refused(TooFewSignaturesError, keys, rotated(3, [ALICE], [CAROL]))


# What the old keys are worth after.


def test_a_key_that_was_rotated_away_signs_no_release() -> None:
    """After the exchange the stolen key is worth nothing: no release, no further rotation."""
    keys = rotate(SETTINGS, rotated(2, [ALICE], [BOB]))
    with pytest.raises(WrongKeyError):
        trusted_manifest(released(ALICE), keys.release, EdgeFacts(1), now=NOW)
    assert trusted_manifest(released(BOB), keys.release, EdgeFacts(1), now=NOW).version == 7
    refused(WrongKeyError, keys, rotated(3, [ALICE], [STRANGER]))


def test_a_workers_key_that_was_rotated_away_assigns_nothing() -> None:
    """After the exchange of the worker's key its old one assigns no release."""
    keys = rotate(SETTINGS, rotated(2, [ALICE], [ALICE], NEW_ASSIGNER))
    place = {"site": "ward", "edge": "edge-1", "seen": Seen(), "now": NOW}
    with pytest.raises(WrongKeyError):
        trusted_assignment(assigned(ASSIGNER), keys.assign, **place)
    assert trusted_assignment(assigned(NEW_ASSIGNER), keys.assign, **place).version == 7


# What a set is made of.


def test_a_worker_never_gets_a_release_key() -> None:
    """A key with both roles would let the worker release what it assigns: no set has one."""
    error = refused(KeyRotationError, SETTINGS, rotated(2, [ALICE], [BOB, CAROL], BOB))
    assert BOB.public_key.keyid[:12] in str(error)


def test_a_threshold_that_no_keys_can_reach_is_refused() -> None:
    """More signatures than there are different keys would shut the fleet out of all releases for good."""
    for keys in ([BOB], [BOB, BOB]):
        refused(KeyRotationError, SETTINGS, rotated(2, [ALICE], keys, release_threshold=2))


def forged_key(**changes: Any) -> dict[str, Any]:
    return {**key_fields(BOB), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "sliceloop.manifest"},
        {"version": 1},
        {"version": None},
        {"version": 2**63},
        {"created_at": None},
        {"created_at": "2026-03-01T00:00:00"},
        {"release_keys": []},
        {"release_keys": [{}]},
        {"release_keys": ["key"]},
        {"release_keys": [forged_key(keyid="0" * 64)]},
        {"release_keys": [forged_key(keyval={"public": "zz"})]},
        {"release_keys": [forged_key(keytype="rsa")]},
        {"release_keys": [forged_key(keyval={"public": float("inf")})]},
        {"release_keys": [key_fields(BOB)] * (MAX_KEYS + 1)},
        {"assign_keys": []},
        {"assign_keys": None},
        {"release_threshold": 0},
        {"release_threshold": -1},
        {"release_threshold": MAX_KEYS + 1},
        {"release_threshold": None},
    ],
)
def test_a_rotation_with_a_senseless_value_is_refused(changes: dict[str, Any]) -> None:
    """No keys, keys under other ids, a threshold of none: what no set of keys can mean is no rotation."""
    refused(EnvelopeError, SETTINGS, signed_fields(**changes))


@pytest.mark.parametrize("major", [0, 2, 10**12, "1", True, [], {}])
@pytest.mark.parametrize("changes", [{}, {"release_keys": None, "roles": {"release": []}}])
def test_an_unknown_major_is_refused_by_name(major: Any, changes: dict[str, Any]) -> None:
    """A rotation of another major is refused as such, however much its fields have changed."""
    assert "update" in str(refused(UnsupportedManifestError, SETTINGS, signed_fields(major=major, **changes)))


# Garbage, and no end of it.


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b'{"version":null}',
        b'{"version":[]}',
        b'{"version":Infinity}',
        b'{"version":NaN}',
        b'{"version":1e400}',
        b'{"version":' + b"9" * 5000 + b"}",
        b'{"version":"two"}',
        b"[" * 60_000,
        b'{"version":' * 8_000,
    ],
)
@pytest.mark.parametrize("signer", [ALICE, STRANGER])
def test_garbage_in_a_chain_is_refused(payload: bytes, signer: Any) -> None:
    """Whatever an envelope on the topic of keys holds, signed or not, it raises an `EnvelopeError` and no more."""
    with pytest.raises(EnvelopeError):
        follow(SETTINGS, [sign(payload, [signer], ROTATION_PAYLOAD_TYPE)])


@given(st.binary(max_size=200))
@example(b"[" * 60_000)
@example(b'{"version":3,"release_keys":' + b"[" * 60_000)
def test_any_signed_bytes_as_a_rotation(payload: bytes) -> None:
    """Even what a release key signed raises nothing but a `TrustError`."""
    envelope = sign(payload, [ALICE], ROTATION_PAYLOAD_TYPE)
    with pytest.raises(EnvelopeError):
        rotate(SETTINGS, envelope)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.binary(max_size=100)
    | (anything | st.fixed_dictionaries({"rotations": anything})).map(json.dumps).map(str.encode)
)
@example(b"[" * 100_000)
@example(b'{"rotations":' * 9_000)
@example(b'{"rotations":[' + b"[" * 900 + b"]" * 900 + b"]}")
@example(b'{"rotations":[' + b"9" * 5_000 + b"]}")
@example(b'{"rotations":[1e400]}')
@example(b'{"rotations":"text"}')
@example(b'{"rotations":[' + b"{}," * 40_000 + b"{}]}")
@example(b'{"rotations":["\\ud800"]}')
@example(b"\xff\xfe")
def test_any_bytes_as_a_chain(data: bytes) -> None:
    """Whatever comes on the topic of keys, it changes no key and raises nothing but an `EnvelopeError`."""
    with suppress(EnvelopeError):
        assert follow(SETTINGS, unbundle(data)) == SETTINGS


def test_a_chain_without_end_is_refused() -> None:
    """More than one message may have is refused by its size, before anything of it is parsed."""
    with pytest.raises(EnvelopeError, match="exceed"):
        unbundle(b"[" * (MAX_ENVELOPE_BYTES + 1))


def test_a_chain_that_no_edge_would_read_is_not_sent() -> None:
    """A chain that has grown too long is found by who publishes it, not by a fleet that has become deaf to new keys."""
    links = chain() * 40
    with pytest.raises(MessageTooLargeError):
        bundle(links)


@pytest.mark.parametrize("spoil", [lambda links: [*links[:1], b"garbage", *links[1:]], lambda links: [b"{}", *links]])
def test_a_chain_with_garbage_between_is_refused(spoil: Callable[[list[bytes]], list[bytes]]) -> None:
    """A link that is none is refused by name, and nothing after it is followed."""
    with pytest.raises(EnvelopeError):
        follow(SETTINGS, spoil(chain()))


def test_a_fork_is_not_followed() -> None:
    """Who follows one of two second sets, both signed, is not led away by the other's successors."""
    keys = rotate(SETTINGS, rotated(2, [ALICE], [BOB]))
    with pytest.raises(WrongKeyError):
        follow(keys, [rotated(2, [ALICE], [CAROL]), rotated(3, [CAROL], [STRANGER])])
