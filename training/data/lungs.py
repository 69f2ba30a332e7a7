"""Find the lungs in a prepared slice by thresholding and morphology: no network, so that no network has a stake in it.

Made by looking at slices; good enough to black the lungs out or to exchange them, no measurement of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.content import outer_black, picture_box
from training.model.preprocess import Frame

Mask = NDArray[np.uint8]
"""0 or 1 for each pixel."""

OUTER_BLACK_OF_LUNGS = 0.25
"""A scanner's round field of view leaves 1 - pi/4 = 0.215 of its square black; more black around means that the body
around the lungs was taken away. Measured on 2864 slices: at most 0.22 of whole bodies, at least 0.27 of lungs only."""
LUNG_SHARES = (0.05, 0.7)
"""Lungs outside these shares of the body's hull are a bubble, the bowel or the air around."""
LEAST_SIDE = 0.1
"""As much of the lung area lies on either half of the body; less, and one lung was missed."""
_LEAST_PART = 0.005
"""A part of a lung has at least this share of the hull's area."""
_LEAST_TISSUE = 0.02
"""Body parts below this share of the largest one (table, clothes, specks) do not stretch the hull."""
_MOST_RIM = 1.0
"""Air of which more pixels than this, times the root of its area, lie on the hull's rim is air outside the body."""
_TISSUE_OPENING_PX, _DARK_OPENING_PX, _CLOSING_PX, _MARGIN_PX = 5, 3, 31, 7
"""Cut off the table; cut off noise; take in vessels and consolidations; take in the lungs' edge."""
_CLOSE_CLOSING_PX, _CLOSE_MARGIN_PX = 13, 3
"""The same for an outline that keeps the mediastinum out."""


class Region(StrEnum):
    """What a slice shows, as far as could be told."""

    WHOLE_BODY = "whole body"
    LUNGS_ONLY = "lungs only"
    LUNGS_NOT_FOUND = "lungs not found"


@dataclass(frozen=True)
class Lungs:
    """`mask` uint8 [256, 256] is 1 on the lungs, and all 0 where `region` says that there is nothing to outline."""

    region: Region
    mask: Mask


def find_lungs(prepared: Frame) -> Lungs:
    """Find the lungs of a prepared slice uint8 [256, 256]."""
    return _found(prepared, _widen, lambda outside: np.zeros(outside.shape, np.uint8))


def lung_fields(prepared: Frame) -> Lungs:
    """Find the lungs as `find_lungs`, but outlined closely; of a slice of lungs only the mask is all that it shows."""
    return _found(prepared, _outline, lambda outside: (~outside).astype(np.uint8))


def _found(prepared: Frame, drawn: Callable[[Mask], Mask], all_lungs: Callable[[NDArray[np.bool_]], Mask]) -> Lungs:
    mask = np.zeros(prepared.shape, np.uint8)
    box = picture_box(prepared)
    picture = box.cut(prepared)
    outside = outer_black(picture)
    if outside.mean() >= OUTER_BLACK_OF_LUNGS:
        box.cut(mask)[:] = all_lungs(outside)
        return Lungs(Region.LUNGS_ONLY, mask)
    found = _lungs_inside(picture, outside)
    if found is None:
        return Lungs(Region.LUNGS_NOT_FOUND, mask)
    box.cut(mask)[:] = drawn(found)
    return Lungs(Region.WHOLE_BODY, mask)


def _lungs_inside(picture: Frame, outside: NDArray[np.bool_]) -> Mask | None:
    """Return the dark parts inside the body, or None where they cannot be two lungs."""
    level, _ = cv2.threshold(picture[~outside][None], 0, 255, cv2.THRESH_OTSU)
    hull = _body_hull(((picture > level) & ~outside).astype(np.uint8))
    dark = ((picture <= level) & ~outside & (hull > 0)).astype(np.uint8)
    lungs = _inner_parts(_opened(dark, _DARK_OPENING_PX), hull)
    return lungs if _is_plausible(lungs, hull) else None


def _body_hull(tissue: Mask) -> Mask:
    hull = np.zeros_like(tissue)
    _, part, sizes = _parts(_opened(tissue, _TISSUE_OPENING_PX))
    large = np.flatnonzero(sizes >= _LEAST_TISSUE * sizes[1:].max(initial=1))
    rows, columns = np.nonzero(np.isin(part, large[large > 0]))
    if len(rows):
        cv2.fillConvexPoly(hull, cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32)), (1,))
    return hull


def _inner_parts(dark: Mask, hull: Mask) -> Mask:
    """Keep the parts that are large enough and not open to the hull's rim; the picture's edge is no rim."""
    rim = (hull - cv2.erode(hull, _disc(3), borderValue=(1,))).astype(bool)
    count, part, sizes = _parts(dark)
    on_rim = np.bincount(part[rim], minlength=count)
    kept = (sizes >= _LEAST_PART * hull.sum()) & (on_rim <= _MOST_RIM * np.sqrt(sizes))
    kept[0] = False
    return np.asarray(kept[part], np.uint8)


def _is_plausible(lungs: Mask, hull: Mask) -> bool:
    columns = np.flatnonzero(hull.any(0))
    if not lungs.any() or not len(columns):
        return False
    left = lungs[:, : (columns[0] + columns[-1] + 1) // 2].sum() / lungs.sum()
    return bool(LUNG_SHARES[0] <= lungs.sum() / hull.sum() <= LUNG_SHARES[1] and LEAST_SIDE <= left <= 1 - LEAST_SIDE)


def _widen(lungs: Mask) -> Mask:
    """Close over vessels and consolidations (a square, because that is fast) and add the margin."""
    padded = np.pad(lungs, _CLOSING_PX)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((_CLOSING_PX, _CLOSING_PX), np.uint8))
    wide = cv2.dilate(closed, _disc(_MARGIN_PX))
    return np.asarray(wide[_CLOSING_PX:-_CLOSING_PX, _CLOSING_PX:-_CLOSING_PX], np.uint8)


def _outline(lungs: Mask) -> Mask:
    """Close over vessels, add a little, and fill what is enclosed (a consolidation is)."""
    padded = np.pad(lungs, _CLOSING_PX)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _disc(_CLOSE_CLOSING_PX))
    outer, _ = cv2.findContours(cv2.dilate(closed, _disc(_CLOSE_MARGIN_PX)), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(padded, outer, -1, (1,), cv2.FILLED)
    return padded[_CLOSING_PX:-_CLOSING_PX, _CLOSING_PX:-_CLOSING_PX]


def _opened(mask: Mask, size_px: int) -> Mask:
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(size_px)), np.uint8)


def _parts(mask: Mask) -> tuple[int, NDArray[np.int32], NDArray[np.int64]]:
    """Return how many connected parts, the part of each pixel (0 is none), and the parts' sizes."""
    count, part = cv2.connectedComponents(mask)
    return count, np.asarray(part, np.int32), np.bincount(part.ravel(), minlength=count)


def _disc(size_px: int) -> Mask:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size_px, size_px)), np.uint8)
