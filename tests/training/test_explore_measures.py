"""What an exploration measures: counts, brightness by patient, and the tests of difference."""

import numpy as np
import pytest
from scipy import stats

from protocol.labels import LABELS, Label
from training.data.content import picture_box
from training.data.slices import LabelledSlice
from training.explore.counts import count, most_tied
from training.explore.differences import EVERYWHERE, cliffs_delta, find_differences, holm
from training.explore.intensities import ALL_MEASURES, VERY_BRIGHT, PatientValues, by_patient, measure_one
from training.model.preprocess import Box, prepare

NORMAL, PNEUMONIA, COVID = range(3)


def row(patient, label=Label.NORMAL, source="here", split="train"):
    return LabelledSlice(f"{patient}.png", label, patient, source, split)


def people(groups, source="here"):
    """Patients with one value in every measure; groups are (class, values)."""
    values = np.concatenate([np.asarray(values, float) for _, values in groups])
    labels = np.concatenate([np.full(len(values), label) for label, values in groups])
    return PatientValues(np.tile(values[:, None], len(ALL_MEASURES)), labels, (source,) * len(values), 0)


def test_slices_and_patients_are_counted_by_source_class_and_split():
    """Slices count once each, a patient once for each class that it has."""
    counted = count([row("a"), row("a"), row("a", Label.COVID_19), row("b"), row("c", split="test", source="there")])
    assert {(c.split, c.source, c.label): (c.n_slices, c.n_patients) for c in counted} == {
        ("train", "here", Label.NORMAL): (3, 2),
        ("train", "here", Label.COVID_19): (1, 1),
        ("test", "there", Label.NORMAL): (1, 1),
    }


def test_the_class_that_hangs_on_one_source_most_is_named():
    """Of a class from two sources and one from a single source, the latter is named; one source ties nothing."""
    rows = [row("a"), row("b", source="there"), row("c", Label.PNEUMONIA, "there")]
    assert most_tied(count(rows)) == (Label.PNEUMONIA, "there", 1.0)
    assert most_tied(count([row("a")])) is None


def test_padding_does_not_count():
    """A wide picture measures the same as its pixels do, though half of the prepared slice is padding."""
    picture = np.full((128, 256), 100, np.uint8)
    picture[:, :64] = VERY_BRIGHT
    prepared = prepare(picture, Box(0, 0, 128, 256))
    assert picture_box(prepared) == Box(64, 0, 192, 256)
    measured = dict(zip([measure.name for measure in ALL_MEASURES], measure_one(prepared), strict=True))
    assert measured["mean_pixel"] == pytest.approx(picture.mean())
    assert measured["bright_share"] == pytest.approx(0.25)
    assert measured["share_from_250"] == 0


def test_a_patients_value_is_the_mean_over_its_slices():
    """Ten slices of one patient weigh as much as one slice of another."""
    values = np.array([[10.0], [20.0], [70.0]])
    found = by_patient(values, np.array([NORMAL, NORMAL, COVID]), ("a", "a", "b"), ("s", "s", "t"))
    assert found.values.ravel().tolist() == [15.0, 70.0]
    assert found.labels.tolist() == [NORMAL, COVID]
    assert found.sources == ("s", "t")


def test_a_patient_with_two_labels_is_left_out_and_counted():
    """A mean over slices of two classes belongs to neither."""
    found = by_patient(np.ones((3, 1)), np.array([NORMAL, COVID, COVID]), ("a", "a", "b"), ("s",) * 3)
    assert (found.two_labels, found.labels.tolist()) == (1, [COVID])


def test_cliffs_delta_counts_pairs():
    """Delta by ranks equals the plain count over all pairs, ties included."""
    random = np.random.default_rng(0)
    first, second = random.integers(0, 6, 23).astype(float), random.integers(1, 8, 17).astype(float)
    plain = np.sign(first[:, None] - second[None]).mean()
    assert cliffs_delta(first, second) == pytest.approx(plain)


def test_holm_matches_the_textbook():
    """Four p-values become what Holm's step-down rule says, in their old order."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_difference_is_found_with_its_size():
    """Classes apart by design give a small p, a delta of -1 with a tight interval, and a large epsilon squared."""
    shifted = people([(NORMAL, np.arange(20)), (COVID, np.arange(100, 125))])
    found = next(one for one in find_differences(shifted, seed=0) if one.stratum == EVERYWHERE)
    (pair,) = found.pairs
    assert (pair.first, pair.second) == (Label.NORMAL, Label.COVID_19)
    assert pair.cliffs_delta.model_dump() == {"value": -1.0, "low": -1.0, "high": -1.0}
    assert pair.p_holm == pytest.approx(stats.mannwhitneyu(np.arange(20), np.arange(100, 125)).pvalue)
    assert found.groups[Label.NORMAL].n_patients == 20
    assert 0.7 < found.classes.epsilon_squared <= 1


def test_no_difference_is_claimed_where_there_is_none():
    """Two draws from one distribution give an interval over 0."""
    random = np.random.default_rng(3)
    same = people([(NORMAL, random.normal(size=60)), (PNEUMONIA, random.normal(size=60))])
    (pair,) = find_differences(same, seed=0)[0].pairs
    assert pair.cliffs_delta.low < 0 < pair.cliffs_delta.high
    assert pair.p_holm > 0.05


def test_too_few_patients_are_listed_but_not_tested():
    """Four patients of a class appear in the groups and in no pair."""
    few = people([(NORMAL, np.arange(4)), (COVID, np.arange(20))])
    found = find_differences(few, seed=0)[0]
    assert found.groups[LABELS[NORMAL]].n_patients == 4
    assert (found.classes, found.pairs) == (None, ())


def test_sources_are_tested_beside_classes_and_strata_need_two_classes():
    """A value that hangs on the source alone is told by it, and a source of one class is no stratum."""
    here = people([(NORMAL, np.arange(10)), (COVID, np.arange(10))])
    there = people([(COVID, np.arange(50, 60))], "there")
    both = PatientValues(
        np.concatenate([here.values, there.values]),
        np.concatenate([here.labels, there.labels]),
        here.sources + there.sources,
        0,
    )
    found = find_differences(both, seed=0)
    assert {one.stratum for one in found} == {EVERYWHERE, "here"}
    assert found[0].sources.epsilon_squared > found[0].classes.epsilon_squared
    inside = next(one for one in found if one.stratum == "here")
    assert inside.pairs[0].cliffs_delta.value == 0
    assert inside.sources is None
