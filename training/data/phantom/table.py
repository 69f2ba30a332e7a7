"""The table under the patient: curved like a cradle, or a flat padded slab."""

import numpy as np

from training.data.phantom.anatomy import Body
from training.data.phantom.canvas import Canvas
from training.data.phantom.grid import Points

BELOW_LUNGS_MM, FAT_BELOW = 32, 0.65  # the skin of the back: so far below the lungs, and this part of the fat more
CURVE_HALF_WIDTH_MM, CURVATURE_MM = 230, 900
CURVED_LAYERS = ((3, -800, 5.0), (12, 60, 2.0), (30, 120, 2.4))  # mat, shell and underside: depth, HU, width
SLAB = np.array([(-205, 4), (205, 4), (190, 30), (150, 40), (-150, 40), (-190, 30)])
SLAB_FOAM, SLAB_COVER, SLAB_COVER_MM = -880, -120, 1.5


def paint_table(canvas: Canvas, body: Body, curved: bool) -> None:
    """Paint the table where the body leaves it visible."""
    back_mm = body.cavity_mm[1] + BELOW_LUNGS_MM + FAT_BELOW * body.fat_mm
    table = canvas.blank()
    if curved:
        _paint_cradle(table, back_mm)
    else:
        _paint_slab(table, SLAB + np.array([0, back_mm]))
    np.maximum(canvas.pixels, table.pixels, out=canvas.pixels)


def _paint_cradle(table: Canvas, back_mm: float) -> None:
    x = np.linspace(-CURVE_HALF_WIDTH_MM, CURVE_HALF_WIDTH_MM, 60)
    for depth, hu, width in CURVED_LAYERS:
        table.stroke(np.column_stack([x, back_mm + depth - x**2 / CURVATURE_MM]), hu, width)


def _paint_slab(table: Canvas, slab: Points) -> None:
    table.fill(slab, SLAB_FOAM)
    table.stroke(np.concatenate([slab, slab[:1]]), SLAB_COVER, SLAB_COVER_MM)
