"""What an epoch shows, and what a budget of patients buys."""

from collections import Counter

import numpy as np
import pytest
import torch

from training.data.slices import SliceSet
from training.model.preprocess import INPUT_PX
from training.plan import TrainSettings
from training.sampling import BudgetError, budget, draw

CELLS = {(0, "a"): 10, (0, "b"): 50, (1, "a"): 7, (2, "b"): 90, (2, "c"): 3}
"""Slices by class and source; every slice is a patient of its own."""


def slices() -> SliceSet:
    rows = [cell for cell, count in CELLS.items() for _ in range(count)]
    labels = np.array([label for label, _ in rows], np.int64)
    patients = tuple(f"p{number:03d}" for number in range(len(rows)))
    pixels = np.broadcast_to(np.uint8(0), (len(rows), INPUT_PX, INPUT_PX))
    return SliceSet(pixels, labels, patients, tuple(source for _, source in rows))


def drawn(balanced: str) -> list[int]:
    torch.manual_seed(3)
    return draw(slices(), balanced).tolist()


def test_unbalanced_epoch_shows_every_slice_once():
    """Without balance an epoch is a permutation."""
    assert sorted(drawn("none")) == list(range(160))


def test_class_balance_shows_as_many_of_each_class():
    """With class balance the three classes differ by a slice or two, and no slice waits while another comes again."""
    everything, shown = slices(), drawn("class")
    counts = Counter(everything.labels[shown].tolist())
    assert len(shown) == 160
    assert max(counts.values()) - min(counts.values()) <= 2
    for label in range(3):
        times = Counter(at for at in shown if everything.labels[at] == label)
        fewest = min(times.get(at, 0) for at in np.flatnonzero(everything.labels == label))
        assert max(times.values()) - fewest <= 2


def test_source_balance_shows_each_source_of_a_class_equally_often():
    """Of each class its sources come equally often, however few slices they have."""
    everything, shown = slices(), drawn("class-source")
    counts = Counter((int(everything.labels[at]), everything.sources[at]) for at in shown)
    by_class = Counter(everything.labels[shown].tolist())
    assert max(by_class.values()) - min(by_class.values()) <= 2
    assert abs(counts[0, "a"] - counts[0, "b"]) <= 3
    assert abs(counts[2, "b"] - counts[2, "c"]) <= 3
    assert counts[1, "a"] == by_class[1]


def test_settings_take_the_yes_and_no_of_earlier_ones():
    """Configurations that say balanced = true and augment = false mean what they meant."""
    settings = TrainSettings.model_validate({"balanced": True, "augment": False})
    assert (settings.balanced, settings.augment) == ("class", 0)
    assert TrainSettings.model_validate({"balanced": False, "augment": True}).balanced == "none"


def test_larger_budget_holds_the_smaller_one():
    """The same seed's budgets are nested, have the size asked for, and another seed's are of other patients."""
    small, large, other = (budget(slices(), n, seed) for n, seed in ((10, 0), (40, 0), (40, 1)))
    assert set(small.patients) < set(large.patients)
    assert [len(set(each.patients)) for each in (small, large)] == [10, 40]
    assert set(other.patients) != set(large.patients)


def test_budget_keeps_the_shares_of_the_classes():
    """Half of the patients are half of each class; three patients are one of each."""
    assert np.bincount(budget(slices(), 80, 0).labels).tolist() == pytest.approx([30, 3.5, 46.5], abs=1)
    assert np.bincount(budget(slices(), 3, 0).labels).tolist() == [1, 1, 1]


def test_budget_without_a_class_names_it():
    """Where a class has no patient, no budget can be met, and the class is named."""
    everything = slices()
    with pytest.raises(BudgetError, match="no patient with Pneumonia to learn from"):
        budget(everything.select(everything.labels != 1), 10, 0)


@pytest.mark.parametrize("patients", [2, 161])
def test_budget_that_cannot_be_met_is_refused(patients):
    """Fewer patients than classes, or more than there are, are refused with how many there are."""
    with pytest.raises(BudgetError, match=r"from 3 .* to 160"):
        budget(slices(), patients, 0)
