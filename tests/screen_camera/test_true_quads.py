"""The quad of a shot is true to a tenth of a pixel: the slice's corners are where the frame shows them."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from screen_parts import FAMILIES, WHITE

from training.screen_camera import Factor, Family, Shot, shoot

TENTH_PX = 0.1
MARGIN_PX, REACH_PX = 4, 3
CLEAR_PAGE = "viewer with a black border"


def shots_on_a_clear_page(family: Family, severity: float, *factors: Factor, count: int = 4) -> list[Shot]:
    """Return shots of a white slice on a black page."""
    found: list[Shot] = []
    for seed in range(200):
        if len(found) == count:
            return found
        if shoot(WHITE[:8, :8], severity=0, seed=seed, family=family, size=(64, 64)).page == CLEAR_PAGE:
            found.append(shoot(WHITE, severity=severity, seed=seed, family=family, only=factors))
    raise AssertionError("no clear page among 200")


def corners_seen(shot: Shot, degree: int) -> NDArray[np.float64]:
    """Find the corners of the white slice by brute force, in a frame from which all that lies further out is cut.

    Every row and column is searched from outside for the place where dark turns to white; the curves fitted to these
    places meet in the corners.
    """
    light = linear_light(shot)
    height, width = light.shape
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = shot.quad.tolist()
    rows = np.arange(int(max(y0, y1)) + MARGIN_PX, int(min(y2, y3)) - MARGIN_PX)
    columns = np.arange(int(max(x0, x3)) + MARGIN_PX, int(min(x1, x2)) - MARGIN_PX)
    left = np.polyfit(rows, [edge_of(light[y]) for y in rows], degree)
    right = np.polyfit(rows, [width - 1 - edge_of(light[y, ::-1]) for y in rows], degree)
    top = np.polyfit(columns, [edge_of(light[:, x]) for x in columns], degree)
    bottom = np.polyfit(columns, [height - 1 - edge_of(light[::-1, x]) for x in columns], degree)
    return np.array([meeting(left, top), meeting(right, top), meeting(right, bottom), meeting(left, bottom)])


def linear_light(shot: Shot) -> NDArray[np.float64]:
    code = shot.frame[..., 1] / 255
    light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    near = np.zeros(light.shape, np.uint8)
    cv2.fillPoly(near, [np.round(shot.quad).astype(np.int32)], 1)
    return light * cv2.dilate(near, np.ones((13, 13), np.uint8))


def edge_of(light: NDArray[np.float64]) -> float:
    """Return where dark turns to white: so far before the white's end as there is light around the turn."""
    white = int(np.argmax(light > 0.5)) + REACH_PX
    return white + 0.5 - float(light[white - 2 * REACH_PX : white + 1].sum())


def meeting(upright: NDArray[np.float64], level: NDArray[np.float64]) -> tuple[float, float]:
    """Return where a side x(y) and a side y(x) meet."""
    x, y = 0.0, 0.0
    for _ in range(50):
        x = float(np.polyval(upright, y))
        y = float(np.polyval(level, x))
    return x, y


@pytest.mark.parametrize("family", FAMILIES)
def test_the_clean_quad_is_where_the_slice_is(family):
    """At severity 0 the corners found in the frame are the quad."""
    for shot in shots_on_a_clear_page(family, 0, count=2):
        assert np.abs(corners_seen(shot, 1) - shot.quad).max() < TENTH_PX


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("severity", [1.0, 1.6])
def test_the_quad_follows_the_perspective(family, severity):
    """Under perspective alone the corners found in the frame are the quad, and it is no square any more."""
    for shot in shots_on_a_clear_page(family, severity, Factor.PERSPECTIVE):
        assert np.abs(corners_seen(shot, 1) - shot.quad).max() < TENTH_PX
        sides = np.linalg.norm(shot.quad - np.roll(shot.quad, 1, axis=0), axis=1)
        assert np.ptp(sides) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_quad_follows_the_distortion(family):
    """Under radial distortion, which bends the sides, the quad's corners are still the slice's corners."""
    for shot in shots_on_a_clear_page(family, 1.6, Factor.PERSPECTIVE, Factor.DISTORTION):
        assert np.abs(corners_seen(shot, 2) - shot.quad).max() < TENTH_PX


@pytest.mark.parametrize("family", FAMILIES)
def test_the_quad_starts_at_the_top_left_and_goes_clockwise(family):
    """Corners come clockwise as seen in the frame, the top left one first, with every factor at work."""
    for seed in range(8):
        top_left, top_right, bottom_right, bottom_left = shoot(
            WHITE, severity=1.6, seed=seed, family=family, size=(360, 640)
        ).quad
        assert top_left[0] < top_right[0]
        assert bottom_left[0] < bottom_right[0]
        assert top_left[1] < bottom_left[1]
        assert top_right[1] < bottom_right[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_slices_are_as_large_as_a_careful_person_holds_them(family):
    """At severity 1 a square slice's side is about 380 to 640 of a frame's 720 lines."""
    sides = []
    for seed in range(30):
        quad = shoot(WHITE, severity=1, seed=seed, family=family, size=(360, 640), only=[Factor.PERSPECTIVE]).quad
        sides.append(2 * np.linalg.norm(quad - np.roll(quad, 1, axis=0), axis=1).mean())
    assert min(sides) > 360
    assert max(sides) < 660
    assert np.ptp(sides) > 150
