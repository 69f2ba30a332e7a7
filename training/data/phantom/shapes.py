"""Shapes: the plane curves that painters share."""

import numpy as np

from training.data.phantom.grid import Points

TURN = np.linspace(0, 2 * np.pi, 120, endpoint=False)
CIRCLE = np.column_stack([np.cos(TURN), np.sin(TURN)])[::4]
CHAIKIN_ROUNDS = 3


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Points:
    """Return the outline of an ellipse around (x, y), its first radius turned by the angle."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(CIRCLE * (rx, ry) @ np.array([[c, s], [-s, c]]) + (x, y), np.float64)


def round_off(corners: Points) -> Points:
    """Cut the corners of a closed polygon a few times (Chaikin 1974), which makes a smooth curve."""
    for _ in range(CHAIKIN_ROUNDS):
        following = np.roll(corners, -1, axis=0)
        pairs = np.stack([0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following], axis=1)
        corners = pairs.reshape(-1, 2)
    return corners


def smooth_step(z: float, low: float, high: float) -> float:
    """Rise smoothly from 0 below `low` to 1 at `high`."""
    t = min(1.0, max(0.0, (z - low) / (high - low)))
    return t * t * (3 - 2 * t)
