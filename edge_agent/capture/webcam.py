"""Take pictures of slices with a camera, a stream or a recording, and give each as a frame to read."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import structlog
from numpy.typing import NDArray

from edge_agent.capture.connection import Connection
from edge_agent.capture.device import kind_of
from edge_agent.capture.frame import CapturedFrame, FrameRefusedError
from edge_agent.capture.fuse import Fused
from edge_agent.capture.guidance import facts_of, guide
from edge_agent.capture.health import is_black
from edge_agent.capture.located import Locate
from edge_agent.capture.opened import Item, Unusable
from edge_agent.capture.shutter import Press, Seen, Shutter
from edge_agent.capture.webcam_settings import WebcamSettings
from edge_agent.refusal import Refusal, sentence

log = structlog.get_logger()

SOURCE_NAME = "webcam"
MAX_FRAMES_A_STEP = 32
"""Of a recording that goes fast; then the caller may look whether it is to stop."""
_MOST_DOUBLINGS = 5
"""Of the pause before a refused slice is taken again: a film that nobody turns is not photographed all night."""
PNG_COMPRESSION = 1
"""0..9; more makes noise no smaller, and takes three times as long."""


@dataclass(frozen=True)
class _Refused:
    key: str
    reason: str
    code: str = "unusable-frame"


class WebcamSource:
    """Satisfies `Source`; a context manager, since a camera is to be let go of.

    `locate` finds the slice, `press` is an event that the person sets to take a picture, `patient` returns whose
    slices are shown.
    """

    def __init__(
        self,
        settings: WebcamSettings,
        boot_id: str,
        *,
        locate: Locate | None = None,
        press: Press | None = None,
        patient: Callable[[], str] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Remember the parts; the camera is opened by the first step."""
        self._settings, self._boot_id = settings, boot_id
        self._patient = patient or (lambda: settings.patient_id or f"{SOURCE_NAME}:{boot_id}")
        self._patient_known = patient is not None or bool(settings.patient_id)
        self._is_recording = kind_of(settings.device).is_recording
        self._connection = Connection(settings, rng or random.Random())  # noqa: S311  it spreads retries, no secret
        self._shutter = Shutter(settings, locate, press)
        self._losses = self._count = 0
        self._last_s = 0.0
        self._offered: CapturedFrame | _Refused | None = None

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the camera; waits two seconds at most for a driver that hangs."""
        self._connection.close()

    @property
    def finished(self) -> bool:
        """Tell whether a recording has ended and all of it was taken."""
        return self._connection.finished and self._offered is None

    @property
    def seen(self) -> Seen | None:
        """Return the frame that was looked at last."""
        return self._shutter.seen

    @property
    def guidance(self) -> str:
        """Tell the person with the camera what to do, by the frame that was looked at last; empty before the first."""
        seen = self._shutter.seen
        return guide(facts_of(seen.pixels, seen.location)) if seen is not None else ""

    def step(self, now_s: float) -> CapturedFrame | None:
        """Return the picture that was taken, until it is `taken`; None while there is none.

        Raises `SourceError` while the camera gives nothing, `FrameRefusedError` for a picture that shows nothing.
        """
        if self._offered is None:
            self._offered = self._capture(now_s)
        if isinstance(self._offered, _Refused):
            raise FrameRefusedError(self._offered.key, self._offered.reason, self._offered.code)
        return self._offered

    def taken(self, key: str, now_s: float) -> None:  # noqa: ARG002  the frames' own times count here
        """Let the next picture be taken."""
        if self._offered is not None and self._offered.key == key:
            self._offered = None

    def take_again(self, refused: int = 1) -> None:
        """Take the slice in view again, though it is the same as the last: that one could not be used.

        Where so many pictures in a row were refused, the pause before it grows.
        """
        pause_s = self._settings.retake_after_s * 2.0 ** min(refused - 1, _MOST_DOUBLINGS)
        self._shutter.take_again(self._last_s + pause_s)

    def _capture(self, now_s: float) -> CapturedFrame | _Refused | None:
        for _ in range(MAX_FRAMES_A_STEP if self._settings.pace == "fast" else 1):
            item = self._next(now_s)
            if item is None:
                return self._offer(self._shutter.finish()) if self._connection.finished else None
            if isinstance(item, Unusable):
                return _Refused(self._new_key(), item.reason)
            self._last_s = item.at_s if self._is_recording else now_s
            if (offer := self._offer(self._shutter.see(item.pixels, self._last_s))) is not None:
                return offer
        return None

    def _next(self, now_s: float) -> Item | None:
        item = self._connection.next(now_s)
        if self._connection.losses != self._losses:
            self._losses = self._connection.losses
            self._shutter.interrupt()
        return item

    def _offer(self, fused: Fused | None) -> CapturedFrame | _Refused | None:
        if fused is None:
            return None
        key = self._new_key()
        if is_black(fused.pixels):
            return _Refused(key, sentence(Refusal.BLACK_FRAME), Refusal.BLACK_FRAME)
        log.info("picture taken", fused=fused.used, sharpness=round(fused.sharpness))
        return CapturedFrame(
            key=key,
            data=encoded(fused.pixels, self._settings),
            media_type=f"image/{self._settings.encoding}",
            source=SOURCE_NAME,
            patient_id=self._patient(),
            captured_at=datetime.now(UTC),
            patient_known=self._patient_known,
        )

    def _new_key(self) -> str:
        """Name the next picture: unique over all starts of the agent."""
        self._count += 1
        return f"{SOURCE_NAME} {self._boot_id} {self._count}"


def encoded(pixels: NDArray[np.uint8], settings: WebcamSettings) -> bytes:
    """Encode a picture uint8 [height, width, 3] as JPEG (6 ms for 1280x720) or PNG (130 ms)."""
    how = {
        "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, settings.jpeg_quality]),
        "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION]),
    }
    done, data = cv2.imencode(how[settings.encoding][0], pixels, how[settings.encoding][1])
    assert done, "OpenCV encodes any uint8 array"
    return bytes(data)
