"""Where a prepared slice's picture lies, without the black that `prepare` pads it with."""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.model.preprocess import Box, Frame

BLACK = 16
"""Grey levels up to which a pixel counts as black, as in `training.model.preprocess`."""


def picture_box(prepared: Frame) -> Box:
    """Return the rectangle that holds every pixel above 0: padding is 0, and `prepare` crops to what is not.

    A slice uint8 [256, 256] that is black all over is its own rectangle.
    """
    rows, columns = np.flatnonzero(prepared.any(1)), np.flatnonzero(prepared.any(0))
    if not len(rows):
        return Box(0, 0, *prepared.shape)
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def outer_black(picture: Frame) -> NDArray[np.bool_]:
    """Return which pixels are black and joined to the outside of the picture uint8 [height, width]."""
    black = np.pad(picture <= BLACK, 1, constant_values=True).astype(np.uint8)
    _, part = cv2.connectedComponents(black)
    return np.asarray(part[1:-1, 1:-1] == part[0, 0])
