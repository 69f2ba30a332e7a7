"""The margin: a strip of the page around the slice, which the rectified picture shows as a reference for white."""

import cv2
import numpy as np
from numpy.typing import NDArray

MARGIN = 1 / 16
"""Of the slice's side, on each side: wide enough to hold page beside an outline, narrow enough for a film's border."""


def with_margin(quad: NDArray[np.float32], margin: float = MARGIN) -> NDArray[np.float32]:
    """Return the quad [4, 2] of the slice with its margin, which the perspective makes no mere scaling of the quad."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    into_frame = cv2.getPerspectiveTransform(square, np.asarray(quad, np.float32))
    wider = (square * (1 + 2 * margin) - np.float32(margin))[None]
    return np.asarray(cv2.perspectiveTransform(wider, into_frame)[0], np.float32)


def margin_px(side_px: int, margin: float) -> int:
    """Return how many pixels the margin takes on each side of a rectified picture."""
    return round(side_px * margin / (1 + 2 * margin))
