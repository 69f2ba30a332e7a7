"""What the gate saw a candidate answer otherwise widens the bounds of its probation, and nothing narrows them."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloud_worker.expected_changes import (
    MOST,
    MOST_CONTRADICTION,
    Answers,
    ExpectedChanges,
    allowing,
    answers,
    expected_changes,
    probabilities,
)
from protocol.manifest import ProbationBounds

NAMES = ("max_disagreement", "max_contradiction", "max_shift", "max_abstention")
NORMAL, PNEUMONIA, COVID = 0, 1, 2


def said(*labels: int) -> Answers:
    """Return the answers of a network that is certain."""
    return Answers(np.array(labels), np.ones(len(labels), np.bool_))


def patients(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def expected(incumbent: Answers, candidate: Answers, truth: NDArray[np.int64], whose: list[str]) -> ExpectedChanges:
    found = expected_changes(incumbent, candidate, truth, whose)
    assert found is not None
    return found


def balanced(count: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(3), count)


def test_the_more_patients_agree_the_less_is_expected() -> None:
    """Two networks that always agree: what may still differ shrinks with the patients."""
    few, many = (expected(said(*balanced(n)), said(*balanced(n)), balanced(n), patients(3 * n)) for n in (6, 600))
    assert 0 < many.disagreement < 0.01 < few.disagreement
    assert many.shift == many.abstention == many.disagreement


def test_what_changes_is_what_was_measured_and_its_chance() -> None:
    """A candidate that reads a tenth of one true label otherwise is expected to do so up to the interval's end."""
    truth = balanced(100)
    candidate = truth.copy()
    candidate[-10:] = NORMAL
    found = expected(said(*truth), said(*candidate), truth, patients(300))
    assert 0.1 < found.disagreement < 0.2
    assert found.shift == found.disagreement


def test_the_bounds_hold_at_sites_of_any_mix() -> None:
    """Where nearly all slices are of the label that changes most, no more than is expected gets another label."""
    truth = balanced(100)
    incumbent = truth.copy()
    incumbent[:30] = PNEUMONIA  # false alarms, which the candidate does not make
    found = expected(said(*incumbent), said(*truth), truth, patients(300))
    chance = random.Random(1)
    for normal in (0.01, 0.5, 0.99):
        slices = chance.choices(
            range(300), [normal if label == NORMAL else (1 - normal) / 2 for label in truth], k=4000
        )
        before, after = incumbent[slices], truth[slices]
        assert (before != after).mean() <= found.disagreement
        assert max((before != after)[before == label].mean() for label in range(3)) <= found.contradiction


def test_labels_that_were_wrong_are_a_part_of_their_own() -> None:
    """Whose few false alarms are all removed is contradicted on all slices of a site that has nothing else."""
    truth = balanced(30)
    incumbent = truth.copy()
    incumbent[:10] = PNEUMONIA
    corrected, same = (expected(said(*incumbent), said(*each), truth, patients(90)) for each in (truth, incumbent))
    assert corrected.disagreement < 0.6
    assert corrected.contradiction == 1
    assert same.disagreement < 0.15


def test_of_what_was_not_seen_nothing_is_known() -> None:
    """An incumbent without an error says nothing of what a candidate does with errors; nor do gates of before."""
    truth = balanced(30)
    assert expected(said(*truth), said(*truth), truth, patients(90)).contradiction == 1
    of_before = ExpectedChanges.model_validate({"disagreement": 0.1, "shift": 0.1, "abstention": 0.1})
    assert allowing(ProbationBounds(), of_before).max_contradiction == MOST_CONTRADICTION


def test_slices_of_one_patient_are_one_word() -> None:
    """A hundred slices of six patients of each label say no more than six."""
    truth = balanced(102)
    few = [f"{label}-{number % 6}" for number, label in enumerate(truth)]
    one, many = (expected(said(*truth), said(*truth), truth, whose) for whose in (few, patients(306)))
    assert one.disagreement == pytest.approx(0.39, abs=0.01)
    assert many.disagreement < 0.05


def test_uncertain_readings_claim_nothing() -> None:
    """Where the incumbent is sure of nothing there is nothing to compare."""
    unsure = answers(np.full((9, 3), 1 / 3), 0.5)
    assert expected_changes(unsure, said(*[COVID] * 9), balanced(3), patients(9)) is None
    assert allowing(ProbationBounds(), None) == ProbationBounds()


@given(st.tuples(*[st.floats(0, 1)] * 4))
def test_bounds_are_never_narrowed_and_never_useless(shares: tuple[float, float, float, float]) -> None:
    """Whatever is expected, each bound is at least the signed default, and still finds a network that is all wrong."""
    names = ("disagreement", "contradiction", "shift", "abstention")
    usual = ProbationBounds()
    wide = allowing(usual, ExpectedChanges(**dict(zip(names, shares, strict=True))))
    for name in NAMES:
        most = MOST_CONTRADICTION if name == "max_contradiction" else MOST
        assert getattr(usual, name) <= getattr(wide, name) <= most


def test_probabilities_are_those_of_readings() -> None:
    """Logits over the temperature, made to sum to one; the largest is the answer where it is large enough."""
    found = probabilities(np.array([[2.0, 0.0, 0.0], [500.0, 0.0, -500.0], [0.0, 0.0, 0.1]], np.float32), 2.0)
    assert found.sum(axis=1) == pytest.approx([1, 1, 1])
    assert found[0, 0] == pytest.approx(np.e / (np.e + 2))
    assert answers(found, 0.5).labels.tolist() == [NORMAL, NORMAL, COVID]
    assert answers(found, 0.5).certain.tolist() == [True, True, False]
