"""Bring whatever a camera or file gives into the one form that is looked at: uint8, three channels, bounded in size."""

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""[height, width, 3], BGR."""

MAX_PIXELS = 40_000_000
MIN_SIDE_PX = 64
_FULL_8_BITS = 8
_GREY, _GREY_CHANNEL, _BGR, _BGRA = 2, 1, 3, 4


class FrameError(ValueError):
    """An array that no slice can be looked for in; the message says why and what to do."""


class FrameTooLargeError(FrameError):
    """More pixels than the limit; refused before a pixel is touched."""


class FrameTooSmallError(FrameError):
    """Too few pixels to show a slice."""


class FrameFormatError(FrameError):
    """Neither 8 nor 16 bits of grey, BGR or BGRA."""


def as_bgr(frame: NDArray[np.generic], *, max_pixels: int = MAX_PIXELS) -> Frame:
    """Return the frame as uint8 [height, width, 3], BGR; a frame in that form already is returned as it is.

    Grey becomes BGR, a fourth channel (alpha) is dropped, and 16 bits are shifted to 8 by as many bits as the brightest
    pixel needs, since a 10- or 12-bit sensor fills only the lower ones. Raises a `FrameError` for anything else.
    """
    channels = frame.shape[2] if frame.ndim == _BGR else _GREY_CHANNEL
    if frame.ndim not in (_GREY, _BGR) or channels not in (_GREY_CHANNEL, _BGR, _BGRA):
        raise FrameFormatError(
            f"a frame has the shape {frame.shape}; give [height, width] or [height, width, 1, 3 or 4]"
        )
    height, width = frame.shape[:2]
    if height * width > max_pixels:
        raise FrameTooLargeError(f"a frame of {width}x{height} px exceeds {max_pixels:,} pixels; set a smaller size")
    if min(height, width) < MIN_SIDE_PX:
        raise FrameTooSmallError(f"a frame of {width}x{height} px shows no slice; give {MIN_SIDE_PX} px a side or more")
    eight_bits = np.ascontiguousarray(_as_8_bits(frame))
    if channels == _BGR:
        return eight_bits
    conversion = cv2.COLOR_BGRA2BGR if channels == _BGRA else cv2.COLOR_GRAY2BGR
    return np.asarray(cv2.cvtColor(eight_bits, conversion), np.uint8)


def brightness(bgr: Frame) -> NDArray[np.uint8]:
    """Return uint8 [height, width] in which coloured edges show too: the mean of grey and of the brightest channel.

    Grey alone weighs blue with a tenth, so that a slice's black hardly stands out from a viewer's dark blue.
    """
    blue, green, red = cv2.split(bgr)
    brightest = cv2.max(cv2.max(blue, green), red)
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.addWeighted(grey, 0.5, brightest, 0.5, 0), np.uint8)


def _as_8_bits(frame: NDArray[np.generic]) -> NDArray[np.uint8]:
    if frame.dtype == np.uint8:
        return np.asarray(frame, np.uint8)
    if frame.dtype != np.uint16:
        raise FrameFormatError(f"pixels are {frame.dtype}; give uint8 or uint16")
    pixels = np.asarray(frame, np.uint16)
    surplus_bits = max(0, int(pixels.max()).bit_length() - _FULL_8_BITS)
    return np.right_shift(pixels, surplus_bits).astype(np.uint8)
