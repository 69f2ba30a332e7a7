"""Bring a slice that a camera sees askew back into an upright rectangle, without moire: pure functions on arrays.

Pixels are counted at their centres: the outline of a picture w pixels wide runs from x = -0.5 to x = w - 0.5.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Quad = NDArray[np.floating]

USUAL_FOCAL_WIDTHS = 0.9
"""A webcam's focal length in frame widths (58 degrees across), where a quad does not tell it."""
FOCAL_WIDTHS = (0.6, 1.6)
"""What a quad tells is believed between these: 80 to 35 degrees across."""

_LEAST_CONVERGENCE = 0.2
"""Opposite sides meet at an angle of this tangent over a focal length; of less, noise tells the focal length."""
_MOST_SAMPLES = 4
"""So many samples a pixel and side; a frame that is larger still is shrunk first."""
_UNIT = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)


def rectify(frame: Frame, quad: Quad, width_px: int, height_px: int) -> Frame:
    """Return what lies inside the quad as a picture uint8 [height_px, width_px, 3].

    The quad [4, 2] is in the frame's pixels, clockwise from the corner that becomes the top left one. Where the picture
    shrinks, several samples are averaged for each pixel, so that screen pixels leave no moire; where it grows, the
    interpolation is bicubic.
    """
    near, outline = _shrunk(frame, np.asarray(quad, np.float64), width_px, height_px)
    samples = min(_MOST_SAMPLES, max(1, math.ceil(_shrinking(outline, width_px, height_px) - 0.2)))
    size = (width_px * samples, height_px * samples)
    target = _UNIT * np.array(size, np.float32) - np.float32(0.5)
    matrix = cv2.getPerspectiveTransform(outline.astype(np.float32), target)
    interpolation = cv2.INTER_LINEAR if samples > 1 else cv2.INTER_CUBIC
    fine = cv2.warpPerspective(near, matrix, size, flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    if samples == 1:
        return np.asarray(fine, np.uint8)
    return np.asarray(cv2.resize(fine, (width_px, height_px), interpolation=cv2.INTER_AREA), np.uint8)


def fitting_size(quad: Quad, frame_shape: tuple[int, ...], longer_px: int) -> tuple[int, int]:
    """Return width and height in pixels of the rectangle that a quad shows, its longer side so many pixels."""
    aspect = aspect_ratio(quad, frame_shape)
    if aspect >= 1:
        return longer_px, max(1, round(longer_px / aspect))
    return max(1, round(longer_px * aspect)), longer_px


def aspect_ratio(quad: Quad, frame_shape: tuple[int, ...]) -> float:
    """Return width / height of the rectangle that a pinhole camera shows as this quad [4, 2].

    By Zhang and He, "Whiteboard scanning and image enhancement" (Digital Signal Processing 17, 2007, section 3.3), with
    the principal point in the frame's centre. Sides that are nearly parallel do not tell the focal length; then it is
    a usual webcam's.
    """
    height, width = frame_shape[:2]
    across, down = _edge_vectors((np.asarray(quad, np.float64) - (np.array([width, height]) - 1) / 2) / width)
    focal = _focal_widths(across, down)
    lens = np.array([1 / focal, 1 / focal, 1.0])
    return float(np.linalg.norm(across * lens) / np.linalg.norm(down * lens))


def _edge_vectors(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rectangle's two edges (n2, n3 of the paper), up to the camera's matrix and one common scale."""
    first, second, last, third = np.column_stack([corners, np.ones(4)])
    diagonal = np.cross(first, last)
    k2 = (diagonal @ third) / (np.cross(second, last) @ third)
    k3 = (diagonal @ second) / (np.cross(third, last) @ second)
    return k2 * second - first, k3 * third - first


def _focal_widths(across: NDArray[np.float64], down: NDArray[np.float64]) -> float:
    """Return the focal length at which the edges stand upright on each other, within what webcams have."""
    converging = [abs(edge[2]) / max(float(np.hypot(edge[0], edge[1])), 1e-9) for edge in (across, down)]
    if min(converging) < _LEAST_CONVERGENCE:
        return USUAL_FOCAL_WIDTHS
    squared = -float(across[:2] @ down[:2]) / float(across[2] * down[2])
    return float(np.clip(math.sqrt(max(squared, 0.0)), *FOCAL_WIDTHS))


def _shrinking(outline: NDArray[np.float64], width_px: int, height_px: int) -> float:
    """Return how many of the frame's pixels lie along one of the picture's, on the longest side."""
    sides = np.linalg.norm(np.roll(outline, -1, axis=0) - outline, axis=1)
    return float(max(sides[0] / width_px, sides[1] / height_px, sides[2] / width_px, sides[3] / height_px))


def _shrunk(
    frame: Frame, outline: NDArray[np.float64], width_px: int, height_px: int
) -> tuple[Frame, NDArray[np.float64]]:
    """Cut the quad's surroundings out and shrink them by whole pixels, where a frame has far too many of them."""
    factor = int(_shrinking(outline, width_px, height_px) / _MOST_SAMPLES * 2)
    if factor < 2:
        return frame, outline
    corner = np.maximum(np.floor(outline.min(0)).astype(int) - factor, 0)
    size = np.ceil(outline.max(0)).astype(int) + factor + 1 - corner
    near = frame[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]]
    height, width = (side // factor * factor for side in near.shape[:2])
    small = cv2.resize(near[:height, :width], (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), (outline - corner + 0.5) / factor - 0.5
