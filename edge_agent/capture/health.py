"""Tell a camera that works from one that gives black or frozen frames; the clock is the caller's."""

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.refusal import Refusal

_STEP = 8
"""Every so many pixels are looked at; a sensor's noise changes some of them in every frame."""
BLACK_MEAN, BLACK_SPREAD = 4.0, 3.0
"""In grey levels of 255: a covered lens, or a driver that has nothing to give; a monitor at night is brighter."""


def is_black(pixels: NDArray[np.uint8]) -> bool:
    """Tell whether a frame uint8 [height, width, 3] shows nothing at all."""
    mean, spread = cv2.meanStdDev(pixels[::_STEP, ::_STEP])
    return bool(mean.max() < BLACK_MEAN and spread.max() < BLACK_SPREAD)


class Health:
    """Follows the frames of one opening of a camera."""

    def __init__(self, black_after_s: float, frozen_after_s: float) -> None:
        """Remember how long black and equal frames are borne; 0 seconds of equal ones are for ever."""
        self._black_after_s, self._frozen_after_s = black_after_s, frozen_after_s
        self._black_since_s: float | None = None
        self._last: NDArray[np.uint8] | None = None
        self._changed_s = 0.0
        self.is_proven = frozen_after_s == 0
        """Whether a frame has differed from the one before: only then is the camera known to live."""

    def see(self, pixels: NDArray[np.uint8], at_s: float) -> Refusal | None:
        """Take in the next frame; return what is wrong with the camera once it has lasted too long."""
        if self._last_black_s(pixels, at_s) >= self._black_after_s:
            return Refusal.BLACK_FRAME
        if self._frozen_after_s and self._same_for_s(pixels, at_s) >= self._frozen_after_s:
            return Refusal.FROZEN_CAMERA
        return None

    @property
    def is_good(self) -> bool:
        """Tell whether the last frame shows something, and the camera lives."""
        return self.is_proven and self._black_since_s is None

    def _last_black_s(self, pixels: NDArray[np.uint8], at_s: float) -> float:
        if not is_black(pixels):
            self._black_since_s = None
            return -1.0
        if self._black_since_s is None:
            self._black_since_s = at_s
        return at_s - self._black_since_s

    def _same_for_s(self, pixels: NDArray[np.uint8], at_s: float) -> float:
        seen = pixels[::_STEP, ::_STEP].copy()
        if self._last is None or not np.array_equal(seen, self._last):
            self.is_proven = self.is_proven or self._last is not None
            self._changed_s = at_s
        self._last = seen
        return at_s - self._changed_s
