"""From looks at single frames to figures."""

import numpy as np
import pytest

from sliceloop.capture_bench.cases import Case
from sliceloop.capture_bench.look import FrameResult, Look, iou_of
from sliceloop.capture_bench.measures import Truth, figures_of, localisation
from sliceloop.capture_bench.targets import targets
from training.evaluate import evaluate
from training.screen_camera import EmptyScene

SQUARE = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float32)
ONE_HOT = {-1: None, **{answer: tuple(np.eye(3)[answer].tolist()) for answer in range(3)}}


def test_the_overlap_of_quads_is_exact():
    """Equal quads overlap wholly, quads shifted by half their side by a third, and others not at all."""
    assert iou_of(SQUARE, SQUARE) == 1
    assert iou_of(SQUARE, SQUARE + np.float32([5, 0])) == pytest.approx(1 / 3, abs=1e-5)
    assert iou_of(SQUARE, SQUARE + 20) == 0
    assert iou_of(SQUARE, SQUARE[::-1].copy()) == 1


def test_a_crossed_quad_overlaps_with_nothing():
    """A quad whose sides cross is no outline."""
    assert iou_of(SQUARE, SQUARE[[0, 2, 1, 3]]) == 0


def test_a_frame_where_nothing_was_found_counts_as_no_overlap():
    """The mean is over all frames with a slice; wrong are only accepted ones."""
    place = localisation([look(iou=1.0), look(iou=0.0, accepted=False), look(iou=0.5), look(iou=None)])
    assert place.n == 3
    assert place.mean == 0.5
    assert (place.at_least_095.count, place.at_least_095.of) == (1, 3)
    assert (place.accepted_wrong.count, place.accepted_wrong.of) == (1, 2)


def test_refused_frames_are_left_out_and_also_counted_as_wrong():
    """A captured figure is over what was read; with refusals as wrong it falls."""
    truth = truth_of(labels=[0, 0, 1, 2], digital=[0, 0, 1, 2])
    figures = figures_of(results([0, -1, 1, 2]), truth, simulated=True).severities[0]
    reading = figures.reading
    assert reading is not None
    assert figures.abstention.refused.count == 1
    assert figures.abstention.by_reason == {"glare": 1}
    assert reading.captured is not None
    assert reading.captured.value == 1
    assert reading.refused_wrong is not None
    assert reading.refused_wrong.value == pytest.approx(2.5 / 3)
    assert (reading.agreement.count, reading.agreement.of) == (3, 3)


def test_balanced_accuracy_and_its_interval_are_those_of_evaluate():
    """The figure without refusals is what `training.evaluate` says of the same answers."""
    random = np.random.default_rng(0)
    labels, answers = random.integers(0, 3, 60), random.integers(0, 3, 60)
    truth = truth_of(labels=labels, digital=labels)
    reading = figures_of(results(answers), truth, simulated=True).severities[0].reading
    assert reading is not None
    assert reading.captured is not None
    expected = evaluate(np.eye(3)[answers], labels, truth.patients, truth.sources).balanced_accuracy
    assert reading.captured.value == pytest.approx(expected.value)
    assert (reading.captured.low, reading.captured.high) == pytest.approx((expected.low, expected.high))


def test_the_recovered_share_compares_each_path_with_its_own_digital_figure():
    """The paper's path loses half of its own accuracy and ours an eighth of its own: three quarters are recovered."""
    labels = [0] * 8 + [1] * 8 + [2] * 8
    ours = [0] * 7 + [1] + [1] * 7 + [2] + [2] * 7 + [0]
    paper = [0] * 4 + [1] * 4 + [1] * 4 + [2] * 4 + [2] * 4 + [0] * 4
    truth = truth_of(labels=labels, digital=labels, plain=labels)
    figures = figures_of(results(ours, paper), truth, simulated=True).severities[0]
    assert figures.paper is not None
    assert figures.paper.recovered is not None
    assert figures.paper.recovered.value == pytest.approx(0.75)
    assert figures.paper.recovered.low < 0.75 < figures.paper.recovered.high


def test_nothing_is_recovered_where_the_papers_path_loses_nothing():
    """There is no share of no loss."""
    labels = [0, 1, 2]
    truth = truth_of(labels=labels, digital=labels, plain=labels)
    figures = figures_of(results(labels, labels), truth, simulated=True).severities[0]
    assert figures.paper is not None
    assert figures.paper.recovered is None


def test_the_time_of_the_geometry_is_told_as_a_ratio_to_decoding_the_same_frame():
    """Locate, rectify and photometry add up, and are divided by each frame's own decoding."""
    times = figures_of(results([0, 1, 2]), truth_of([0, 1, 2], [0, 1, 2]), simulated=True).times
    assert times.geometry is not None
    assert times.geometry.median_ms == 12
    assert times.ratio_median == 4
    assert times.stages["decode"].n == 3


def test_an_accepted_frame_without_a_slice_misses_its_target():
    """Scenes are counted by kind, and all of them against the bound."""
    case = Case(kind="empty", severity=1.0, seed=0, scene=EmptyScene.DESK)
    accepted = FrameResult(case=case, page="desk", true_quad=None, whole=look(iou=None))
    figures = figures_of([accepted], truth_of([0], [0]), simulated=True)
    assert str(figures.empty[0].accepted) == "100.0 % (1 of 1)"
    reached = {one.name: one.reached for one in targets(figures)}
    assert reached.pop("accepted without a slice") is False
    assert set(reached.values()) == {None}


def look(*, iou: float | None, accepted: bool = True, answer: int = 0, plain: int | None = None) -> Look:
    return Look(
        accepted=accepted,
        refusals=() if accepted else ("glare",),
        quad=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),
        iou=iou,
        logits=ONE_HOT[answer] if accepted else None,
        plain_logits=None if plain is None else ONE_HOT[plain],
    )


def results(answers: object, paper: object = None) -> list[FrameResult]:
    """Return a frame of severity 1 for each answer; -1 is refused."""
    said = np.asarray(answers).tolist()
    theirs = said if paper is None else np.asarray(paper).tolist()
    return [
        FrameResult(
            case=Case(kind="slice", severity=1.0, seed=at, at=at),
            page="page",
            true_quad=None,
            whole=look(iou=1.0, accepted=answer >= 0, answer=answer),
            paper=look(iou=0.5, answer=0, plain=their) if paper is not None else None,
            milliseconds={"decode": 3.0, "locate": 8.0, "rectify": 3.0, "photometry": 1.0},
        )
        for at, (answer, their) in enumerate(zip(said, theirs, strict=True))
    ]


def truth_of(labels: object, digital: object, plain: object = None) -> Truth:
    """Return slices of patients of their own."""
    count = len(np.asarray(labels))
    return Truth(
        np.asarray(labels, np.int64),
        tuple(f"patient-{at}" for at in range(count)),
        ("toy",) * count,
        np.asarray(digital, np.int64),
        None if plain is None else np.asarray(plain, np.int64),
    )
