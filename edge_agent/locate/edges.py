"""Find the points of a small picture that may lie on a straight edge."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]

LEAST_STEP, MOST_STEP = 6.0, 15.0
"""Canny's lower threshold lies between these, by the noise: gradients of a 3x3 Sobel, 4 for each grey level a pixel."""
UPPER_OF_LOWER = 2.2
MOST_POINTS = 12_000
"""Of more, every second, third... counts: a bound on the time."""

_NOISES = 4.5
"""The lower threshold in standard deviations of the gradient on a plain surface."""
_SIGMAS_OF_MEDIAN = 1 / 0.6745
_BLUR_PX = 5
_DARK_SLOPE, _DARK_LEVELS = 1.0, 35.0
"""How much the darkest greys are spread, and where that ends: black on dark grey is a weak but common outline."""
_LOOK_PX = (-8.0, -4.0, 4.0, 8.0)
_LEAST_SEEN = 2
"""Of the four places along its edge, at so many a point must find the edge go on straight: lung texture does not."""
_STRAIGHT_COS = 0.94
_CROWD_PX, _MOST_OF_CROWD = 17, 0.3
"""Where more of the surroundings are edges than this, there is moire, text or texture, and no outline."""


@dataclass(frozen=True)
class Edges:
    """Edge points float32 [n, 2] (x, y from the picture's centre), their unit gradients, and the picture's size."""

    points: Floats
    normals: Floats
    shape: tuple[int, int]


def find_edges(grey: Grey) -> Edges:
    """Find the edge points of a grey picture uint8 [height, width] that go on straight for some pixels."""
    smooth = cv2.GaussianBlur(cv2.LUT(grey, _SPREAD), (_BLUR_PX, _BLUR_PX), 0)
    x_step = np.asarray(cv2.Sobel(smooth, cv2.CV_16S, 1, 0), np.int16)
    y_step = np.asarray(cv2.Sobel(smooth, cv2.CV_16S, 0, 1), np.int16)
    lower = _threshold(x_step)
    edge = np.asarray(cv2.Canny(x_step, y_step, lower, UPPER_OF_LOWER * lower, L2gradient=True), np.uint8)
    at, normals = _straight(_marked(edge), x_step, y_step, edge)
    every = max(1, -(-len(at) // MOST_POINTS))
    at, normals = at[::every], normals[::every]
    height, width = grey.shape
    y, x = np.divmod(at, np.int32(width))
    points = np.stack([x - (width - 1) / 2, y - (height - 1) / 2], axis=1).astype(np.float32)
    return Edges(points, normals, (height, width))


def _marked(mask: Grey) -> NDArray[np.int32]:
    """Return the flat indices of the pixels that are not 0; OpenCV finds them three times as fast as numpy."""
    points = cv2.findNonZero(mask)
    if points is None:
        return np.zeros(0, np.int32)
    x, y = points.reshape(-1, 2).T  # OpenCV 4 gives [n, 1, 2], 5 gives [n, 2]
    return np.asarray(y * mask.shape[1] + x, np.int32)


def _threshold(x_step: NDArray[np.int16]) -> float:
    noise = _SIGMAS_OF_MEDIAN * float(np.median(np.abs(x_step[::6, ::5])))
    return min(max(_NOISES * noise, LEAST_STEP), MOST_STEP)


def _straight(
    at: NDArray[np.int32], x_step: NDArray[np.int16], y_step: NDArray[np.int16], edge: Grey
) -> tuple[NDArray[np.int32], Floats]:
    """Return the edge points that find an edge of their direction before and behind them, and their unit gradients."""
    height, width = edge.shape
    near = cv2.dilate(edge, np.ones((3, 3), np.uint8))
    near[cv2.blur(edge, (_CROWD_PX, _CROWD_PX)) > _MOST_OF_CROWD * 255] = 0
    usable, across, down = near.ravel(), x_step.ravel(), y_step.ravel()
    at = at[usable[at] > 0]
    normals = np.stack([across[at], down[at]], axis=1).astype(np.float32)
    normals /= np.sqrt((normals * normals).sum(1, keepdims=True))
    normal_x, normal_y = normals.T
    y, x = np.divmod(at, np.int32(width))
    seen = np.zeros(len(at), np.int8)
    for distance in _LOOK_PX:
        there_x = np.clip(x - np.rint(distance * normal_y).astype(np.int32), 0, width - 1)
        there_y = np.clip(y + np.rint(distance * normal_x).astype(np.int32), 0, height - 1)
        there = there_y * np.int32(width) + there_x
        step_x, step_y = across[there].astype(np.float32), down[there].astype(np.float32)
        along = step_x * normal_x + step_y * normal_y
        seen += (usable[there] > 0) & (along * along >= _STRAIGHT_COS**2 * (step_x * step_x + step_y * step_y))
    kept = seen >= _LEAST_SEEN
    return at[kept], normals[kept]


def _spread() -> Grey:
    slope = 1 + _DARK_SLOPE * np.exp(-np.arange(255) / _DARK_LEVELS)
    levels = np.concatenate([[0.0], np.cumsum(slope)])
    return np.asarray(np.rint(levels * 255 / levels[-1]), np.uint8)


_SPREAD = _spread()
