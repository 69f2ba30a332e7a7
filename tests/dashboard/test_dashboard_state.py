"""What the dashboard knows after what it heard."""

from dashboard_said import (
    REFUSED,
    SITE,
    at,
    diagnosis,
    png,
    progress,
    reading,
    reported,
    result,
    slice_read,
    status,
    to,
    verdict,
)

from cloud_worker.dashboard.announcement import Announcement
from cloud_worker.dashboard.rows import EdgeId
from cloud_worker.dashboard.state import Bounds, DashboardState
from protocol.labels import LABELS, Label
from protocol.messages import ModelPhase, RetrainPhase
from protocol.topics import Address, Kind

EDGE = EdgeId(SITE, "ct-1")


def test_a_slice_is_shown_once_though_it_arrives_thrice() -> None:
    """A slice that comes as a diagnosis, as a slice, and as a slice again is one row and counts once."""
    state = DashboardState()
    state.apply(to(Kind.DIAGNOSIS), diagnosis(), at(0))
    state.apply(to(Kind.SLICE), slice_read(), at(1))
    state.apply(to(Kind.SLICE), slice_read(), at(2))
    assert len(state.newest_slices(10)) == 1
    assert state.counts["read"] == state.counts[Label.PNEUMONIA] == 1


def test_a_verdict_may_come_before_its_slice() -> None:
    """A verdict that is early waits unseen, and is there when its slice comes."""
    state = DashboardState()
    state.apply(to(Kind.VERDICT), verdict(second=reading(Label.NORMAL), kind="label"), at(0))
    assert state.newest_slices(10) == []
    assert state.counts["read"] == 0
    state.apply(to(Kind.SLICE), slice_read(), at(1))
    (row,) = state.newest_slices(10)
    assert row.second is not None
    assert row.second.label is Label.NORMAL
    assert (state.counts["read"], state.counts["disagreement"], state.counts["open"]) == (1, 1, 1)


def test_a_review_closes_a_disagreement_for_good() -> None:
    """A disagreement counts as open until its review, and an old verdict that comes again does not reopen it."""
    state = DashboardState()
    state.apply(to(Kind.SLICE), slice_read(), at(0))
    for reviewer in ("", "lee", "", "lee"):
        state.apply(to(Kind.VERDICT), verdict(kind="label", reviewer=reviewer), at(1))
    counts = state.counts
    assert (counts["second"], counts["disagreement"], counts["open"], counts["reviewed"]) == (1, 1, 0, 1)


def test_an_uncertain_reading_counts_for_no_label() -> None:
    """An uncertain reading is counted as uncertain, never as the label that it leans to."""
    state = DashboardState()
    state.apply(to(Kind.SLICE), slice_read(first=reading(uncertain=True)), at(0))
    assert state.counts["uncertain"] == 1
    assert all(state.counts[label] == 0 for label in LABELS)


def test_slices_of_two_edges_with_one_id_are_two() -> None:
    """The same slice id from two edges is two slices."""
    state = DashboardState()
    for edge in ("ct-1", "ct-2"):
        state.apply(to(Kind.SLICE, edge), slice_read(), at(0))
    assert state.counts["read"] == 2


def test_the_last_picture_is_of_the_last_new_slice() -> None:
    """A slice that is sent again does not take the place of the newer picture."""
    state = DashboardState()
    old, new = png(10), png(200)
    for slice_id, image in (("s1", old), ("s2", new), ("s1", old)):
        state.apply(to(Kind.SLICE), slice_read(slice_id, image=image), at(0))
    assert state.last_slice is not None
    assert state.last_slice.image == new


def test_a_lost_edge_is_lost() -> None:
    """An edge whose will the broker speaks is lost, and was last heard when it last spoke itself."""
    state = DashboardState()
    state.apply(to(Kind.STATUS), status(), at(0))
    state.apply(to(Kind.STATUS), status("lost"), at(50))
    edge = state.edges[EDGE]
    assert (edge.state, edge.since, edge.last_seen) == ("lost", at(50), at(0))


def test_the_will_of_an_earlier_boot_says_nothing_of_the_later_one() -> None:
    """A restarted edge stays online when the broker speaks the old connection's will late."""
    state = DashboardState()
    state.apply(to(Kind.STATUS), status(boot="boot-2", said=at(10)), at(10))
    state.apply(to(Kind.STATUS), status("lost", boot="boot-1", said=at(0)), at(11))
    assert state.edges[EDGE].state == "online"


def test_a_retained_status_does_not_make_an_edge_look_fresh() -> None:
    """What the broker kept for us counts as heard when it was said, not when we attached."""
    state = DashboardState()
    state.apply(to(Kind.STATUS), status(said=at(0)), at(500), retained=True)
    assert state.edges[EDGE].last_seen == at(0)


def test_retained_messages_that_come_again_change_nothing() -> None:
    """After a reconnect the same messages leave the same rows and counts."""

    def heard_once_more() -> tuple[object, ...]:
        state.apply(to(Kind.STATUS), status(), at(0), retained=True)
        state.apply(to(Kind.MODEL_REPORTED), reported(ModelPhase.ACTIVE, 2, 2), at(0), retained=True)
        state.apply(Address(Kind.MODEL_DESIRED), Announcement("squeezenet", 2), at(0), retained=True)
        state.apply(Address(Kind.RETRAIN_STATUS), progress(0.5), at(0))
        return dict(state.edges), dict(state.versions), dict(state.trainings), dict(state.counts)

    state = DashboardState()
    assert heard_once_more() == heard_once_more()


def test_an_older_report_does_not_undo_a_newer_one() -> None:
    """Reports of an edge count by when they were said, not by when they arrive."""
    state = DashboardState()
    state.apply(to(Kind.MODEL_REPORTED), reported(ModelPhase.ACTIVE, 2, 2, at(9)), at(10))
    state.apply(to(Kind.MODEL_REPORTED), reported(ModelPhase.DOWNLOADING, 1, 2, at(5)), at(11))
    edge = state.edges[EDGE]
    assert (edge.phase, edge.running_version) == (ModelPhase.ACTIVE, 2)


def test_a_version_remembers_where_it_runs_since_and_who_refused_it() -> None:
    """The time-line knows a version's announcement, its first run on each edge, and each refusal with its reason."""
    state = DashboardState()
    state.apply(Address(Kind.MODEL_DESIRED), Announcement("squeezenet", 2), at(1))
    state.apply(to(Kind.MODEL_REPORTED, "ct-1"), reported(ModelPhase.ACTIVE, 2, 2, at(3)), at(3))
    state.apply(to(Kind.MODEL_REPORTED, "ct-2"), reported(ModelPhase.REJECTED, 1, 2, at(4), "wrong hash"), at(4))
    row = state.versions[2]
    assert row.announced_at == at(1)
    assert dict(row.running_since) == {EDGE: at(3)}
    assert row.refusals[EdgeId(SITE, "ct-2")].reason == "wrong hash"
    assert [row.version for row in state.newest_versions()] == [2, 1]


def test_a_retraining_goes_forward_only() -> None:
    """Progress that arrives late does not turn a training back, and a result ends it."""
    state = DashboardState()
    state.apply(Address(Kind.RETRAIN_STATUS), progress(0.6, at(6)), at(6))
    state.apply(Address(Kind.RETRAIN_STATUS), progress(0.2, at(2)), at(8))
    row = state.newest_training()
    assert row is not None
    assert (row.fraction, row.phase) == (0.6, RetrainPhase.TRAINING)
    state.apply(Address(Kind.RETRAIN_RESULT), result("failed", at(9), "dead gradient"), at(9))
    state.apply(Address(Kind.RETRAIN_STATUS), progress(0.7, at(7)), at(10))
    row = state.newest_training()
    assert row is not None
    assert (row.outcome, row.outcome_reason, state.counts["retrain"]) == ("failed", "dead gradient", 1)


def test_the_verdict_of_the_gate_is_the_last_word() -> None:
    """What a trainer says before or after the gate's verdict does not hide it, however far the clocks are apart."""
    for order in (("candidate", "verdict"), ("verdict", "candidate"), ("candidate", "verdict", "candidate")):
        state = DashboardState()
        for word in order:
            said = result(said=at(900)) if word == "candidate" else result("failed", at(5), **REFUSED)
            state.apply(Address(Kind.RETRAIN_RESULT), said, at(10))
            state.apply(Address(Kind.RETRAIN_STATUS), progress(0.7, at(899)), at(10))
        row = state.newest_training()
        assert row is not None
        assert (row.outcome, row.verdict, row.outcome_reason) == ("failed", "refused", REFUSED["reason"])


def test_it_stays_bounded() -> None:
    """After 10,000 slices of 600 edges it remembers no more than its bounds, and still counts all."""
    state = DashboardState(bounds=Bounds(slices=500, edges=50, versions=10, trainings=5))
    for number in range(10_000):
        edge = f"ct-{number % 600}"
        state.apply(to(Kind.DIAGNOSIS, edge), diagnosis(f"s{number}"), at(number))
        if number % 10 == 0:
            state.apply(to(Kind.MODEL_REPORTED, edge), reported(ModelPhase.REJECTED, 1, number + 1), at(number))
            state.apply(Address(Kind.RETRAIN_STATUS), progress(0.5, request_id=f"r{number}"), at(number))
    assert (len(state.slices), len(state.edges), len(state.versions), len(state.trainings)) == (500, 50, 10, 5)
    assert state.counts["read"] == 10_000


def test_it_knows_since_when_it_is_cut_off() -> None:
    """The time without a broker counts from the moment when the connection was lost."""
    state = DashboardState()
    for seconds, connected in ((0, True), (5, False), (9, False)):
        state.set_connected(connected, at(seconds))
    assert state.disconnected_since == at(5)
    state.set_connected(True, at(10))
    assert state.disconnected_since is None
