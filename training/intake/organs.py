"""Pictures of other parts and planes of the body, drawn from the phantom's tissues: what must not pass as a chest."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from training.data.phantom.anatomy import Framing
from training.data.phantom.canvas import WHITE, Canvas, empty_canvas
from training.data.phantom.grid import Points
from training.data.phantom.materials import AIR, BLOOD, CORTEX, FAT, LIVER, MARROW, MUSCLE, SKIN
from training.data.phantom.scanner import scan
from training.data.phantom.shapes import TURN, ellipse
from training.intake.sites import drawn_site
from training.intake.sketch import lung_hu
from training.model.preprocess import Frame

Lungs = list[Points]
"""Outlines that hold lung, which is filled in as a chest slice's."""

_BRAIN, _WATER = 35.0, 5.0
_TRUNK_MM = (150.0, 105.0)
_CROPPED_CHANCE = 0.3


def organ_picture(rng: Generator) -> Frame:
    """Return a picture of abdomen, head, legs or neck, or of the chest in another plane: uint8, at most 512x512."""
    site = drawn_site(rng)
    framing = Framing(rng.uniform(*site.field_of_view_mm), (rng.normal(0, 8), rng.normal(0, 12)), rng.normal(0, 0.06))
    canvas = empty_canvas(framing)
    lungs, inside = _PAINTERS[rng.integers(len(_PAINTERS))](canvas, rng), canvas.blank()
    for outline in lungs:
        inside.fill(outline, WHITE)
    lung = np.minimum(canvas.airiness(), inside.pixels)
    picture = scan(canvas.hu() + lung_hu(lung, rng), site, rng)
    return _cropped(picture, rng) if rng.random() < _CROPPED_CHANCE else picture


def _cropped(picture: Frame, rng: Generator) -> Frame:
    """Cut into the body, as a screenshot does."""
    top, left, bottom, right = rng.uniform(0.1, 0.32, 4) * picture.shape[0]
    return np.ascontiguousarray(picture[round(top) : -round(bottom), round(left) : -round(right)])


def _paint_abdomen(canvas: Canvas, rng: Generator) -> Lungs:
    """Paint liver, stomach, spleen, kidneys and bowel; gas lies in front, in bubbles."""
    a, b = np.array(_TRUNK_MM) * rng.uniform(0.85, 1.25, 2)
    _paint_trunk(canvas, a, b, rng.uniform(8, 40))
    a, b = a - 20, b - 20
    canvas.fill(ellipse(0, 0, a, b), rng.choice([FAT, 20.0]))
    if rng.random() < 0.5:
        canvas.fill(ellipse(-0.42 * a, -5, 0.55 * a, 0.85 * b, 0.2), LIVER)
        canvas.fill(ellipse(0.45 * a, -0.1 * b, 0.4 * a, 0.45 * b, -0.3), 30.0)
        canvas.fill(ellipse(0.75 * a, 0.4 * b, 0.18 * a, 0.4 * b, 0.4), 50.0)
    for side in (-1, 1):
        if rng.random() < 0.7:
            canvas.fill(ellipse(side * 0.5 * a, 0.5 * b, 28, 34, side * 0.5), rng.uniform(30, 180))
    for _ in range(rng.integers(2, 12)):
        x, y, r = rng.uniform(-0.7, 0.7) * a, rng.uniform(-0.75, 0.3) * b, rng.uniform(7, 22)
        canvas.fill(ellipse(x, y, r * rng.uniform(0.8, 2.2), r, rng.uniform(-1, 1)), rng.uniform(10, 120))
        if rng.random() < 0.4:
            canvas.fill(ellipse(x, y - 0.2 * r, 0.75 * r * rng.uniform(0.8, 2), 0.6 * r, rng.uniform(-0.3, 0.3)), AIR)
    canvas.fill(ellipse(5, 0.42 * b, 12, 12), rng.uniform(BLOOD, 200))
    _paint_vertebra(canvas, 0.72 * b)
    _paint_table(canvas, b + 20)
    return []


def _paint_head(canvas: Canvas, rng: Generator) -> Lungs:
    """Paint a skull with brain, or with sinuses and eyes."""
    zoom = rng.uniform(1.0, 1.8)
    a, b = rng.uniform(60, 80) * zoom, rng.uniform(80, 100) * zoom
    canvas.fill(ellipse(0, 0, a + 8, b + 8), SKIN)
    canvas.fill(ellipse(0, 0, a, b), CORTEX)
    canvas.fill(ellipse(0, 0, a - 9, b - 9), _BRAIN)
    if rng.random() < 0.5:
        for side in (-1, 1):
            canvas.fill(ellipse(side * 12 * zoom, -10, 7 * zoom, 26 * zoom, side * 0.3), _WATER)
        canvas.stroke(np.array([(0, -b + 12), (0, b - 12)]), 60.0, 2)
        return []
    for _ in range(rng.integers(2, 8)):
        x, y = rng.uniform(-0.6, 0.6) * a, rng.uniform(-0.9, 0.2) * b
        canvas.fill(ellipse(x, y, rng.uniform(5, 20) * zoom, rng.uniform(5, 22) * zoom, rng.uniform(-1, 1)), CORTEX)
        canvas.fill(ellipse(x, y, rng.uniform(4, 16) * zoom, rng.uniform(4, 16) * zoom, rng.uniform(-1, 1)), AIR)
    return []


def _paint_legs(canvas: Canvas, rng: Generator) -> Lungs:
    """Paint two legs beside each other."""
    r, apart = rng.uniform(55, 90), rng.uniform(0.9, 1.3)
    for side in (-1, 1):
        x = side * r * apart
        canvas.fill(ellipse(x, 0, r, r * rng.uniform(0.9, 1.2)), SKIN)
        canvas.fill(ellipse(x, 0, r - 3, r - 3), FAT)
        canvas.fill(ellipse(x, 0, r - rng.uniform(8, 25), r - rng.uniform(8, 25)), MUSCLE)
        canvas.fill(ellipse(x, -5, 16, 16), CORTEX)
        canvas.fill(ellipse(x, -5, 8, 8), rng.choice([FAT, MARROW]))
    _paint_table(canvas, r)
    return []


def _paint_neck(canvas: Canvas, rng: Generator) -> Lungs:
    """Paint a neck or the shoulders above the lungs, with the windpipe alone."""
    a, b = rng.uniform(60, 200), rng.uniform(60, 85)
    _paint_trunk(canvas, a, b, rng.uniform(5, 20))
    canvas.fill(ellipse(0, 0, 0.85 * a, 0.8 * b), MUSCLE)
    canvas.fill(ellipse(0, -0.25 * b, 10, 9), AIR)
    for side in (-1, 1):
        canvas.fill(ellipse(side * 28, -0.2 * b, 9, 8), rng.uniform(BLOOD, 200))
        if a > 120:
            x, y = side * 0.78 * a, rng.uniform(-20, 20)
            canvas.fill(ellipse(x, y, 24, 22), CORTEX)
            canvas.fill(ellipse(x, y, 17, 15), MARROW)
    _paint_vertebra(canvas, 0.3 * b)
    _paint_table(canvas, b)
    return []


def _paint_coronal(canvas: Canvas, rng: Generator) -> Lungs:
    """Paint the chest from the front: two lungs, high and pointed, the heart between, domes below."""
    lungs: Lungs = []
    a, height = rng.uniform(120, 165), rng.uniform(150, 220)
    canvas.fill(_block(a, height), FAT)
    canvas.fill(_block(a - rng.uniform(5, 20), height), MUSCLE)
    low = rng.uniform(-20, 120)
    for side in (-1, 1):
        lung = _lung_from_front(side, 0.86 * a, low - rng.uniform(140, 230), low)
        canvas.fill(lung, AIR)
        lungs.append(lung)
        _paint_rib_ends(canvas, side * 0.92 * a, low, rng)
    canvas.fill(ellipse(0, low - 150, 18, 110), MUSCLE)
    canvas.fill(ellipse(rng.uniform(8, 25), low - 45, rng.uniform(45, 70), 50, 0.6), BLOOD)
    canvas.fill(ellipse(-0.45 * a, low + 20, 0.45 * a, rng.uniform(25, 60)), LIVER)
    canvas.fill(ellipse(0.45 * a, low + 28, 0.42 * a, rng.uniform(25, 50)), 40.0)
    if rng.random() < 0.5:
        canvas.fill(ellipse(0, low - 170, 8, 50), AIR)
    _paint_gas(canvas, a, low + 60, rng)
    _paint_column(canvas, 0.0, height, rng)
    return lungs


def _paint_sagittal(canvas: Canvas, rng: Generator) -> Lungs:
    """Paint the chest from the side: one lung field or the mediastinum, with the spine at the back."""
    lungs: Lungs = []
    depth, height = rng.uniform(95, 125), rng.uniform(150, 220)
    canvas.fill(_block(depth, height), FAT)
    canvas.fill(_block(depth - rng.uniform(5, 15), height), MUSCLE)
    low, facing = rng.uniform(-20, 120), int(rng.choice([-1, 1]))
    if rng.random() < 0.7:
        lung = _lung_from_front(facing, 0.8 * depth, low - 200, low) - np.array([facing * 0.35 * depth, 0])
        canvas.fill(lung, AIR)
        lungs.append(lung)
    canvas.fill(ellipse(-facing * 0.3 * depth, low - 40, 50, 45), BLOOD)
    canvas.fill(ellipse(0, low + 40, 0.85 * depth, rng.uniform(40, 70)), LIVER)
    _paint_gas(canvas, depth, low + 80, rng)
    _paint_column(canvas, facing * 0.62 * depth, height, rng)
    return lungs


def _paint_trunk(canvas: Canvas, a: float, b: float, fat_mm: float) -> None:
    outline = np.column_stack([a * np.cos(TURN), b * np.sin(TURN)])
    canvas.fill(outline, SKIN)
    canvas.fill(outline * (1 - 2.2 / a), FAT)
    canvas.fill(outline * (1 - fat_mm / a), MUSCLE)


def _paint_vertebra(canvas: Canvas, y: float) -> None:
    canvas.fill(ellipse(0, y, 20, 16), CORTEX * 0.7)
    canvas.fill(ellipse(0, y, 17, 13), MARROW)
    canvas.stroke(np.array([(-38, y + 30), (0, y + 24), (38, y + 30)]), 400.0, 7)
    canvas.stroke(np.array([(0, y + 24), (0, y + 50)]), 400.0, 6)


def _paint_table(canvas: Canvas, back_mm: float) -> None:
    x = np.linspace(-230, 230, 60)
    for depth in (12, 30):
        canvas.stroke(np.column_stack([x, back_mm + depth - x**2 / 900]), 80.0, 2.2)


def _paint_rib_ends(canvas: Canvas, x: float, low: float, rng: Generator) -> None:
    for y in np.arange(low - 200, low + 40, rng.uniform(22, 30)):
        canvas.fill(ellipse(x, y, 7, 5, 0.4), CORTEX)


def _paint_gas(canvas: Canvas, a: float, top: float, rng: Generator) -> None:
    for _ in range(rng.integers(0, 7)):
        x, y = rng.uniform((-0.7 * a, top), (0.7 * a, top + 120))
        canvas.fill(ellipse(x, y, rng.uniform(6, 26), rng.uniform(5, 16), rng.uniform(-1, 1)), AIR)


def _paint_column(canvas: Canvas, x: float, height: float, rng: Generator) -> None:
    """Paint vertebrae one below the other, where the plane cuts them."""
    if rng.random() < 0.3:
        return
    for y in np.arange(-height, height, 32):
        canvas.fill(_block(17, 12) + np.array([x, y]), 250.0)


def _block(a: float, b: float) -> Points:
    c, s = np.cos(TURN), np.sin(TURN)
    return np.column_stack([a * np.sign(c) * np.abs(c) ** 0.3, b * np.sign(s) * np.abs(s) ** 0.3])


def _lung_from_front(side: int, a: float, top: float, low: float) -> Points:
    """Return a lung's outline as seen from the front: pointed at the top, hollow at the base."""
    t = np.linspace(0, 1, 30)
    outer = np.column_stack([a * np.sin(np.pi / 2 * np.minimum(1, 1.4 * t)) ** 0.7, top + (low + 25 - top) * t])
    base = np.column_stack([a * (1 - 0.8 * t), low + 25 - 45 * np.sin(np.pi * (0.15 + 0.6 * t))])
    inner = np.column_stack([0.2 * a + 0.12 * a * np.sin(np.pi * t), low + (top - low) * t])
    return np.asarray(np.concatenate([outer, base, inner]) * (side, 1), np.float64)


_PAINTERS: tuple[Callable[[Canvas, Generator], Lungs], ...] = (
    _paint_abdomen,
    _paint_abdomen,
    _paint_head,
    _paint_legs,
    _paint_neck,
    _paint_coronal,
    _paint_coronal,
    _paint_sagittal,
)
