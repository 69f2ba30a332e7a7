"""The two grids of a slice: a fine one for what is drawn, a coarse one for what is smooth."""

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 512
COARSE_PX = 128  # opacities are smooth: they are computed on this grid and enlarged

FloatImage = NDArray[np.float32]
Points = NDArray[np.float64]
Paint = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


def enlarge(coarse: FloatImage) -> FloatImage:
    """Bring a picture of any size to the fine grid."""
    return np.asarray(cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR), np.float32)


def boxed(pixels: NDArray[Scalar], box: Sequence[int]) -> NDArray[Scalar]:
    """Return the view of the pixels inside x, y, width, height."""
    x, y, width, height = box
    return pixels[y : y + height, x : x + width]
