"""Find the slice in a frame: search a small picture, refine on a larger one, or say why there is none."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.locate.bgr import as_bgr, brightness
from edge_agent.locate.search import Found, search
from edge_agent.locate.sides import refine
from edge_agent.refusal import Refusal, Side

SMALL_PX, FINE_PX = 640, 1280
"""Longer sides of the pictures that are searched, and on which the sides are refined."""
ACCEPTED_CHANCE = 0.45
"""On simulated frames that the judge was not fitted to, this accepts 0.3 % wrong quads and 1 % of empty scenes."""
UNSURE_CHANCE = 0.15
"""From here on there may be a slice, but not its outline."""

CUT_CHANCE = 0.2
"""A part of a slice looks less like one than a whole; nothing is read because of it, only the sentence differs."""

_EQUAL_AREAS = 0.9
"""Of two slices, the smaller over the larger: from here on they count as equal."""
_MOST_MOVED_PX = 20.0
"""Refined corners this far off the searched ones are no refinement."""
_RIM_SHARE = 0.12
"""So much of the longer side is put around a frame to find a slice that it cuts."""
_RIM_COLOUR = (255, 255, 255)
_ON_RIM_PX = 4.0


@dataclass(frozen=True)
class Location:
    """Where the slice lies, or why it was not found.

    `quad` is float32 [4, 2], (x, y) in the frame's pixels, clockwise from the top left corner; `score` is the chance,
    0..1, that the best quad is a slice's outline; `reason` is empty when found; `side` tells where the frame cuts it.
    """

    quad: NDArray[np.float32] | None
    score: float
    reason: Refusal | str = ""
    side: Side | None = None


def locate(frame: NDArray[np.generic]) -> Location:
    """Find the slice in a frame of any form that `as_bgr` takes; raises `FrameError` for any other.

    Of several slices it is the largest whole one, of equal ones the one nearest the frame's centre.
    """
    fine = _shrunk(as_bgr(frame), FINE_PX)
    small = _shrunk(fine, SMALL_PX)
    found = search(small)
    slices = [each for each in found if each.chance >= ACCEPTED_CHANCE]
    if not slices:
        return _not_found(small, max((each.chance for each in found), default=0.0))
    chosen = _chosen(slices, small.shape)
    searched = _scaled(chosen.corners, small.shape, fine.shape)
    grey = brightness(fine)
    quad = _scaled(_refined(grey, searched), fine.shape, frame.shape)
    return Location(_from_top_left(quad), chosen.chance)


def _chosen(slices: list[Found], shape: tuple[int, ...]) -> Found:
    areas = np.array([cv2.contourArea(each.corners.astype(np.float32)) for each in slices])
    centre = (np.array(shape[1::-1]) - 1) / 2
    away = np.array([np.linalg.norm(each.corners.mean(0) - centre) for each in slices])
    return slices[int(np.argmin(np.where(areas >= _EQUAL_AREAS * areas.max(), away, np.inf)))]


def _refined(grey: NDArray[np.uint8], searched: NDArray[np.float64]) -> NDArray[np.float64]:
    """Refine a quad, or keep it where its sides lead astray."""
    refined = refine(grey, searched).quad
    is_near = np.isfinite(refined).all() and np.abs(refined - searched).max() <= _MOST_MOVED_PX
    return refined if is_near else searched


def _not_found(small: NDArray[np.uint8], chance: float) -> Location:
    """Say why: the frame cuts the slice, its outline is unsure, or there is none."""
    side = _cut_at(small)
    if side is not None:
        return Location(None, chance, Refusal.CUT_BY_FRAME, side)
    return Location(None, chance, Refusal.UNSURE_OUTLINE if chance >= UNSURE_CHANCE else Refusal.NO_SLICE)


def _cut_at(small: NDArray[np.uint8]) -> Side | None:
    """Return where the frame cuts a slice: with a plain rim put around, the cut looks like a side of the slice."""
    height, width = small.shape[:2]
    rim = round(_RIM_SHARE * max(height, width))
    framed = cv2.copyMakeBorder(small, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=_RIM_COLOUR)
    found = search(np.asarray(framed, np.uint8))
    for each in found:
        left, top = each.corners.min(0) - rim + 0.5
        right, bottom = each.corners.max(0) - rim + 0.5
        gaps = {Side.LEFT: left, Side.TOP: top, Side.RIGHT: width - right, Side.BOTTOM: height - bottom}
        cut = [side for side, gap in gaps.items() if abs(gap) <= _ON_RIM_PX]
        if each.chance >= CUT_CHANCE and len(cut) == 1:
            return cut[0]
    return None


def _shrunk(picture: NDArray[np.uint8], longer_px: int) -> NDArray[np.uint8]:
    """Shrink a picture to this longer side; smaller ones stay as they are."""
    height, width = picture.shape[:2]
    scale = longer_px / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _scaled(corners: NDArray[np.float64], shape: tuple[int, ...], target: tuple[int, ...]) -> NDArray[np.float64]:
    """Carry corners from a picture of one shape over to another; pixels are counted at their centres."""
    scale = np.array(target[1::-1]) / np.array(shape[1::-1])
    return np.asarray((corners + 0.5) * scale - 0.5, np.float64)


def _from_top_left(quad: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.roll(quad, -int(np.argmin(quad.sum(1))), axis=0).astype(np.float32)
