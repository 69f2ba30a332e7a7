"""Shading: how the light of one grey changes over the frame, as a polynomial, by vignette, screen angle and lamps."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""[n, 2], x and y."""

LEAST_SHADING = 0.2
"""Of the middle's light: less is outside what the polynomial was fitted on."""


def frame_places(points: NDArray[np.floating], frame_size: tuple[int, int]) -> Points:
    """Return points of a frame (height, width), in pixels, as half frame widths from its middle."""
    height, width = frame_size
    return np.asarray((points - np.array([width - 1, height - 1]) / 2) / (width / 2), np.float64)


def shading_terms(places: Points) -> NDArray[np.float64]:
    """Return the polynomial's terms [n, 6] at places of the frame [n, 2]."""
    x, y = places[:, 0], places[:, 1]
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def shading_at(places: Points, coefficients: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the light [n] at places of the frame, over that of its middle."""
    return np.asarray(np.maximum(shading_terms(places) @ np.asarray(coefficients), LEAST_SHADING), np.float64)
