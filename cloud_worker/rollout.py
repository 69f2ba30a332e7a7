"""Decide how far a release goes: ring after ring by what the edges report, and which edge runs which version meanwhile.

A pure function: what was decided before and what the edges say go in, what is to be done comes out.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cloud_worker.fleet_settings import RingSettings, RolloutSettings
from cloud_worker.ledger.records import Rollout
from protocol.messages import ModelPhase

EdgeId = tuple[str, str]
PINNED = "pinned"
FAILURES = frozenset({ModelPhase.REJECTED, ModelPhase.ROLLED_BACK})
QUIET = timedelta(days=1)
NAMED = 3
"""Edges that a reason names."""


@dataclass(frozen=True)
class FleetEdge:
    """An edge: what it was told, and what it last said; versions are 0 where there is none."""

    site: str
    edge: str
    assigned: int = 0
    told_at: datetime | None = None
    """When it was first told to run `assigned`."""
    progress_at: datetime | None = None
    """Since when it reports what it reports."""
    running: int = 0
    desired: int = 0
    phase: str = ModelPhase.NONE
    banned: frozenset[int] = frozenset()
    reason: str = ""
    heard_at: datetime | None = None
    pinned: int = 0
    seen_at: datetime | None = None
    """When it last said anything."""

    @property
    def id(self) -> EdgeId:
        """Return site and edge."""
        return self.site, self.edge

    def quiet(self, now: datetime) -> bool:
        """Tell whether it has said nothing for so long that a rollout had better begin elsewhere."""
        return self.seen_at is not None and now - self.seen_at > QUIET

    def failed(self, version: int) -> bool:
        """Tell whether it refused this version, or took it back."""
        return version in self.banned or (self.desired == version and self.phase in FAILURES)

    def succeeded(self, version: int) -> bool:
        """Tell whether it runs this version for good."""
        return self.running == version and self.phase == ModelPhase.ACTIVE


@dataclass(frozen=True)
class Fleet:
    """All that is known: versions whose release verifies, those of them that have expired, and the edges."""

    rollouts: tuple[Rollout, ...]
    edges: tuple[FleetEdge, ...]
    verified: frozenset[int]
    expired: frozenset[int] = frozenset()
    """An edge that runs one goes on; no other is told to."""
    returned_to: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Targets of signed rollbacks, and from which versions each leads there: no other edge goes back."""


@dataclass(frozen=True)
class Assigned:
    """What one edge shall run; version 0 is nothing."""

    version: int
    ring: str


@dataclass(frozen=True)
class Stuck:
    """An edge that was told, and gets nowhere."""

    site: str
    edge: str
    version: int
    since: datetime
    reason: str


@dataclass(frozen=True)
class Plan:
    """What follows: the rollouts as they are from now on, what each edge runs, and who is stuck."""

    rollouts: tuple[Rollout, ...]
    assigned: Mapping[EdgeId, Assigned]
    stuck: tuple[Stuck, ...]


def plan(fleet: Fleet, settings: RolloutSettings, now: datetime) -> Plan:
    """Begin, advance, pause or abort rollouts, and say what every edge shall run."""
    rings = rings_of(fleet.edges, settings.rings, now)
    rollouts = _begun(fleet, now)
    rollouts = tuple(_advanced(each, fleet, rings, settings.rings, now) for each in rollouts)
    assigned = {edge.id: _assigned(edge, fleet, rollouts, rings[edge.id], settings.rings) for edge in fleet.edges}
    told = (edge for edge in fleet.edges if edge.assigned == assigned[edge.id].version)
    return Plan(rollouts, assigned, tuple(stuck_edges(told, settings, now)))


def rings_of(edges: Sequence[FleetEdge], rings: Sequence[RingSettings], now: datetime) -> dict[EdgeId, int]:
    """Say in which ring each edge is: where it is named, else by its hash; a canary is one that is heard of."""
    named = {name: number for number, ring in reversed(list(enumerate(rings))) for name in ring.edges}
    found = {edge.id: named["/".join(edge.id)] for edge in edges if "/".join(edge.id) in named}
    free = sorted((edge for edge in edges if edge.id not in found), key=lambda edge: place_of(edge.id))
    for number, ring in enumerate(rings):
        if ring.share:
            chosen = [edge for edge in free if place_of(edge.id) < ring.share or ring.share >= 1]
        elif ring.edges:
            chosen = []
        else:
            loose = [edge for edge in free if not edge.pinned]
            chosen = ([edge for edge in loose if not edge.quiet(now)] or loose)[:1]
        found |= {edge.id: number for edge in chosen}
        free = [edge for edge in free if edge.id not in found]
    return found


def place_of(edge: EdgeId) -> float:
    """Return an edge's place in the fleet, 0 <= place < 1, which never changes."""
    digest = hashlib.sha256("/".join(edge).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def stuck_edges(edges: Iterable[FleetEdge], settings: RolloutSettings, now: datetime) -> Iterable[Stuck]:
    """Name the edges that were told for long and do not get on."""
    for edge in edges:
        if not edge.assigned or edge.running == edge.assigned or edge.told_at is None:
            continue
        since = max(edge.told_at, edge.progress_at or edge.told_at)
        if now - since > timedelta(seconds=settings.stuck_s):
            yield Stuck(edge.site, edge.edge, edge.assigned, since, _why(edge))


def _begun(fleet: Fleet, now: datetime) -> tuple[Rollout, ...]:
    """Begin the rollout of a release that is newer than all; it takes the place of the one that runs."""
    known = {rollout.version for rollout in fleet.rollouts}
    new = sorted(fleet.verified - fleet.expired - known)
    if not new:
        return fleet.rollouts
    newest = max(known | set(new))
    ended = tuple(
        replace(each, state="superseded", reason=f"release {newest} follows")
        if each.state in ("running", "paused") and each.version < newest
        else each
        for each in fleet.rollouts
    )
    begun = tuple(
        Rollout(version, "running", 0, now)
        if version == newest
        else Rollout(version, "superseded", 0, now, f"release {newest} is newer")
        for version in new
    )
    return tuple(sorted((*ended, *begun), key=lambda each: each.version))


def _advanced(
    rollout: Rollout, fleet: Fleet, rings_by_edge: Mapping[EdgeId, int], rings: Sequence[RingSettings], now: datetime
) -> Rollout:
    """Take a rollout that runs as many rings on as it may go."""
    members: list[list[FleetEdge]] = [[] for _ in rings]
    for edge in fleet.edges:
        if not edge.pinned:
            members[rings_by_edge[edge.id]].append(edge)
    while rollout.state == "running":
        following = _step(rollout, members, rings, fleet, now)
        if following == rollout:
            break
        rollout = following
    return rollout


def _step(
    rollout: Rollout, members: Sequence[Sequence[FleetEdge]], rings: Sequence[RingSettings], fleet: Fleet, now: datetime
) -> Rollout:
    number = min(rollout.ring, len(rings) - 1)
    failures = [_failure(ring, there, rollout.version) for ring, there in zip(rings, members, strict=True)]
    if any(failures[: number + 1]):
        return replace(rollout, state="aborted", reason="; ".join(filter(None, failures[: number + 1])))
    if rollout.version not in fleet.verified - fleet.expired:
        return replace(rollout, state="paused", reason="the release has expired, or no trusted keys verify it any more")
    ring, there = rings[number], members[number]
    elapsed_s = (now - rollout.ring_started_at).total_seconds()
    unheard = _unheard(ring, fleet)
    done = _succeeded(ring, there, unheard, rollout.version) and elapsed_s >= ring.min_s
    if done or _nobody_to_wait_for(ring, there, members):
        if number == len(rings) - 1:
            return replace(rollout, state="complete", ring=number, reason="")
        return replace(rollout, ring=number + 1, ring_started_at=now, reason="")
    if elapsed_s > ring.timeout_s:
        return replace(rollout, state="paused", reason=_timed_out(ring, there, fleet, rollout.version))
    absent = _absent(ring, fleet)
    return replace(rollout, reason=f"ring {ring.name} waits for {', '.join(absent)}"[:300] if absent else "")


def _nobody_to_wait_for(ring: RingSettings, there: Sequence[FleetEdge], members: Sequence[Sequence[FleetEdge]]) -> bool:
    """Tell whether a share has drawn nobody; a ring of named edges waits, also where all of them are pinned."""
    return not there and not ring.edges and any(members)


def _unheard(ring: RingSettings, fleet: Fleet) -> list[str]:
    """Return the named edges that were never heard of: a mistyped canary counts as one that has not succeeded."""
    heard = {"/".join(edge.id) for edge in fleet.edges}
    return [name for name in ring.edges if name not in heard]


def _absent(ring: RingSettings, fleet: Fleet) -> list[str]:
    """Say which edges a ring names in vain, and why."""
    pinned = ["/".join(edge.id) for edge in fleet.edges if edge.pinned and "/".join(edge.id) in ring.edges]
    return [*(f"{name} (never heard of)" for name in _unheard(ring, fleet)), *(f"{name} (pinned)" for name in pinned)]


def _succeeded(ring: RingSettings, there: Sequence[FleetEdge], unheard: Sequence[str], version: int) -> bool:
    if not there:
        return False
    return sum(edge.succeeded(version) for edge in there) >= ring.success_share * (len(there) + len(unheard))


def _failure(ring: RingSettings, there: Sequence[FleetEdge], version: int) -> str:
    """Say why a ring's failures end the rollout; nothing where they do not."""
    failed = [edge for edge in there if edge.failed(version)]
    too_many = ring.abort_failures is not None and len(failed) >= ring.abort_failures
    too_large = ring.abort_share is not None and len(failed) > ring.abort_share * len(there)
    if not too_many and not too_large:
        return ""
    told = "; ".join(f"{edge.site}/{edge.edge}: {edge.reason or edge.phase}"[:300] for edge in failed[:NAMED])
    return f"{len(failed)} of {len(there)} edges of ring {ring.name} failed ({told})"


def _timed_out(ring: RingSettings, there: Sequence[FleetEdge], fleet: Fleet, version: int) -> str:
    done, unheard = sum(edge.succeeded(version) for edge in there), _unheard(ring, fleet)
    behind = ["/".join(edge.id) for edge in there if not edge.succeeded(version)]
    missing = ", ".join([*behind, *_absent(ring, fleet)])[:300] or "any edge that is not pinned"
    expected = len(there) + len(unheard)
    return f"ring {ring.name}: {done} of {expected} edges succeeded within {ring.timeout_s:.0f} s; missing {missing}"


def _assigned(
    edge: FleetEdge, fleet: Fleet, rollouts: Sequence[Rollout], ring: int, rings: Sequence[RingSettings]
) -> Assigned:
    """Choose the newest version that has reached the edge, and that may run there."""
    states = {each.version: each for each in rollouts}
    if edge.pinned and _allowed(edge.pinned, edge, fleet, states):
        return Assigned(edge.pinned, PINNED)
    if _stays(edge, fleet, states):
        return Assigned(0, PINNED)
    reached = {edge.assigned, edge.running}
    reached |= {each.version for each in rollouts if each.state == "complete"}
    reached |= {each.version for each in rollouts if each.state == "running" and ring <= each.ring}
    # an edge goes back by a signed rollback alone
    reached |= set(fleet.returned_to)
    reached = {each for each in reached if each >= edge.running or edge.running in fleet.returned_to.get(each, ())}
    options = [version for version in reached if _allowed(version, edge, fleet, states)]
    return Assigned(max(options, default=0), rings[ring].name)


def _allowed(version: int, edge: FleetEdge, fleet: Fleet, states: Mapping[int, Rollout]) -> bool:
    """Tell whether an edge may be told to run it: never a withdrawn one, of an aborted one those that run it."""
    if version not in fleet.verified or version in edge.banned:
        return False
    state = states[version].state if version in states else "superseded"
    if state == "withdrawn":
        return False
    return edge.running == version or (state != "aborted" and version not in fleet.expired)


def _stays(edge: FleetEdge, fleet: Fleet, states: Mapping[int, Rollout]) -> bool:
    """Tell whether an edge runs what it is pinned to, of which nobody can be told: an earlier sliceloop's, or keys'."""
    gone = {version for version, each in states.items() if each.state == "withdrawn"}
    return 0 < edge.pinned == edge.running and edge.pinned not in fleet.verified | edge.banned | gone


def _why(edge: FleetEdge) -> str:
    if edge.heard_at is None:
        return "it never said what it runs"
    if edge.reason:
        return edge.reason
    return f"{edge.phase} of version {edge.desired}, nothing new since {edge.heard_at:%F %T} UTC"
