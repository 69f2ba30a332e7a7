"""What the gate saw a candidate answer otherwise widens the bounds of its probation, and nothing narrows them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloud_worker.expected_changes import MOST, ExpectedChanges, allowing, expected_changes, probabilities
from protocol.manifest import ProbationBounds


def answers(labels: list[int], sure: float = 0.9) -> NDArray[np.float64]:
    """Return probabilities of networks that say these labels, float64 [n, 3]."""
    said = np.full((len(labels), 3), (1 - sure) / 2)
    said[np.arange(len(labels)), labels] = sure
    return said


def patients(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def test_the_more_patients_agree_the_less_is_expected() -> None:
    """Two networks that always agree: what may still differ shrinks with the patients."""
    few, many = (expected_changes(answers([0] * n), answers([0] * n), 0.5, patients(n)) for n in (6, 600))
    assert few is not None
    assert many is not None
    assert 0 < many.disagreement < 0.01 < few.disagreement
    assert many.shift == many.abstention == many.disagreement


def test_what_changes_is_what_was_measured_and_its_chance() -> None:
    """A candidate that reads a tenth otherwise is expected to do so in up to the upper end of the interval."""
    expected = expected_changes(answers([0] * 90 + [1] * 10), answers([0] * 100), 0.5, patients(100))
    assert expected is not None
    assert 0.1 < expected.disagreement < 0.2
    assert expected.shift == expected.disagreement


def test_slices_of_one_patient_are_one_word() -> None:
    """A hundred slices of six patients say no more than six."""
    labels, whose = [0] * 102, [f"p{number % 6}" for number in range(102)]
    one, many = (expected_changes(answers(labels), answers(labels), 0.5, who) for who in (whose, patients(102)))
    assert one is not None
    assert many is not None
    assert one.disagreement == pytest.approx(0.39, abs=0.01)
    assert many.disagreement < 0.05


def test_uncertain_readings_claim_nothing() -> None:
    """Where the incumbent is sure of nothing there is nothing to compare."""
    assert expected_changes(answers([0] * 9, 0.4), answers([1] * 9), 0.5, patients(9)) is None
    assert allowing(ProbationBounds(), None) == ProbationBounds()


@given(st.tuples(*[st.floats(0, 1)] * 3))
def test_bounds_are_never_narrowed_and_never_useless(shares: tuple[float, float, float]) -> None:
    """Whatever is expected, each bound is at least the signed default, and still finds a network that is all wrong."""
    expected = ExpectedChanges(disagreement=shares[0], shift=shares[1], abstention=shares[2])
    usual, wide = ProbationBounds(), allowing(ProbationBounds(), expected)
    for name in ("max_disagreement", "max_shift", "max_abstention"):
        assert getattr(usual, name) <= getattr(wide, name) <= max(MOST, getattr(usual, name))


def test_probabilities_are_those_of_readings() -> None:
    """Logits over the temperature, made to sum to one."""
    said = probabilities(np.array([[2.0, 0.0, 0.0], [500.0, 0.0, -500.0]], np.float32), 2.0)
    assert said.sum(axis=1) == pytest.approx([1, 1])
    assert said[0, 0] == pytest.approx(np.e / (np.e + 2))
