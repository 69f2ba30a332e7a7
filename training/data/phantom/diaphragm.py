"""The diaphragm: the liver's dome on the patient's right, a lower one on the left."""

import numpy as np

from training.data.phantom.anatomy import Body
from training.data.phantom.canvas import Canvas
from training.data.phantom.grid import Points
from training.data.phantom.materials import LIVER, MUSCLE
from training.data.phantom.shapes import ellipse

DOMES = ((-1, 0.0, LIVER), (1, 0.06, MUSCLE))  # side, how much lower (z) its top lies, HU
DOME_MM = 150  # a dome's radius, were it as deep below its top as the lungs are high
DOME_X = 0.52  # its middle, as a part of the lungs' half width here


def paint_domes(canvas: Canvas, body: Body, cavity: Points, z: float) -> None:
    """Paint what of the domes rises into the slice."""
    half_width = float(np.abs(cavity[:, 0]).max())
    for side, lower, hu in DOMES:
        rise = max(0.0, z - body.dome_z - lower)
        if rise > 0:
            radius = DOME_MM * np.sqrt(rise)
            canvas.fill(ellipse(side * DOME_X * half_width, -8, 0.95 * radius, 1.1 * radius), hu)
