"""Solve: from a photograph of the calibration page to the calibration."""

from dataclasses import dataclass
from datetime import datetime

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.calibration.errors import WedgeClippedError, WedgeDisturbedError, WedgeFlatError
from edge_agent.calibration.page import GRID, LEVEL_STEP, LEVELS, patches
from edge_agent.calibration.record import GREYS, Calibration
from edge_agent.calibration.shading import frame_places, shading_at, shading_terms
from edge_agent.calibration.tags import PageView, find_page
from edge_agent.light import Picture, linear

Values = NDArray[np.float64]

MIN_CONTRAST = 3.0
"""White's light over black's; a usable picture has 20 and more."""
MAX_RESIDUAL = 20.0
"""Grey levels. On simulated frames calibrations up to here did better than none in nine of ten, above 25 in half."""

_SAMPLES = 9
"""Along a patch's side, within its inner half, where blur and sharpening of its edges do not reach."""
_SURROUND_AT = (0.02, 0.035, 0.05)
"""Of the page's side outside it: beyond an outline, within the margin that photometry sees."""
_SURROUND_PERCENT = 60
_FULL = 0.97
"""Light from which a channel counts as clipped."""
_MOST_FULL_LEVELS = 2
"""White and the level below may clip: hardly a slice has so bright tissue."""
_LEAST_DARK_STEP = 0.001
"""Light between grey 0 and grey 34, below which the dark greys are lost."""
_MID_LEVEL = 6
_ROUNDS = 12
_ABSOLUTE_ERROR, _RELATIVE_ERROR = 0.01, 0.05
"""Of a patch's light: what flare and the neighbours' halos, and what uneven light, leave in it."""
_OUTLIER = 3.0
_PULL = 1e-3
"""Towards no shading, so that few patches do not bend the polynomial."""
_BEND = 2.2
"""Between the wedge's levels light is interpolated as this power, nearly a straight line over grey."""
_LEAST_RISE = 1e-6


@dataclass(frozen=True)
class _Wedge:
    """The page's patches as photographed: level index [n], place in the frame [n, 2], light [n, 3] and its noise."""

    level: NDArray[np.int_]
    place: Values
    light: Values
    noise: Values


def solve(frame: Picture, made_at: datetime) -> Calibration:
    """Return the calibration that a photograph of the page gives, a frame uint8 [height, width, 3] BGR.

    Raises a `CalibrationError` that names what is wrong with the photograph.
    """
    view = find_page(frame)
    wedge = _read_wedge(frame, view)
    gains, weights = _balance(wedge)
    grey = wedge.light @ (gains * weights)
    steps, shading = _fit(wedge, grey)
    _refuse_lost(wedge, steps)
    curve = _curve(steps)
    residual = _residual(wedge, grey, curve, shading)
    if residual > MAX_RESIDUAL:
        raise WedgeDisturbedError(residual)
    return Calibration(
        made_at=made_at,
        frame_size=view.frame_size,
        gains=_triple(gains),
        weights=_triple(weights),
        curve=tuple(round(float(light), 7) for light in curve),
        shading=tuple(round(float(term), 6) for term in shading),
        surround=_surround(frame, view, gains * weights, shading),
        distortion=round(view.distortion, 5),
        residual=round(residual, 2),
    )


def _read_wedge(frame: Picture, view: PageView) -> _Wedge:
    drawn = patches()
    within = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
    offsets = np.stack(np.meshgrid(within, within), axis=-1).reshape(-1, 2) / (2 * GRID)
    centres = np.array([(patch.x, patch.y) for patch in drawn])
    points = view.into_frame((centres[:, None] + offsets).reshape(-1, 2))
    seen = _light_at(frame, points).reshape(len(drawn), -1, 3)
    places = frame_places(view.into_frame(centres), view.frame_size)
    level = np.array([patch.level // LEVEL_STEP for patch in drawn])
    return _Wedge(level, places, seen.mean(1), seen.std(1))


def _balance(wedge: _Wedge) -> tuple[Values, Values]:
    """Return the channels' gains that make the patches grey, and their weights by how little noise they have."""
    bright = wedge.level >= _MID_LEVEL
    open_ = bright & (wedge.light.max(1) < _FULL)
    chosen = wedge.light[open_ if open_.sum() > LEVELS else bright]
    colour = np.median(chosen / np.maximum(chosen.mean(1, keepdims=True), 1e-4), axis=0)
    gains = 1 / np.maximum(colour, 0.06)
    weights = 1 / np.square(np.maximum((wedge.noise * gains)[bright].mean(0), 1e-4))
    return gains, weights / weights.sum()


def _fit(wedge: _Wedge, grey: Values) -> tuple[Values, Values]:
    """Return the light of each level [16] and the shading [6] whose product is the patches' light, in turns."""
    terms, count = shading_terms(wedge.place), LEVELS
    flat = np.eye(terms.shape[1])[0]
    expected = 1 / (_ABSOLUTE_ERROR + _RELATIVE_ERROR * grey)
    steps, shading, trust = np.array([np.median(grey[wedge.level == k]) for k in range(count)]), flat, expected
    for _ in range(_ROUNDS):
        known = terms * (steps[wedge.level] * trust)[:, None]
        shading = np.linalg.solve(known.T @ known + _PULL * np.eye(len(flat)), known.T @ (grey * trust) + _PULL * flat)
        shading = shading / shading[0]
        evened = shading_at(wedge.place, shading)
        over = np.bincount(wedge.level, np.square(trust) * evened * grey, count)
        steps = over / np.bincount(wedge.level, np.square(trust * evened), count)
        apart = (grey - evened * steps[wedge.level]) * expected
        spread = _OUTLIER * 1.48 * float(np.median(np.abs(apart))) + 1e-9
        trust = expected / (1 + np.square(apart / spread))
    return np.maximum.accumulate(steps), shading


def _refuse_lost(wedge: _Wedge, steps: Values) -> None:
    full = [k for k in range(LEVELS) if np.median(wedge.light[wedge.level == k].max(1)) >= _FULL]
    if len(full) > _MOST_FULL_LEVELS:
        raise WedgeClippedError(tuple(k * LEVEL_STEP for k in full), bright=True)
    if steps[-1] < MIN_CONTRAST * steps[0]:
        raise WedgeFlatError(float(steps[-1] / max(steps[0], 1e-6)))
    if steps[2] - steps[0] < _LEAST_DARK_STEP * steps[-1]:
        lost = np.flatnonzero(steps - steps[0] < _LEAST_DARK_STEP * steps[-1])
        raise WedgeClippedError(tuple(int(k) * LEVEL_STEP for k in lost), bright=False)


def _curve(steps: Values) -> Values:
    """Return the light of each grey [256], which rises strictly, from that of the wedge's levels."""
    greys = np.arange(GREYS)
    bent = np.interp(greys, LEVEL_STEP * np.arange(LEVELS), np.maximum(steps, 0) ** (1 / _BEND))
    return np.asarray(bent**_BEND + _LEAST_RISE * greys, np.float64)


def _residual(wedge: _Wedge, grey: Values, curve: Values, shading: Values) -> float:
    found = np.interp(grey / shading_at(wedge.place, shading), curve, np.arange(GREYS))
    return float(np.sqrt(np.mean(np.square(found - LEVEL_STEP * wedge.level))))


def _surround(frame: Picture, view: PageView, mix: Values, shading: Values) -> float:
    """Return the light of the strip around the page, evened out by the shading."""
    along, out = np.meshgrid(np.linspace(0, 1, 4 * GRID), np.array(_SURROUND_AT))
    sides = ((along, -out), (along, 1 + out), (-out, along), (1 + out, along))
    strip = np.concatenate([np.stack([x.ravel(), y.ravel()], axis=1) for x, y in sides])
    points = view.into_frame(strip)
    light = (_light_at(frame, points) @ mix) / shading_at(frame_places(points, view.frame_size), shading)
    return round(float(min(np.percentile(light, _SURROUND_PERCENT), 4.0)), 5)


def _light_at(frame: Picture, points: Values) -> Values:
    """Return the light [n, 3] at points [n, 2] of the frame."""
    x, y = np.asarray(points.T, np.float32)
    seen = cv2.remap(linear(frame), x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen[0], np.float64)


def _triple(values: Values) -> tuple[float, float, float]:
    blue, green, red = (round(float(value), 5) for value in values)
    return blue, green, red
