"""A release goes ring after ring by what edges report; nothing bad is ever assigned, and every edge converges."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from pydantic import ValidationError
from worker_parts import NOW, later

from cloud_worker.fleet_settings import RingSettings, RolloutSettings
from cloud_worker.ledger import Rollout
from cloud_worker.rollout import Fleet, FleetEdge, Plan, place_of, plan, rings_of
from protocol.messages import ModelPhase

CANARY = RingSettings(name="canary", edges=("north/ct-0",), abort_failures=1, min_s=60, timeout_s=600)
TENTH = RingSettings(name="tenth", share=0.1, success_share=0.5, abort_share=0.2, min_s=60, timeout_s=600)
ALL = RingSettings(name="all", share=1, success_share=0.5, abort_share=0.2, min_s=0, timeout_s=600)
SETTINGS = RolloutSettings(rings=(CANARY, TENTH, ALL), stuck_s=300)


def edge(number: int, **changes: Any) -> FleetEdge:
    """Return an edge that runs version 1 for good."""
    return replace(FleetEdge("north", f"ct-{number}", 1, NOW, NOW, 1, 1, ModelPhase.ACTIVE, heard_at=NOW), **changes)


def runs(number: int, version: int) -> FleetEdge:
    """Return an edge that was told this version and runs it for good."""
    return edge(number, assigned=version, running=version, desired=version)


def refused(number: int, version: int) -> FleetEdge:
    """Return an edge that took version back, and runs 1."""
    return edge(
        number,
        assigned=version,
        desired=version,
        phase=ModelPhase.ROLLED_BACK,
        banned=frozenset({version}),
        reason="too slow",
    )


def fleet(*edges: FleetEdge, version: int = 2, **changes: Any) -> Fleet:
    """Return a fleet on which 1 is complete and `version` runs in its first ring since now."""
    rollouts = (Rollout(1, "complete", 2, NOW), Rollout(version, "running", 0, NOW))
    return replace(Fleet(rollouts, edges, frozenset({1, version})), **changes)


def in_ring(ring: int, state: Any = "running", version: int = 2) -> dict[str, Any]:
    """Return rollouts of which the newest has come to this ring."""
    return {"rollouts": (Rollout(1, "complete", 2, NOW), Rollout(version, state, ring, NOW))}


def versions(found: Plan) -> dict[str, int]:
    """Return what each edge shall run."""
    return {name: assigned.version for (_, name), assigned in found.assigned.items()}


def newest(found: Plan) -> Rollout:
    """Return the rollout of the newest version."""
    return found.rollouts[-1]


def test_a_new_release_begins_with_the_canary_alone() -> None:
    """The named edge gets the new version, all others keep theirs."""
    new = fleet(*map(edge, range(4)), rollouts=(Rollout(1, "complete", 2, NOW),))
    found = plan(new, SETTINGS, NOW)
    assert newest(found) == Rollout(2, "running", 0, NOW)
    assert versions(found) == {"ct-0": 2, "ct-1": 1, "ct-2": 1, "ct-3": 1}
    assert {assigned.ring for assigned in found.assigned.values()} <= {"canary", "tenth", "all"}


def test_the_next_ring_follows_when_the_canary_runs_it_for_good_and_its_time_is_over() -> None:
    """Success alone is not enough, nor is time."""
    done = fleet(runs(0, 2), edge(1), edge(2))
    assert newest(plan(done, SETTINGS, later(59))).ring == 0
    assert newest(plan(fleet(edge(0, assigned=2), edge(1)), SETTINGS, later(61))).ring == 0
    watched = fleet(replace(runs(0, 2), phase=ModelPhase.PROBATION), edge(1))
    assert newest(plan(watched, SETTINGS, later(61))).ring == 0
    assert newest(plan(done, SETTINGS, later(61))).ring > 0


def test_a_share_that_draws_nobody_is_passed_over() -> None:
    """In a small fleet a tenth is nobody: the last ring follows at once."""
    small = fleet(runs(0, 2), *[edge(n) for n in range(1, 60) if place_of(("north", f"ct-{n}")) >= 0.1][:2])
    found = plan(small, SETTINGS, later(61))
    assert (newest(found).state, newest(found).ring) == ("running", 2)
    assert set(versions(found).values()) == {2}


def test_a_rollout_is_complete_when_the_last_ring_has_succeeded() -> None:
    """An edge that comes later gets the complete version at once."""
    found = plan(fleet(runs(0, 2), runs(1, 2), runs(2, 2), **in_ring(2)), SETTINGS, later(1))
    assert newest(found).state == "complete"
    stranger = FleetEdge("south", "ct-9")
    assert plan(fleet(stranger, rollouts=found.rollouts), SETTINGS, NOW).assigned["south", "ct-9"].version == 2


def test_failures_beyond_the_threshold_abort() -> None:
    """One canary that takes the release back ends it; the reason names edge and ground."""
    found = plan(fleet(refused(0, 2), edge(1)), SETTINGS, later(1))
    assert newest(found).state == "aborted"
    assert newest(found).reason == "1 of 1 edges of ring canary failed (north/ct-0: too slow)"
    assert versions(found) == {"ct-0": 1, "ct-1": 1}


def test_a_share_of_failures_that_is_allowed_aborts_nothing() -> None:
    """One of six failed, a fifth may: the others go on, and the one that failed runs what it ran."""
    found = plan(fleet(refused(0, 2), *(runs(n, 2) for n in range(1, 6)), **in_ring(0)), replaced(ALL), later(1))
    assert newest(found).state == "complete"
    assert versions(found) == {"ct-0": 1, "ct-1": 2, "ct-2": 2, "ct-3": 2, "ct-4": 2, "ct-5": 2}


def replaced(*rings: RingSettings) -> RolloutSettings:
    """Return settings with these rings alone."""
    return SETTINGS.model_copy(update={"rings": rings})


def test_after_an_abort_edges_that_run_it_stay_and_the_others_return() -> None:
    """Who is on the way to an aborted version is told to stay where it is; who runs it is not sent back unsigned."""
    there, under_way = runs(0, 2), edge(1, assigned=2, desired=2, phase=ModelPhase.DOWNLOADING)
    found = plan(fleet(there, under_way, edge(2), **in_ring(1, "aborted")), SETTINGS, later(1))
    assert versions(found) == {"ct-0": 2, "ct-1": 1, "ct-2": 1}


def test_a_withdrawn_version_leaves_every_edge() -> None:
    """Edges that run it go back to the target of the signed rollback."""
    found = plan(fleet(runs(0, 2), edge(1), **in_ring(2, "withdrawn"), returned_to={1: frozenset({2})}), SETTINGS, NOW)
    assert versions(found) == {"ct-0": 1, "ct-1": 1}


def test_an_edge_is_sent_no_way_back_that_does_not_lead_away_from_what_it_runs() -> None:
    """From 2 a way leads to 1; an edge on 3, which does not verify any more, would refuse it: it is told nothing."""
    found = plan(fleet(runs(0, 3), edge(1), **in_ring(2, "withdrawn"), returned_to={1: frozenset({2})}), SETTINGS, NOW)
    assert versions(found) == {"ct-0": 0, "ct-1": 1}


def test_a_release_after_a_withdrawn_one_is_rolled_out_from_the_first_ring() -> None:
    """The next version goes over canary again, whatever state its predecessor ended in."""
    withdrawn = fleet(edge(0), edge(1), **in_ring(2, "withdrawn"))
    found = plan(replace(withdrawn, verified=frozenset({1, 2, 3})), SETTINGS, NOW)
    assert newest(found) == Rollout(3, "running", 0, NOW)
    assert versions(found) == {"ct-0": 3, "ct-1": 1}


def test_a_newer_release_takes_the_place_of_the_one_that_runs() -> None:
    """The older rollout is superseded; its canary goes to the newer one, edges of its further rings wait for it."""
    half = fleet(runs(0, 2), runs(1, 2), edge(2), **in_ring(1))
    found = plan(replace(half, verified=frozenset({1, 2, 3})), SETTINGS, later(1))
    assert [each.state for each in found.rollouts] == ["complete", "superseded", "running"]
    assert found.rollouts[1].reason == "release 3 follows"
    assert versions(found) == {"ct-0": 3, "ct-1": 2, "ct-2": 1}


def test_a_release_that_gets_its_signatures_late_is_passed_over() -> None:
    """Version 2 verifies only after 3 began: it is not rolled out."""
    late = replace(fleet(edge(0), version=3), verified=frozenset({1, 2, 3}))
    states = {each.version: each.state for each in plan(late, SETTINGS, NOW).rollouts}
    assert states == {1: "complete", 2: "superseded", 3: "running"}


def test_a_ring_that_takes_too_long_pauses_the_rollout() -> None:
    """Nobody new is told while it is paused; the reason names who is missing."""
    found = plan(fleet(edge(0, assigned=2), edge(1)), SETTINGS, later(601))
    assert newest(found).state == "paused"
    assert "ring canary: 0 of 1 edges succeeded within 600 s; missing north/ct-0" in newest(found).reason
    assert versions(found) == {"ct-0": 2, "ct-1": 1}


def test_a_paused_rollout_tells_nobody_new_and_takes_nothing_back() -> None:
    """Edges that were told go on; a new edge of a ring that was reached is not told."""
    found = plan(fleet(runs(0, 2), edge(1), edge(2, assigned=2), **in_ring(2, "paused")), SETTINGS, later(1))
    assert versions(found) == {"ct-0": 2, "ct-1": 1, "ct-2": 2}
    assert newest(found).state == "paused"


def test_named_edges_that_were_never_heard_of_are_waited_for() -> None:
    """A mistyped canary must not let the release through to all."""
    found = plan(fleet(edge(1), edge(2)), SETTINGS, later(61))
    assert (newest(found).state, newest(found).ring) == ("running", 0)
    late = plan(fleet(edge(1), edge(2)), SETTINGS, later(601))
    assert "0 of 1 edges succeeded within 600 s; missing north/ct-0 (never heard of)" in newest(late).reason


def test_one_of_two_named_edges_does_not_speak_for_the_other() -> None:
    """A canary of two of which one is mistyped is not half a canary."""
    two = replaced(CANARY.model_copy(update={"edges": ("north/ct-0", "north/tc-1")}), ALL)
    found = plan(fleet(runs(0, 2), edge(1)), two, later(61))
    assert (newest(found).state, newest(found).ring) == ("running", 0)
    late = plan(fleet(runs(0, 2), edge(1)), two, later(601))
    assert "1 of 2 edges succeeded within 600 s; missing north/tc-1 (never heard of)" in newest(late).reason


def test_a_named_canary_that_is_pinned_lets_nothing_through() -> None:
    """It cannot prove a release: the rollout pauses, and says why nobody else was told."""
    found = plan(fleet(edge(0, pinned=1), edge(1)), SETTINGS, later(61))
    assert (newest(found).state, newest(found).ring) == ("running", 0)
    assert newest(found).reason == "ring canary waits for north/ct-0 (pinned)"
    late = plan(fleet(edge(0, pinned=1), edge(1)), SETTINGS, later(601))
    assert newest(late).state == "paused"
    assert newest(late).reason.endswith("missing north/ct-0 (pinned)")


def test_a_pinned_edge_stays_where_it_is() -> None:
    """A pin stands above rings; a pinned edge is not waited for either."""
    pinned = edge(0, pinned=1)
    found = plan(fleet(pinned, edge(1), **in_ring(2)), SETTINGS, later(1))
    assert versions(found) == {"ct-0": 1, "ct-1": 2}
    assert found.assigned["north", "ct-0"].ring == "pinned"


def test_a_pin_holds_where_the_release_does_not_verify_any_more() -> None:
    """Of an earlier sliceloop, or of a key that was exchanged: the edge that runs it is told nothing, and stays."""
    found = plan(fleet(edge(0, pinned=1), edge(1), **in_ring(2), verified=frozenset({2})), SETTINGS, later(1))
    assert versions(found) == {"ct-0": 0, "ct-1": 2}
    assert found.assigned["north", "ct-0"].ring == "pinned"


def test_a_pin_to_a_withdrawn_version_counts_for_nothing() -> None:
    """What was withdrawn runs nowhere, pinned or not."""
    found = plan(
        fleet(edge(0, pinned=2, assigned=2, running=2), **in_ring(2, "withdrawn"), returned_to={1: frozenset({2})}),
        SETTINGS,
        NOW,
    )
    assert versions(found) == {"ct-0": 1}


def test_an_expired_release_is_told_to_nobody_new() -> None:
    """Edges that run it keep it, its rollout pauses, a new edge gets nothing of it."""
    found = plan(fleet(runs(0, 2), edge(1), **in_ring(2), expired=frozenset({2})), SETTINGS, NOW)
    assert versions(found) == {"ct-0": 2, "ct-1": 1}
    assert newest(found).state == "paused"


def test_an_edge_without_a_network_waits_for_its_ring() -> None:
    """The first release goes over the canary too: a bad reading harms as a missing one does not."""
    empty = {"assigned": 0, "told_at": None, "running": 0, "desired": 0, "phase": ModelPhase.NONE}
    first = Fleet((), (edge(0, **empty), edge(1, **empty)), frozenset({1}))
    assert versions(plan(first, SETTINGS, NOW)) == {"ct-0": 1, "ct-1": 0}


def test_a_stuck_edge_is_named_with_its_reason() -> None:
    """Told for longer than the limit, and nothing new since; one that gets on is not stuck, nor is one that is done."""
    slow = edge(1, assigned=2, phase=ModelPhase.DOWNLOADING, desired=2, reason="disk full")
    busy = edge(2, assigned=2, phase=ModelPhase.DOWNLOADING, desired=2, progress_at=later(200))
    gone = edge(3, assigned=2)
    found = plan(fleet(runs(0, 2), slow, busy, gone, **in_ring(2)), SETTINGS, later(301))
    assert [(each.edge, each.version, each.since) for each in found.stuck] == [("ct-1", 2, NOW), ("ct-3", 2, NOW)]
    assert found.stuck[0].reason == "disk full"
    assert "active of version 1, nothing new since" in found.stuck[1].reason


def test_without_named_canaries_it_is_one_edge_by_hash() -> None:
    """The default needs no configuration: always the same edge, and one only."""
    settings = RolloutSettings()
    edges = [edge(n) for n in range(20)]
    rings = rings_of(edges, settings.rings, NOW)
    canaries = [name for name, ring in rings.items() if ring == 0]
    assert canaries == [min((each.id for each in edges), key=place_of)]
    assert rings_of(list(reversed(edges)), settings.rings, NOW) == rings


def test_a_canary_that_is_silent_gives_way_to_one_that_is_heard_of() -> None:
    """A box that was taken away would pause every rollout; where all are silent nothing changes."""
    settings = RolloutSettings()
    edges = sorted((edge(n, seen_at=NOW) for n in range(20)), key=lambda each: place_of(each.id))
    gone = replace(edges[0], seen_at=later(-25 * 3600))
    assert rings_of([gone, *edges[1:]], settings.rings, NOW)[edges[1].id] == 0
    assert rings_of([gone, *edges[1:]], settings.rings, NOW)[gone.id] > 0
    assert rings_of(edges, settings.rings, later(25 * 3600))[gone.id] == 0


def test_the_last_ring_reaches_all() -> None:
    """Settings under which some edges would never be told are refused."""
    with pytest.raises(ValidationError, match="the last ring, tenth, must have share = 1"):
        RolloutSettings(rings=(CANARY, TENTH))


def test_a_ring_that_can_only_run_out_of_time_is_refused() -> None:
    """With less time than it must take, every rollout would pause, however often it is resumed."""
    with pytest.raises(ValidationError, match=r"ring all: timeout_s \(600 s\) must be above min_s \(3600 s\)"):
        RingSettings(name="all", share=1, timeout_s=600)


def honest(told: FleetEdge, version: int, returns: dict[int, set[int]], bad: set[int], now: datetime) -> FleetEdge:
    """Let an edge follow an assignment as an edge does: never backwards but by a signed rollback, never a bad one."""
    told = replace(told, assigned=version, told_at=now, heard_at=now, progress_at=now)
    if version in (0, told.running) or version in told.banned:
        return told
    if version < told.running and told.running not in returns.get(version, set()):
        return replace(told, reason="older than what runs here")
    banned = told.banned | (returns.get(version, set()) - {version})
    if version in bad:
        return replace(told, desired=version, phase=ModelPhase.ROLLED_BACK, banned=banned | {version}, reason="bad")
    return replace(told, running=version, desired=version, phase=ModelPhase.ACTIVE, banned=banned, reason="")


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Draw what happens to a fleet: releases good and bad, withdrawals, pauses, edges that sleep and wake, time."""
    what = st.sampled_from(["good", "bad", "withdraw", "pause", "resume", "sleep", "wake", "pin", "unpin", "wait"])
    return draw(st.lists(st.tuples(what, st.integers(0, 7)), min_size=1, max_size=40))


@given(stories())
@budget(max_examples=400, deadline=None)
def test_whatever_happens_nothing_bad_is_assigned_and_awake_edges_converge(story: list[tuple[str, int]]) -> None:
    """Never an aborted version to who does not run it, never a withdrawn one; in the end all run the newest good."""
    world = World()
    for what, number in story:
        world.happens(what, number)
        world.turn()
    world.settle()


class World:
    """Eight honest edges, and a desk that does what the plan says."""

    def __init__(self) -> None:
        self.edges = [edge(n) for n in range(8)]
        self.rollouts: tuple[Rollout, ...] = (Rollout(1, "complete", 2, NOW),)
        self.verified, self.bad = {1}, set[int]()
        self.returns: dict[int, set[int]] = {}
        self.asleep = set[int]()
        self.now = NOW

    def happens(self, what: str, number: int) -> None:
        """Let one thing happen."""
        latest = max(self.verified)
        if what in ("good", "bad"):
            self.verified.add(latest + 1)
            self.bad |= {latest + 1} if what == "bad" else set()
        elif what == "withdraw" and latest > 1:
            self.withdraw(latest)
        elif what in ("pause", "resume"):
            before, after = ("running", "paused") if what == "pause" else ("paused", "running")
            self.rollouts = tuple(
                replace(each, state=after, ring_started_at=self.now) if each.state == before else each
                for each in self.rollouts
            )
        elif what in ("sleep", "wake"):
            (self.asleep.add if what == "sleep" else self.asleep.discard)(number)
        elif what in ("pin", "unpin"):
            pinned = self.edges[number].running if what == "pin" else 0
            self.edges[number] = replace(self.edges[number], pinned=pinned)
        else:
            self.now += timedelta(seconds=61)

    def withdraw(self, version: int) -> None:
        """Withdraw a version, back to the newest one that was complete."""
        states = {each.version: each for each in self.rollouts}
        states[version] = Rollout(version, "withdrawn", 0, self.now)
        self.rollouts = tuple(states[each] for each in sorted(states))
        target = max(each.version for each in self.rollouts if each.state == "complete")
        self.returns[target] = {each for each in self.verified if each > target}

    def turn(self) -> Plan:
        """Plan once, check what is assigned, and let the edges follow."""
        found = plan(self.fleet(), SETTINGS, self.now)
        self.rollouts = found.rollouts
        states = {each.version: each.state for each in found.rollouts}
        for number, told in enumerate(self.edges):
            version = found.assigned[told.id].version
            state = states.get(version, "none")
            assert state != "withdrawn", f"{told} is told a withdrawn version"
            assert state != "aborted" or told.running == version, f"{told} is told an aborted version"
            assert version not in told.banned
            if told.pinned and states[told.pinned] not in ("withdrawn", "aborted"):
                assert version == told.pinned
            if number not in self.asleep:
                self.edges[number] = honest(told, version, self.returns, self.bad, self.now)
        return found

    def settle(self) -> None:
        """Wake and free all, let time pass, and see where every edge ends."""
        self.asleep.clear()
        self.edges = [replace(each, pinned=0) for each in self.edges]
        self.happens("resume", 0)
        for _ in range(12):
            found = self.turn()
            self.now += timedelta(seconds=61)
        states = {each.version: each.state for each in found.rollouts}
        assert "running" not in states.values()
        wanted = max(version for version, state in states.items() if state == "complete")
        for each in self.edges:
            assert each.running == wanted or states[each.running] in ("aborted", "superseded"), (each, states)
            assert states[each.running] != "withdrawn"

    def fleet(self) -> Fleet:
        """Return what the desk knows."""
        return Fleet(
            self.rollouts,
            tuple(self.edges),
            frozenset(self.verified),
            returned_to={version: frozenset(left) for version, left in self.returns.items()},
        )


def test_a_withdrawn_version_leads_to_the_way_back_and_nowhere_else() -> None:
    """Where a person chose an older version to return to, a later good one is no way back: edges would refuse it."""
    states = (
        Rollout(1, "complete", 2, NOW),
        Rollout(2, "complete", 2, NOW),
        Rollout(3, "withdrawn", 0, NOW),
    )
    back = Fleet(states, (runs(0, 3), runs(1, 2)), frozenset({1, 2, 3}), returned_to={1: frozenset({2, 3})})
    assert versions(plan(back, SETTINGS, NOW)) == {"ct-0": 1, "ct-1": 2}
