"""Rollouts, rollbacks, pins, assignments and key rotations, in SQLite and in PostgreSQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cloud_worker.ledger import (
    Ledger,
    Pin,
    RefusedByLedgerError,
    Release,
    Rollback,
    Rollout,
    StoredAssignment,
    UnknownReleaseError,
    VersionTakenError,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SHA = "a" * 64


def released(ledger: Ledger, version: int) -> Release:
    """Enter a release."""
    release = Release(version, "net", SHA, "tiny", NOW, b"envelope", {"model.onnx": "key"}, "checkpoint", SHA)
    ledger.add_release(release)
    return release


def assignment(sequence: int, version: int = 1, edge: str = "ct-1") -> StoredAssignment:
    """Return what an edge is assigned."""
    return StoredAssignment(
        "north", edge, sequence, version, "all", SHA, b"signed", NOW, NOW + MINUTE, NOW, "none", NOW
    )


def test_a_rollout_changes_only_from_what_was_known(ledger: Ledger) -> None:
    """Of two who change it at once, the slower one is told that it came too late."""
    released(ledger, 1)
    begun = Rollout(1, "running", 0, NOW)
    assert ledger.save_rollout(begun, None)
    assert not ledger.save_rollout(begun, None)
    following = replace(begun, ring=1, ring_started_at=NOW + MINUTE, reason="went on")
    assert ledger.save_rollout(following, begun)
    assert not ledger.save_rollout(replace(begun, state="aborted"), begun)
    assert ledger.rollouts() == [following]


def test_a_rollout_is_of_a_release(ledger: Ledger) -> None:
    """What was never released is never rolled out, nor pinned."""
    with pytest.raises(RefusedByLedgerError):
        ledger.save_rollout(Rollout(7, "running", 0, NOW), None)
    with pytest.raises(RefusedByLedgerError):
        ledger.pin(Pin("north", "ct-1", 7, NOW))
    with pytest.raises(UnknownReleaseError, match="no release 7"):
        ledger.release(7)


def test_a_withdrawal_and_its_way_back_are_one(ledger: Ledger) -> None:
    """Both are there, or none; what stands is the newest that did not fall."""
    for version in (1, 2, 3):
        released(ledger, version)
    ledger.save_rollout(Rollout(3, "aborted", 0, NOW), None)
    assert ledger.standing_release() == ledger.release(2)
    ledger.save_rollout(Rollout(2, "running", 0, NOW), None)
    ledger.withdraw(Rollout(2, "withdrawn", 0, NOW, "bad"), Rollback(0, 1, (2, 3), "bad", NOW, b"back"))
    (back,) = ledger.rollbacks()
    assert (back.version, back.returns_from, back.envelope) == (1, (2, 3), b"back")
    assert ledger.standing_release() == ledger.release(1)
    with pytest.raises(RefusedByLedgerError):
        ledger.withdraw(Rollout(1, "withdrawn", 0, NOW), Rollback(0, 9, (1,), "", NOW, b""))
    assert {each.version: each.state for each in ledger.rollouts()} == {2: "withdrawn", 3: "aborted"}


def test_signatures_are_added_to_what_was_read(ledger: Ledger) -> None:
    """Two who sign at once do not lose a signature: the slower one is told."""
    released(ledger, 1)
    assert ledger.replace_release_envelope(1, b"envelope", b"signed twice")
    assert not ledger.replace_release_envelope(1, b"envelope", b"signed otherwise")
    assert ledger.release(1).envelope == b"signed twice"
    ledger.withdraw(Rollout(1, "withdrawn", 0, NOW), Rollback(0, 1, (2,), "", NOW, b"once"))
    (back,) = ledger.rollbacks()
    assert ledger.replace_rollback_envelope(back.id, b"once", b"twice")
    assert not ledger.replace_rollback_envelope(back.id, b"once", b"thrice")


def test_an_edge_has_one_pin(ledger: Ledger) -> None:
    """The newest counts; taken off, it is gone."""
    for version in (1, 2):
        released(ledger, version)
        ledger.pin(Pin("north", "ct-1", version, NOW))
    assert ledger.pins() == [Pin("north", "ct-1", 2, NOW)]
    assert [ledger.unpin("north", "ct-1"), ledger.unpin("north", "ct-1")] == [True, False]


def test_a_number_of_an_assignment_is_given_once(ledger: Ledger) -> None:
    """Of two workers that assign at once, one is left out: two of the same number must never be said."""
    mine, others = assignment(1), assignment(1, version=2)
    assert ledger.save_assignments([(mine, 0)]) == [mine]
    assert ledger.save_assignments([(others, 0)]) == []
    following = assignment(5, version=2)
    assert ledger.save_assignments([(following, 1), (assignment(1, edge="ct-2"), 0)]) != []
    assert ledger.save_assignments([(assignment(6), 1)]) == []
    assert [(each.edge, each.sequence) for each in ledger.assignments()] == [("ct-1", 5), ("ct-2", 1)]


def test_progress_is_of_the_newest_assignment(ledger: Ledger) -> None:
    """What is noted of an older one changes nothing."""
    ledger.save_assignments([(assignment(1), 0)])
    ledger.save_assignments([(assignment(2), 1)])
    ledger.record_progress([replace(assignment(1), progress="old", progress_at=NOW + MINUTE)])
    ledger.record_progress([replace(assignment(2), progress="new", progress_at=NOW + MINUTE)])
    (found,) = ledger.assignments()
    assert (found.progress, found.progress_at) == ("new", NOW + MINUTE)


def test_key_rotations_are_a_chain(ledger: Ledger) -> None:
    """In the order of their versions, each of which is given once."""
    ledger.add_key_rotation(2, b"second", NOW)
    ledger.add_key_rotation(3, b"third", NOW)
    with pytest.raises(VersionTakenError):
        ledger.add_key_rotation(3, b"another", NOW)
    assert ledger.key_rotations() == [b"second", b"third"]
