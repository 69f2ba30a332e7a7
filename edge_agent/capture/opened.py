"""Open what a setting names and read it frame by frame; each call may block, so a thread of its own does it."""

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import cv2
import numpy as np
from cv2 import videoio_registry
from numpy.typing import NDArray
from PIL import Image

from edge_agent.capture.device import DeviceKind, kind_of, named, picture_name
from edge_agent.capture.webcam_settings import WebcamSettings

DEFAULT_FPS = 25.0
"""Of a recording that does not say."""
MIN_SIDE_PX = 32
"""As in training.model.decode."""
_BACKENDS = {
    DeviceKind.CAMERA: cv2.CAP_ANY,
    DeviceKind.STREAM: cv2.CAP_FFMPEG,
    DeviceKind.GSTREAMER: cv2.CAP_GSTREAMER,
    DeviceKind.VIDEO: cv2.CAP_ANY,
}


class CameraError(RuntimeError):
    """A camera that cannot be opened or read; the message says what to do."""


@dataclass(frozen=True)
class Grabbed:
    """A usable frame, uint8 [height, width, 3] BGR; `at_s` is a recording's own time, 0 for what is live."""

    number: int
    at_s: float
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Unusable:
    """A frame that no picture can be made of, and why."""

    number: int
    at_s: float
    reason: str


Item = Grabbed | Unusable


class Opened(Protocol):
    """Something that gives frames until it ends."""

    def items(self) -> Iterator[Item]:
        """Give one frame after another; ends where the recording or the connection does."""

    def fell_short(self) -> str:
        """Say by how much a recording ended early; empty when it did not, or nothing is known."""


def open_device(settings: WebcamSettings) -> AbstractContextManager[Opened]:
    """Open the camera, stream or recording of the settings; raises `CameraError`."""
    if kind_of(settings.device) is DeviceKind.PICTURES:
        return _Pictures(settings)
    return _Video(settings)


def usable(pixels: NDArray[np.generic] | None, number: int, at_s: float, max_megapixels: float) -> Item:
    """Return a frame as BGR, or say why it is none: too large or small, not 8-bit, not grey or three-channel."""
    if pixels is None or pixels.ndim not in (2, 3):
        return Unusable(number, at_s, "no picture came out of the decoder; save or send it again")
    reason = wrong_size(pixels.shape[1], pixels.shape[0], max_megapixels)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if not reason and pixels.dtype != np.uint8:
        reason = f"{8 * pixels.itemsize}-bit frame ({pixels.dtype}); set the camera, or save it, as 8-bit"
    if not reason and channels not in (1, 3):
        reason = f"{channels}-channel frame; set the camera, or save it, as grey or three colours"
    if reason:
        return Unusable(number, at_s, reason)
    eight_bit = np.asarray(pixels, np.uint8)
    return Grabbed(number, at_s, eight_bit if channels == 3 else cv2.cvtColor(eight_bit, cv2.COLOR_GRAY2BGR))  # type: ignore[arg-type]


def wrong_size(width: float, height: float, max_megapixels: float) -> str:
    """Say what is wrong with a frame's size, in pixels; empty when nothing is."""
    if width * height >= max_megapixels * 1e6:
        return (
            f"{width:.0f}x{height:.0f} px are {width * height / 1e6:.3g} megapixels, the limit is "
            f"{max_megapixels:g}; set a smaller size"
        )
    if min(width, height) < MIN_SIDE_PX:
        return f"{width:.0f}x{height:.0f} px are no picture; at least {MIN_SIDE_PX}x{MIN_SIDE_PX} are needed"
    return ""


class _Video:
    """A camera, stream, pipeline or video file, read by OpenCV."""

    def __init__(self, settings: WebcamSettings) -> None:
        self._settings = settings
        self._kind = kind_of(settings.device)
        self._read = self._announced = 0

    def __enter__(self) -> Self:
        _check_possible(self._settings.device, self._kind)
        self._capture = _captured(self._settings, self._kind)
        if not self._capture.isOpened():
            self._capture.release()
            raise CameraError(f"{named(self._settings.device)} cannot be opened: {_ADVICE[self._kind]}")
        reason = self._refused_size()
        if reason:  # before a frame is made of it
            self._capture.release()
            raise CameraError(f"{named(self._settings.device)}: {reason}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._capture.release()

    def items(self) -> Iterator[Item]:
        clock = _RecordedTime(self._capture.get(cv2.CAP_PROP_FPS))
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._announced = int(count) if self._kind is DeviceKind.VIDEO and 0 < count < 2**31 else 0
        while self._capture.grab():
            at_s = clock.at_s(self._capture.get(cv2.CAP_PROP_POS_MSEC)) if self._kind.is_recording else 0.0
            ok, pixels = self._capture.retrieve()
            self._read += 1
            yield usable(pixels if ok else None, self._read, at_s, self._settings.max_megapixels)

    def fell_short(self) -> str:
        if self._read + 1 >= self._announced:  # containers count one too many now and then
            return ""
        return f"{self._announced} frames are announced in it: it is cut off or damaged; record or copy it again"

    def _refused_size(self) -> str:
        width, height = self._capture.get(cv2.CAP_PROP_FRAME_WIDTH), self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        return wrong_size(width, height, self._settings.max_megapixels) if width > 0 and height > 0 else ""


class _Pictures:
    """A sequence of pictures: read one by one, since OpenCV's own reader ends without a word at the first bad one."""

    def __init__(self, settings: WebcamSettings) -> None:
        self._settings = settings
        self._pattern = Path(str(settings.device))

    def __enter__(self) -> Self:
        name = picture_name(self._pattern.name)
        folder = self._pattern.parent
        found = ((name.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ()))
        self._paths = [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]
        if not self._paths:
            raise CameraError(f"{named(self._settings.device)}: no picture has such a name; check the pattern")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing stays open between two pictures."""

    def items(self) -> Iterator[Item]:
        fps = self._settings.fps or DEFAULT_FPS
        for number, path in enumerate(self._paths, start=1):
            yield self._item(path, number, (number - 1) / fps)

    def fell_short(self) -> str:
        return ""

    def _item(self, path: Path, number: int, at_s: float) -> Item:
        """Read a picture; its header is looked at first, so that a huge one takes no memory."""
        limit = self._settings.max_megapixels
        try:
            with Image.open(path) as header:
                reason = wrong_size(header.width, header.height, limit)
            pixels = None if reason else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, cv2.error) as error:
            return Unusable(number, at_s, f"picture {number} of the sequence is damaged ({type(error).__name__})")
        return Unusable(number, at_s, reason) if reason else usable(pixels, number, at_s, limit)


class _RecordedTime:
    """The time of a recording's frames, growing even where its container does not say it."""

    def __init__(self, fps: float) -> None:
        self._frame_s = 1 / (fps if 0 < fps < 1e3 else DEFAULT_FPS)
        self._last_s = -self._frame_s

    def at_s(self, position_ms: float) -> float:
        """Return the seconds since the first frame."""
        said_s = position_ms / 1e3
        self._last_s = said_s if said_s > self._last_s else self._last_s + self._frame_s
        return self._last_s


_ADVICE = {
    DeviceKind.CAMERA: "check the cable, that no other program has it, and edge.webcam.device; it is tried again",
    DeviceKind.STREAM: "check that it is on, the network, and edge.webcam.device; it is tried again",
    DeviceKind.GSTREAMER: "try it with gst-launch-1.0, with autovideosink in place of appsink",
    DeviceKind.VIDEO: "it is no video that this OpenCV reads; record it as MJPEG in AVI or H.264 in MP4",
}


def _check_possible(device: int | str, kind: DeviceKind) -> None:
    """Name what OpenCV would not."""
    if kind is DeviceKind.VIDEO and not Path(str(device)).is_file():
        raise CameraError(f"{named(device)} does not exist; check edge.webcam.device")
    backend = _BACKENDS[kind]
    if backend != cv2.CAP_ANY and not videoio_registry.hasBackend(backend):
        name = videoio_registry.getBackendName(backend)
        raise CameraError(f"{named(device)} cannot be opened: this OpenCV is built without {name}; install one with it")


def _captured(settings: WebcamSettings, kind: DeviceKind) -> cv2.VideoCapture:
    match kind:
        case DeviceKind.STREAM:  # one that does not know these two parameters would not open
            limits = (
                (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, settings.open_timeout_s),
                (cv2.CAP_PROP_READ_TIMEOUT_MSEC, settings.stall_timeout_s),
            )
            params = list(itertools.chain.from_iterable((name, round(value_s * 1e3)) for name, value_s in limits))
            return cv2.VideoCapture(str(settings.device), _BACKENDS[kind], params)
        case DeviceKind.CAMERA:
            capture = cv2.VideoCapture(settings.device, _BACKENDS[kind])
            _ask(capture, settings)
            return capture
        case _:
            return cv2.VideoCapture(str(settings.device), _BACKENDS[kind])


def _ask(capture: cv2.VideoCapture, settings: WebcamSettings) -> None:
    """Ask for format and size; a camera that cannot gives what it has, which is as good."""
    wishes = {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*settings.fourcc) if settings.fourcc else None,
        cv2.CAP_PROP_FRAME_WIDTH: settings.width,
        cv2.CAP_PROP_FRAME_HEIGHT: settings.height,
        cv2.CAP_PROP_FPS: settings.fps,
        cv2.CAP_PROP_BUFFERSIZE: 1,
    }
    for name, value in wishes.items():
        if value is not None:
            capture.set(name, value)
