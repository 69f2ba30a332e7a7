"""Black: how much light a display's black, the room and glare add, read off the slice's own black and taken away."""

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.light import CODES, Light, looked_up

Mask = NDArray[np.bool_]

BLACK_SURE, BLACK_UNSURE = 0.016, 0.026
"""Light of a slice's darkest pixels up to which they are taken for black, and from which they are not.

Where a slice is black, webcams show 0.001 to 0.02 of white's light; the air of a lung window (-1000 HU, grey 59 for
centre -600, width 1500 HU) gives 0.044 times the exposure. In between, the light taken away falls to none.
"""
_DARKEST_PERCENT = 0.5
_NEAR_DARKEST = 0.012
"""Light above the darkest that still counts as a seed of black."""
_MOST_SLOPE = 5.0
"""Codes per pixel, at half size: glare rises more slowly over black, the edges of tissue faster."""
_BRIGHTEST_VEILED = 140
"""Codes: no glare that leaves a slice readable lifts black so far."""
_BRIDGE_PX = 5
"""Narrower links between smooth regions are leaks through a blurred edge."""
_RIM_PX = 3
"""Twice what is taken off at the rim of black, where tissue spreads in, plus one."""
_EDGE_PX = 2
"""Left out along the slice's sides, where the page's light, or a black frame's, spreads in."""
_LEAST_SEEDS, _LEAST_SEED_SHARE = 0.002, 0.03
_LEAST_BLACK = 0.02
"""Of the slice: less black is no reference for a field, its level alone is."""
_FIELD_STEP_PX, _NEAR, _FAR = 4, 1.25, 5.0
"""The veil is smoothed over so many steps where black is near, and over more where it is far."""
_FAR_WEIGHT, _LEVEL_WEIGHT = 0.1, 0.002


def veil(slice_light: Light, *, sure: float = BLACK_SURE, unsure: float = BLACK_UNSURE) -> Light:
    """Return the light float32 [h, w] that lies over the slice's light [h, w] (at half size), 0 where it is unknown.

    It is what the slice's black shows: one level, or, where black joins over a larger region (outside the scanner's
    circle, or around lungs that were cut out), a smooth field that follows glare. Whether the darkest pixels are black
    at all is decided by their light: `sure` and `unsure` are its limits.
    """
    inner = cv2.blur(slice_light, (3, 3))[_EDGE_PX:-_EDGE_PX:2, _EDGE_PX:-_EDGE_PX:2]
    darkest = float(np.percentile(inner, _DARKEST_PERCENT))
    trust = float(np.clip((unsure - darkest) / (unsure - sure), 0, 1))
    if not trust:
        return np.zeros_like(slice_light)
    black = black_region(slice_light, darkest)
    if black.mean() < _LEAST_BLACK:
        return np.full_like(slice_light, trust * darkest)
    return np.asarray(trust * _field(slice_light, black), np.float32)


def black_region(slice_light: Light, darkest: float) -> Mask:
    """Return where the slice [h, w] is black under a smooth veil: smooth regions that hold enough of the darkest."""
    codes = cv2.blur(looked_up(slice_light, CODES), (3, 3))
    across, down = (cv2.Sobel(codes, cv2.CV_32F, *way, scale=1 / 8) for way in ((1, 0), (0, 1)))
    smooth = ((cv2.magnitude(across, down) < _MOST_SLOPE) & (codes < _BRIGHTEST_VEILED)).astype(np.uint8)
    smooth[:_EDGE_PX] = smooth[-_EDGE_PX:] = 0
    smooth[:, :_EDGE_PX] = smooth[:, -_EDGE_PX:] = 0
    smooth = np.asarray(cv2.morphologyEx(smooth, cv2.MORPH_OPEN, np.ones((_BRIDGE_PX, _BRIDGE_PX), np.uint8)), np.uint8)
    count, part = cv2.connectedComponents(smooth, connectivity=4)
    sizes = np.bincount(part.ravel(), minlength=count)
    seeds = np.bincount(part[slice_light < darkest + _NEAR_DARKEST], minlength=count)
    kept = (seeds > _LEAST_SEEDS * part.size) & (seeds >= _LEAST_SEED_SHARE * sizes)
    kept[0] = False
    black = kept[part].astype(np.uint8)
    return np.asarray(cv2.erode(black, np.ones((_RIM_PX, _RIM_PX), np.uint8)), np.bool_)


def _field(slice_light: Light, black: Mask) -> Light:
    """Spread the light of black over the slice: a mean of black pixels, of near ones where there are any."""
    size = tuple(-(-side // _FIELD_STEP_PX) for side in black.shape[::-1])
    share = cv2.resize(black.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    light = cv2.resize(slice_light * black, size, interpolation=cv2.INTER_AREA)
    level = float(np.median(slice_light[black]))
    total, weight = (_near_and_far(part) + _LEVEL_WEIGHT * by for part, by in ((light, level), (share, 1.0)))
    field = cv2.resize(total / weight, black.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(field, np.float32)


def _near_and_far(part: NDArray[np.generic]) -> NDArray[np.float32]:
    near, far = (cv2.GaussianBlur(np.asarray(part, np.float32), (0, 0), sigma) for sigma in (_NEAR, _FAR))
    return np.asarray(near + _FAR_WEIGHT * far, np.float32)
