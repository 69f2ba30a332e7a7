"""What an engineer sees: each ring's edges by how far they are, and every edge with what stands in its way."""

from dataclasses import replace
from typing import Any

from worker_parts import NOW, later

from cloud_worker.fleet_settings import RingSettings, RolloutSettings
from cloud_worker.fleet_status import edge_lines, ring_counts
from cloud_worker.ledger import Rollout
from cloud_worker.rollout import FleetEdge
from protocol.messages import ModelPhase

SETTINGS = RolloutSettings(
    rings=(RingSettings(name="canary", edges=("north/ct-0",)), RingSettings(name="all", share=1)), stuck_s=60
)


def edge(number: int, **changes: Any) -> FleetEdge:
    """Return an edge that runs version 1, and was told to run 2."""
    return replace(FleetEdge("north", f"ct-{number}", 2, NOW, NOW, 1, 1, ModelPhase.ACTIVE, heard_at=NOW), **changes)


FLEET = [
    edge(0, running=2, desired=2),
    edge(1, desired=2, phase=ModelPhase.DOWNLOADING),
    edge(2, desired=2, phase=ModelPhase.SHADOW),
    edge(3, running=2, desired=2, phase=ModelPhase.PROBATION),
    edge(4, desired=2, phase=ModelPhase.ROLLED_BACK, banned=frozenset({2}), reason="too slow", assigned=1),
    edge(5),
    edge(6, assigned=1),
    edge(7, assigned=1, pinned=1),
]


def test_each_ring_is_counted_by_how_far_its_edges_are() -> None:
    """An edge that failed is counted though it is told something else by now; a pinned one is in no ring."""
    canary, rest = ring_counts(2, FLEET, SETTINGS, NOW)
    assert (canary.edges, canary.assigned, canary.steps["active"]) == (1, 1, 1)
    assert (rest.edges, rest.assigned) == (6, 4)
    assert {step: count for step, count in rest.steps.items() if count} == {
        "waiting": 1,
        "downloading": 1,
        "shadow": 1,
        "probation": 1,
        "failed": 1,
    }


def test_an_edge_that_is_stuck_or_runs_what_was_withdrawn_is_marked() -> None:
    """With its reason, since when, and when it was last heard."""
    rollouts = [Rollout(1, "withdrawn", 0, NOW), Rollout(2, "running", 1, NOW)]
    fleet = [replace(each, seen_at=NOW) for each in FLEET]
    lines = {each.edge: each for each in edge_lines(fleet, rollouts, SETTINGS, later(61))}
    assert (lines["ct-1"].stuck_since, lines["ct-0"].stuck_since) == (NOW, None)
    assert lines["ct-4"].reason == "too slow"
    assert (lines["ct-6"].on_withdrawn, lines["ct-0"].on_withdrawn) == (True, False)
    assert (lines["ct-7"].ring, lines["ct-0"].ring, lines["ct-5"].ring) == ("pinned", "canary", "all")
    assert {each.last_seen for each in lines.values()} == {NOW}
