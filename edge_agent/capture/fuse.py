"""Make one sharp picture with little noise of a burst: choose the sharp frames, align and average them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.capture.stillness import Quad, novelty, view_of

Frame = NDArray[np.uint8]
Matrix = NDArray[np.float32]

SHARP_SHARE = 0.8
"""A frame with less of the sharpest one's edge energy is left out: it would blur the picture."""
SAME_NOVELTY = 0.03
"""A frame in which more is new against the sharpest one (see `stillness.novelty`) shows another slice."""
LEAST_RESPONSE = 0.1
"""Peak of the phase correlation, 0..1; below, the shift is a guess and the frame is left out."""
MOST_SHIFT_SHARE = 0.03
"""Of the frame's width: more than a hand shakes within a burst."""
_LEAST_SHIFT_PX = 0.05
"""Less is not worth the blur of interpolation."""
_ALIGN_PX = 640
"""Frames are compared at this width."""
_ECC_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 1e-4)


@dataclass(frozen=True)
class Fused:
    """A picture uint8 [height, width, 3], and of how many frames of the burst it was made."""

    pixels: Frame
    used: int
    sharpness: float


def fuse(frames: Sequence[Frame], quad: Quad | None = None) -> Fused:
    """Fuse frames uint8 [height, width, 3] of one size; sharpness counts within the quad, or everywhere.

    Frames of another size, blurred ones, and those that show something else than the sharpest are left out. Noise
    falls with the root of the number of frames that are used; with four or more, one outlier a pixel is dropped.
    """
    sharpness = [edge_energy(frame, quad) for frame in frames]
    best = int(np.argmax(sharpness))
    reference = frames[best]
    chosen = [
        frame
        for index, frame in enumerate(frames)
        if index != best and frame.shape == reference.shape and sharpness[index] >= SHARP_SHARE * sharpness[best]
    ]
    aligned = [moved for frame in chosen if (moved := align(frame, reference, quad)) is not None]
    return Fused(robust_mean([reference, *aligned]), 1 + len(aligned), sharpness[best])


def edge_energy(pixels: Frame, quad: Quad | None = None) -> float:
    """Return the mean squared gradient within the quad's bounding box: larger is sharper, for frames of one scene."""
    grey = cv2.cvtColor(_box(pixels, quad), cv2.COLOR_BGR2GRAY)
    smooth = cv2.GaussianBlur(grey, (3, 3), 0)  # noise has gradients too
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    return float(cv2.mean(cv2.magnitude(across, down) ** 2)[0])


def align(moving: Frame, reference: Frame, quad: Quad | None = None) -> Frame | None:
    """Move a frame onto the reference by shift and turn; None where that fails, or they do not show the same."""
    matrix = _motion(moving, reference)
    if matrix is None:
        return None
    moved = moving if _is_nothing(matrix, reference.shape[1]) else _moved(moving, matrix)
    known, seen = view_of(reference, quad).thumbnail, view_of(moved, quad).thumbnail
    return moved if novelty(known, seen) <= SAME_NOVELTY else None


def robust_mean(frames: Sequence[Frame]) -> Frame:
    """Average frames of one shape; of three or more, each pixel's darkest and brightest value are left out."""
    if len(frames) == 1:
        return frames[0]
    total = np.zeros(frames[0].shape, np.uint16)
    for frame in frames:
        total += frame
    if len(frames) < 3:
        return _divided(total, len(frames))
    darkest, brightest = frames[0], frames[0]
    for frame in frames[1:]:
        darkest, brightest = cv2.min(darkest, frame), cv2.max(brightest, frame)  # type: ignore[assignment]
    return _divided(total - darkest - brightest, len(frames) - 2)


def _motion(moving: Frame, reference: Frame) -> Matrix | None:
    """Return float32 [2, 3] that leads from the reference's pixels to the moving frame's; None where there is none.

    Phase correlation finds the shift however large (Kuglin and Hines 1975), but only to half a pixel; the enhanced
    correlation coefficient (Evangelidis and Psarakis 2008) starts there and refines shift and turn.
    """
    scale = min(1.0, _ALIGN_PX / reference.shape[1])
    small, small_reference = _small_grey(moving, scale), _small_grey(reference, scale)
    window = cv2.createHanningWindow((small.shape[1], small.shape[0]), cv2.CV_32F)
    (x, y), response = cv2.phaseCorrelate(small_reference, small, window)
    if response < LEAST_RESPONSE or max(abs(x), abs(y)) > MOST_SHIFT_SHARE * small.shape[1]:
        return None
    start = np.array([[1, 0, x], [0, 1, y]], np.float32)
    try:
        _, matrix = cv2.findTransformECC(small_reference, small, start, cv2.MOTION_EUCLIDEAN, _ECC_STOP)
    except cv2.error:  # it did not converge: the two have nothing in common
        return None
    matrix[:, 2] = (matrix[:, 2] + 0.5 - matrix[:, :2] @ (0.5, 0.5)) / scale - 0.5 + matrix[:, :2] @ (0.5, 0.5)
    return np.asarray(matrix, np.float32)


def _is_nothing(matrix: Matrix, width: int) -> bool:
    """Tell whether no pixel moves far enough to be worth the blur of interpolation."""
    turn = abs(float(matrix[1, 0])) * width
    return turn + float(np.abs(matrix[:, 2]).max()) < _LEAST_SHIFT_PX


def _moved(moving: Frame, matrix: Matrix) -> Frame:
    size, flags = (moving.shape[1], moving.shape[0]), cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(moving, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _divided(total: NDArray[np.uint16], count: int) -> Frame:
    return np.asarray((total + count // 2) // count, np.uint8)


def _box(pixels: Frame, quad: Quad | None) -> Frame:
    if quad is None:
        return pixels
    height, width = pixels.shape[:2]
    left, top = np.clip(np.floor(quad.min(0)), 0, (width - 2, height - 2)).astype(int)
    right, bottom = np.clip(np.ceil(quad.max(0)), (left + 2, top + 2), (width, height)).astype(int)
    return pixels[top:bottom, left:right]


def _small_grey(pixels: Frame, scale: float) -> NDArray[np.float32]:
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    grey = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    return np.asarray(grey, np.float32)
