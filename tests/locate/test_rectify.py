"""Rectifying: what lies inside a quad, upright, in its own proportions, and without moire."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from locate_scenes import corners_at, phantom, shown, square, tilted, white_page

from edge_agent.rectify import aspect_ratio, fitting_size, rectify

USUAL_FOCAL_PX = 1150


def seen_rectangle(aspect: float, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return where a pinhole camera sees a rectangle of this aspect that is turned by these angles (radians)."""
    corners = np.array([[-aspect, -1, 0], [aspect, -1, 0], [aspect, 1, 0], [-aspect, 1, 0]]) * 0.2
    for angle, axis in ((yaw, (0, 1, 0)), (pitch, (1, 0, 0)), (roll, (0, 0, 1))):
        corners = corners @ cv2.Rodrigues(np.array(axis) * float(angle))[0].T
    corners += np.array([0, 0, 1])
    return corners[:, :2] / corners[:, 2:] * USUAL_FOCAL_PX + (639.5, 359.5)


@given(
    aspect=st.sampled_from([0.75, 1.0, 4 / 3, 1.6]),
    yaw=st.floats(-0.35, 0.35),
    pitch=st.floats(-0.35, 0.35),
    roll=st.floats(-0.3, 0.3),
)
def test_the_proportions_of_a_rectangle_are_recovered(aspect, yaw, pitch, roll):
    """From any usual side, a rectangle's width to height is recovered to three percent."""
    quad = seen_rectangle(aspect, yaw, pitch, roll)
    assert aspect_ratio(quad, (720, 1280, 3)) == pytest.approx(aspect, rel=0.03)


def test_the_fitting_size_has_the_longer_side_asked_for():
    """Lying and standing rectangles both get it; neither is squeezed into a square."""
    assert fitting_size(square(400) * (1, 0.75), (720, 1280, 3), 256) == (256, pytest.approx(192, abs=3))
    width, height = fitting_size(square(400) * (0.5, 1), (720, 1280, 3), 256)
    assert height == 256
    assert width == pytest.approx(128, abs=3)


def test_an_upright_quad_at_its_own_size_gives_the_pixels_themselves():
    """Without tilt and scaling, nothing is resampled."""
    frame = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    inside = rectify(frame, corners_at((80, 120), 50, 40), 120, 80)
    assert np.array_equal(inside, frame[40:120, 50:170])


def test_what_was_tilted_comes_out_as_the_slice():
    """A slice that is photographed askew looks as before: two grey levels off on average, as far as blur allows."""
    slice_ = phantom()
    scene = shown(white_page(slice_), tilted())
    upright = cv2.cvtColor(rectify(scene.frame, scene.quad, 256, 256), cv2.COLOR_BGR2GRAY)
    expected = cv2.resize(slice_, (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(upright.astype(int) - expected).mean() < 6


def test_shrinking_leaves_no_moire():
    """A grid of single pixels, shrunk four times and more, becomes an even grey; a plain bilinear look-up does not."""
    frame = np.zeros((720, 1280, 3), np.uint8)
    frame[:, ::2] = 255
    for quad in (corners_at((700, 700), 200, 10), corners_at((700, 700), 200.3, 10.4) * np.float32(1.0)):
        assert rectify(frame, quad, 150, 150)[2:-2, 2:-2].std() < 20


def test_enlarging_is_smooth():
    """A small quad becomes a large picture between the greys that it has."""
    frame = np.full((200, 200, 3), 100, np.uint8)
    frame[:, 100:] = 140
    grown = rectify(frame, corners_at((40, 40), 80, 80), 256, 256)
    assert grown.shape == (256, 256, 3)
    assert 90 <= grown.min() <= 100 <= 140 <= grown.max() <= 150


def test_a_frame_of_forty_megapixels_is_rectified():
    """A slice with far more pixels than are asked for is shrunk first, and is the same picture."""
    scene = shown(white_page(phantom()), tilted())
    large = cv2.resize(scene.frame, None, fx=5, fy=5, interpolation=cv2.INTER_LINEAR)
    small, big = (
        rectify(f, q, 128, 128).astype(int)
        for f, q in ((scene.frame, scene.quad), (large, (scene.quad + 0.5) * 5 - 0.5))
    )
    assert np.abs(small - big).mean() < 4
