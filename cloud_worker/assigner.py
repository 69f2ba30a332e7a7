"""Say which edge runs what: verify the releases, ask the plan, sign what changed, and publish it, each at its pace."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from securesystemslib.signer import CryptoSigner

from broker.messages import Outbound
from cloud_worker.key_chain import KeyChain
from cloud_worker.ledger import EdgeRecord, Ledger, Rollout, StoredAssignment
from cloud_worker.object_store import ObjectStore
from cloud_worker.rollout import Assigned, EdgeId, Fleet, FleetEdge, Plan, plan
from cloud_worker.settings import WorkerSettings
from protocol.assignment import Assignment
from protocol.chunks import sha256_of
from protocol.errors import TrustError
from protocol.manifest import MANIFEST_MAJOR, Manifest, manifest_digest, shown_manifest
from protocol.rotation import KeySet
from protocol.signing import ASSIGNMENT_PAYLOAD_TYPE, sign, verify
from protocol.topics import FLEET_KEYS, Kind, edge_topic

log = structlog.get_logger()

MAX_SIGNED_A_STEP = 500
"""Assignments; what is left is signed in the next step."""
MAX_SEQUENCE = 2**53
JSON = "application/json"


@dataclass(frozen=True)
class Standing:
    """A release that verifies: the envelope to publish, and what it says."""

    envelope: bytes
    manifest: Manifest
    sha256: str


class Assigner:
    """The director of the fleet: it chooses among what release keys have signed, and can make nothing."""

    def __init__(
        self, settings: WorkerSettings, store: ObjectStore, ledger: Ledger, signer: CryptoSigner, keys: KeySet
    ) -> None:
        """Remember the worker's key, and from which keys trust begins."""
        self._settings, self._store, self._ledger, self._signer = settings, store, ledger, signer
        self._chain = KeyChain(keys, ledger)
        self._verified: dict[tuple[int, str, int], Standing | None] = {}
        self._untold: OrderedDict[str, Outbound] = OrderedDict()
        self._said: dict[str, str] = {}
        self._stuck: set[tuple[EdgeId, int]] = set()
        self._told = ""

    def step(self, now: datetime) -> bool:
        """Decide for the whole fleet; what it is to hear waits in `untold`. True when more is to be signed."""
        keys = self._chain.follow()
        if rotations := self._chain.message():
            self._tell(FLEET_KEYS, rotations)
        if not self._may_assign(keys):
            return False
        standing = self._standing(keys)
        stored = {(each.site, each.edge): each for each in self._ledger.assignments()}
        records = self._ledger.edges()
        fleet = self._fleet(standing, stored, records, now)
        found = plan(fleet, self._settings.rollout, now)
        if not self._save_rollouts(fleet, found):
            return True  # a person was quicker: decided anew in the next step
        reported = {(each.site, each.edge): each.reported or {} for each in records}
        changed = self._due(found, standing, stored, reported, now)
        signed = self._taken(changed, stored)
        stored |= signed
        self._note_progress(stored, reported, now)
        self._name_stuck(found)
        outrun = {(each.site, each.edge) for each, _ in changed} - signed.keys()
        for edge, assignment in stored.items():
            if edge not in outrun:  # another worker has said something newer: heard in the next step
                self._publish(assignment, standing)
        return len(signed) == MAX_SIGNED_A_STEP

    def untold(self) -> Iterator[Outbound]:
        """Yield what is to be published, one by one; each counts as published when the next one is asked for."""
        while self._untold:
            topic, outbound = next(iter(self._untold.items()))
            yield outbound
            self._said[topic] = sha256_of(outbound.payload)
            self._untold.pop(topic, None)

    def forget_said(self) -> None:
        """Say everything again: a broker may have forgotten what it retained."""
        self._said.clear()

    def _may_assign(self, keys: KeySet) -> bool:
        keyid = self._signer.public_key.keyid
        if keyid in {key.keyid for key in keys.assign.keys}:
            self._told = ""
            return True
        if self._told != keyid:
            self._told = keyid
            log.error(
                "assigns nothing",
                reason=f"its key {keyid[:12]} is not among the trusted keys of version {keys.version}",
                next="give worker.assign_key_file the key of the newest rotation",
            )
        return False

    def _standing(self, keys: KeySet) -> dict[int, Standing]:
        """Return the releases that verify, as the newest signed rollback says them where there is one."""
        found: dict[int, Standing] = {}
        rollbacks = [(each.version, each.envelope) for each in self._ledger.rollbacks()]
        for version, envelope in [*((each.version, each.envelope) for each in self._ledger.releases()), *rollbacks]:
            standing = self._verify(version, envelope, keys)
            if standing is not None:
                found[version] = standing
        return found

    def _verify(self, version: int, envelope: bytes, keys: KeySet) -> Standing | None:
        known = (version, sha256_of(envelope), keys.version)
        if known not in self._verified:
            self._verified[known] = self._verified_now(version, envelope, keys)
        return self._verified[known]

    def _verified_now(self, version: int, envelope: bytes, keys: KeySet) -> Standing | None:
        try:
            verify(envelope, keys.release)
            manifest = shown_manifest(envelope)
        except TrustError as error:
            log.warning("release waits", version=version, reason=str(error), next="`sliceloop sign` adds a signature")
            return None
        if manifest.major < MANIFEST_MAJOR or manifest.version != version:
            stated = f"a manifest of major {manifest.major} and version {manifest.version}"
            log.warning("release passed over", version=version, reason=stated)
            return None
        return Standing(envelope, manifest, manifest_digest(envelope))

    def _fleet(
        self,
        standing: Mapping[int, Standing],
        stored: Mapping[EdgeId, StoredAssignment],
        records: Iterable[EdgeRecord],
        now: datetime,
    ) -> Fleet:
        pins = {(each.site, each.edge): each.version for each in self._ledger.pins()}
        return Fleet(
            rollouts=tuple(self._ledger.rollouts()),
            edges=tuple(fleet_edge(each, stored.get((each.site, each.edge)), pins) for each in records),
            verified=frozenset(standing),
            expired=frozenset(version for version, each in standing.items() if each.manifest.expires_at <= now),
            returned_to={
                version: frozenset(each.manifest.returns_from)
                for version, each in standing.items()
                if each.manifest.returns_from
            },
        )

    def _save_rollouts(self, fleet: Fleet, found: Plan) -> bool:
        known = {each.version: each for each in fleet.rollouts}
        for rollout in found.rollouts:
            before = known.get(rollout.version)
            if rollout != before:
                if not self._ledger.save_rollout(rollout, before):
                    return False
                log.info(
                    "rollout",
                    version=rollout.version,
                    state=rollout.state,
                    ring=self._ring_name(rollout),
                    reason=rollout.reason,
                )
        return True

    def _ring_name(self, rollout: Rollout) -> str:
        rings = self._settings.rollout.rings
        return rings[min(rollout.ring, len(rings) - 1)].name

    def _due(
        self,
        found: Plan,
        standing: Mapping[int, Standing],
        stored: Mapping[EdgeId, StoredAssignment],
        reported: Mapping[EdgeId, Mapping[str, Any]],
        now: datetime,
    ) -> list[tuple[StoredAssignment, int]]:
        """Sign what changed or grows old, each with the number that it follows."""
        changed = []
        for edge, assigned in found.assigned.items():
            before, heard = stored.get(edge), _heard(reported[edge])
            if self._is_due(assigned, before, standing, heard, now):
                after = self._signed(edge, assigned, before, standing.get(assigned.version), heard, now)
                changed.append((after, before.sequence if before else 0))
            if len(changed) == MAX_SIGNED_A_STEP:
                break
        return changed

    def _taken(
        self, changed: Sequence[tuple[StoredAssignment, int]], stored: Mapping[EdgeId, StoredAssignment]
    ) -> dict[EdgeId, StoredAssignment]:
        """Enter what was signed in the ledger before anybody hears of it; return what no other worker outran."""
        taken = self._ledger.save_assignments(changed) if changed else []
        for each in taken:
            before = stored.get((each.site, each.edge))
            if before is None or before.version != each.version:
                log.info("assigned", site=each.site, edge=each.edge, version=each.version, ring=each.ring)
        return {(each.site, each.edge): each for each in taken}

    def _is_due(
        self,
        assigned: Assigned,
        before: StoredAssignment | None,
        standing: Mapping[int, Standing],
        heard: int,
        now: datetime,
    ) -> bool:
        if before is None:
            return assigned.version > 0
        if assigned.version != before.version:
            return True
        if not assigned.version:
            return False
        return (
            before.manifest_sha256 != standing[assigned.version].sha256
            or now >= before.issued_at + self._renewal()
            or now >= before.expires_at
            or not self._is_believed(before.envelope)
            or heard > before.sequence  # this ledger is older than what the edge has heard: go on from there
        )

    def _is_believed(self, envelope: bytes) -> bool:
        """Tell whether a worker's key signed it that was not exchanged since: edges heed no other."""
        return any(key.keyid.encode() in envelope for key in self._chain.keys.assign.keys)

    def _renewal(self) -> timedelta:
        """Return how old an assignment grows: half of what it is valid for, its addresses too."""
        valid = timedelta(hours=self._settings.rollout.assignment_valid_h)
        if self._settings.delivery.presigned_urls:
            valid = min(valid, self._store.presign_expiry)
        return valid / 2

    def _signed(
        self,
        edge: EdgeId,
        assigned: Assigned,
        before: StoredAssignment | None,
        standing: Standing | None,
        heard: int,
        now: datetime,
    ) -> StoredAssignment:
        sequence = max(before.sequence if before else 0, heard) + 1
        expires_at = now + timedelta(hours=self._settings.rollout.assignment_valid_h)
        same = before is not None and before.version == assigned.version
        told_at = before.told_at if before is not None and same else now
        blank = StoredAssignment(*edge, sequence, 0, assigned.ring, "", b"", now, expires_at, told_at, "", told_at)
        if standing is None:
            return blank
        assignment = Assignment(
            site=edge[0],
            edge=edge[1],
            sequence=sequence,
            version=assigned.version,
            manifest_sha256=standing.sha256,
            ring=assigned.ring,
            issued_at=now,
            expires_at=expires_at,
            urls=self._urls(standing.manifest),
        )
        envelope = sign(assignment.model_dump_json().encode(), [self._signer], ASSIGNMENT_PAYLOAD_TYPE)
        after = replace(blank, version=assigned.version, manifest_sha256=standing.sha256, envelope=envelope)
        if before is None or not same:
            return after
        return replace(after, progress=before.progress, progress_at=before.progress_at)

    def _urls(self, manifest: Manifest) -> dict[str, str]:
        if not self._settings.delivery.presigned_urls:
            return {}
        files = self._ledger.release(manifest.version).files
        return {name: self._store.presign_get(files[name]) for name in manifest.files}

    def _note_progress(
        self, stored: dict[EdgeId, StoredAssignment], reported: Mapping[EdgeId, Mapping[str, Any]], now: datetime
    ) -> None:
        """Remember since when each edge that is on its way reports what it reports."""
        moved = []
        for edge, assignment in stored.items():
            said = reported.get(edge, {})
            progress = _progress(said)
            on_its_way = assignment.version and _running(said) != assignment.version
            if on_its_way and progress != assignment.progress:
                stored[edge] = replace(assignment, progress=progress, progress_at=now)
                moved.append(stored[edge])
        if moved:
            self._ledger.record_progress(moved)

    def _name_stuck(self, found: Plan) -> None:
        stuck = {((each.site, each.edge), each.version): each for each in found.stuck}
        for key in stuck.keys() - self._stuck:
            each = stuck[key]
            log.warning(
                "edge is stuck",
                site=each.site,
                edge=each.edge,
                version=each.version,
                since=each.since.isoformat(timespec="seconds"),
                reason=each.reason,
            )
        self._stuck = set(stuck)

    def _publish(self, assignment: StoredAssignment, standing: Mapping[int, Standing]) -> None:
        """Let an edge hear its assignment, and the release that it names; where there is none, nothing any more."""
        named = standing.get(assignment.version)
        if named is not None and named.sha256 != assignment.manifest_sha256:
            return  # signed in the next step
        self._tell(edge_topic(assignment.site, assignment.edge, Kind.MODEL_ASSIGNED), assignment.envelope)
        manifest = named.envelope if named is not None and assignment.version else b""
        self._tell(edge_topic(assignment.site, assignment.edge, Kind.MODEL_DESIRED), manifest)

    def _tell(self, topic: str, payload: bytes) -> None:
        if self._said.get(topic) == sha256_of(payload):
            self._untold.pop(topic, None)
            return
        self._untold[topic] = Outbound(topic, payload, retain=True, content_type=JSON)


def fleet_edge(record: EdgeRecord, stored: StoredAssignment | None, pins: Mapping[EdgeId, int]) -> FleetEdge:
    """Put together what is known of an edge."""
    said = record.reported or {}
    return FleetEdge(
        site=record.site,
        edge=record.edge,
        assigned=stored.version if stored else 0,
        told_at=stored.told_at if stored else None,
        progress_at=stored.progress_at if stored else None,
        running=_running(said),
        desired=int(said.get("desired_version", 0)),
        phase=str(said.get("phase", "none")),
        banned=frozenset(said.get("banned", ())),
        reason=str(said.get("reason", "")),
        heard_at=record.reported_at,
        pinned=pins.get((record.site, record.edge), 0),
        seen_at=max(filter(None, (record.status_at, record.reported_at)), default=None),
    )


def _running(reported: Mapping[str, Any]) -> int:
    return int((reported.get("running") or {}).get("version", 0))


def _heard(reported: Mapping[str, Any]) -> int:
    """Return the number of the newest assignment that the edge knows, where a ledger can go on from it."""
    number = int(reported.get("assignment", 0))
    return number if number < MAX_SEQUENCE else 0


def _progress(reported: Mapping[str, Any]) -> str:
    """Say what of a report is progress; its time is not."""
    names = ("phase", "desired_version", "chunks_done", "compared")
    return " ".join(str(reported.get(name, "")) for name in names) + f" {_running(reported)}"
