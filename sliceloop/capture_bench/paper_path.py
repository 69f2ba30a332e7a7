"""The paper's way from a webcam's frame to its network: for comparison only.

One frame as grey; its border is where the row means, and the column means, jump most in each half; what lies inside is
resized to the network's square. No homography, no photometry, never a refusal (Jetson scripts of the 2021 paper).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.model.preprocess import INPUT_PX


@dataclass(frozen=True)
class PaperCrop:
    """What its network sees, uint8 [256, 256], and the rectangle that it cut, float32 [4, 2] as a quad."""

    pixels: NDArray[np.uint8]
    quad: NDArray[np.float32]


def paper_crop(frame: NDArray[np.uint8]) -> PaperCrop:
    """Cut a frame uint8 [height, width, 3] BGR as the paper did."""
    grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8)
    top, bottom = _largest_jumps(grey.mean(axis=1))
    left, right = _largest_jumps(grey.mean(axis=0))
    inside = grey[top:bottom, left:right]
    square = cv2.resize(inside, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return PaperCrop(np.asarray(square, np.uint8), np.array(corners, np.float32) - 0.5)


def _largest_jumps(means: NDArray[np.float64]) -> tuple[int, int]:
    """Return where a line of means [n] jumps most in its first and in its second half: first inside, first outside."""
    jumps, middle = np.abs(np.diff(means)), len(means) // 2
    return int(jumps[:middle].argmax()) + 1, middle + int(jumps[middle:].argmax()) + 1
