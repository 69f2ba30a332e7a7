"""The cavity: the inner chest wall that both lungs fill, and the fissures that part them."""

import numpy as np
from numpy.typing import NDArray

from training.data.phantom.anatomy import Body
from training.data.phantom.grid import Points
from training.data.phantom.shapes import TURN

APEX_Z, RISE_Z = 0.28, 0.9  # the outline's half sine begins so far above the lungs, and is widest so far below that
FRONT_NARROWING = 0.1
LONGEST_WAVE = 2  # humps around the outline


def cavity_scale(z: Points | float) -> Points:
    """Return the width of the lungs at z as a part of their widest."""
    return np.asarray(np.sin(np.pi / 2 * np.minimum(1.0, (np.asarray(z) + APEX_Z) / RISE_Z)))


def cavity_xy(body: Body, angle: Points, z: Points | float) -> tuple[Points, Points]:
    """Return the inner chest wall at these angles (0 the image's right, pi/2 the back)."""
    half_width, half_depth = body.cavity_mm
    c, s = np.cos(angle), np.sin(angle)
    power = 2 / body.squareness
    scale = cavity_scale(z) * (1 + _waves(body, angle, z))
    egg = 1 + FRONT_NARROWING * np.sign(s) * np.abs(s) ** 1.5 * (1 - np.abs(s) ** 6)
    x = half_width * scale * egg * np.sign(c) * np.abs(c) ** power
    y = half_depth * np.sqrt(scale) * np.sign(s) * np.abs(s) ** power
    return x, y


def cavity_point(body: Body, angle: float, z: float) -> tuple[float, float]:
    """Return the one point of the inner chest wall at this angle."""
    x, y = cavity_xy(body, np.array([angle]), z)
    return float(x[0]), float(y[0])


def cavity_outline(body: Body, z: float) -> Points:
    """Return the closed outline [120, 2], from the image's right by the back."""
    return np.column_stack(cavity_xy(body, TURN, z))


def fissure_y(distance: NDArray[np.floating], z: float) -> NDArray[np.floating]:
    """Return where the oblique fissure lies this far beside the midline; it sinks forward towards the base."""
    return 45 - 110 * (z - 0.3) + 0.18 * (distance - 70)


def _waves(body: Body, angle: Points, z: Points | float) -> Points:
    """Return the small waves that make no two chests alike."""
    waves = [
        amplitude * np.cos((k + LONGEST_WAVE) * angle + phase + drift * z)
        for k, (amplitude, phase, drift) in enumerate(body.waves)
    ]
    return np.asarray(sum(waves))
