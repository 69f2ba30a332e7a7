"""Decide when a picture is taken, collect its burst, and fuse it; driven by frames and their times, without a clock."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.capture.fuse import Fused, fuse
from edge_agent.capture.located import Locate, Located
from edge_agent.capture.stillness import (
    SettleLimits,
    Settling,
    StillLimits,
    StillWatch,
    View,
    exposure,
    view_of,
)
from edge_agent.capture.webcam_settings import WebcamSettings

MAX_BURST_BYTES = 256 * 1024 * 1024
"""Of frames that are kept for one picture: 16 of 1280x720, but two of 40 megapixels."""


class Press(Protocol):
    """The key, as a threading.Event: whoever sees it pressed takes it back."""

    def is_set(self) -> bool:
        """Tell whether it was pressed."""

    def clear(self) -> None:
        """Take it back."""


@dataclass(frozen=True)
class Seen:
    """The frame that was looked at last, and where the slice lies in it; None when nobody looks for it."""

    pixels: NDArray[np.uint8]
    location: Located | None


class Shutter:
    """Takes in the frames of a camera one after another, and gives a fused picture now and then."""

    def __init__(self, settings: WebcamSettings, locate: Locate | None, press: Press | None) -> None:
        """Remember when to take a picture, and how to find the slice."""
        self._settings, self._locate, self._press = settings, locate, press
        self._settling = Settling(SettleLimits(settings.settle_frames, settings.settle_mean, settings.settle_spread))
        self._watch = StillWatch(
            StillLimits(settings.still_s, settings.still_change, settings.new_slice_change, settings.moved_share)
        )
        self._burst: list[NDArray[np.uint8]] = []
        self._is_still = False
        self._next_look_s = self._due_s = float("-inf")
        self._wanted_s: float | None = None
        self.seen: Seen | None = None

    def see(self, pixels: NDArray[np.uint8], at_s: float) -> Fused | None:
        """Take in a frame uint8 [height, width, 3] of this time; return the picture that it completes, if any."""
        self._settling.add(exposure(pixels))
        self._look(pixels, at_s)
        if not self._burst and not self._begins(at_s):
            return None
        self._burst.append(pixels)
        return self.finish() if len(self._burst) >= self._frames_of(pixels) else None

    def finish(self) -> Fused | None:
        """Fuse what the burst has so far, for instance because the recording is over."""
        burst, self._burst = self._burst, []
        location = self.seen.location if self.seen is not None else None
        return fuse(burst, location.quad if location is not None else None) if burst else None

    def interrupt(self) -> None:
        """Drop a burst that began: the camera was lost, and what comes next may show something else."""
        self._burst = []
        self._settling.forget()
        self._wanted_s = None
        self._is_still = self._watch.see(None, 0.0)

    def take_again(self, after_s: float) -> None:
        """Let the slice that was taken last be taken again after this time; at an interval that happens anyway."""
        if self._settings.trigger == "still":
            self._watch.forget_taken()
            self._due_s = max(self._due_s, after_s)

    def _look(self, pixels: NDArray[np.uint8], at_s: float) -> None:
        if self._settings.trigger != "still":
            self.seen = Seen(pixels, None)
            return
        if self._burst or at_s < self._next_look_s:
            return
        self._next_look_s = at_s + self._settings.look_every_s
        location = self._locate(pixels) if self._locate is not None else None
        self.seen = Seen(pixels, location)
        if location is not None and location.quad is None:  # what was to be taken again is gone
            self._due_s = float("-inf")
        self._is_still = self._watch.see(_view(pixels, location), at_s)

    def _begins(self, at_s: float) -> bool:
        """Tell whether a burst begins: it is wanted, and exposure has settled or was waited for long enough."""
        if not self._is_wanted(at_s):
            self._wanted_s = None
            return False
        if self._wanted_s is None:
            self._wanted_s = at_s
        if not self._settling.has_settled and at_s - self._wanted_s < self._settings.settle_max_s:
            return False
        self._begun(at_s)
        return True

    def _is_wanted(self, at_s: float) -> bool:
        if self._press is not None and self._press.is_set():
            return True
        match self._settings.trigger:
            case "interval":
                return at_s >= self._due_s
            case "still":
                return self._is_still and at_s >= self._due_s
            case "key":
                return False

    def _begun(self, at_s: float) -> None:
        if self._press is not None:
            self._press.clear()
        if self._settings.trigger == "interval":
            self._due_s = at_s + self._settings.interval_s
        self._watch.took()
        self._wanted_s, self._is_still = None, False

    def _frames_of(self, pixels: NDArray[np.uint8]) -> int:
        return min(self._settings.burst_frames, max(1, MAX_BURST_BYTES // pixels.nbytes))


def _view(pixels: NDArray[np.uint8], location: Located | None) -> View | None:
    if location is None:
        return view_of(pixels, None)
    return view_of(pixels, location.quad) if location.quad is not None else None
