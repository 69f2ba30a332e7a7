"""Where slices come in: a folder or a camera, what makes of its frames what a network reads, and what it refuses."""

import math
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from edge_agent.calibration import Calibration, CalibrationError, parse_calibration
from edge_agent.capture.frame import CapturedFrame, FrameRefusedError, Source
from edge_agent.capture.guidance import READY
from edge_agent.capture.replay import ReplaySource
from edge_agent.capture.shutter import Seen
from edge_agent.capture.webcam import WebcamSource
from edge_agent.capture.webcam_settings import WebcamSettings
from edge_agent.crop import crop
from edge_agent.develop import Development, PictureRefusedError
from edge_agent.intake import Intake, UnreadableIntakeError, shipped_network
from edge_agent.locate import locate
from edge_agent.outbox import Outbox
from edge_agent.refused_pictures import RefusedPictures
from edge_agent.settings import EdgeSettings
from training.model.decode import decode_image
from training.model.preprocess import Frame

REFUSED_FOLDER = "refused-pictures"
"""In the data folder."""
TAKEN = "Taken and read: show the next slice."


class Inlet(Source, Protocol):
    """A source with its preparation; a camera's also says what the person should do, and what was refused why."""

    @property
    def guidance(self) -> str:
        """Return what the person with the camera should do now; empty where there is no camera."""

    @property
    def refusals(self) -> Mapping[str, int]:
        """Return how many pictures of the camera were refused since the start, by reason code."""

    @property
    def most_unlike(self) -> float:
        """Return above which unlikeness of what a network learnt from its reading is refused."""

    def prepare(self, data: bytes) -> Frame:
        """Make of a frame's bytes what a network reads, uint8 [256, 256].

        Raises `ImageError`, `BlankFrameError` or `PictureRefusedError` for one that must not be read.
        """

    def refuse(self, key: str, error: Exception, now_s: float, frame: CapturedFrame | None = None) -> None:
        """Hear that a frame is refused for good, and why; the next may come."""


class FolderInlet:
    """Files of a folder: cropped as they are, and remembered when refused, so that they are not tried again."""

    guidance = ""
    refusals: Mapping[str, int] = {}
    most_unlike = math.inf
    """A file is read, however unlike: it cannot be taken again."""

    def __init__(self, source: ReplaySource, outbox: Outbox) -> None:
        """Remember the parts."""
        self._source, self._outbox = source, outbox
        self.step, self.taken = source.step, source.taken

    def prepare(self, data: bytes) -> Frame:
        """Decode and crop a file; raises `ImageError` or `BlankFrameError`."""
        return crop(decode_image(data)).pixels

    def refuse(self, key: str, error: Exception, now_s: float, frame: CapturedFrame | None = None) -> None:  # noqa: ARG002
        """Write down why; raises `OutboxError`."""
        self._outbox.refuse(key, str(error))
        self._source.taken(key, now_s)


class CameraInlet:
    """Pictures of a camera: developed, and when refused counted, kept within a budget, and taken again."""

    def __init__(self, source: WebcamSource, development: Development, kept: RefusedPictures) -> None:
        """Remember the parts."""
        self._source, self._development, self._kept = source, development, kept
        self.step = source.step
        self._counts: Counter[str] = Counter()
        self._seen: Seen | None = None
        self._guidance = self._outcome = ""
        self._refused_in_a_row = 0

    @property
    def guidance(self) -> str:
        """Return what to do by the frame that was looked at last; where that is good, what became of the picture."""
        if (seen := self._source.seen) is not self._seen:
            self._seen, self._guidance = seen, self._source.guidance
            if seen is not None and seen.location is not None and seen.location.quad is None:
                self._outcome, self._refused_in_a_row = "", 0
        return self._outcome if self._outcome and self._guidance == READY else self._guidance

    @property
    def refusals(self) -> Mapping[str, int]:
        """Return the counts by reason code."""
        return self._counts

    @property
    def most_unlike(self) -> float:
        """Return the limit of the settings."""
        return self._development.most_unlike

    def taken(self, key: str, now_s: float) -> None:
        """Let the next picture be taken, and tell the person so."""
        self._outcome, self._refused_in_a_row = TAKEN, 0
        self._source.taken(key, now_s)

    def prepare(self, data: bytes) -> Frame:
        """Develop a picture; raises `PictureRefusedError`."""
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return self._development(np.asarray(picture)).pixels

    def refuse(self, key: str, error: Exception, now_s: float, frame: CapturedFrame | None = None) -> None:
        """Count the reason that the person is told, keep the picture, and have it taken again."""
        codes = error.refusals if isinstance(error, PictureRefusedError) else (_code(error),)
        self._counts[codes[0]] += 1
        if frame is not None:
            self._kept.add(frame, codes, str(error))
        self._source.taken(key, now_s)
        self._refused_in_a_row += 1
        self._source.take_again(self._refused_in_a_row)
        self._outcome = str(error)


@contextmanager
def open_inlet(settings: EdgeSettings, boot_id: str, outbox: Outbox, stop: threading.Event) -> Iterator[Inlet]:
    """Open the source that the settings name; raises `InletFileError` for a calibration or intake file."""
    if settings.webcam is not None:
        with _camera_inlet(settings, settings.webcam, boot_id, stop) as inlet:
            yield inlet
    elif settings.replay is not None:
        source = ReplaySource(settings.replay, outbox.is_captured, max_file_bytes=settings.max_file_bytes)
        yield FolderInlet(source, outbox)


class InletFileError(ValueError):
    """A calibration or an intake network that cannot be used; the message names the file, and says what to do."""


def load_calibration(path: Path | None) -> Calibration | None:
    """Read the camera's calibration, if there is one; raises `InletFileError`."""
    if path is None:
        return None
    try:
        return parse_calibration(path.read_bytes())
    except CalibrationError as error:
        raise InletFileError(f"calibration {path}: {error}") from error


def load_intake(path: Path | None) -> Intake:
    """Read the intake network, or the one that comes with the program; raises `InletFileError`."""
    if path is None:
        return Intake(shipped_network())
    try:
        return Intake(path.read_bytes())
    except UnreadableIntakeError as error:
        raise InletFileError(f"intake network {path}: {error}") from error


@contextmanager
def _camera_inlet(
    settings: EdgeSettings, webcam: WebcamSettings, boot_id: str, stop: threading.Event
) -> Iterator[CameraInlet]:
    """Open a camera with its development; the person at the terminal takes a picture with Enter."""
    development = Development(
        settings.development, load_calibration(settings.calibration_file), load_intake(settings.intake_file)
    )
    kept = RefusedPictures(settings.data_dir / REFUSED_FOLDER, settings.max_refused_bytes)
    press = threading.Event()
    if sys.stdin is not None and sys.stdin.isatty():
        threading.Thread(target=_presses, args=(press, stop), name="edge-key", daemon=True).start()
    with WebcamSource(webcam, boot_id, locate=locate, press=press) as source:
        yield CameraInlet(source, development, kept)


def _presses(press: threading.Event, stop: threading.Event) -> None:
    """Set the event for each line that the person enters; the terminal's end ends it."""
    for _ in sys.stdin:
        if stop.is_set():
            return
        press.set()


def _code(error: Exception) -> str:
    return error.code if isinstance(error, FrameRefusedError) else "unusable-frame"
