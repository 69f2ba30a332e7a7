"""Find the slice in a camera's frame: pure functions on arrays, with numpy and OpenCV alone."""

from edge_agent.locate.bgr import FrameError, FrameFormatError, FrameTooLargeError, FrameTooSmallError, as_bgr
from edge_agent.locate.location import Location, locate

__all__ = [
    "FrameError",
    "FrameFormatError",
    "FrameTooLargeError",
    "FrameTooSmallError",
    "Location",
    "as_bgr",
    "locate",
]
