"""A burst becomes one picture: its sharp frames, laid on each other, without what shows something else."""

import cv2
import numpy as np
import pytest
from webcam_parts import QUAD, Frame, area_of, likeness, page, phantom, scene, shifted

from edge_agent.capture.fuse import align, edge_energy, fuse, robust_mean

SLICE = phantom(0)


def noisy(seed: int, x: float = 0.0, y: float = 0.0, turn: float = 0.0, noise: float = 6.0) -> Frame:
    """Return a simulated frame whose noise is the sensor's, not moved with the scene."""
    clean = shifted(page(SLICE).astype(np.uint8), x, y, turn).astype(float)
    return np.clip(clean + np.random.default_rng(seed).normal(0, noise, clean.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_the_robust_mean_is_that_of_the_middle_values(count: int) -> None:
    """Of each pixel's values the darkest and the brightest are dropped where there are three, and the rest averaged."""
    frames = np.random.default_rng(count).integers(0, 256, (count, 9, 11, 3), dtype=np.uint8)
    middle = np.sort(frames, axis=0)[1:-1] if count >= 3 else frames
    assert np.abs(robust_mean(list(frames)) - middle.mean(axis=0)).max() <= 0.5


@pytest.mark.parametrize(("x", "y", "turn"), [(0.0, 0.0, 0.0), (0.4, -0.3, 0.0), (5.3, -3.6, 0.0), (1.0, 2.0, 0.3)])
def test_a_shaken_frame_is_laid_on_the_other(x: float, y: float, turn: float) -> None:
    """Shift and turn of a hand are undone, to a small part of a pixel, noise or not."""
    moved = align(noisy(1, x, y, turn, noise=3), noisy(2, noise=3))
    assert moved is not None
    assert centre_of(area_of(moved)) == pytest.approx(centre_of(area_of(page(SLICE).astype(np.uint8))), abs=0.1)
    assert likeness(moved, SLICE) > 0.99


def centre_of(grey: Frame) -> tuple[float, float]:
    """Return where the shift between a slice and the true one puts its middle, in pixels."""
    (x, y), _ = cv2.phaseCorrelate(SLICE.astype(np.float32), grey.astype(np.float32))
    return x, y


def test_noise_falls_and_sharpness_stays() -> None:
    """Five shaken frames make a picture with less than 0.6 of one frame's error, and with its edges."""
    moves = [(0.0, 0.0), (1.3, 0.5), (-0.7, 2.1), (0.2, 0.1), (2.0, -1.0)]
    frames = [noisy(seed, x, y) for seed, (x, y) in enumerate(moves)]
    fused = fuse(frames, QUAD)
    assert fused.used == 5
    errors = [np.abs(fused.pixels - shifted(page(SLICE).astype(np.uint8), x, y).astype(float)).std() for x, y in moves]
    single = np.abs(frames[0] - page(SLICE)).std()
    assert min(errors) < 0.6 * single
    assert edge_energy(fused.pixels, QUAD) > 0.9 * edge_energy(frames[0], QUAD)


def test_blurred_frames_are_left_out() -> None:
    """Frames that moved during their exposure do not blur the picture."""
    blurred = [np.asarray(cv2.blur(noisy(seed), (9, 1)), np.uint8) for seed in (1, 2, 3)]
    fused = fuse([*blurred, noisy(4), noisy(5)], QUAD)
    assert fused.used == 2
    assert likeness(fused.pixels, SLICE) > 0.98


def test_a_frame_of_another_slice_is_left_out() -> None:
    """When the slice changes within the burst, the picture is of one slice alone."""
    frames = [scene(SLICE, seed=1), scene(SLICE, seed=2), scene(phantom(0, 0.56), seed=3)]
    fused = fuse(frames, QUAD)
    assert fused.used in (1, 2)
    shown = phantom(0, 0.56) if fused.used == 1 else SLICE
    assert likeness(fused.pixels, shown) > 0.999


def test_a_frame_of_another_size_is_left_out() -> None:
    """A camera that changes its size within the burst spoils nothing."""
    fused = fuse([scene(SLICE, seed=1), scene(SLICE, seed=2), scene(SLICE, seed=3)[:200, :300]], QUAD)
    assert fused.pixels.shape[1] in (640, 300)


def test_frames_without_anything_to_align_by_are_not_forced() -> None:
    """Frames of nothing but noise become one of them, and no error."""
    frames = [np.random.default_rng(seed).integers(0, 256, (120, 160, 3), dtype=np.uint8) for seed in range(4)]
    assert fuse(frames).used == 1
    grey = [np.full((120, 160, 3), 90, np.uint8)] * 3
    assert np.array_equal(fuse(grey).pixels, grey[0])


def test_equal_frames_stay_as_they_are() -> None:
    """The fusion of a frame with itself is that frame, bit for bit."""
    frame = scene(SLICE)
    assert np.array_equal(fuse([frame] * 4, QUAD).pixels, frame)
