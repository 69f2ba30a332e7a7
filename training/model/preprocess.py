"""Bring any grey frame into the one form that every network of ours sees; training, edge and second reader use this."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]

PREPROCESSING_VERSION = 1
"""Grows with every change that alters a pixel; a manifest names it, and an edge refuses another one."""
INPUT_PX = 256

_ABOVE_BLACK = 16
"""Grey levels up to which a pixel is the black page of a viewer, or the padding outside the scanner's circle."""
_ABOVE_AIR = 32
"""Grey levels by which tissue is brighter than the air around it (black, or -1000 HU: 59 in the lung window)."""
_BRIGHTEST_AIR = 110
"""A border brighter than this is tissue: the slice is already cropped tightly."""
_CONTENT_SHARE = 0.02
"""A row or column belongs to the slice when this share of it is content; specks and the table's rim do not count."""
_SMALLEST_SHARE = 0.2
"""A box smaller than this share of a side is noise or text, not a body."""


class BlankFrameError(ValueError):
    """The frame shows nothing: all black, all white, or without a body-sized bright area."""


class NoBodyError(BlankFrameError):
    """The frame shows something, but no bright area of a body's size that could be told from what is around it."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: `top` and `left` inside, `bottom` and `right` just outside."""

    top: int
    left: int
    bottom: int
    right: int

    def cut(self, frame: Frame) -> Frame:
        """Return the view of the frame uint8 [height, width] inside the box."""
        return frame[self.top : self.bottom, self.left : self.right]


def content_box(frame: Frame) -> Box:
    """Find the rectangle that holds the body, without the black around it.

    Raises `BlankFrameError` when the frame uint8 [height, width] shows nothing of a body's size.
    """
    if int(frame.max()) - int(frame.min()) < _ABOVE_AIR:
        raise BlankFrameError("the frame is of one grey; nothing to read")
    box = _body_inside(_extent(frame > _ABOVE_BLACK), frame)
    if (
        box.bottom - box.top < _SMALLEST_SHARE * frame.shape[0]
        or box.right - box.left < _SMALLEST_SHARE * frame.shape[1]
    ):
        raise NoBodyError("the frame holds no bright area of a body's size; nothing to read")
    return box


def prepare(frame: Frame, box: Box | None = None) -> Frame:
    """Crop to the box (default: the content), resize the longer side to 256, and pad to uint8 [256, 256] with black."""
    inside = (box or content_box(frame)).cut(frame)
    scale = INPUT_PX / max(inside.shape)
    height, width = (max(1, round(side * scale)) for side in inside.shape)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.zeros((INPUT_PX, INPUT_PX), np.uint8)
    top, left = (INPUT_PX - height) // 2, (INPUT_PX - width) // 2
    square[top : top + height, left : left + width] = cv2.resize(inside, (width, height), interpolation=interpolation)
    return square


def _body_inside(page: Box, frame: Frame) -> Box:
    inside = page.cut(frame)
    if not inside.size:
        return page
    air = _border_level(inside)
    if air > _BRIGHTEST_AIR:
        return page
    body = _extent(cv2.blur(inside, (3, 3)) > air + _ABOVE_AIR)
    return Box(page.top + body.top, page.left + body.left, page.top + body.bottom, page.left + body.right)


def _border_level(frame: Frame) -> float:
    return float(np.median(np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])))


def _extent(content: NDArray[np.bool_]) -> Box:
    (top, bottom), (left, right) = (_span(content.mean(axis=axis)) for axis in (1, 0))
    return Box(top, left, bottom, right)


def _span(shares: NDArray[np.float64]) -> tuple[int, int]:
    inside = np.flatnonzero(shares >= _CONTENT_SHARE)
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
