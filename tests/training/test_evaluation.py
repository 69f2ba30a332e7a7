"""The figures equal those of a plain reference, and their intervals know that slices of a patient belong together."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from sklearn.metrics import log_loss as sklearn_log_loss

from protocol.labels import LABELS, Label
from training.evaluate import Evaluation, EvaluationInputError, evaluate, paired_difference


def answers(n: int = 300, seed: int = 0, skill: float = 2.0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    return skill * np.eye(3)[labels] + random.normal(0, 1.5, (n, 3)), labels


def names(n: int, each: int = 1):
    return [f"p{index // each}" for index in range(n)]


def test_figures_equal_those_of_scikit_learn():
    """Balanced accuracy, confusion and log loss are scikit-learn's."""
    logits, labels = answers()
    figures = evaluate(logits, labels, names(300), ["a"] * 300, resamples=10)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert figures.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    assert np.array_equal(figures.confusion, confusion_matrix(labels, logits.argmax(1)))
    assert figures.log_loss == pytest.approx(sklearn_log_loss(labels, probabilities))


def test_figures_of_a_hand_example():
    """Four Normal (one called COVID-19), two Pneumonia (both right), two COVID-19 (one called Normal)."""
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    said = np.array([0, 0, 0, 2, 1, 1, 2, 0])
    figures = evaluate(np.eye(3)[said] * 5, labels, list("aabbccde"), ["x"] * 4 + ["y"] * 4)
    normal = figures.by_class[Label.NORMAL]
    assert figures.balanced_accuracy.value == pytest.approx((0.75 + 1 + 0.5) / 3)
    assert (normal.n_slices, normal.n_patients) == (4, 2)
    assert normal.sensitivity.value == pytest.approx(0.75)
    assert normal.specificity.value == pytest.approx(0.75)
    assert normal.one_vs_rest.value == pytest.approx(0.75)
    assert figures.by_source["x"].balanced_accuracy.value == pytest.approx(0.75)
    assert figures.by_source["y"].sensitivity.keys() == {Label.PNEUMONIA, Label.COVID_19}
    assert (figures.n_slices, figures.n_patients) == (8, 5)


def test_class_that_does_not_occur_has_no_figure_and_does_not_count():
    """Without a Pneumonia slice there is no sensitivity for it, and the mean is over the two others."""
    labels = np.array([0, 0, 2, 2])
    figures = evaluate(np.eye(3)[[0, 1, 2, 2]], labels, list("abcd"), ["x"] * 4)
    assert figures.by_class[Label.PNEUMONIA].sensitivity is None
    assert figures.balanced_accuracy.value == pytest.approx(0.75)


def test_slices_of_a_patient_are_drawn_together():
    """Ten copies of a patient's slices tell nothing new: the interval stays; ten patients would narrow it."""
    logits, labels = answers(60)
    once = evaluate(logits, labels, names(60), ["a"] * 60)
    copied, copied_labels = np.repeat(logits, 10, 0), np.repeat(labels, 10)
    together = evaluate(copied, copied_labels, names(600, each=10), ["a"] * 600)
    apart = evaluate(copied, copied_labels, names(600), ["a"] * 600)

    def width(figures: Evaluation) -> float:
        return figures.balanced_accuracy.high - figures.balanced_accuracy.low

    assert width(together) == pytest.approx(width(once), rel=0.15)
    assert width(apart) < 0.5 * width(once)


def test_interval_equals_a_plain_bootstrap():
    """The vectorised draw gives the interval that a loop over resamples of patients gives."""
    logits, labels = answers(200, seed=3)
    patients = np.array([f"{label}-{index // 7}" for index, label in enumerate(labels)])
    random, drawn = np.random.default_rng(5), []
    by_class = [np.unique(patients[labels == index]) for index in range(3)]
    for _ in range(600):
        chosen = [random.choice(members, len(members)) for members in by_class]
        at = np.concatenate([np.flatnonzero(patients == patient) for patient in np.concatenate(chosen)])
        drawn.append(balanced_accuracy_score(labels[at], logits[at].argmax(1)))
    estimate = evaluate(logits, labels, patients.tolist(), ["a"] * 200, resamples=2000).balanced_accuracy
    assert (estimate.low, estimate.high) == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.015)


def test_calibration_error_of_known_confidences():
    """Answers with confidence 0.8 of which half are right are off by 0.3; the temperature is applied first."""
    logits = np.log(np.tile([0.8, 0.1, 0.1], (10, 1)))
    figures = evaluate(logits, np.array([0, 1] * 5), names(10), ["a"] * 10)
    assert figures.calibration_error == pytest.approx(0.3)
    cold = evaluate(logits, np.array([0, 1] * 5), names(10), ["a"] * 10, temperature=0.1)
    assert cold.calibration_error == pytest.approx(0.5, abs=1e-6)


def test_paired_difference_sees_what_separate_intervals_cannot():
    """A network that is right on a few slices more is told from the other, although their intervals overlap."""
    logits, labels = answers(300, skill=1.0)
    better = logits.copy()
    wrong = np.flatnonzero(logits.argmax(1) != labels)[::6]
    better[wrong] = np.eye(3)[labels[wrong]] * 9
    patients, sources = names(300, each=3), ["a"] * 300
    difference = paired_difference(better, logits, labels, patients)
    one, other = evaluate(better, labels, patients, sources), evaluate(logits, labels, patients, sources)
    assert difference.balanced_accuracy.low > 0
    assert one.balanced_accuracy.low < other.balanced_accuracy.high
    assert difference.balanced_accuracy.value == pytest.approx(
        one.balanced_accuracy.value - other.balanced_accuracy.value
    )
    assert difference.sensitivity.keys() == set(LABELS)


def test_same_seed_same_figures_that_survive_json():
    """The figures are the same twice, and the same after a journey as JSON."""
    logits, labels = answers()
    figures = evaluate(logits, labels, names(300, each=2), ["a"] * 300, seed=4)
    assert figures == evaluate(logits, labels, names(300, each=2), ["a"] * 300, seed=4)
    assert Evaluation.model_validate_json(json.dumps(figures.model_dump(mode="json"))) == figures


def test_a_thousand_slices_take_less_than_a_second():
    """The gate does not keep the worker waiting."""
    logits, labels = answers(1000)
    started = time.perf_counter()
    evaluate(logits, labels, names(1000), ["a"] * 1000, resamples=1000)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("logits", "labels", "fault"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "at least one slice"),
        (np.zeros((2, 2)), np.zeros(2, int), r"not \[n, 3\]"),
        (np.full((2, 3), np.nan), np.zeros(2, int), "NaN"),
        (np.zeros((2, 3)), np.zeros(3, int), "each slice needs one"),
        (np.zeros((2, 3)), np.array([0, 3]), "not 0 to 2"),
    ],
)
def test_input_that_cannot_be_judged_is_refused(logits, labels, fault):
    """No figure is made of empty, broken or mismatched input."""
    with pytest.raises(EvaluationInputError, match=fault):
        evaluate(logits, labels, ["p"] * len(logits), ["a"] * len(logits))


def test_evaluation_and_labels_need_no_torch():
    """The worker's gate runs where torch is not installed."""
    code = (
        "import sys; sys.modules['torch'] = None; import training.evaluate, training.data.labelled; "
        "assert not [name for name in sys.modules if name.startswith('torchvision')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
