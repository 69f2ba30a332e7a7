"""The figures of an evaluation equal plain references, and their intervals draw patients."""

import numpy as np
import pytest
from sklearn import metrics

from protocol.labels import LABELS, Label
from training.evaluate import calibration_error, draw_patients, evaluate, softmax
from training.judging.agreement import corrected, holm, mcnemar
from training.judging.curves import GRID, binary_curves
from training.judging.figures import classification_report, fair_comparisons, judge
from training.judging.page import as_text
from training.judging.predictions import Predictions, by_patient
from training.judging.risk import ERROR_TARGETS, risk_curve


def predictions(n: int = 240, each: int = 3, skill: float = 1.5, seed: int = 0) -> Predictions:
    """Return answers of some skill; the slices of a patient share label and source."""
    random = np.random.default_rng(seed)
    patients = np.arange(n) // each
    labels = patients % 3
    logits = (skill * np.eye(3)[labels] + random.normal(0, 1.2, (n, 3))).astype(np.float32)
    return Predictions(
        tuple(f"{i:016x}" for i in range(n)),
        logits,
        labels.astype(np.int64),
        tuple(("a", "b")[patient % 2] for patient in patients),
        tuple(f"p{patient}" for patient in patients),
        "test",
    )


def draws(p: Predictions, resamples: int = 40):
    return draw_patients(p.labels, p.patients, resamples, 0)


def test_classification_report_is_scikit_learns():
    """Figures and text are those of scikit-learn's classification_report."""
    p = predictions()
    report = classification_report(p.logits.argmax(1), p.labels, draws(p))
    names = [str(label) for label in LABELS]
    text = metrics.classification_report(p.labels, p.logits.argmax(1), target_names=names, digits=3)
    assert as_text(report).split() == text.split()
    assert report.by_class[Label.PNEUMONIA].support == int((p.labels == 1).sum())


def test_class_never_answered_has_no_precision_and_absent_class_no_row():
    """Precision is 0 for a class that is never answered; a class without slices is in no average."""
    answers, labels = np.array([0, 0, 0, 0]), np.array([0, 0, 2, 2])
    report = classification_report(answers, labels, draw_patients(labels, list("abcd"), 20, 0))
    assert report.by_class.keys() == {Label.NORMAL, Label.COVID_19}
    assert report.by_class[Label.COVID_19].precision.value == 0
    assert report.macro.recall.value == pytest.approx(0.5)


def test_report_interval_is_that_of_the_gate():
    """The recall's interval is the one that `evaluate` gives for sensitivity: the same patients are drawn."""
    p = predictions()
    report = classification_report(p.logits.argmax(1), p.labels, draw_patients(p.labels, p.patients, 200, 3))
    figures = evaluate(p.logits, p.labels, p.patients, p.sources, resamples=200, seed=3)
    for label in LABELS:
        assert report.by_class[label].recall == figures.by_class[label].sensitivity


@pytest.mark.parametrize("rounded", [None, 1])
def test_curves_and_areas_are_scikit_learns(rounded):
    """Average precision and AUROC are scikit-learn's, with tied scores too, and so is every point."""
    p = predictions()
    scores = softmax(p.logits)[:, 1]
    scores = scores if rounded is None else scores.round(rounded)
    truth = p.labels == 1
    curve = binary_curves(truth, scores, draws(p))
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    assert curve.average_precision.value == pytest.approx(metrics.average_precision_score(truth, scores))
    assert curve.auroc.value == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert curve.recall[::-1] == pytest.approx(recall[:-1])
    assert curve.precision[::-1] == pytest.approx(precision[:-1])


def test_intervals_of_the_areas_are_those_of_weighted_resamples():
    """Each resample's areas are scikit-learn's with a patient's draws as the weights of its slices."""
    p = predictions(60)
    truth, scores, drawn = p.labels == 2, softmax(p.logits)[:, 2], draws(p, 25)
    curve = binary_curves(truth, scores, drawn)
    weights = drawn.of_slices()
    areas = [metrics.roc_auc_score(truth, scores, sample_weight=row) for row in weights]
    precisions = [metrics.average_precision_score(truth, scores, sample_weight=row) for row in weights]
    assert (curve.auroc.low, curve.auroc.high) == pytest.approx(np.percentile(areas, (2.5, 97.5)))
    assert (curve.average_precision.low, curve.average_precision.high) == pytest.approx(
        np.percentile(precisions, (2.5, 97.5))
    )
    assert curve.recall_band.shape == (2, len(GRID))
    assert (curve.recall_band[0] <= curve.recall_band[1]).all()


def test_one_sided_class_has_no_curve():
    """Where every slice is of the class, or none, nothing can be ranked."""
    p = predictions(30)
    assert binary_curves(np.ones(30, bool), softmax(p.logits)[:, 0], draws(p)) is None
    assert binary_curves(np.zeros(30, bool), softmax(p.logits)[:, 0], draws(p)) is None


def test_risk_coverage_of_a_hand_example():
    """Of four answers the surest two are right: half must be given up for no error, a quarter for a third."""
    probabilities = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.7, 0.3, 0], [0.6, 0.4, 0]])
    labels = np.array([0, 0, 1, 0])
    curve, figures = risk_curve(probabilities, labels, draw_patients(labels, list("abcd"), 20, 0), 0.75)
    assert curve.coverage == pytest.approx([0.25, 0.5, 0.75, 1])
    assert curve.risk == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert figures.area.value == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert [one.error for one in figures.abstention] == list(ERROR_TARGETS)
    assert {one.abstained.value for one in figures.abstention} == {0.5}
    assert figures.own_threshold.answered.value == pytest.approx(0.5)
    assert figures.own_threshold.error.value == 0


def test_nothing_answered_has_no_error():
    """A threshold above every confidence answers nothing, and there is no error to tell."""
    p = predictions(30)
    _, figures = risk_curve(softmax(p.logits), p.labels, draws(p), 1.01)
    assert figures.own_threshold.answered.value == 0
    assert figures.own_threshold.error is None


def test_calibration_is_the_gates_with_and_without_the_temperature():
    """The error is `calibration_error`; the bins hold every answer once."""
    p = predictions()
    figures = judge(p, "slice", temperature=1.7, resamples=20).figures.calibration
    assert figures.error.value == pytest.approx(calibration_error(p.logits, p.labels, 1.7))
    assert figures.error_without.value == pytest.approx(calibration_error(p.logits, p.labels))
    assert sum(one.n for one in figures.bins) == sum(one.n for one in figures.bins_without) == len(p)
    assert judge(p, "slice", resamples=20).figures.calibration.error_without is None


def test_patient_is_judged_by_the_mean_of_its_slices():
    """Two slices sure of the right class outweigh a third that is unsure of a wrong one; n counts patients."""
    logits = np.log(np.array([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8]], np.float32))
    p = Predictions(tuple("wxyz"), logits, np.array([0, 0, 0, 2]), ("s",) * 4, ("a", "a", "a", "b"), "test")
    patients = by_patient(p, 1.0)
    assert len(patients) == 2
    assert softmax(patients.logits)[0] == pytest.approx([2 / 3, 0.55 / 3, 0.45 / 3], abs=1e-6)
    assert patients.logits.argmax(1).tolist() == [0, 2]


def test_fair_comparison_looks_only_at_the_classes_of_the_source():
    """An answer that the source does not have counts as wrong in one figure, and cannot be given in the other."""
    logits = np.array([[2.0, 3, 0], [0, 1, 2], [0, 2, 1], [3, 0, 0]], np.float32)
    p = Predictions(tuple("wxyz"), logits, np.array([0, 2, 2, 1]), ("s", "s", "s", "t"), tuple("abcd"), "test")
    fair = fair_comparisons(p, together={"both": ("s", "t")}, resamples=20)
    assert fair.keys() == {"s", "both"}
    assert fair["s"].labels == (Label.NORMAL, Label.COVID_19)
    assert fair["s"].balanced_accuracy.value == pytest.approx(0.25)
    assert fair["s"].among_its_classes.value == pytest.approx(1.0)
    assert fair["s"].auroc.value == pytest.approx(1.0)
    assert fair["s"].fewest_patients == 1
    assert fair["both"].auroc is None


def test_mcnemar_of_known_counts():
    """Nine against one of ten that differ: p is twice the tail of a fair coin, 22 / 1024; those alike do not count."""
    first = np.array([True] * 9 + [False] + [True] * 30)
    second = np.array([False] * 9 + [True] + [True] * 30)
    test = mcnemar(first, second)
    assert (test.n, test.only_first_right, test.only_second_right) == (40, 9, 1)
    assert test.p == pytest.approx(22 / 1024)
    assert mcnemar(first, first).p == 1


def test_holm_of_the_textbook():
    """The smallest p is multiplied by all, the next by one less, and none falls below one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    first, second = np.array([True] * 8 + [False]), np.array([False] * 9)
    alone = mcnemar(first, second)
    assert [one.p_holm for one in corrected([alone, alone])] == pytest.approx([2 * alone.p] * 2)
