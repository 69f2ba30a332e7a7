"""Restore: colour cast, black level, exposure and, with a calibration, response and shading, back to digital grey.

Without a calibration a reference must be in the picture: the slice's own black for the black level, a white page around
it for the exposure. Where one is missing nothing is corrected: slices differ in their window, so a curve guessed from a
histogram invents contrast. Measured on simulated frames: a regression from histograms to curves beat no correction on
the sources that it had seen, and was three times worse than no correction on one that it had not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.calibration.record import Calibration
from edge_agent.calibration.shading import frame_places, shading_at
from edge_agent.light import CODES, STEPS, Grey, Light, Picture, linear, looked_up
from edge_agent.photometry.black import veil
from edge_agent.photometry.margin import margin_px

CHANNEL_WEIGHTS = (0.25, 0.5, 0.25)
"""A colour sensor has twice as many green pixels; measured weights gained nothing on simulated frames."""
WHITE_PAGE = 0.8
"""A margin of at least this share of the slice's own brightest light is a white page."""
PAGE_LIGHT = 0.88
"""White paper, light boxes and viewers' white, of a display's full white, in the middle."""
PAGE_TRUST = 0.8
"""Exponent on the correction of exposure: below 1 because the page's own white is known so roughly."""
MOST_GAIN = 2.5
"""Of the correction of exposure; a frame that needs more is too dark to be read."""
MOST_CAST = 2.0
"""Of a channel's gain."""

_BRIGHTEST_PERCENT, _PAGE_PERCENT, _NEUTRAL_PERCENT = 99.5, 80, 60
_FULL = 0.9
"""Light from which a channel may be clipped and says nothing of the cast."""
_NEUTRAL_SHARE, _LEAST_NEUTRAL, _LEAST_NEUTRAL_PX = 0.25, 0.01, 40
_SPARSE = 4
_SURROUND_PERCENT = 60
_LEAST_SURROUND = 0.15
"""Of white: a darker surround says nothing of the exposure."""
MOST_DRIFT = 1.7
"""Of the exposure since the calibration."""
_AIR_GREY = 59
"""-1000 HU in the lung window: the darkest that a slice without black shows."""
_BLACK_SURE, _BLACK_UNSURE = 0.375, 0.625
"""From a calibrated black to air: a slice's darkest up to here is black, and from there it is not."""
_SHADING_NODES = 17
_HEADROOM = 1.25
"""Light, over a full frame's, that is told apart after shading is evened out."""


@dataclass(frozen=True)
class Place:
    """Where a rectified slice lay: its quad float32 [4, 2] (without margin), and the frame's (height, width)."""

    quad: NDArray[np.float32]
    frame_size: tuple[int, int]


def restore(
    rectified: Picture,
    calibration: Calibration | None = None,
    *,
    margin: float = 0.0,
    place: Place | None = None,
) -> Grey:
    """Return the grey slice uint8 [t, t], as near as possible to the digital one.

    `rectified` is uint8 [s, s, 3] BGR; with a `margin` (`photometry.MARGIN`, a share of the slice's side) it shows so
    much of the page around the slice, which is cut off again: t = s - 2 * margin_px(s, margin). A calibration evens out
    its shading only where `place` says where in the frame the slice lay. At every place the curve from the frame's
    grey to the result is monotone. Raises `ValueError` for an array of another kind.
    """
    if rectified.dtype != np.uint8 or rectified.ndim != 3 or rectified.shape[2] != 3:
        raise ValueError(f"rectified picture of {rectified.dtype} {list(rectified.shape)}: not uint8 [s, s, 3]")
    edge = margin_px(rectified.shape[0], margin)
    if calibration is None:
        return _by_references(linear(rectified), edge)
    return _by_calibration(linear(rectified), edge, calibration, margin, place)


def _by_references(light: Light, edge: int) -> Grey:
    grey = _mixed(light, _neutral_gains(_inside(light, edge)) * CHANNEL_WEIGHTS)
    shown, over = _unveiled(_inside(grey, edge), veil)
    gain = _page_gain(_around(grey, edge) - over, shown)
    return np.asarray(looked_up(shown * np.float32(gain), _GREYS), np.uint8)


def _by_calibration(light: Light, edge: int, calibration: Calibration, margin: float, place: Place | None) -> Grey:
    grey = _mixed(light, np.asarray(calibration.gains) * calibration.weights)
    if place is not None:
        grey = grey / _shading(grey.shape[0], calibration, margin, place)
    grey = grey * np.float32(_drift_gain(_around(grey, edge), calibration))
    black, air = calibration.curve[0], calibration.curve[_AIR_GREY]
    veil_of = partial(veil, sure=_BLACK_SURE * (air - black), unsure=_BLACK_UNSURE * (air - black))
    shown, _ = _unveiled(_inside(grey, edge) - np.float32(black), veil_of)
    scaled = (shown + np.float32(black)) * np.float32(1 / _HEADROOM)
    return np.asarray(looked_up(scaled, _greys_of(calibration)), np.uint8)


def _mixed(light: Light, factors: NDArray[np.float64]) -> Light:
    """Return the grey [s, s] that is the channels' sum with these factors."""
    return np.asarray(cv2.transform(light, factors.astype(np.float32)[None]), np.float32)


def _neutral_gains(slice_light: Light) -> NDArray[np.float64]:
    """Return the channels' gains under which a slice is grey, by its brighter pixels that are not clipped."""
    pixels = slice_light[::_SPARSE, ::_SPARSE].reshape(-1, 3)
    level = pixels.mean(1)
    middle, top = np.percentile(level, (_NEUTRAL_PERCENT, _BRIGHTEST_PERCENT))
    bright = level >= max(middle, _NEUTRAL_SHARE * top, _LEAST_NEUTRAL)
    if not bright.any():
        return np.ones(3)
    open_ = bright & (pixels.max(1) < _FULL)
    colour = np.median(pixels[open_ if open_.sum() >= _LEAST_NEUTRAL_PX else bright], axis=0)
    return np.asarray(np.clip(colour.mean() / np.maximum(colour, 1e-4), 1 / MOST_CAST, MOST_CAST), np.float64)


def _unveiled(slice_light: Light, veil_of: Callable[[Light], Light]) -> tuple[Light, float]:
    """Return the slice without the light that lies over its black, and how much that is on average."""
    height, width = slice_light.shape
    half = cv2.resize(slice_light, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    over = veil_of(np.asarray(half, np.float32))
    if not over.any():
        return slice_light, 0.0
    return slice_light - cv2.resize(over, (width, height), interpolation=cv2.INTER_LINEAR), float(over.mean())


def _page_gain(page: Light, slice_light: Light) -> float:
    """Return the correction of exposure by a white page around the slice; 1 where there is none."""
    if not page.size:
        return 1.0
    white = float(np.percentile(page, _PAGE_PERCENT))
    brightest = float(np.percentile(slice_light[::_SPARSE, ::_SPARSE], _BRIGHTEST_PERCENT))
    if white <= max(WHITE_PAGE * brightest, 1e-3):
        return 1.0
    return float(np.clip((PAGE_LIGHT / white) ** PAGE_TRUST, 1 / MOST_GAIN, MOST_GAIN))


def _drift_gain(page: Light, calibration: Calibration) -> float:
    """Return how much brighter the surround was at calibration than it is now; 1 where it does not tell."""
    if not page.size or calibration.surround < _LEAST_SURROUND * calibration.curve[-1]:
        return 1.0
    now = float(np.percentile(page, _SURROUND_PERCENT))
    return float(np.clip(calibration.surround / max(now, 1e-3), 1 / MOST_DRIFT, MOST_DRIFT))


def _shading(side: int, calibration: Calibration, margin: float, place: Place) -> Light:
    """Return the calibration's shading float32 [side, side] over the rectified picture."""
    steps = np.linspace(-margin, 1 + margin, _SHADING_NODES, dtype=np.float32)
    nodes = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(1, -1, 2)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    seen = cv2.perspectiveTransform(nodes, cv2.getPerspectiveTransform(square, np.asarray(place.quad, np.float32)))[0]
    field = shading_at(frame_places(seen, place.frame_size), calibration.shading).astype(np.float32)
    return np.asarray(cv2.resize(field.reshape(_SHADING_NODES, -1), (side, side), interpolation=cv2.INTER_LINEAR))


def _inside(picture: Light, edge: int) -> Light:
    return picture[edge : picture.shape[0] - edge, edge : picture.shape[1] - edge]


def _around(picture: Light, edge: int) -> Light:
    """Return the margin's pixels [n], without its outer quarter and the inner one, where an outline may run."""
    first, last = edge // 4, edge - edge // 4 - 1
    strips = (picture[first:last], picture[-last:-first], picture[:, first:last], picture[:, -last:-first])
    return np.concatenate([strip[:, ::2].ravel() for strip in strips]) if last > first > 0 else picture[:0].ravel()


@lru_cache(maxsize=4)
def _greys_of(calibration: Calibration) -> NDArray[np.uint8]:
    """Return the grey of each step of light, up to the headroom, by the calibration's curve."""
    light = np.arange(STEPS + 1) * (_HEADROOM / STEPS)
    return np.asarray(np.rint(np.interp(light, calibration.curve, np.arange(len(calibration.curve)))), np.uint8)


_GREYS = np.rint(CODES).astype(np.uint8)
