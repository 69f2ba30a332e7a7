"""The mediastinum: the heart, the great vessels and the windpipe between the lungs."""

import numpy as np

from training.data.phantom.anatomy import Body
from training.data.phantom.canvas import Canvas
from training.data.phantom.grid import Points
from training.data.phantom.materials import AIR, AIRWAY_WALL, BLOOD, ESOPHAGUS, FAT
from training.data.phantom.shapes import ellipse, round_off, smooth_step

# Half widths (mm) of the space between the lungs, right and left, at five depths from the sternum to the spine.
OUTLINE_Z = (0.2, 0.35, 0.5, 0.65, 0.85)
OUTLINE_DEPTH = np.array([-1.0, -0.55, -0.05, 0.4, 0.85])
OUTLINE_RIGHT = np.array(
    [(15, 27, 25, 15, 18), (3, 19, 26, 13, 18), (2, 23, 29, 11, 17), (5, 34, 38, 11, 17), (22, 42, 38, 12, 17)]
)
OUTLINE_LEFT = np.array(
    [(15, 29, 28, 18, 20), (3, 20, 31, 24, 22), (2, 26, 33, 20, 21), (8, 40, 42, 20, 20), (32, 52, 46, 22, 20)]
)

# Where (z) the great vessels lie, from the neck downwards.
BRANCHES_END_Z, ARCH_END_Z, DESCENDING_AORTA_Z = 0.34, 0.42, 0.38
ASCENDING_Z, PULMONARY_Z, HEART_Z = (0.4, 0.66), (0.42, 0.6), (0.4, 0.68)
# Arteries and veins of head and arms, right to left: x, y, radius (mm).
BRANCHES = ((-20, -22, 9), (-8, -14, 7), (8, -12, 6), (20, -8, 6), (16, -26, 8))

CARINA_Z, MAIN_BRONCHI_DZ = 0.46, 0.09  # where the windpipe forks; how far below it the main bronchi are seen
LEAST_HEART = 0.1


def paint_mediastinum(canvas: Canvas, body: Body, z: float) -> None:
    """Paint fat between the lungs, and the heart and great vessels into it."""
    canvas.fill(_outline(body, z), FAT)
    _paint_great_vessels(canvas, body, z)
    _paint_heart(canvas, body, z)


def paint_airways(canvas: Canvas, z: float) -> None:
    """Paint the windpipe, and below its fork the two main bronchi."""
    below = z - CARINA_Z
    if z < CARINA_Z:
        canvas.fill(ellipse(-3, 9, 10.5, 10), AIRWAY_WALL)
        canvas.fill(ellipse(-3, 9, 9, 8.5), AIR)
    elif z < CARINA_Z + MAIN_BRONCHI_DZ:
        for side in (-1, 1):
            x = side * (8 + 190 * below) - 3
            canvas.fill(ellipse(x, 14, 8.5, 7, side * 0.4), AIRWAY_WALL)
            canvas.fill(ellipse(x, 14, 7, 5.5, side * 0.4), AIR)


def _outline(body: Body, z: float) -> Points:
    right, left = (
        np.array([np.interp(z, OUTLINE_Z, column) for column in table.T]) * body.mediastinum
        for table in (OUTLINE_RIGHT, OUTLINE_LEFT)
    )
    y = OUTLINE_DEPTH * body.cavity_mm[1]
    return round_off(np.concatenate([np.column_stack([left, y]), np.column_stack([-right, y])[::-1]]))


def _paint_great_vessels(canvas: Canvas, body: Body, z: float) -> None:
    """Paint what of the great vessels the slice cuts, and the gullet behind them."""
    for vessel in (*_aorta(body, z), *_veins_and_pulmonary_arteries(body, z)):
        canvas.fill(vessel, BLOOD)
    canvas.fill(ellipse(6, 0.38 * body.cavity_mm[1], 8, 6), ESOPHAGUS)


def _aorta(body: Body, z: float) -> list[Points]:
    """Return its branches or its arch, and the descending and ascending parts."""
    r, wide = body.aorta_mm, body.mediastinum
    cut: list[Points] = []
    if z < BRANCHES_END_Z:
        cut += [ellipse(x * wide, y, radius, radius) for x, y, radius in BRANCHES]
    elif z < ARCH_END_Z:
        cut.append(ellipse(6 * wide, 0, r * 0.9, 36, -0.45))
    if z > DESCENDING_AORTA_Z:
        cut.append(ellipse(19, 0.5 * body.cavity_mm[1], r, r))
    if ASCENDING_Z[0] < z < ASCENDING_Z[1]:
        cut.append(ellipse(-10 * wide, -24, 1.2 * r, 1.2 * r))
    return cut


def _veins_and_pulmonary_arteries(body: Body, z: float) -> list[Points]:
    """Return the superior vena cava, the pulmonary trunk and its right branch."""
    wide = body.mediastinum
    cut: list[Points] = []
    if ASCENDING_Z[0] < z < ASCENDING_Z[1]:
        cut.append(ellipse(-27 * wide, -16, 9, 10))
    if PULMONARY_Z[0] < z < PULMONARY_Z[1]:
        cut.append(ellipse(17 * wide, -24, 15, 20, -0.5))
        cut.append(ellipse(-8 * wide, 0, 30, 10, -0.1))
    return cut


def _paint_heart(canvas: Canvas, body: Body, z: float) -> None:
    """Paint the heart in its fat, and the right atrium beside it; it grows downwards."""
    size = body.heart * smooth_step(z, *HEART_Z)
    if size < LEAST_HEART:
        return
    x, y = body.heart_x_mm * (0.3 + 0.7 * size), -26 + 8 * size
    canvas.fill(ellipse(x, y, 68 * size, 48 * size, 0.55), FAT)
    canvas.fill(ellipse(x, y, 64 * size, 45 * size, 0.55), BLOOD)
    canvas.fill(ellipse(x - 26 * size, y - 2, 36 * size, 38 * size, 0.2), BLOOD)
