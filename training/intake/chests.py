"""Upright axial chest slices to learn from: phantoms and sketches as files, viewers and cameras would show them."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from protocol.labels import LABELS
from training.data.lungs import Mask, Region, lung_fields
from training.data.phantom import render_slice
from training.intake.captured import captured
from training.intake.sites import drawn_site
from training.intake.sketch import sketched_slice
from training.model.preprocess import INPUT_PX, BlankFrameError, Box, Frame, prepare

Z_RANGE = (0.08, 0.9)
"""Of phantoms: from the apex to where the domes leave a rim of lung; beyond lies the abdomen."""
_LEAST_LUNG = 0.02
"""Of a sketch's square: less is a tip or a rim of lung, of which it is a matter of taste whether it shows the chest."""
_TIGHT_MARGIN = (-0.04, 0.12)
"""Of the lungs' box: how far a tight screenshot reaches beyond it, less than nothing at times."""
_LABELLED_CHANCE = 0.3
_HOLES_CHANCE, _BACK_LOST_CHANCE, _LUNG_LOST_CHANCE = 0.4, 0.25, 0.2
_BOXED_CHANCE, _LEAST_BOX_PX = 0.6, 64
_FEW_LUNGS, _STRIP_CHANCE, _STRIP_CHANCE_OF_FEW = 0.65, 0.04, 0.4
"""Where less than such a share of the lungs is left, the table was more often taken for the rest."""


@dataclass(frozen=True)
class Drawn:
    """A slice uint8 [512, 512], its lungs as a mask of 0 and 1, and the random numbers that go on with it."""

    slice: Frame
    lungs: Mask
    rng: Generator


def chest_pictures(seed: int, number: int) -> list[Frame]:
    """Return three prepared pictures uint8 [256, 256] of one slice: two as files show it, one as a camera sees it."""
    rng = np.random.default_rng([seed, number])
    drawn = _sketched(rng) if number % 2 else _phantom(seed, number, rng)
    *shown, seen = (_VIEWS[view](drawn) for view in rng.choice(len(_VIEWS), 3, p=_VIEW_CHANCES))
    return [_prepared(picture, drawn.slice) for picture in (*shown, captured(seen, rng))]


def _sketched(rng: Generator) -> Drawn:
    while True:
        sketch = sketched_slice(rng)
        if sketch.lungs.mean() >= _LEAST_LUNG:
            return Drawn(sketch.slice, sketch.lungs, rng)


def _phantom(seed: int, number: int, rng: Generator) -> Drawn:
    label, z = LABELS[rng.integers(len(LABELS))], rng.uniform(*Z_RANGE)
    pixels = render_slice(seed=seed, site=drawn_site(rng), label=label, patient=number, z=z)
    small = cv2.resize(pixels, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
    found = lung_fields(np.asarray(small, np.uint8))
    mask = found.mask * (found.region is Region.WHOLE_BODY)
    size = (pixels.shape[1], pixels.shape[0])
    return Drawn(pixels, np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8), rng)


def _prepared(frame: Frame, instead: Frame) -> Frame:
    try:
        return prepare(frame)
    except BlankFrameError:
        return prepare(instead)


def _whole(drawn: Drawn) -> Frame:
    return _labelled(drawn.slice, drawn.rng) if drawn.rng.random() < _LABELLED_CHANCE else drawn.slice


def _tight(drawn: Drawn) -> Frame:
    """Cut closely around the lungs, as screenshots do."""
    left, top, width, height = cv2.boundingRect(drawn.lungs)
    if not width:
        return drawn.slice
    before_x, before_y, after_x, after_y = drawn.rng.uniform(*_TIGHT_MARGIN, 4)
    box = Box(
        max(0, round(top - before_y * height)),
        max(0, round(left - before_x * width)),
        round(top + (1 + after_y) * height),
        round(left + (1 + after_x) * width),
    )
    return np.ascontiguousarray(box.cut(drawn.slice))


def _lungs_only(drawn: Drawn) -> Frame:
    """Black out all but the lungs, as some data sets do, with or without what is dense in them."""
    if not drawn.lungs.any():
        return drawn.slice
    rng, mask = drawn.rng, drawn.lungs
    grey = drawn.slice.astype(np.float32)
    low, high = np.percentile(grey[mask > 0], (2, rng.uniform(85, 99.9)))
    if rng.random() < _HOLES_CHANCE:
        mask = mask & (cv2.GaussianBlur(drawn.slice, (0, 0), 2) <= high).astype(np.uint8)
    size = int(rng.integers(1, 10))
    smooth = cv2.morphologyEx(mask, cv2.MORPH_OPEN if rng.random() < 0.5 else cv2.MORPH_CLOSE, _square(size))
    mask = _part_lost(np.asarray(cv2.erode(smooth, _square(int(rng.integers(1, 8)))), np.uint8), rng)
    shown = (grey - low) / max(high - low, 1) * rng.uniform(40, 160) + rng.uniform(20, 90)
    lungs = np.asarray(np.clip(shown, 0, 255) * mask, np.uint8)
    if rng.random() < (_STRIP_CHANCE if mask.sum() > _FEW_LUNGS * drawn.lungs.sum() else _STRIP_CHANCE_OF_FEW):
        _lay_strip(lungs, mask, rng)
    return _boxed(lungs) if rng.random() < _BOXED_CHANCE else lungs


def _part_lost(mask: Mask, rng: Generator) -> Mask:
    """Lose the back, as where it is consolidated, or a whole lung, as cutting lungs out does at times."""
    left, top, width, height = cv2.boundingRect(mask)
    chance, kept = rng.random(), mask.copy()
    if chance < _BACK_LOST_CHANCE:
        columns = np.arange(mask.shape[1])
        ragged = np.interp(columns, np.linspace(0, mask.shape[1], 24), rng.normal(0, 0.05, 24))
        slope = rng.uniform(-0.2, 0.2) * np.linspace(-1, 1, mask.shape[1])
        cut = top + height * (rng.uniform(0.45, 0.9) + ragged + slope)
        kept[np.arange(mask.shape[0])[:, None] > cut] = 0
    elif chance < _BACK_LOST_CHANCE + _LUNG_LOST_CHANCE:
        middle = left + width // 2
        kept[:, :middle] *= int(rng.integers(2))
        kept[:, middle:] *= 1 - int(kept[:, :middle].any())
    return kept


def _lay_strip(lungs: Frame, mask: Mask, rng: Generator) -> None:
    """Leave the table in the picture, which cutting lungs out takes for one of them at times."""
    left, top, width, height = cv2.boundingRect(mask)
    x, y = left + width * (0.5 + rng.normal(0, 0.3)), top + height * rng.uniform(1.05, 1.6)
    half = width * rng.uniform(0.6, 1.8)
    thick = max(4.0, rng.uniform(0.03, 0.12) * half)
    steps = np.linspace(-1, 1, 40)
    sag = rng.uniform(0, 0.2) * half * (1 - np.abs(steps) ** rng.uniform(1.5, 6))
    upper = np.column_stack([x + half * steps, y + sag])
    outline = np.concatenate([upper, upper[::-1] + np.array([0, thick])])
    cv2.fillPoly(lungs, [outline.astype(np.int32)], (int(rng.integers(50, 130)),), cv2.LINE_AA)


def _boxed(lungs: Frame) -> Frame:
    """Cut to the box of what is not black."""
    left, top, width, height = cv2.boundingRect(lungs)
    large = min(width, height) >= _LEAST_BOX_PX
    return np.ascontiguousarray(lungs[top : top + height, left : left + width]) if large else lungs


def _square(size: int) -> Mask:
    return np.ones((size, size), np.uint8)


def _labelled(slice_: Frame, rng: Generator) -> Frame:
    """Write a few lines into the corners, as viewers do."""
    shown = slice_.copy()
    side = shown.shape[0]
    for corner in rng.permutation(4)[: rng.integers(1, 5)]:
        scale = rng.uniform(0.3, 0.6)
        for line in range(rng.integers(1, 5)):
            text = "".join(chr(c) for c in rng.integers(45, 91, rng.integers(3, 14)))
            y = round(side * 0.03) + line * round(26 * scale) if corner < 2 else side - 6 - line * round(26 * scale)
            x = 6 if corner % 2 else side - round(len(text) * 19 * scale)
            cv2.putText(shown, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (int(rng.integers(120, 256)),), 1)
    return shown


_VIEWS: tuple[Callable[[Drawn], Frame], ...] = (_whole, _tight, _lungs_only)
_VIEW_CHANCES = (0.4, 0.2, 0.4)
