"""An edge follows one fresh assignment that is its own, by the worker's key, and the very release that it names."""

import json
import traceback
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from signed_documents import (
    ASSIGN_KEYS,
    ASSIGNER,
    NOW,
    RELEASE_KEYS,
    RELEASER,
    SECRET,
    STRANGER,
    URL,
    assigned,
    assignment_fields,
    manifest_fields,
    released,
    rotated,
    trust,
)

from protocol.assignment import (
    MAX_URLS,
    Assignment,
    Seen,
    check_assigned,
    check_fresh,
    seen_of,
    trusted_assignment,
)
from protocol.errors import (
    ConflictingAssignmentError,
    EnvelopeError,
    ForeignAssignmentError,
    FrozenError,
    ReplayedAssignmentError,
    TamperedError,
    TrustError,
    UnassignedReleaseError,
    UnsupportedManifestError,
    WrongKeyError,
)
from protocol.manifest import EdgeFacts, manifest_digest, trusted_manifest
from protocol.signing import (
    ASSIGNMENT_PAYLOAD_TYPE,
    MANIFEST_PAYLOAD_TYPE,
    ROTATION_PAYLOAD_TYPE,
    TrustedKeys,
    countersign,
    payload_of,
    sign,
    verify,
)


def trusted(
    envelope: bytes, seen: Seen | None = None, *, keys: TrustedKeys = ASSIGN_KEYS, late: timedelta = timedelta(0)
) -> Assignment:
    return trusted_assignment(envelope, keys, site="ward", edge="edge-1", seen=seen or Seen(), now=NOW + late)


def refused(error: type[TrustError], envelope: bytes, *args: Any, **more: Any) -> TrustError:
    """Demand this very error, which says no presigned URL."""
    with pytest.raises(error) as caught:
        trusted(envelope, *args, **more)
    assert caught.type is error
    for said in (str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)):
        assert SECRET not in said
    return caught.value


def test_a_good_assignment_is_followed() -> None:
    """A fresh assignment of this edge by the worker's key comes back with all that it says."""
    assignment = trusted(assigned())
    assert (assignment.version, assignment.sequence, assignment.ring) == (7, 5, "canary")
    assert assignment.urls == {"model.onnx": URL}


def test_an_assignment_may_come_again() -> None:
    """A retained assignment is heard on every connection, and stays the one that it was, whoever signs it besides."""
    envelope = assigned()
    seen = seen_of(envelope, trusted(envelope))
    assert trusted(envelope, seen) == trusted(envelope)
    both = countersign(envelope, [STRANGER])
    assert seen_of(both, trusted(both, seen)) == seen


# Who signs, and as what.


def test_an_assignment_by_a_stranger_is_refused() -> None:
    """A perfect assignment by an untrusted key, or by none, is refused."""
    refused(WrongKeyError, assigned(STRANGER))
    refused(WrongKeyError, sign(payload_of(assigned()), [], ASSIGNMENT_PAYLOAD_TYPE))


def test_an_assignment_that_was_tampered_with_is_refused() -> None:
    """Another version, edge or expiry under the worker's signature is refused."""
    for changes in ({"version": 6}, {"edge": "edge-2"}, {"expires_at": "2099-01-01T00:00:00Z"}, {"sequence": 6}):
        forged = {**json.loads(assigned()), "payload": json.loads(assigned(**changes))["payload"]}
        refused(TamperedError, json.dumps(forged).encode())


def test_the_keys_that_release_cannot_assign() -> None:
    """The offline keys have a role of their own: what they sign as an assignment is refused."""
    refused(WrongKeyError, assigned(RELEASER))


def test_a_release_is_no_assignment() -> None:
    """A manifest or a rotation is not taken for an assignment, not even where the worker's key has signed it."""
    refused(EnvelopeError, released(ASSIGNER))
    refused(EnvelopeError, rotated(2, [ASSIGNER], [ASSIGNER]))
    refused(EnvelopeError, sign(json.dumps(manifest_fields(major=1)).encode(), [ASSIGNER], ASSIGNMENT_PAYLOAD_TYPE))


TYPES = (MANIFEST_PAYLOAD_TYPE, ASSIGNMENT_PAYLOAD_TYPE, ROTATION_PAYLOAD_TYPE)


@pytest.mark.parametrize("wanted", TYPES)
@pytest.mark.parametrize("given_as", TYPES)
def test_a_signature_counts_for_one_type_of_document(wanted: str, given_as: str) -> None:
    """One key that had all three roles could still not have one of its documents passed off as another."""
    envelope, keys = sign(b"{}", [STRANGER], given_as), trust(STRANGER)
    if wanted == given_as:
        assert verify(envelope, keys, wanted) == b"{}"
        return
    with pytest.raises(EnvelopeError, match="payload type"):
        verify(envelope, keys, wanted)
    with pytest.raises(TamperedError):
        verify(json.dumps({**json.loads(envelope), "payloadType": wanted}).encode(), keys, wanted)


# Whose, and when.


@pytest.mark.parametrize(
    "other", [{"edge": "edge-2"}, {"site": "other"}, {"site": "edge-1", "edge": "ward"}, {"edge": "edge-11"}]
)
def test_the_assignment_of_another_edge_is_refused(other: dict[str, str]) -> None:
    """An edge follows no assignment of another one, whatever topic it came on."""
    refused(ForeignAssignmentError, assigned(**other))


@given(st.integers(1, 2**62), st.integers(0, 2**62))
def test_the_number_of_an_assignment_only_grows(sequence: int, heard: int) -> None:
    """An assignment older than one that was heard is a replay; a newer one is followed."""
    envelope, seen = assigned(sequence=sequence), Seen(heard, "f" * 64)
    if sequence < heard:
        assert refused(ReplayedAssignmentError, envelope, seen).version == 7
    elif sequence == heard:
        refused(ConflictingAssignmentError, envelope, seen)
    else:
        assert trusted(envelope, seen).sequence == sequence


def test_a_twin_of_the_same_number_is_refused() -> None:
    """Two assignments of one number that say different things are named as such, in either order."""
    one, other = assigned(version=7), assigned(version=8)
    for first, second in ((one, other), (other, one)):
        refused(ConflictingAssignmentError, second, seen_of(first, trusted(first)))


def test_a_newer_assignment_may_name_an_older_version() -> None:
    """The worker withdraws by naming an older version; whether the edge may go back, the release says."""
    first = assigned(version=9)
    assert trusted(assigned(version=7, sequence=6), seen_of(first, trusted(first))).version == 7


@pytest.mark.parametrize("late", [timedelta(days=3), timedelta(days=3, microseconds=1), timedelta(days=4000)])
def test_an_assignment_that_is_no_news_is_frozen(late: timedelta) -> None:
    """From its expiry on an assignment is named as a freeze; just before, it is followed."""
    assert trusted(assigned(), late=timedelta(days=3) - timedelta(microseconds=1))
    assert refused(FrozenError, assigned(), late=late).version == 7
    with pytest.raises(FrozenError):
        check_fresh(trusted(assigned()), NOW + late)


def test_a_replay_is_named_a_replay_even_when_it_expired() -> None:
    """What is old and expired was kept by somebody: the replay is what is reported."""
    refused(ReplayedAssignmentError, assigned(), Seen(6, "f" * 64), late=timedelta(days=9))


# Which release.


def test_the_release_that_is_assigned_is_known_by_its_digest() -> None:
    """The very manifest passes, and further signatures on it change nothing."""
    release = released()
    assignment = trusted(assigned(manifest_sha256=manifest_digest(release)))
    check_assigned(release, assignment)
    check_assigned(countersign(release, [STRANGER]), assignment)


@pytest.mark.parametrize("changes", [{"version": 8}, {"temperature": 1.4}, {"returns_from": [9]}])
def test_a_release_that_is_not_assigned_is_refused(changes: dict[str, Any]) -> None:
    """Of two desired models only the one that the newest assignment names is followed, though both are signed."""
    assignment = trusted(assigned(manifest_sha256=manifest_digest(released())))
    other = released(**changes)
    assert trusted_manifest(other, RELEASE_KEYS, EdgeFacts(preprocessing_version=1), now=NOW)
    with pytest.raises(UnassignedReleaseError):
        check_assigned(other, assignment)


def test_an_assignment_that_names_one_version_and_means_another_is_refused() -> None:
    """Version and digest must be of one release: the version is what people are told (TUF 5.6.4)."""
    release = released()
    lying = trusted(assigned(version=6, manifest_sha256=manifest_digest(release)))
    with pytest.raises(UnassignedReleaseError, match="6"):
        check_assigned(release, lying)


# What it is made of.


@pytest.mark.parametrize("major", [0, 2, 10**12, "one", "1", None, True, [], {}])
@pytest.mark.parametrize("changes", [{}, {"sequence": None, "number": 5}, {"urls": [URL]}])
def test_an_unknown_major_is_refused_by_name(major: Any, changes: dict[str, Any]) -> None:
    """An assignment of another major is refused as such, however much its fields have changed."""
    payload = json.dumps({**assignment_fields(**changes), "major": major}).encode()
    assert "update" in str(refused(UnsupportedManifestError, sign(payload, [ASSIGNER], ASSIGNMENT_PAYLOAD_TYPE)))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "sliceloop.manifest"},
        {"site": "../ward"},
        {"edge": "#"},
        {"edge": None},
        {"sequence": 0},
        {"sequence": -1},
        {"sequence": 2**63},
        {"sequence": URL},
        {"version": 0},
        {"version": None},
        {"manifest_sha256": "a" * 63},
        {"manifest_sha256": "../" + "a" * 61},
        {"manifest_sha256": URL},
        {"issued_at": "2026-03-01T00:00:00"},
        {"expires_at": None},
        {"expires_at": URL},
        {"ring": URL * 10},
        {"urls": {"../model.onnx": URL}},
        {"urls": {"/etc/passwd": URL}},
        {"urls": {URL: "model.onnx"}},
        {"urls": {"model.onnx": "file:///etc/" + SECRET}},
        {"urls": {"model.onnx": "ftp://" + SECRET}},
        {"urls": {"model.onnx": URL * 100}},
        {"urls": {"model.onnx": [URL]}},
        {"urls": [URL]},
        {"urls": {f"file-{number}": URL for number in range(MAX_URLS + 1)}},
    ],
)
def test_an_assignment_with_a_senseless_value_is_refused(changes: dict[str, Any]) -> None:
    """Path tricks, other schemes, too many URLs, a URL in the wrong place: refused, and no URL is said."""
    refused(EnvelopeError, assigned(**changes))


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"\xff", b"{}", b"[" * 60_000, b'{"sequence":Infinity}'])
def test_what_the_worker_signed_by_mistake_is_refused(payload: bytes) -> None:
    """Even what the worker's key signed is refused by name unless it is an assignment."""
    refused(EnvelopeError, sign(payload, [ASSIGNER], ASSIGNMENT_PAYLOAD_TYPE))


def test_no_presigned_url_is_said() -> None:
    """A URL is a credential: it is in no text of an assignment, nor of the error where one cannot be made."""
    assignment = trusted(assigned())
    assert SECRET not in repr(assignment)
    assert SECRET not in str(assignment)
    with pytest.raises(ValidationError) as caught:
        Assignment.model_validate({**assignment_fields(), "urls": {"model.onnx": "ftp" + URL}})
    assert SECRET not in str(caught.value)
    with pytest.raises(UnassignedReleaseError) as unassigned:
        check_assigned(released(), assignment)
    assert SECRET not in str(unassigned.value)
