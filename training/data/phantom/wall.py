"""The chest wall: skin, fat and the muscles around the lungs."""

import numpy as np

from training.data.phantom.anatomy import Body
from training.data.phantom.canvas import WHITE, Canvas
from training.data.phantom.grid import Points
from training.data.phantom.materials import FAT, MUSCLE, SKIN
from training.data.phantom.shapes import TURN, ellipse, smooth_step
from training.data.phantom.skeleton import paint_ribs, paint_scapulae, paint_sternum

SKIN_MM = 2.2
SHOULDERS_Z, SHOULDER_MUSCLES_Z = (0.1, 0.5), (0.25, 0.65)  # where they fade out
BREASTS_Z = (0.3, 0.5)  # where they set in
MUSCLE_COAT_MM, FAT_SEAM_MM = 9, 12  # outside the lungs
FAT_SEAM_WIDTH_MM = 2
SIDES_AND_BACK = slice(8, 52)  # of the outline's 120 points


def paint_wall(canvas: Canvas, body: Body, cavity: Points, z: float) -> None:
    """Paint skin, fat, the muscles around the chest, shoulder blades, ribs and breastbone."""
    outline = _body_outline(body, z)
    canvas.fill(outline, SKIN)
    canvas.fill(outline * (1 - SKIN_MM / np.abs(outline).max()), FAT)
    _paint_muscles(canvas, body, cavity, z)
    paint_ribs(canvas, body, z)
    paint_sternum(canvas, cavity[:, 1].min())
    skin = canvas.blank()
    skin.fill(outline, WHITE)
    np.minimum(canvas.pixels, skin.pixels, out=canvas.pixels)


def _body_outline(body: Body, z: float) -> Points:
    half_width, half_depth = body.cavity_mm
    shoulders = 1 - smooth_step(z, *SHOULDERS_Z)
    a = half_width + 14 + 0.8 * body.muscle_mm + 0.85 * body.fat_mm + 8 * shoulders
    b = half_depth + 24 + 0.65 * body.fat_mm
    c, s = np.cos(TURN), np.sin(TURN)
    x = a * np.sign(c) * np.abs(c) ** 0.82
    y = b * np.sign(s) * np.abs(s) ** 0.8
    breast = body.breast_mm * np.exp(-(((np.abs(x) / a - 0.5) / 0.22) ** 2)) * (s < 0) * smooth_step(z, *BREASTS_Z)
    furrow = 7 * np.exp(-((x / 14) ** 2))  # over the spine and the breastbone
    return np.column_stack([x, y - breast - np.sign(s) * furrow * (np.abs(s) > 0.5) + 8 * (s > 0)])


def _paint_muscles(canvas: Canvas, body: Body, cavity: Points, z: float) -> None:
    half_width = body.cavity_mm[0]
    shoulder = 1 - smooth_step(z, *SHOULDER_MUSCLES_Z)
    for side in (-1, 1):
        _paint_side(canvas, body, side, shoulder)
    canvas.fill(cavity * (1 + MUSCLE_COAT_MM / half_width), MUSCLE)
    canvas.stroke(cavity[SIDES_AND_BACK] * (1 + FAT_SEAM_MM / half_width), FAT, FAT_SEAM_WIDTH_MM)
    if shoulder > 0.1:
        paint_scapulae(canvas, body, shoulder)


def _paint_side(canvas: Canvas, body: Body, side: int, shoulder: float) -> None:
    """Paint the muscles of one side, thicker towards the shoulder."""
    half_width, half_depth = body.cavity_mm
    thick = body.muscle_mm
    erector = ellipse(side * 32, half_depth + 14, 34, 17, side * 0.15)
    pectoral = ellipse(side * 0.55 * half_width, -half_depth - 3, 48, 5 + 0.7 * thick * shoulder, -side * 0.35)
    latissimus = ellipse(
        side * (half_width + 4), 0.35 * half_depth, 6 + thick * (0.3 + 0.8 * shoulder), 50, side * 0.25
    )
    for muscle in (erector, pectoral, latissimus):
        canvas.fill(muscle, MUSCLE)
