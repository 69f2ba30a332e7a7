"""What the worker tells each edge: only what verifies, with a number that grows, and nothing that was withdrawn."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from worker_parts import (
    ASSIGN,
    EDGE,
    NOW,
    SITE,
    constant_network,
    director,
    later,
    network,
    release,
    reports,
)

from cloud_worker.assigner import Assigner
from cloud_worker.fleet_settings import DeliverySettings, RingSettings, RolloutSettings
from cloud_worker.ledger import Ledger, Pin, Rollout, StoredAssignment
from cloud_worker.object_store import ObjectStore
from cloud_worker.release import Release
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.releasing import ReleaseDesk, WithdrawError
from cloud_worker.settings import WorkerSettings
from protocol.assignment import Assignment, Seen, check_assigned, seen_of, trusted_assignment
from protocol.errors import OldVersionError, TrustError
from protocol.labels import Label
from protocol.manifest import EdgeFacts, Manifest, trusted_manifest
from protocol.messages import ModelPhase
from protocol.rotation import KeyRotation, KeySet, follow, sign_rotation, unbundle
from protocol.signing import TrustedKeys, generate_signer, sign
from protocol.topics import FLEET_KEYS, Kind, edge_topic, parse
from training.model.preprocess import PREPROCESSING_VERSION

SIGNER, SECOND = generate_signer(), generate_signer()
RINGS = RolloutSettings(rings=(RingSettings(name="all", share=1, min_s=0, abort_failures=1),), stuck_s=60)
SETTINGS = WorkerSettings(rollout=RINGS)


class Box:
    """An edge as far as trust goes: it follows what it is told, as the protocol's rules say."""

    def __init__(self, name: str = EDGE) -> None:
        self.name = name
        self.topics: dict[Kind, bytes] = {}
        self.assignment: Assignment | None = None
        self.seen = Seen()
        self.facts = EdgeFacts(PREPROCESSING_VERSION)
        self.keys = KeySet(TrustedKeys((SIGNER.public_key,)), TrustedKeys((ASSIGN.public_key,)))

    def hear(self, told: Sequence[tuple[str, bytes]]) -> None:
        """Remember what is retained on the box's own topics."""
        for topic, payload in told:
            address = parse(topic)
            if topic == FLEET_KEYS:
                self.keys = follow(self.keys, unbundle(payload))
            elif (address.site, address.edge) == (SITE, self.name):
                self.topics[address.kind] = payload

    def follow(self, seconds: float = 0) -> Manifest:
        """Return the manifest of what it shall run, or raise the `TrustError` that says why not."""
        envelope, now = self.topics[Kind.MODEL_ASSIGNED], later(seconds)
        assignment = trusted_assignment(envelope, self.keys.assign, site=SITE, edge=self.name, seen=self.seen, now=now)
        self.assignment, self.seen = assignment, seen_of(envelope, assignment)
        desired = self.topics[Kind.MODEL_DESIRED]
        manifest = trusted_manifest(desired, self.keys.release, self.facts, now=now)
        check_assigned(desired, assignment)
        self.facts = replace(
            self.facts,
            running=manifest.model_ref,
            highest_version=max(self.facts.highest_version, manifest.version) if not manifest.returns_from else 0,
        )
        return manifest


def step(assigner: Assigner, seconds: float = 0) -> list[tuple[str, bytes]]:
    """Decide once; return what is published."""
    assigner.step(later(seconds))
    return [(outbound.topic, outbound.payload) for outbound in assigner.untold()]


def desk(store: ObjectStore, ledger: Ledger) -> ReleaseDesk:
    """Return the engineer's desk."""
    return ReleaseDesk(ReleaseSettings(), store, ledger, [SIGNER])


@pytest.fixture
def first(store: ObjectStore, ledger: Ledger) -> Release:
    """Version 1, and an edge that was heard."""
    reports(ledger)
    return release(store, ledger, SIGNER, network())


def test_an_edge_is_told_what_it_can_verify(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """Assignment and release fit each other, and the rules of the edge; said once, they are not said again."""
    assigner, box = director(SETTINGS, store, ledger, SIGNER), Box()
    box.hear(step(assigner))
    assert box.follow() == first.manifest
    assert box.assignment is not None
    assert (box.assignment.ring, box.assignment.sequence, box.assignment.urls) == ("all", 1, {})
    assert step(assigner, 1) == []
    assigner.forget_said()
    assert [topic for topic, _ in step(assigner, 2)] == [
        edge_topic(SITE, EDGE, kind) for kind in (Kind.MODEL_ASSIGNED, Kind.MODEL_DESIRED)
    ]


def test_an_assignment_is_renewed_at_half_of_its_time(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """An edge that hears its worker always has fresh news; the release itself is not sent again."""
    assigner, box = director(SETTINGS, store, ledger, SIGNER), Box()
    box.hear(step(assigner))
    box.follow()
    reports(ledger, running=first, desired_version=1, at=later(1))
    half_s = RINGS.assignment_valid_h * 3600 / 2
    assert step(assigner, half_s - 1) == []
    ((topic, envelope),) = step(assigner, half_s)
    assert topic == edge_topic(SITE, EDGE, Kind.MODEL_ASSIGNED)
    box.hear([(topic, envelope)])
    box.follow(half_s)
    assert box.seen.sequence == 2
    assert ledger.assignments()[0].told_at == NOW


def test_after_a_restart_nothing_is_signed_anew(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """What was said is in the ledger: a worker that starts again says the same bytes."""
    before = step(director(SETTINGS, store, ledger, SIGNER))
    assert before
    assert step(director(SETTINGS, store, ledger, SIGNER), 10) == before


def test_a_ledger_of_before_goes_on_from_the_number_that_the_edge_knows(
    store: ObjectStore, ledger: Ledger, first: Release
) -> None:
    """Restored from a backup, a ledger must not repeat numbers: the edge would call it a replay."""
    assigner = director(SETTINGS, store, ledger, SIGNER)
    step(assigner)
    reports(ledger, running=first, desired_version=1, assignment=41, at=later(1))
    step(assigner, 1)
    assert ledger.assignments()[0].sequence == 42
    reports(ledger, running=first, desired_version=1, assignment=2**62, at=later(2))
    step(assigner, 2)
    assert ledger.assignments()[0].sequence == 42, "an absurd number is no number of ours"


def test_a_release_waits_until_enough_keys_have_signed(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """With a threshold of two, one signature assigns nothing; the second one, added later, does."""
    assigner = director(SETTINGS, store, ledger, SIGNER, SECOND, threshold=2)
    assert step(assigner) == []
    assert ledger.rollouts() == []
    both = TrustedKeys((SIGNER.public_key, SECOND.public_key), 2)
    assert replace(desk(store, ledger), signers=[SECOND], trusted=both).countersign(1) == 1
    assert len(step(assigner, 1)) == 2
    assert [each.version for each in ledger.rollouts()] == [1]


def test_what_no_trusted_key_signed_is_not_assigned(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """Whoever can write to the ledger cannot make an edge run anything."""
    release(store, ledger, generate_signer(), constant_network(Label.NORMAL))
    box = Box()
    box.hear(step(director(SETTINGS, store, ledger, SIGNER)))
    assert box.follow().version == 1


def test_a_manifest_that_was_entered_under_a_second_version_is_passed_over(
    store: ObjectStore, ledger: Ledger, first: Release
) -> None:
    """Whoever can write to the ledger cannot end a rollout by an old release with a new number."""
    assigner = director(SETTINGS, store, ledger, SIGNER)
    step(assigner)
    second = release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    assert ledger.replace_release_envelope(2, second.envelope, first.envelope)
    assert step(assigner, 1) == []
    assert [(each.version, each.state) for each in ledger.rollouts()] == [(1, "running")]


def test_a_worker_whose_key_is_not_trusted_assigns_nothing(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """Edges would refuse it anyway: it is said, and nothing is published."""
    stranger = TrustedKeys((SECOND.public_key,))
    keys = KeySet(TrustedKeys((SIGNER.public_key,)), stranger)
    assert step(Assigner(SETTINGS, store, ledger, ASSIGN, keys)) == []
    assert ledger.assignments() == []


def test_a_withdrawn_version_leads_back_by_a_signed_rollback(
    store: ObjectStore, ledger: Ledger, first: Release
) -> None:
    """The edge that runs 2 goes back to 1, which it would refuse without the signature; 2 is never assigned again."""
    assigner, box = director(SETTINGS, store, ledger, SIGNER), Box()
    box.hear(step(assigner))
    box.follow()
    reports(ledger, running=first, desired_version=1, at=later(1))
    step(assigner, 1)
    second = release(store, ledger, SIGNER, constant_network(Label.NORMAL), later(2))
    box.hear(step(assigner, 2))
    assert box.follow(2).version == 2
    reports(ledger, running=second, desired_version=2, at=later(3))
    step(assigner, 3)
    back = desk(store, ledger).withdraw(2, "says Normal to everything", None, later(4))
    assert back is not None
    assert (back.version, back.returns_from) == (1, (2,))
    with pytest.raises(OldVersionError):
        trusted_manifest(first.envelope, box.keys.release, box.facts, now=later(4))
    box.hear(step(assigner, 5))
    assert box.follow(5).version == 1
    reports(ledger, running=first, desired_version=1, banned=(2,), at=later(6))
    assert {each.version for each in ledger.assignments()} == {1}
    assert step(assigner, 7) == []
    states = {each.version: (each.state, each.reason) for each in ledger.rollouts()}
    assert states[2] == ("withdrawn", "says Normal to everything")


def test_a_withdrawn_version_with_nothing_before_it_is_taken_off_the_topics(
    store: ObjectStore, ledger: Ledger, first: Release
) -> None:
    """A later edge must not find it retained."""
    assigner = director(SETTINGS, store, ledger, SIGNER)
    step(assigner)
    assert desk(store, ledger).withdraw(1, "bad", None, NOW) is None
    assert [payload for _, payload in step(assigner, 1)] == [b"", b""]
    assert step(director(SETTINGS, store, ledger, SIGNER), 2) == [
        (edge_topic(SITE, EDGE, kind), b"") for kind in (Kind.MODEL_ASSIGNED, Kind.MODEL_DESIRED)
    ]


def test_the_way_back_leads_to_what_ran_and_not_to_what_never_had_enough_signatures(
    store: ObjectStore, ledger: Ledger, first: Release
) -> None:
    """Version 2 was signed by one of two and ran nowhere: from 3 edges go back to 1."""
    keys = TrustedKeys((SIGNER.public_key, SECOND.public_key), 2)
    other = ReleaseDesk(ReleaseSettings(), store, ledger, [SECOND], keys)
    assigner = director(SETTINGS, store, ledger, SIGNER, SECOND, threshold=2)
    other.countersign(1)
    step(assigner)
    reports(ledger, running=first, desired_version=1, at=later(1))
    step(assigner, 1)
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    release(store, ledger, SIGNER, constant_network(Label.PNEUMONIA))
    other.countersign(3)
    step(assigner, 2)
    back = other.withdraw(3, "bad", None, later(3))
    assert back is not None
    assert (back.version, back.returns_from) == (1, (2, 3))


def test_no_way_leads_back_to_a_release_that_edges_cannot_fetch(store: ObjectStore, ledger: Ledger) -> None:
    """One of manifest major 1 has no index: signing a way there would be said, and lead nowhere."""
    old = release(store, ledger, SIGNER, network())
    bare = {name: file.model_copy(update={"index": (), "chunk_count": 0}) for name, file in old.manifest.files.items()}
    stated = old.manifest.model_copy(update={"major": 1, "files": bare}).model_dump_json().encode()
    assert ledger.replace_release_envelope(1, old.envelope, sign(stated, [SIGNER]))
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    with pytest.raises(WithdrawError, match=r"version 1 is no release before 2 .*release its network anew"):
        desk(store, ledger).withdraw(2, "bad", 1, NOW)
    assert desk(store, ledger).withdraw(2, "bad", None, NOW) is None
    assert (ledger.rollouts()[0].state, ledger.rollbacks()) == ("withdrawn", [])


def test_the_way_back_from_a_version_leaves_newer_good_ones_alone(
    store: ObjectStore, ledger: Ledger, first: Release
) -> None:
    """With 3 under way, withdrawing 2 signs a way from 2 to 1 that does not ban 3."""
    assigner = director(SETTINGS, store, ledger, SIGNER)
    step(assigner)
    for number, model in enumerate((constant_network(Label.NORMAL), constant_network(Label.PNEUMONIA))):
        release(store, ledger, SIGNER, model, later(number))
    step(assigner, 3)
    back = desk(store, ledger).withdraw(2, "bad", None, later(4))
    assert back is not None
    assert (back.version, back.returns_from) == (1, (2,))
    with pytest.raises(WithdrawError, match="version 2 is no release before 3 that is good to return to"):
        desk(store, ledger).withdraw(3, "bad", 2, later(5))


def test_a_pinned_edge_keeps_its_version(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """The others get the newer release; without the pin it follows."""
    reports(ledger, "ct-2")
    ledger.pin(Pin(SITE, EDGE, 1, NOW))
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    assigner = director(SETTINGS, store, ledger, SIGNER)
    step(assigner)
    assert {each.edge: each.version for each in ledger.assignments()} == {EDGE: 1, "ct-2": 2}
    ledger.unpin(SITE, EDGE)
    step(assigner, 1)
    assert {each.edge: each.version for each in ledger.assignments()} == {EDGE: 2, "ct-2": 2}


def test_a_failure_aborts_and_is_kept_with_its_reason(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """The edge that rolled back is told to run what it runs; the rollout's end is in the ledger."""
    assigner = director(SETTINGS, store, ledger, SIGNER)
    step(assigner)
    reports(ledger, running=first, desired_version=1, at=later(1))
    step(assigner, 1)
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    step(assigner, 2)
    said = {"desired_version": 2, "banned": (2,), "reason": "names one class for every slice"}
    reports(ledger, running=first, phase=ModelPhase.ROLLED_BACK, at=later(3), **said)
    step(assigner, 3)
    assert [each.version for each in ledger.assignments()] == [1]
    (rollout,) = [each for each in ledger.rollouts() if each.version == 2]
    assert rollout.state == "aborted"
    assert "names one class for every slice" in rollout.reason
    assert ledger.standing_release() == ledger.release(1), "the next candidate is judged against what stands"


def test_a_person_who_is_quicker_is_not_overwritten(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """A rollout that is paused while the worker decides stays paused, though it would have been complete."""
    step(director(SETTINGS, store, ledger, SIGNER))
    reports(ledger, running=first, desired_version=1, at=later(1))
    with Overtaken(ledger.url) as between:
        (running,) = ledger.rollouts()
        between.meanwhile = lambda: ledger.save_rollout(replace(running, state="paused"), running)
        assigner = director(SETTINGS, store, between, SIGNER)
        assert assigner.step(later(2)), "it looks again at once"
        assert ledger.rollouts()[0].state == "paused"
        assigner.step(later(3))
        assert ledger.rollouts()[0].state == "paused"


def test_a_worker_that_was_outrun_says_nothing_older(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """Two decide at once: the slower one must not say the assignment of before after the quicker one's."""
    quicker, box = director(SETTINGS, store, ledger, SIGNER), Box()
    box.hear(step(quicker))
    reports(ledger, running=first, desired_version=1, at=later(1))
    step(quicker, 1)
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    assert ledger.save_rollout(Rollout(2, "running", 0, later(2)), None)
    with Overtaken(ledger.url) as between:
        slower = director(SETTINGS, store, between, SIGNER)
        between.meanwhile = lambda: box.hear(step(quicker, 2))
        box.hear(step(slower, 2))
        assert box.follow(2).version == 2
        box.hear(step(slower, 3))
        assert box.follow(3).version == 2


class Overtaken(Ledger):
    """A ledger to which somebody else writes just before its owner does, once."""

    meanwhile: Callable[[], object] | None = None

    def save_rollout(self, rollout: Rollout, known: Rollout | None) -> bool:
        """Come too late with a rollout."""
        self._be_overtaken()
        return super().save_rollout(rollout, known)

    def save_assignments(self, changed: Sequence[tuple[StoredAssignment, int]]) -> list[StoredAssignment]:
        """Come too late with assignments, where no rollout was saved before."""
        self._be_overtaken()
        return super().save_assignments(changed)

    def _be_overtaken(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


def test_progress_is_dated_by_what_changes(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """The same report again is no progress; more chunks are."""
    assigner = director(SETTINGS, store, ledger, SIGNER)
    step(assigner)
    for seconds, chunks in ((10, 1), (20, 1), (30, 2)):
        said = {"phase": ModelPhase.DOWNLOADING, "desired_version": 1, "chunks_done": chunks, "chunks_total": 9}
        reports(ledger, at=later(seconds), **said)
        step(assigner, seconds)
        assert ledger.assignments()[0].progress_at == later({10: 10, 20: 10, 30: 30}[seconds])


def test_addresses_are_told_where_they_are_asked_for(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """With presigned addresses an assignment names each file's; it is renewed before they end."""
    settings = SETTINGS.model_copy(update={"delivery": DeliverySettings(presigned_urls=True)})
    assigner, box = director(settings, store, ledger, SIGNER), Box()
    box.hear(step(assigner))
    box.follow()
    assert box.assignment is not None
    assert set(box.assignment.urls) == set(first.manifest.files)
    half_s = store.presign_expiry / timedelta(seconds=2)
    assert step(assigner, half_s - 1) == []
    assert [parse(topic).kind for topic, _ in step(assigner, half_s)] == [Kind.MODEL_ASSIGNED]


def test_worker_and_edge_follow_a_key_rotation(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """After it the old key's releases count no more, unless the new key signs them too; the chain is published."""
    assigner, box = director(SETTINGS, store, ledger, SIGNER), Box()
    box.hear(step(assigner))
    box.follow()
    rotation = KeyRotation(
        version=2,
        created_at=NOW,
        release_keys=(_public(SECOND),),
        release_threshold=1,
        assign_keys=(_public(ASSIGN),),
    )
    replace(desk(store, ledger), signers=[SECOND], trusted=box.keys.release).countersign(1)
    ledger.add_key_rotation(2, sign_rotation(rotation, [SIGNER], [SECOND]), NOW)
    box.hear(step(assigner, 1))
    assert box.keys.version == 2
    assert box.follow(1).version == 1
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    assert [topic for topic, _ in step(assigner, 2)] == []


def test_with_a_new_key_of_its_own_the_worker_signs_every_assignment_anew(
    store: ObjectStore, ledger: Ledger, first: Release
) -> None:
    """After a rotation edges believe the old key's assignments no more: they are not left without one for days."""
    box, new = Box(), generate_signer()
    box.hear(step(director(SETTINGS, store, ledger, SIGNER)))
    box.follow()
    reports(ledger, running=first, desired_version=1, assignment=1, at=later(1))
    rotation = KeyRotation(
        version=2,
        created_at=NOW,
        release_keys=(_public(SIGNER),),
        release_threshold=1,
        assign_keys=(_public(new),),
    )
    ledger.add_key_rotation(2, sign_rotation(rotation, [SIGNER], []), NOW)
    keys = KeySet(TrustedKeys((SIGNER.public_key,)), TrustedKeys((ASSIGN.public_key,)))
    worker = Assigner(SETTINGS, store, ledger, new, keys)
    box.hear(step(worker, 2))
    assert box.follow(2).version == 1
    assert box.seen.sequence == 2
    assert step(worker, 3) == []


def test_a_rotation_that_the_old_keys_did_not_sign_ends_the_chain(
    store: ObjectStore, ledger: Ledger, first: Release
) -> None:
    """Whoever can write to the ledger cannot exchange the keys; the worker goes on with those that it has."""
    stranger = generate_signer()
    rotation = KeyRotation(
        version=2,
        created_at=NOW,
        release_keys=(_public(stranger),),
        release_threshold=1,
        assign_keys=(_public(stranger),),
    )
    ledger.add_key_rotation(2, sign_rotation(rotation, [stranger], [stranger]), NOW)
    assigner, box = director(SETTINGS, store, ledger, SIGNER), Box()
    box.hear(step(assigner))
    assert box.follow().version == 1
    assert box.keys.version == 1


def test_an_engineer_signs_nothing_that_only_the_ledger_says(
    store: ObjectStore, ledger: Ledger, first: Release
) -> None:
    """A worker that was taken over could put anything there: another's manifest, another version's, a set of keys."""
    stranger = generate_signer()
    other = release(store, ledger, stranger, constant_network(Label.NORMAL))
    rotation = KeyRotation(
        version=2,
        created_at=NOW,
        release_keys=(_public(stranger),),
        release_threshold=1,
        assign_keys=(_public(ASSIGN),),
    )
    swapped = first.manifest.model_copy(update={"version": 3}).model_dump_json().encode()
    fakes = (other.envelope, sign(swapped, [SIGNER]), sign_rotation(rotation, [SIGNER], [stranger]))
    known = first.envelope
    for fake in fakes:
        assert ledger.replace_release_envelope(1, known, fake)
        for refused in (
            lambda: desk(store, ledger).countersign(1),
            lambda: desk(store, ledger).withdraw(2, "", 1, NOW),
        ):
            with pytest.raises(TrustError):
                refused()
        assert ledger.release(1).envelope == (known := fake)
    assert ledger.rollbacks() == []


def test_two_edges_are_told_different_things(store: ObjectStore, ledger: Ledger, first: Release) -> None:
    """An assignment is one edge's own: another one refuses it."""
    reports(ledger, "ct-2")
    told = step(director(SETTINGS, store, ledger, SIGNER))
    mine, other = Box(), Box("ct-2")
    for box in (mine, other):
        box.hear(told)
        box.follow()
    other.topics[Kind.MODEL_ASSIGNED] = mine.topics[Kind.MODEL_ASSIGNED]
    with pytest.raises(TrustError, match=f"the assignment is that of {SITE}/{EDGE}"):
        other.follow()


def _public(signer: CryptoSigner) -> dict[str, Any]:
    return {"keyid": signer.public_key.keyid, **signer.public_key.to_dict()}
