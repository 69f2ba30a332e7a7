"""Has the exposure settled, and does a new slice stand still in view? Without a clock: times come with the frames."""

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Quad = NDArray[np.float32]
Thumbnail = NDArray[np.float32]

THUMBNAIL_PX = 48
_WORK_PX = 480
"""A frame is first brought down to this width: the mean of many pixels has little noise and no moire."""
_OVERSAMPLING = 4
_STEP = 4
_FLAT_SPREAD = 4.0
"""Grey levels; what varies less has no contrast to measure a change by."""


@dataclass(frozen=True)
class Exposure:
    """How bright a frame is: mean and standard deviation, in grey levels of 255."""

    mean: float
    spread: float


def exposure(pixels: Frame) -> Exposure:
    """Measure a frame uint8 [height, width, 3], on each fourth pixel."""
    mean, spread = cv2.meanStdDev(pixels[::_STEP, ::_STEP])
    return Exposure(float(mean.mean()), float(spread.mean()))


@dataclass(frozen=True)
class SettleLimits:
    """Exposure has settled when `frames` in a row differ by no more than this, in grey levels of 255."""

    frames: int
    mean: float
    spread: float


class Settling:
    """Remembers the exposures of the last frames."""

    def __init__(self, limits: SettleLimits) -> None:
        """Remember the limits."""
        self._limits = limits
        self._last: deque[Exposure] = deque(maxlen=limits.frames)

    def add(self, seen: Exposure) -> None:
        """Take in the next frame's exposure."""
        self._last.append(seen)

    def forget(self) -> None:
        """Begin anew: the camera was opened again."""
        self._last.clear()

    @property
    def has_settled(self) -> bool:
        """Tell whether enough frames were equally bright."""
        if len(self._last) < self._limits.frames:
            return False
        means, spreads = [seen.mean for seen in self._last], [seen.spread for seen in self._last]
        return max(means) - min(means) <= self._limits.mean and max(spreads) - min(spreads) <= self._limits.spread


@dataclass(frozen=True)
class View:
    """What is in view: where (None is the whole picture), and how it looks, float32 [48, 48] of grey levels."""

    quad: Quad | None
    thumbnail: Thumbnail


def view_of(pixels: Frame, quad: Quad | None) -> View:
    """Make a small picture of the quad float32 [4, 2] in a frame uint8 [height, width, 3], or of the whole frame."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _WORK_PX / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = np.asarray(
        cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY), np.uint8
    )
    if quad is not None:
        grey = _straightened(grey, quad * np.array((size[0] / width, size[1] / height), np.float32))
    small = cv2.resize(grey, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return View(quad, np.asarray(cv2.GaussianBlur(small.astype(np.float32), (0, 0), 1.0), np.float32))


def difference(one: Thumbnail, other: Thumbnail) -> float:
    """Return the RMS difference of two thumbnails in units of their contrast: brightness and contrast do not count.

    0 is equal, 1.41 unrelated, 2 inverted. A corner that is found one pixel of 560 aside makes 0.05.
    """
    return float(np.sqrt(np.mean((_normalised(one) - _normalised(other)) ** 2)))


def novelty(known: Thumbnail, seen: Thumbnail) -> float:
    """Return what remains of a difference after small motion and another exposure, in units of contrast.

    The seen thumbnail is fitted (least squares) by the known one, its square, and its change under shift, scale,
    turn and shear; the RMS of the rest counts. Measured: noise 0.005, a corner 2 pixels of 560 aside 0.011, the
    next slice of a chest 5 mm away 0.04 to 0.17, of another patient above 0.4.
    """
    across, down = cv2.Sobel(known, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(known, cv2.CV_32F, 0, 1, scale=1 / 8)
    x, y = np.meshgrid(*[np.linspace(-1, 1, THUMBNAIL_PX, dtype=np.float32)] * 2)
    grey = known / 255
    parts = (np.ones_like(grey), grey, grey**2, across, down, x * across, y * across, x * down, y * down)
    inner = slice(2, -2)  # a Sobel kernel at the edge sees what is not there
    design = np.stack([part[inner, inner].ravel() for part in parts], axis=1).astype(np.float64)
    target = seen[inner, inner].ravel().astype(np.float64)
    weights, *_ = np.linalg.lstsq(design.T @ design, design.T @ target, rcond=None)
    rest = target - design @ weights
    return float(np.sqrt(np.mean(rest**2)) / max(target.std(), _FLAT_SPREAD))


def way_share(one: Quad | None, other: Quad | None) -> float:
    """Return the longest way of a corner, as a share of the mean side; infinite where one of them has no outline."""
    if one is None or other is None:
        return 0.0 if one is other else np.inf
    side = np.linalg.norm(one - np.roll(one, 1, axis=0), axis=1).mean()
    return float(np.linalg.norm(one - other, axis=1).max() / max(side, 1.0))


@dataclass(frozen=True)
class StillLimits:
    """See `WebcamSettings` of the same names."""

    still_s: float
    still_change: float
    new_slice_change: float
    moved_share: float


class StillWatch:
    """Follows what is in view: a slice is due when it is another one than the last, and has stood still."""

    def __init__(self, limits: StillLimits) -> None:
        """Remember the limits."""
        self._limits = limits
        self._anchor: View | None = None
        self._since_s = 0.0
        self._taken: Thumbnail | None = None

    def see(self, view: View | None, at_s: float) -> bool:
        """Take in what is in view (None: nothing); return whether a new slice has stood still for long enough."""
        if view is None or self._anchor is None or self._has_moved(self._anchor, view):
            self._anchor, self._since_s = view, at_s  # against the first view, so that slow motion counts as well
        return self._anchor is not None and at_s - self._since_s >= self._limits.still_s and self._is_new(self._anchor)

    def took(self) -> None:
        """Hear that what is in view was taken: it is not due again."""
        self._taken = self._anchor.thumbnail if self._anchor is not None else None

    def forget_taken(self) -> None:
        """Let the slice that was taken last be taken again."""
        self._taken = None

    def _has_moved(self, anchor: View, view: View) -> bool:
        """Tell whether the outline moved, the picture changed, or the next slice took the anchor's place."""
        return (
            way_share(anchor.quad, view.quad) > self._limits.moved_share
            or difference(anchor.thumbnail, view.thumbnail) > self._limits.still_change
            or novelty(anchor.thumbnail, view.thumbnail) > self._limits.new_slice_change
        )

    def _is_new(self, view: View) -> bool:
        return self._taken is None or novelty(self._taken, view.thumbnail) > self._limits.new_slice_change


def _straightened(grey: Frame, quad: Quad) -> Frame:
    side = THUMBNAIL_PX * _OVERSAMPLING
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    warped = cv2.warpPerspective(grey, cv2.getPerspectiveTransform(quad, square), (side, side))
    return np.asarray(warped, np.uint8)


def _normalised(thumbnail: Thumbnail) -> Thumbnail:
    spread = max(float(thumbnail.std()), _FLAT_SPREAD)
    return np.asarray((thumbnail - thumbnail.mean()) / spread, np.float32)
