"""What an engineer sees of the fleet: rollouts, rings with their counts, every edge, and the stuck ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cloud_worker.fleet_settings import RolloutSettings
from cloud_worker.ledger.records import Rollout
from cloud_worker.rollout import PINNED, FleetEdge, rings_of, stuck_edges
from protocol.messages import ModelPhase

STEPS = ("waiting", "downloading", "testing", "shadow", "probation", "active", "failed")
"""Where an edge may stand with the version that it is assigned."""
_ON_THE_WAY = {ModelPhase.DOWNLOADING, ModelPhase.TESTING, ModelPhase.SHADOW}


@dataclass(frozen=True)
class RingCounts:
    """How many edges a ring has, how many of them are assigned the version, and at which step they are."""

    name: str
    edges: int
    assigned: int
    steps: Mapping[str, int]


@dataclass(frozen=True)
class EdgeLine:
    """One edge as `status` shows it; `stuck_since` is None where it gets on."""

    site: str
    edge: str
    ring: str
    assigned: int
    running: int
    phase: str
    step: str
    reason: str
    last_seen: datetime | None
    stuck_since: datetime | None
    on_withdrawn: bool


def ring_counts(version: int, edges: Sequence[FleetEdge], settings: RolloutSettings, now: datetime) -> list[RingCounts]:
    """Count the edges of each ring, by how far they are with the version; pinned ones are in no ring."""
    rings = rings_of(edges, settings.rings, now)
    found = []
    for number, ring in enumerate(settings.rings):
        there = [edge for edge in edges if rings[edge.id] == number and not edge.pinned]
        steps = Counter(step_of(edge, version) for edge in there if _concerned(edge, version))
        told = sum(edge.assigned == version for edge in there)
        found.append(RingCounts(ring.name, len(there), told, {step: steps[step] for step in STEPS}))
    return found


def step_of(edge: FleetEdge, version: int) -> str:
    """Say how far an edge is with a version that it was told to run."""
    if edge.failed(version):
        return "failed"
    if edge.running == version:
        return "probation" if edge.phase == ModelPhase.PROBATION else "active"
    return str(edge.phase) if edge.desired == version and edge.phase in _ON_THE_WAY else "waiting"


def edge_lines(
    edges: Sequence[FleetEdge],
    rollouts: Sequence[Rollout],
    settings: RolloutSettings,
    now: datetime,
) -> list[EdgeLine]:
    """Say of every edge what it runs, what it shall run, and whether it gets on."""
    rings = rings_of(edges, settings.rings, now)
    stuck = {(each.site, each.edge): each for each in stuck_edges(edges, settings, now)}
    withdrawn = {each.version for each in rollouts if each.state == "withdrawn"}
    return [
        EdgeLine(
            site=edge.site,
            edge=edge.edge,
            ring=PINNED if edge.pinned else settings.rings[rings[edge.id]].name,
            assigned=edge.assigned,
            running=edge.running,
            phase=str(edge.phase),
            step=step_of(edge, edge.assigned) if edge.assigned else "",
            reason=stuck[edge.id].reason if edge.id in stuck else edge.reason,
            last_seen=edge.seen_at,
            stuck_since=stuck[edge.id].since if edge.id in stuck else None,
            on_withdrawn=edge.running in withdrawn,
        )
        for edge in edges
    ]


def _concerned(edge: FleetEdge, version: int) -> bool:
    return version in (edge.assigned, edge.running) or edge.failed(version)
