"""What an engineer does with the release keys, away from every worker: release, countersign, withdraw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from securesystemslib.signer import CryptoSigner

from cloud_worker.card_facts import card_facts
from cloud_worker.expected_changes import ExpectedChanges
from cloud_worker.ledger import Candidate, Ledger, Rollback, Rollout
from cloud_worker.ledger import Release as StoredRelease
from cloud_worker.model_card import model_card
from cloud_worker.object_store import OUTAGES, ObjectStore, card_key, index_key, model_key
from cloud_worker.release import LeakedModelError, Releasable, Release, make_release, returning
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.retraining import CHANGES, INCUMBENT
from protocol.chunks import sha256_of
from protocol.errors import EnvelopeError, HashMismatchError, TooFewSignaturesError
from protocol.manifest import MANIFEST_MAJOR, MODEL_FILE, Manifest, shown_manifest
from protocol.signing import TrustedKeys, countersign, sign, verify
from training.bundle import CHECKPOINT_FILE, Bundle, read_bundle

log = structlog.get_logger()

FALLEN = frozenset({"withdrawn", "aborted"})
MAX_RETURNS = 100
"""As many versions a manifest can lead back from."""


class WithdrawError(ValueError):
    """The version cannot be withdrawn as asked; the message says what to do instead."""


class UntrustedSignerError(ValueError):
    """A key is to sign that nobody believes; the message says which, and nothing was stored."""


class SigningRaceError(RuntimeError):
    """Somebody else signed at the same moment; nothing was stored: do it again."""


@dataclass(frozen=True)
class ReleaseDesk:
    """Store, ledger, settings and keys of the engineer who answers for what is released."""

    settings: ReleaseSettings
    store: ObjectStore
    ledger: Ledger
    signers: Sequence[CryptoSigner]
    trusted: TrustedKeys | None = None
    """Whose signatures count, where the engineer has the trust folder; else those of the signers themselves."""

    def release_bundle(self, folder: Path, why: str, now: datetime) -> Manifest:
        """Sign a trained network and enter it as the next release, past the gate; raises what its parts raise."""
        bundle = sound_bundle(folder)
        report = bundle.report
        learnt = {"slices": report.n_train_slices, "patients": report.n_train_patients, "sources": report.train_sources}
        network = Releasable(
            model=bundle.model,
            architecture=report.architecture,
            temperature=report.temperature,
            training_data_sha256=report.training_data_sha256,
            split_sha256=report.split_sha256,
            metrics={"validation": report.validation.model_dump(mode="json"), "train": learnt},
        )
        return self._release(network, bundle.checkpoint, {"by hand": why}, None, now)

    def release_candidates(self, now: datetime) -> list[Manifest]:
        """Sign the newest candidate that the gate accepted; those that it leaves behind are refused."""
        waiting = self.ledger.accepted_unreleased()
        if not waiting:
            return []
        *older, newest = waiting
        if stale := self._stale(newest):
            self._refuse([newest, *older], stale, now)
            return []
        manifest = self._release_candidate(newest, now)
        self._refuse(older, f"version {manifest.version} was released of a later candidate", now)
        return [manifest]

    def withdraw(self, version: int, why: str, to: int | None, now: datetime) -> Manifest | None:
        """Say that a version runs nowhere any more, and sign the way back to `to`, by default the release before.

        Return the manifest of the way back, which bans what lies between; None where there is no earlier release, or
        only some of manifest major 1: no edge can fetch these.
        """
        self._check_signers()
        self.ledger.release(version)
        rollouts = {each.version: each for each in self.ledger.rollouts()}
        states = {number: each.state for number, each in rollouts.items()}
        why = _why(rollouts.get(version), why, to)
        releases = self.ledger.releases()
        released = [each.version for each in releases]
        good = [each for each in released if states.get(each) not in FALLEN and each != version]
        old = {each.version for each in releases if shown_manifest(each.envelope).major < MANIFEST_MAJOR}
        target = _target(version, to, [each for each in good if each not in old], states)
        withdrawn = Rollout(version, "withdrawn", 0, now, why)
        if target is None:
            self.ledger.withdraw(withdrawn, None)
            self._write_card(version)
            return None
        manifest = self._signed_before(self.ledger.release(target).envelope, target)
        newer = {each for each in good if each > version}  # they stand: no way back from them, and no ban
        left = [each for each in released if each > target and each not in newer]
        back = returning(manifest, left[-MAX_RETURNS:], self.settings, now)
        envelope = sign(back.model_dump_json().encode(), self.signers)
        self.ledger.withdraw(withdrawn, Rollback(0, target, back.returns_from, why, now, envelope))
        self._write_card(version)
        return back

    def countersign(self, version: int) -> int:
        """Add our signatures to all that a release's keys signed of a version; return how many manifests those are.

        Raises the `TrustError` that says why something in the ledger is not what it says.
        """
        # no look at whether our keys count: those that follow sign before a rotation makes them count
        release = self.ledger.release(version)
        rollbacks = [each for each in self.ledger.rollbacks() if each.version == version]
        for envelope in (release.envelope, *(each.envelope for each in rollbacks)):
            self._signed_before(envelope, version)
        signed = countersign(release.envelope, self.signers)
        if not self.ledger.replace_release_envelope(version, release.envelope, signed):
            raise SigningRaceError(f"somebody else signed version {version} at this moment: sign again")
        for each in rollbacks:
            added = countersign(each.envelope, self.signers)
            if not self.ledger.replace_rollback_envelope(each.id, each.envelope, added):
                raise SigningRaceError(f"somebody else signed version {version} at this moment: sign again")
        self._write_card(version)
        return 1 + len(rollbacks)

    def strangers(self) -> list[str]:
        """Name those of our keys that are not trusted now; nothing where nobody knows the trusted ones."""
        if self.trusted is None:
            return []
        known = {key.keyid for key in self.trusted.keys}
        return [signer.public_key.keyid for signer in self.signers if signer.public_key.keyid not in known]

    def waits(self, envelope: bytes) -> str:
        """Say which signatures an envelope waits for; nothing where it has enough, or nobody knows the trusted keys."""
        try:
            if self.trusted is not None:
                verify(envelope, self.trusted)
        except TooFewSignaturesError as error:
            return str(error)
        return ""

    def _release_candidate(self, candidate: Candidate, now: datetime) -> Manifest:
        network = Releasable(
            model=self._judged(candidate, MODEL_FILE),
            architecture=candidate.architecture,
            temperature=candidate.temperature,
            training_data_sha256=candidate.training_data_sha256,
            split_sha256=candidate.split_sha256,
            metrics={"gate": candidate.gate},
        )
        checkpoint = self._judged(candidate, CHECKPOINT_FILE)
        gate = candidate.gate or {}
        changes = ExpectedChanges.model_validate(gate[CHANGES]) if gate.get(CHANGES) else None
        return self._release(network, checkpoint, gate, candidate.request_id, now, changes)

    def _release(
        self,
        network: Releasable,
        checkpoint: bytes,
        gate: Mapping[str, Any],
        request_id: str | None,
        now: datetime,
        changes: ExpectedChanges | None = None,
    ) -> Manifest:
        self._check_signers()
        version = self.ledger.next_version()
        release = make_release(network, version, self.settings, self.signers, now, self._bases(), changes)
        store_release(self.store, self.ledger, release, checkpoint, gate, request_id)
        self._write_card(version)
        log.info("released", version=version, sha256=release.manifest.model_ref.sha256[:12], request_id=request_id)
        return release.manifest

    def _check_signers(self) -> None:
        """Refuse a key that was exchanged, or never trusted: what it signs would be entered, and reach no edge."""
        if self.trusted is not None and (strangers := self.strangers()):
            trusted = ", ".join(sorted(key.keyid[:12] for key in self.trusted.keys))
            raise UntrustedSignerError(
                f"key {strangers[0][:12]} is not among the trusted release keys ({trusted}): no edge would believe it; "
                "give one of these by --key"
            )

    def _bases(self) -> list[bytes]:
        """Return the networks of the last releases, the newest first: what runs on edges is one of them, mostly.

        Those that fell come last: they run on few edges, or on none.
        """
        fallen = {each.version for each in self.ledger.rollouts() if each.state in FALLEN}
        newest = sorted(self.ledger.releases(), key=lambda each: (each.version in fallen, -each.version))
        keys = [release.files[MODEL_FILE] for release in newest]
        return [self.store.get(key) for key in list(dict.fromkeys(keys))[: self.settings.deltas]]

    def _judged(self, candidate: Candidate, name: str) -> bytes:
        """Return a file as the gate judged it, whatever lies at the upload's address by now."""
        key = model_key(candidate.files[name].sha256, name)
        data = self.store.get(key)
        if sha256_of(data) != candidate.files[name].sha256:
            raise HashMismatchError(f"{key} in the object store is not what the gate judged")
        return data

    def _signed_before(self, envelope: bytes, version: int) -> Manifest:
        """Return the manifest that a release key has signed: a ledger is not believed, whoever wrote to it."""
        keys = self.trusted.keys if self.trusted else tuple(signer.public_key for signer in self.signers)
        verify(envelope, TrustedKeys(keys))
        manifest = shown_manifest(envelope)
        if manifest.version != version:
            raise EnvelopeError(f"release {version} in the ledger holds the manifest of version {manifest.version}")
        return manifest

    def _stale(self, candidate: Candidate) -> str:
        """Say why a candidate's judgement does not count any more; nothing where it does."""
        standing = self.ledger.standing_release()
        judged_against = (candidate.gate or {}).get(INCUMBENT)
        if standing is None or judged_against in (None, standing.version):
            return ""
        return f"judged against version {judged_against}, and since then version {standing.version} stands"

    def _refuse(self, candidates: Sequence[Candidate], reason: str, now: datetime) -> None:
        for each in candidates:
            self.ledger.refuse_accepted(each.request_id, f"not signed: {reason}", now)
            log.warning("candidate not released", request_id=each.request_id, reason=reason)

    def _write_card(self, version: int) -> None:
        try:
            text = model_card(card_facts(self.ledger, self.store, version))
            self.store.replace(card_key(version), text.encode(), "text/markdown; charset=utf-8")
        except OUTAGES as error:  # what the ledger has counts all the same, a withdrawal above all
            log.warning("model card not written", version=version, reason=str(error), next="`sliceloop card` shows it")


def sound_bundle(folder: Path) -> Bundle:
    """Read a trained network that may be released; raises `BundleError`, `LeakedModelError`."""
    bundle = read_bundle(folder)
    if bundle.report.leaked_patients:
        raise LeakedModelError(
            f"{folder}: {bundle.report.leaked_patients} patients stood on two sides of its training (--allow-leak); "
            "a leaked network is not released: train it again on a split by patient"
        )
    return bundle


def _why(before: Rollout | None, why: str, to: int | None) -> str:
    """Add to the reason of an earlier withdrawal; raises `WithdrawError` for one that adds nothing."""
    if before is None or before.state != "withdrawn":
        return why
    if to is None:
        raise WithdrawError(
            f"version {before.version} is withdrawn already ({before.reason}); --to names another way back"
        )
    return f"{before.reason}; {why}"


def _target(version: int, to: int | None, good: Sequence[int], states: Mapping[int, str]) -> int | None:
    """Choose where edges go back to: what ran on all edges before, rather than on some, rather than on none."""
    before = [each for each in good if each < version]
    if to is not None and to not in before:
        raise WithdrawError(
            f"version {to} is no release before {version} that is good to return to: it fell, or it is of an earlier "
            "sliceloop (release its network anew)"
        )
    complete = [each for each in before if states.get(each) == "complete"]
    begun = [each for each in before if each in states]
    return to or max(complete or begun or before, default=None)


def store_release(
    store: ObjectStore,
    ledger: Ledger,
    release: Release,
    checkpoint: bytes,
    gate: Mapping[str, Any],
    request_id: str | None = None,
) -> None:
    """Put a release's files and their indices into the object store, then enter it in the ledger."""
    keys = {}
    manifest = release.manifest
    for name, data in release.files.items():
        described = manifest.files[name]
        keys[name] = model_key(described.sha256, name)
        store.put(keys[name], data, "application/octet-stream")
        index = b"".join(release.indices[name])
        store.put(index_key(described.sha256, described.index), index, "application/octet-stream")
    checkpoint_sha256 = sha256_of(checkpoint)
    checkpoint_key = model_key(checkpoint_sha256, CHECKPOINT_FILE)
    store.put(checkpoint_key, checkpoint, "application/octet-stream")
    ledger.add_release(
        StoredRelease(
            version=manifest.version,
            name=manifest.name,
            sha256=manifest.model_ref.sha256,
            architecture=manifest.architecture,
            released_at=manifest.created_at,
            envelope=release.envelope,
            files=keys,
            checkpoint_key=checkpoint_key,
            checkpoint_sha256=checkpoint_sha256,
            request_id=request_id,
            gate=gate,
        )
    )
