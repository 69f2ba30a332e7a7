"""A network can be given any side from 32 to 256: the slice is averaged down to it, exactly."""

import cv2
import numpy as np
import pytest
import torch

from training.networks import INPUT_SIDES_PX, build

SLICES = np.random.default_rng(0).integers(0, 256, (2, 256, 256), dtype=np.uint8)


@pytest.mark.parametrize("px", [32, 96, 101, 144, 224])
def test_reduction_equals_an_image_librarys_area_average(px):
    """Each pixel is the mean of the area that it stands for, also where 256 is no multiple of the side."""
    reduced = build("baseline_cnn", px).reduce(torch.from_numpy(SLICES[:, None]))[:, 0].numpy()
    expected = [cv2.resize(one.astype(np.float32), (px, px), interpolation=cv2.INTER_AREA) / 255 for one in SLICES]
    np.testing.assert_allclose(reduced, expected, atol=2e-4)  # OpenCV drops overlaps below a thousandth of a pixel


@pytest.mark.parametrize("px", [48, 100, 144, 224])
def test_reduction_keeps_the_mean(px):
    """No pixel counts more than another."""
    reduced = build("baseline_cnn", px).reduce(torch.from_numpy(SLICES[:, None]))
    np.testing.assert_allclose(reduced.mean((1, 2, 3)), SLICES.mean((1, 2)) / 255, rtol=1e-5)


@pytest.mark.parametrize("px", [31, 257, 0])
def test_other_sides_are_refused_with_the_range(px):
    """Who asks for a side that no network of ours reads is told which there are."""
    assert px not in INPUT_SIDES_PX
    with pytest.raises(ValueError, match=f"{px} is not from 32 to 256"):
        build("baseline_cnn", px)
