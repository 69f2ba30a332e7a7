"""The gate lets through what is better on held-back patients and in no class worse, and says why it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloud_worker.gate import GateVerdict, HeldBack, judge
from cloud_worker.settings import GateSettings
from protocol.labels import LABELS, Label
from training.evaluate import evaluate, paired_difference

SETTINGS = GateSettings(min_held_back_patients=6, max_class_drop=0.02)
TRUTH = np.repeat(np.arange(3), 8)


def held_back(labels: NDArray[np.int64] = TRUTH, slices_each: int = 2) -> HeldBack:
    """Return slices of which so many in a row are of one patient; the gate itself looks at no pixel."""
    patients = [f"p{number // slices_each}" for number in range(len(labels))]
    return HeldBack(np.zeros((len(labels), 1, 1), np.uint8), labels, patients, ["site-a"] * len(labels))


def answers(*wrong: int, says: int = 0, labels: NDArray[np.int64] = TRUTH) -> NDArray[np.float32]:
    """Return logits that are right but at these slices, where they name class number `says`."""
    named = labels.copy()
    named[list(wrong)] = says
    return np.eye(3, dtype=np.float32)[named] * 4


def judged(incumbent: NDArray[np.float32], candidate: NDArray[np.float32], labels=TRUTH, **changes) -> GateVerdict:
    return judge(incumbent, candidate, held_back(labels), SETTINGS.model_copy(update=changes))


def test_a_better_candidate_is_accepted() -> None:
    """A candidate that is better on the whole and worse in no class is accepted, with all figures."""
    verdict = judged(answers(8, 9, 16, 17), answers(8))
    assert verdict.accepted
    assert (verdict.n_slices, verdict.n_patients) == (24, 12)
    assert verdict.difference is not None
    assert verdict.difference.value > 0
    assert set(verdict.by_class) == set(LABELS)


def test_a_candidate_worse_in_one_class_is_refused_by_its_name() -> None:
    """A candidate that is better on the whole is refused when it falls in one class, and the reason names the class."""
    incumbent = answers(*range(8, 16), says=0)
    candidate = answers(16, 17, 18, 19, 20, says=1)
    verdict = judged(incumbent, candidate)
    assert verdict.candidate is not None
    assert verdict.incumbent is not None
    assert verdict.candidate.value > verdict.incumbent.value
    assert not verdict.accepted
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["COVID-19"]


def test_a_small_drop_within_the_setting_is_let_through() -> None:
    """The drop that a class may take is a setting."""
    incumbent, candidate = answers(*range(8, 16), says=0), answers(16, 17, 18, 19, 20, says=1)
    assert judged(incumbent, candidate, max_class_drop=0.5).accepted


def test_an_equal_candidate_is_refused() -> None:
    """A candidate that is no better than the incumbent is refused, and the reason says so."""
    verdict = judged(answers(8), answers(8))
    assert not verdict.accepted
    assert "is not above the incumbent's" in verdict.reasons[0]
    assert verdict.difference is not None
    assert verdict.difference.value == 0


@pytest.mark.parametrize("says", [0, 1, 2])
def test_an_incumbent_that_names_one_class_for_all_can_be_beaten(says: int) -> None:
    """An incumbent with a sensitivity of 1 in the one class that it always names does not block a real candidate."""
    assert judged(answers(*range(24), says=says), answers(0, 8, 16, says=1)).accepted


@pytest.mark.parametrize("missing", range(3))
def test_a_class_without_held_back_patients_is_refused(missing: int) -> None:
    """Without a held-back patient of a class nothing is released; the reason names the class and what to do."""
    labels = np.delete(TRUTH, slice(missing * 8, missing * 8 + 8))
    verdict = judged(answers(0, labels=labels), answers(labels=labels), labels)
    assert not verdict.accepted
    assert str(LABELS[missing]) in verdict.reasons[0]
    assert "label some" in verdict.reasons[0]
    assert verdict.candidate is None


def test_too_few_held_back_patients_are_refused() -> None:
    """With fewer patients than the setting asks for nothing is released, however many slices they have."""
    verdict = judged(answers(8, 9), answers(), min_held_back_patients=13)
    assert not verdict.accepted
    assert verdict.reasons == ("12 held-back patients, 13 are needed: label some more",)


def test_no_held_back_slice_at_all_is_refused() -> None:
    """Without any held-back slice the gate refuses, and does not fail."""
    nothing = np.zeros((0, 3), np.float32)
    assert not judged(nothing, nothing, TRUTH[:0]).accepted


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(broken: float) -> None:
    """NaN or infinity among the answers of either network is refused, and the reason says whose."""
    for at, (incumbent, candidate) in {
        "incumbent": (answers(8), answers()),
        "candidate": (answers(8), answers()),
    }.items():
        (incumbent if at == "incumbent" else candidate)[5, 1] = broken
        verdict = judged(incumbent, candidate)
        assert not verdict.accepted
        assert verdict.reasons[0].startswith(f"the {at} gives values that are not finite")


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_figures_are_those_of_the_evaluation(seed: int) -> None:
    """Every figure is the evaluation's own, and a candidate is accepted exactly when none stands against it."""
    random = np.random.default_rng(seed)
    incumbent, candidate = (random.normal(size=(24, 3)).astype(np.float32) for _ in range(2))
    slices = held_back()
    verdict = judge(incumbent, candidate, slices, SETTINGS)
    theirs = evaluate(incumbent, TRUTH, slices.patients, slices.sources)
    ours = evaluate(candidate, TRUTH, slices.patients, slices.sources)
    assert (verdict.incumbent, verdict.candidate) == (theirs.balanced_accuracy, ours.balanced_accuracy)
    assert verdict.difference == paired_difference(candidate, incumbent, TRUTH, slices.patients).balanced_accuracy
    falls = 0
    for label in Label:
        figures = verdict.by_class[label]
        before, after = theirs.by_class[label].one_vs_rest, ours.by_class[label].one_vs_rest
        assert before is not None
        assert after is not None
        assert (figures.incumbent, figures.candidate) == (before.value, after.value)
        falls += after.value < before.value - SETTINGS.max_class_drop
    better = ours.balanced_accuracy.value > theirs.balanced_accuracy.value
    assert verdict.accepted == (better and not falls)
    assert len(verdict.reasons) == (1 if verdict.accepted else falls + (not better))
