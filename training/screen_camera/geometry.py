"""Geometry: where a point of the page lands in the frame, by perspective and radial distortion, and back.

Pixels are counted at their centres, as OpenCV does: the outline of a slice whose first column is x runs along x - 0.5.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""[n, 2], x and y."""
Matrix = NDArray[np.float64]

_STEP_PX = 8
"""The map is exact at every eighth pixel and linear between: off by under 0.02 px at the steepest view drawn here."""
_LEAST_MARGIN = 0.015
"""Of the frame's shorter side; the whole outline stays so far inside."""
_REGION_STEPS = 16
_FIT_ROUNDS = 4
_INVERSE_ROUNDS = 40
_FURTHEST_BEND = 1.5
"""Points further out than this many times the frame's corner are not bent more, so that each has one place."""


@dataclass(frozen=True)
class Pose:
    """How the camera stands: the slice's longer side and shift in the frame (pixels), turns (radians), focal length.

    The focal length is in frame widths; a webcam has about 0.7 to 1.1.
    """

    side_px: float
    shift_px: tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    focal_widths: float = 0.9


@dataclass(frozen=True)
class Distortion:
    """Radial distortion: the ideal radius is r (1 + k r^2), or r / (1 + k r^2) by the division model (Fitzgibbon 2001).

    r is 1 at the frame's corner: k is the displacement there.
    """

    k: float = 0.0
    by_division: bool = False

    def ideal(self, points: Points, size: tuple[int, int]) -> Points:
        """Return where a lens without distortion would show these points of the frame."""
        centre, reach = _centre(size), _reach(size)
        offset = (points - centre) / reach
        return centre + reach * offset * self._gain(np.square(offset).sum(-1, keepdims=True))

    def distorted(self, points: Points, size: tuple[int, int]) -> Points:
        """Return where this lens shows ideal points; the inverse of `ideal`."""
        centre, reach = _centre(size), _reach(size)
        ideal = (points - centre) / reach
        offset = ideal
        for _ in range(_INVERSE_ROUNDS):
            offset = ideal / self._gain(np.square(offset).sum(-1, keepdims=True))
        return centre + reach * offset

    def _gain(self, squared: Points) -> Points:
        bent = 1 + self.k * np.minimum(squared, _FURTHEST_BEND**2)
        return 1 / bent if self.by_division else bent


@dataclass(frozen=True)
class View:
    """The whole way from a page's pixels to those of a frame of this size (height, width)."""

    homography: Matrix
    distortion: Distortion
    size: tuple[int, int]

    def into_frame(self, points: Points) -> Points:
        """Return where points of the page land in the frame."""
        return self.distortion.distorted(_transformed(points, self.homography), self.size)

    def sampling_map(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return x and y of the page's point that each pixel of the frame looks at, float32 [height, width] each."""
        height, width = self.size
        columns, rows = (-(-n // _STEP_PX) + 2 for n in (width, height))
        x, y = (_STEP_PX * (np.arange(n) - 1) + (_STEP_PX - 1) / 2 for n in (columns, rows))
        nodes = np.stack(np.meshgrid(x, y), axis=-1, dtype=np.float64).reshape(-1, 2)
        page = _transformed(self.distortion.ideal(nodes, self.size), _inverse(self.homography))
        at_x, at_y = (_between_nodes(page[:, axis].reshape(rows, columns), self.size) for axis in (0, 1))
        return at_x, at_y


def region(outline: Points, view: View) -> NDArray[np.bool_]:
    """Return which pixels of the frame look at the inside of this outline [4, 2] of the page."""
    share = np.linspace(0, 1, _REGION_STEPS, endpoint=False)[:, None]
    ends = zip(outline, np.roll(outline, -1, axis=0), strict=True)
    rim = view.into_frame(np.concatenate([start + share * (end - start) for start, end in ends]))
    inside = np.zeros(view.size, np.uint8)
    cv2.fillPoly(inside, [np.round(rim).astype(np.int32)], 1)
    return inside.view(np.bool_)


def view_of(outline: Points, pose: Pose, distortion: Distortion, size: tuple[int, int], keep_inside: bool) -> View:
    """Return the view by which the camera in this pose sees a page whose slice has this outline [4, 2].

    `keep_inside` moves (and if it must, shrinks) the picture until the whole outline is in the frame.
    """
    view = View(_pinhole(outline, pose, size), distortion, size)
    for _ in range(_FIT_ROUNDS if keep_inside else 0):
        view = View(_nudge(_edge_points(outline), view) @ view.homography, distortion, size)
    return view


def clockwise_from_top_left(quad: Points) -> Points:
    """Order the corners of a quad clockwise as seen in the frame, the top left one first."""
    offset = quad - quad.mean(0)
    around = quad[np.argsort(np.arctan2(offset[:, 1], offset[:, 0]))]
    return np.roll(around, -int(np.argmin(around.sum(1))), axis=0)


def _pinhole(outline: Points, pose: Pose, size: tuple[int, int]) -> Matrix:
    """Return the homography of a pinhole camera whose axis meets the slice's centre, shifted in the frame."""
    focal = pose.focal_widths * size[1]
    longer = float(np.ptp(outline, axis=0).max())
    turned = _rotation(pose)[:, :2] * (pose.side_px / longer)
    plane = np.column_stack([turned, [0, 0, focal]])
    centre, target = outline.mean(0), _centre(size) + pose.shift_px
    camera = np.array([[focal, 0, target[0]], [0, focal, target[1]], [0, 0, 1]])
    from_page = np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, 1]])
    matrix = camera @ plane @ from_page
    return np.asarray(matrix / matrix[2, 2], np.float64)


def _rotation(pose: Pose) -> Matrix:
    turns = (np.array([0, 0, pose.roll]), np.array([pose.pitch, 0, 0]), np.array([0, pose.yaw, 0]))
    roll, pitch, yaw = (np.asarray(cv2.Rodrigues(turn.astype(np.float64))[0], np.float64) for turn in turns)
    return np.asarray(roll @ pitch @ yaw, np.float64)


def _nudge(outline: Points, view: View) -> Matrix:
    """Return the scaling about the frame's centre and the shift that bring the outline inside."""
    seen = view.into_frame(outline)
    room = np.array(view.size[::-1]) - 1 - 2 * _LEAST_MARGIN * min(view.size)
    shrink = min(1.0, float((room / np.ptp(seen, axis=0)).min()))
    centre = _centre(view.size)
    seen = centre + (seen - centre) * shrink
    over = np.maximum(seen.max(0) - (centre + room / 2), 0) + np.minimum(seen.min(0) - (centre - room / 2), 0)
    shift = centre * (1 - shrink) - over
    return np.array([[shrink, 0, shift[0]], [0, shrink, shift[1]], [0, 0, 1]])


def _edge_points(outline: Points) -> Points:
    """Return the corners and the middles of the edges, which bulge out under barrel distortion."""
    return np.concatenate([outline, (outline + np.roll(outline, -1, axis=0)) / 2])


def _transformed(points: Points, matrix: Matrix) -> Points:
    seen = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(seen[:, :2] / seen[:, 2:], np.float64)


def _between_nodes(coarse: Matrix, size: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate what is known at the map's nodes, the first of which lie just outside the frame."""
    full = (coarse.shape[1] * _STEP_PX, coarse.shape[0] * _STEP_PX)
    fine = cv2.resize(coarse.astype(np.float32), full, interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine[_STEP_PX : _STEP_PX + size[0], _STEP_PX : _STEP_PX + size[1]], np.float32)


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _centre(size: tuple[int, int]) -> Points:
    return np.array([size[1] - 1, size[0] - 1]) / 2


def _reach(size: tuple[int, int]) -> float:
    return float(np.hypot(*size)) / 2
