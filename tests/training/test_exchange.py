"""Lungs are put into other bodies such that only what surrounds them changes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from protocol.labels import LABELS, Label
from training.data.lungs import Region, lung_fields
from training.data.phantom import SITES, render_slice
from training.exchange import exchanged
from training.model.preprocess import Box, prepare


def body(patient: int, label: Label = Label.NORMAL) -> NDArray[np.uint8]:
    return prepare(render_slice(seed=5, site=SITES["site-a"], label=label, patient=patient, z=0.5))


def lungs_alone(slice_: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Black out what is around the lungs, and crop to them, as some data sets do."""
    mask = lung_fields(slice_).mask
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return prepare(slice_ * mask, Box(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))


def shown(slices: list[NDArray[np.uint8]], bodies: list[NDArray[np.uint8]], chance: float = 1.0, seed: int = 0):
    return exchanged(np.stack(slices), np.stack(bodies), chance, np.random.default_rng(seed))


@pytest.mark.parametrize("label", LABELS)
def test_lungs_alone_get_a_body(label):
    """A slice of lungs only becomes one of a whole body, whose outside is the host's and whose lungs are not."""
    host = body(1)
    (result,) = shown([lungs_alone(body(0, label))], [host])
    assert lung_fields(result).region is Region.WHOLE_BODY
    lungs = lung_fields(host).mask > 0
    changed = np.abs(result.astype(int) - host) > 8
    assert changed[lungs].mean() > 0.2
    assert changed[~lungs].mean() < 0.05


def test_the_lungs_stay_those_of_the_slice():
    """A bright patch in one lung is found at its place in the host's lungs; without it nothing is there."""
    plain = lungs_alone(body(0))
    rows, columns = np.nonzero(plain[:, :128] > 0)
    row, column = int(np.median(rows)), int(np.median(columns))
    sick = plain.copy()
    sick[row - 12 : row + 12, column - 12 : column + 12] = plain.max()
    (with_patch,), (without,) = shown([sick], [body(1)]), shown([plain], [body(1)])
    brighter = with_patch.astype(int) - without > 30
    assert 50 < brighter.sum() < 3000
    assert np.argwhere(brighter)[:, 1].max() < 140


def test_whole_bodies_and_slices_without_lungs_stay():
    """What already has a body, and what shows hardly any lung, is left as it is; so is all where no host has lungs."""
    whole, black, alone = body(0), np.zeros((256, 256), np.uint8), lungs_alone(body(2))
    black[200:210, 20:230] = 120
    assert np.array_equal(shown([whole, black], [body(1)]), np.stack([whole, black]))
    assert np.array_equal(shown([alone], [alone])[0], alone)


def test_chance_and_seed_decide_which():
    """With a chance of a half some are exchanged and some are not, the same ones for the same seed."""
    alone = [lungs_alone(body(0))] * 12
    once, again, other = (shown(alone, [body(1)], 0.5, seed) for seed in (0, 0, 1))
    changed = [not np.array_equal(result, alone[0]) for result in once]
    assert 0 < sum(changed) < 12
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
