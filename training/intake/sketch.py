"""Sketched chest slices: coarser than phantoms, but with lungs of every shape, from the apex's tips to the base's rims.

The phantom is an average chest, and shows its middle best. What a slice shows near the apex, near the diaphragm, and of
lungs cut out alone differs more, so that here the gap between the lungs, the heart, and the domes are drawn from wide
ranges. Millimetres and HU as in `training.data.phantom`.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator

from training.data.phantom.anatomy import Body, Framing, draw_anatomy
from training.data.phantom.canvas import WHITE, Canvas, empty_canvas
from training.data.phantom.cavity import cavity_outline
from training.data.phantom.grid import SIDE_PX, FloatImage, Paint, Points
from training.data.phantom.materials import AIR, AIRWAY_WALL, BLOOD, CORTEX, FAT, LIVER, MARROW, MUSCLE
from training.data.phantom.scanner import scan
from training.data.phantom.shapes import ellipse, round_off, smooth_step
from training.data.phantom.skeleton import paint_spine
from training.data.phantom.table import paint_table
from training.data.phantom.wall import paint_wall
from training.intake.sites import drawn_site

_DEPTHS = np.array([-1.05, -0.6, -0.1, 0.35, 0.8])
"""From the sternum to the spine, as parts of the half depth: where the gap between the lungs is drawn."""
_GAP_HIGH = ((3, 16), (14, 30), (18, 34), (8, 24), (15, 24))
_GAP_LOW = ((8, 95), (18, 75), (18, 55), (2, 26), (8, 24))
"""Ranges of its half widths in mm, at the arch and at the heart's base."""
_GAP_BEHIND = ((2, 16), (18, 55), (30, 75), (30, 80), (30, 80))
"""Where the back of both lungs is as dense as tissue, and only the front is told from it."""
_BEHIND_SHARE, _APEX_SHARE, _BASE_SHARE = 0.15, 0.18, 0.4
"""Of the slices: dense backs, shoulders with the lungs' tips, and slices that the domes rise into."""
_ARMS_SHARE = 0.3


@dataclass(frozen=True)
class Sketch:
    """A slice uint8 [512, 512], and its lungs as a mask of 0 and 1."""

    slice: Paint
    lungs: Paint


def sketched_slice(rng: Generator) -> Sketch:
    """Draw a chest slice, upright and not mirrored."""
    site = drawn_site(rng)
    anatomy = draw_anatomy(rng, site)
    framing = Framing(anatomy.framing.field_of_view_mm, anatomy.framing.offset_mm, rng.normal(0, 0.06))
    body = _resized(anatomy.body, rng.uniform(0.85, 1.25), rng.uniform(0.7, 1.25))
    canvas = empty_canvas(framing)
    inside = _paint_apex(canvas, body, rng) if rng.random() < _APEX_SHARE else _paint_lungs(canvas, body, rng)
    if rng.random() < _ARMS_SHARE:
        _paint_arms(canvas, body, rng)
    paint_table(canvas, body, site.curved_table)
    lung = np.minimum(canvas.airiness(), inside)
    hu = canvas.hu() + lung_hu(lung, rng)
    return Sketch(scan(hu, site, rng), (lung > 127).astype(np.uint8))


def lung_hu(lung: Paint, rng: Generator) -> FloatImage:
    """Return what lungs add to air, where `lung` [512, 512] is 0 to 255.

    Tissue, denser at the back, mottled, with vessels and opacities.
    """
    rows = np.linspace(-1, 1, SIDE_PX, dtype=np.float32)[:, None]
    aired = rng.uniform(80, 260) + rng.uniform(0, 80) * rows + rng.uniform(5, 40) * _cloud(rng, 24)
    opacity = rng.uniform(0, 700) * np.clip(_cloud(rng, 7) - rng.uniform(0.4, 3), 0, 1)
    inside = np.clip(aired + opacity + _vessels(lung, rng), 0, 1050)
    return np.asarray(lung * np.float32(1 / 255) * inside, np.float32)


def _resized(body: Body, wide: float, deep: float) -> Body:
    width, depth = body.cavity_mm
    return replace(body, cavity_mm=(width * wide, depth * deep))


def _paint_apex(canvas: Canvas, body: Body, rng: Generator) -> Paint:
    """Paint shoulders, and the tips of both lungs beside the windpipe; return the inside."""
    body = _resized(body, rng.uniform(0.9, 1.25), rng.uniform(0.55, 0.85))
    width, depth = body.cavity_mm
    paint_wall(canvas, body, cavity_outline(body, 0.05), rng.uniform(0, 0.3))
    canvas.fill(ellipse(0, 0, 0.8 * width, 0.75 * depth), rng.choice([MUSCLE, FAT]))
    inside = canvas.blank()
    r = rng.uniform(14, 52)
    for side in (-1, 1):
        tip_mm = r * rng.uniform(0.8, 1.2)
        x, y = side * (22 + r * rng.uniform(0.9, 1.2)), rng.uniform(-5, 18)
        tip = ellipse(x, y, tip_mm, tip_mm * rng.uniform(0.6, 1), side * rng.uniform(-0.5, 0.7))
        canvas.fill(tip * 1.06, MUSCLE)
        canvas.fill(tip, AIR)
        inside.fill(tip, WHITE)
        clavicle = np.array([(side * 15, -0.5 * depth), (side * rng.uniform(50, 110), -rng.uniform(0.3, 0.8) * depth)])
        canvas.stroke(clavicle, CORTEX, 9)
        canvas.stroke(ellipse(side * (30 + r), 5, 1.25 * r, 1.1 * r)[4:12], CORTEX, 6)
    paint_spine(canvas, body)
    _paint_windpipe(canvas, rng.uniform(-4, 6), rng)
    return inside.pixels


def _paint_lungs(canvas: Canvas, body: Body, rng: Generator) -> Paint:
    """Paint two lungs with what lies between and below them; return the inside."""
    z = rng.uniform(0.15, 1.0)
    low = smooth_step(z, 0.25, 0.75)
    cavity = cavity_outline(body, rng.uniform(max(0.1, z - 0.3), 1.0))
    paint_wall(canvas, body, cavity, z)
    inside = canvas.blank()
    inside.fill(cavity, WHITE)
    canvas.fill(cavity, AIR)
    canvas.fill(_gap(body, low, rng), rng.choice([FAT, BLOOD]))
    _paint_heart(canvas, body, low, rng)
    if low < 0.5:
        _paint_arch(canvas, rng)
    if rng.random() < _BASE_SHARE:
        _paint_domes(canvas, body, rng)
    paint_spine(canvas, body)
    if low > 0.15:
        x, y, r = rng.uniform(14, 26), rng.uniform(0.38, 0.58) * body.cavity_mm[1], rng.uniform(10, 17)
        canvas.fill(ellipse(x, y, r, r), rng.uniform(BLOOD, 160))
    lungs = np.minimum(canvas.airiness(), inside.pixels)
    if low < 0.6:
        _paint_windpipe(canvas, rng.uniform(0, 18), rng)
    return lungs


def _gap(body: Body, low: float, rng: Generator) -> Points:
    """Return the outline between the lungs: narrow in front of the spine, wide in front at the heart's base."""
    high_mm, low_mm = (np.array([rng.uniform(*span) for span in spans]) for spans in (_GAP_HIGH, _GAP_LOW))
    half = (1 - low) * high_mm + low * low_mm
    if rng.random() < _BEHIND_SHARE:
        half = np.array([rng.uniform(*span) for span in _GAP_BEHIND])
    right = half * rng.uniform(0.75, 1.05, len(half))
    left = half * rng.uniform(0.95, 1.25, len(half))
    y = _DEPTHS * body.cavity_mm[1]
    return round_off(np.concatenate([np.column_stack([left, y]), np.column_stack([-right, y])[::-1]]))


def _paint_heart(canvas: Canvas, body: Body, low: float, rng: Generator) -> None:
    size = low * rng.uniform(0.75, 1.3)
    if size < 0.15:
        return
    x, y = rng.uniform(8, 32) * size, rng.uniform(-0.45, -0.1) * body.cavity_mm[1]
    turn = rng.uniform(0.3, 0.8)
    canvas.fill(ellipse(x, y, 66 * size, 48 * size, turn), FAT)
    canvas.fill(ellipse(x, y, 62 * size, 45 * size, turn), rng.uniform(BLOOD, 180))
    canvas.fill(ellipse(x - 26 * size, y, 36 * size, 38 * size, 0.2), rng.uniform(BLOOD, 180))


def _paint_arch(canvas: Canvas, rng: Generator) -> None:
    """Paint the arch of the aorta, or its branches, and the veins on the right."""
    hu = rng.uniform(BLOOD, 200)
    if rng.random() < 0.5:
        x, y = rng.uniform(4, 14), rng.uniform(-8, 5)
        canvas.fill(ellipse(x, y, rng.uniform(10, 15), rng.uniform(24, 42), -0.45), hu)
    canvas.fill(ellipse(rng.uniform(-26, -16), rng.uniform(-28, -12), 9, 10), hu)
    canvas.fill(ellipse(rng.uniform(-12, 12), rng.uniform(-32, -18), 13, 13), hu)


def _paint_domes(canvas: Canvas, body: Body, rng: Generator) -> None:
    """Paint liver and stomach: round spots at first, in the end all but a rim of lung at the back and the sides."""
    width, depth = body.cavity_mm
    rise = rng.uniform(0, 1)
    liver = 0.18 + 0.95 * rise
    x, y = -rng.uniform(0.35, 0.55) * width * (1 - 0.35 * rise), -rng.uniform(0.0, 0.35) * depth
    canvas.fill(ellipse(x, y, liver * 0.78 * width, liver * 0.95 * depth, rng.uniform(-0.2, 0.2)), rng.uniform(30, 130))
    left = max(0.0, rise - rng.uniform(0.0, 0.45))
    if left < 0.1:
        return
    x, y = rng.uniform(0.35, 0.6) * width, -rng.uniform(0.0, 0.4) * depth
    rx, ry = (0.15 + 0.6 * left) * 0.8 * width, (0.15 + 0.7 * left) * 0.95 * depth
    canvas.fill(ellipse(x, y, rx, ry, rng.uniform(-0.3, 0.3)), rng.uniform(0, 110))
    if rise > 0.6:
        canvas.fill(ellipse(0, -0.35 * depth, 0.6 * width, 0.75 * depth), LIVER)
    if rng.random() < 0.6:
        for _ in range(rng.integers(1, 4)):
            bubble = ellipse(x + rng.uniform(-0.4, 0.4) * rx, y - rng.uniform(0, 0.7) * ry, 0.3 * rx, 0.22 * ry)
            canvas.fill(bubble, AIR)


def _paint_windpipe(canvas: Canvas, y: float, rng: Generator) -> None:
    x, r = rng.uniform(-6, 2), rng.uniform(7, 11)
    canvas.fill(ellipse(x, y, r + 1.5, r + 1.5), AIRWAY_WALL)
    canvas.fill(ellipse(x, y, r, r * rng.uniform(0.75, 1.1)), AIR)


def _paint_arms(canvas: Canvas, body: Body, rng: Generator) -> None:
    """Paint arms that lie beside the body."""
    for side in (-1, 1):
        r = rng.uniform(26, 42)
        x, y = side * (body.cavity_mm[0] + 45 + body.fat_mm + r), rng.uniform(-20, 60)
        canvas.fill(ellipse(x, y, r, 1.2 * r), FAT)
        canvas.fill(ellipse(x, y, 0.85 * r, 1.05 * r), MUSCLE)
        canvas.fill(ellipse(x, y, 10, 11), CORTEX)
        canvas.fill(ellipse(x, y, 6, 7), MARROW)


def _vessels(lung: Paint, rng: Generator) -> FloatImage:
    """Return vessels as dots and short branches, thicker towards the middle."""
    drawn = np.zeros_like(lung)
    rows, columns = np.nonzero(lung)
    for _ in range(int(rng.integers(20, 160)) if len(rows) else 0):
        at = int(rng.integers(len(rows)))
        place = np.array([columns[at], rows[at]], np.float64)
        away = place - SIDE_PX / 2
        distance = float(np.hypot(*away))
        length = rng.uniform(0, 40) * (rng.random() < 0.6)
        end = place + away / max(distance, 1.0) * length + rng.normal(0, 4, 2)
        paint, thick = int(rng.integers(90, 256)), int(rng.integers(2, 6) if distance < 110 else rng.integers(1, 4))
        cv2.line(drawn, place.astype(int).tolist(), end.astype(int).tolist(), (paint,), thick, cv2.LINE_AA)
    return drawn.astype(np.float32) * np.float32(rng.uniform(1.5, 3.6))


def _cloud(rng: Generator, humps: int) -> FloatImage:
    small = rng.standard_normal((humps, humps), dtype=np.float32)
    return np.asarray(cv2.resize(small, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC), np.float32)
