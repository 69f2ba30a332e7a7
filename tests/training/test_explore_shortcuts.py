"""The shortcut audit: lungs, views, and what a classifier reads from them."""

import cv2
import numpy as np
import pytest

from protocol.labels import LABELS
from training.data.lungs import Region, find_lungs
from training.data.phantom import SITES, render_slice
from training.evaluate import evaluate
from training.explore import shortcuts
from training.explore.explore import choose_patients
from training.explore.shortcuts import ALL_SLICES, CLASS, SOURCE, answers_out_of_fold, audit, balanced_accuracy
from training.explore.verdicts import verdict
from training.explore.views import View, Views, border_of, histogram, look_at
from training.model.preprocess import prepare

BODY, LUNG, AIR = 200, 60, 90


def drawn_slice(side=400):
    """A body with two lungs in a square of air; where the lungs are as a mask."""
    frame, lungs = np.full((side, side), AIR, np.uint8), np.zeros((side, side), np.uint8)
    cv2.ellipse(frame, (side // 2, side // 2), (180, 140), 0, 0, 360, BODY, -1)
    for x in (125, 275):
        cv2.ellipse(lungs, (x, side // 2), (55, 90), 0, 0, 360, 1, -1)
    frame[lungs > 0] = LUNG
    return frame, lungs


def views_of(labels, sources, random, informative=()):
    """Views of one slice a patient: noise, but for the informative ones, which hold the label."""
    n = len(labels)
    features = {view: random.normal(size=(n, 8)).astype(np.float32) for view in View if view is not View.SOURCE}
    features[View.CUT_OUT] = np.zeros((n, 1), np.float32)
    for view in informative:
        features[view][:, 0] = labels * 5
    patients = tuple(f"p{index:03d}" for index in range(n))
    return Views(features, (Region.WHOLE_BODY,) * n, np.asarray(labels), patients, tuple(sources))


def test_lungs_are_found_and_blacked_out():
    """Nearly all of the drawn lungs lies under the mask, and little of the body does."""
    frame, lungs = drawn_slice()
    prepared, where = prepare(frame), prepare(lungs * 255) > 0
    found = find_lungs(prepare(frame))
    body = prepare(np.where(frame == AIR, 0, 255).astype(np.uint8)) > 0
    assert found.region is Region.WHOLE_BODY
    drawn = prepared == LUNG
    assert where.any() and found.mask[drawn].mean() > 0.99
    assert found.mask[body & ~drawn].mean() < 0.25


@pytest.mark.parametrize("label", LABELS)
def test_lungs_of_phantoms_are_found(label):
    """In a phantom of each class the lungs are found, a plausible share of the slice."""
    found = find_lungs(prepare(render_slice(seed=1, site=SITES["site-a"], label=label, patient=0, z=0.5)))
    assert found.region is Region.WHOLE_BODY
    assert 0.05 < found.mask.mean() < 0.6


def test_cut_out_lungs_are_told_from_a_body():
    """Lungs on black are lungs only, and nothing is blacked out; a body without lungs is one where none were found."""
    frame, lungs = drawn_slice()
    cut_out = find_lungs(prepare(frame * lungs * 3))
    assert (cut_out.region, cut_out.mask.any()) == (Region.LUNGS_ONLY, np.False_)
    frame[lungs > 0] = BODY
    assert find_lungs(prepare(frame)).region is Region.LUNGS_NOT_FOUND


def test_an_all_black_slice_is_looked_at():
    """A slice without any picture stops nothing."""
    views, region = look_at(np.zeros((256, 256), np.uint8))
    assert region is Region.LUNGS_ONLY
    assert all(np.isfinite(features).all() for features in views.values())


def test_the_border_holds_nothing_of_the_inside():
    """Whatever changes inside the frame of the picture, the border stays the same; the frame itself is in it."""
    prepared = np.full((256, 256), 50, np.uint8)
    other = prepared.copy()
    other[16:-16, 16:-16] = 200
    assert np.array_equal(border_of(prepared, prepared), border_of(other, other))
    other[0, 0] = 51
    assert border_of(other, other)[0, 0] == 51


def test_the_histogram_forgets_places_and_padding():
    """Shuffled pixels and a padded picture have the same histogram, of shares that sum to 1."""
    frame = np.random.default_rng(0).integers(1, 256, (256, 256)).astype(np.uint8)
    padded = np.zeros((256, 256), np.uint8)
    padded[64:192] = frame[:128]
    shuffled = np.random.default_rng(1).permutation(frame.ravel()).reshape(frame.shape)
    assert histogram(frame).sum() == pytest.approx(1)
    assert np.array_equal(histogram(frame), histogram(shuffled))
    assert np.array_equal(histogram(padded), histogram(frame[:128]))


def test_the_interval_is_that_of_our_evaluation():
    """For three classes, balanced accuracy and its interval are what training.evaluate says."""
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    patients = [f"p{index // 3 % 15}-{index % 3}" for index in range(90)]
    logits = random.normal(size=(90, 3)) + np.eye(3)[labels]
    names = np.array([label.value for label in LABELS])
    ours = balanced_accuracy(names[logits.argmax(1)], names[labels], patients, seed=5)
    theirs = evaluate(logits, labels, patients, patients, seed=5).balanced_accuracy
    assert ours.value == pytest.approx(theirs.value)
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)


def test_no_patient_is_judged_by_what_its_own_slices_taught():
    """Features that name the patient, and nothing else, tell nothing of a patient in another fold."""
    random = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 4)
    truth = np.where(random.random(40) < 0.5, "a", "b")[person]
    features = np.eye(40, dtype=np.float32)[person]
    answers = answers_out_of_fold(features, truth, truth, [str(one) for one in person], seed=0)
    assert (answers == truth).mean() < 0.7


def test_the_audit_finds_the_view_that_tells_and_no_other():
    """A border that holds the class is caught with a verdict that says so; noise stays at chance."""
    labels = np.arange(120) % 2
    found = audit(views_of(labels, ["s"] * 120, np.random.default_rng(0), [View.BORDER]), 0, lambda *_: None)
    by_view = {row.view: row for row in found.rows_of(CLASS, ALL_SLICES)}
    border, whole = by_view[View.BORDER], by_view[View.WHOLE]
    assert border.balanced_accuracy.value > 0.97 and border.chance == 0.5 and not border.holds_lung
    assert "can cheat" in verdict(border, border)
    assert not whole.beats_guessing
    assert "does not surely tell" in verdict(whole, border)


def test_what_cannot_be_asked_is_said():
    """One source asks for no source; a class of too few patients is left out by name."""
    labels = np.array([0, 1] * 10 + [2] * 2)
    found = audit(views_of(labels, ["s"] * 22, np.random.default_rng(0)), 0, lambda *_: None)
    assert not [row for row in found.rows if row.target == SOURCE]
    assert {row.answers for row in found.rows} == {("Normal", "Pneumonia")}
    assert any("without COVID-19" in sentence for sentence in found.left_out)
    assert any(sentence.startswith("source of") for sentence in found.left_out)


def test_same_seed_same_numbers():
    """Two audits with one seed are equal; another seed draws other folds."""
    labels, sources = np.arange(60) % 3, ["s"] * 60
    first, again, other = (
        audit(views_of(labels, sources, np.random.default_rng(0), [View.WHOLE]), seed, lambda *_: None)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_large_sets_are_audited_by_whole_patients():
    """Patients are drawn until there are slices enough; a small set is taken whole."""
    patients = [f"p{index // 10}" for index in range(1000)]
    chosen = choose_patients(patients, most_slices=95, seed=0)
    assert len(chosen) == 10 and chosen != choose_patients(patients, most_slices=95, seed=1)
    assert len(choose_patients(patients, most_slices=1000, seed=0)) == 100
    assert shortcuts.FOLDS > 1
