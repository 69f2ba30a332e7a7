"""The skeleton as a slice cuts it: ribs, shoulder blades, breastbone and spine."""

import numpy as np

from training.data.phantom.anatomy import Body
from training.data.phantom.canvas import Canvas
from training.data.phantom.cavity import cavity_xy
from training.data.phantom.materials import (
    CORTEX,
    MARROW,
    MUSCLE,
    PEDICLE,
    SPINAL_CANAL,
    SPINOUS_PROCESS,
    STERNUM_CORTEX,
    STERNUM_MARROW,
    VERTEBRA_CORTEX,
)
from training.data.phantom.shapes import ellipse

RIBS = 6  # on each side of a slice
RIB_STEP = 0.44  # radians between ribs as a slice cuts them
FIRST_RIB = -1.15  # radians; 0 is the side, pi/2 the back
RIB_SLOPE = 9.0  # by how many ribs they wander from apex to base
RIB_OUTSIDE_MM, RIB_MM, RIB_MARROW_MM = 6.5, 8.0, 4.4
BLADE = np.array([(1.02, 0.3), (0.9, 0.75), (0.66, 1.04)])  # as parts of the lungs' half width and depth
BLADE_OUTSIDE_MM, BLADE_MM, BLADE_MARROW_MM = (7, 9), 6.0, 2.0
SPINE_DEPTH = 0.66  # of the vertebra's middle, as a part of the lungs' half depth


def paint_ribs(canvas: Canvas, body: Body, z: float) -> None:
    """Paint the ribs as the slice cuts them: ribs slope, so they wander along the wall as z goes on."""
    shift = (body.rib_phase + RIB_SLOPE * z) % 1.0
    for side in (-1, 1):
        for k in range(RIBS):
            middle = FIRST_RIB + (k + shift + 0.13 * side) * RIB_STEP
            _paint_rib(canvas, body, side, middle, z)


def paint_scapulae(canvas: Canvas, body: Body, size: float) -> None:
    """Paint the two shoulder blades, from 1 at their widest down to 0 at their tips."""
    blade = BLADE * body.cavity_mm
    blade = blade[1] + (blade - blade[1]) * size + BLADE_OUTSIDE_MM
    for side in (-1, 1):
        line = blade * (side, 1)
        canvas.stroke(line, CORTEX, BLADE_MM)
        canvas.stroke(line, MARROW, BLADE_MARROW_MM)


def paint_sternum(canvas: Canvas, front_mm: float) -> None:
    """Paint the breastbone before the lungs' front."""
    canvas.fill(ellipse(0, front_mm - 7, 19, 6.5), STERNUM_CORTEX)
    canvas.fill(ellipse(0, front_mm - 7, 16.5, 4.3), STERNUM_MARROW)


def paint_spine(canvas: Canvas, body: Body) -> None:
    """Paint a vertebra among its muscles; its sizes go with the radius of the vertebral body."""
    r, y = body.spine_mm, SPINE_DEPTH * body.cavity_mm[1]
    _paint_spine_muscles(canvas, r, y)
    for side in (-1, 1):
        transverse_process = np.array([(side * 0.6 * r, y + 1.1 * r), (side * 2.0 * r, y + 1.75 * r)])
        lamina = np.array([(side * 0.6 * r, y + 1.1 * r), (side * 0.35 * r, y + 2.2 * r)])
        canvas.stroke(transverse_process, PEDICLE, 8)
        canvas.stroke(lamina, VERTEBRA_CORTEX, 6)
    canvas.stroke(np.array([(0, y + 2.1 * r), (0, y + 3.0 * r)]), SPINOUS_PROCESS, 6)
    canvas.fill(ellipse(0, y, r, 0.82 * r), VERTEBRA_CORTEX)
    canvas.fill(ellipse(0, y, 0.88 * r, 0.7 * r), MARROW)
    canvas.fill(ellipse(0, y + 1.35 * r, 0.5 * r, 0.46 * r), SPINAL_CANAL)


def _paint_rib(canvas: Canvas, body: Body, side: int, middle: float, z: float) -> None:
    length = 0.17 - 0.05 * np.cos(middle)
    angle = middle + np.linspace(-length, length, 9)
    x, y = cavity_xy(body, angle, z)
    arc = np.column_stack([side * x, y]) * (1 + RIB_OUTSIDE_MM / body.cavity_mm[0])
    canvas.stroke(arc, CORTEX, RIB_MM)
    canvas.stroke(arc, MARROW, RIB_MARROW_MM)


def _paint_spine_muscles(canvas: Canvas, r: float, y: float) -> None:
    behind = np.array([(-r, y + 0.9 * r), (r, y + 0.9 * r), (2.3 * r, y + 2.1 * r), (-2.3 * r, y + 2.1 * r)])
    canvas.fill(ellipse(0, y + 14, 1.3 * r, 1.75 * r), MUSCLE)
    canvas.fill(behind, MUSCLE)
