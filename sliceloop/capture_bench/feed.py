"""Feed rendered frames to the real camera source, as a video file or as MJPEG over HTTP, and take what it gives."""

import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.capture.frame import FrameRefusedError, SourceError
from edge_agent.capture.health import is_black
from edge_agent.capture.located import Locate
from edge_agent.capture.webcam import WebcamSource
from edge_agent.capture.webcam_settings import WebcamSettings
from edge_agent.refusal import Refusal, sentence

Picture = NDArray[np.uint8]
FeedKind = Literal["file", "http"]

VIDEO_QUALITY = 100
"""Of the MJPEG that carries the frames, 0..100: the simulated camera's own JPEG has come before."""
FPS = 25
UNUSABLE = "unusable-frame"
"""What the camera source refuses for a reason that no `Refusal` names."""
_DEADLINE_S = 60.0
"""For one frame, also on a busy machine."""
_REPEAT_S, _IDLE_S = 0.04, 1.0
"""A frame is sent again until it has come; then once a second, so that the stream does not stall."""
_LOOK_S = 0.005
_THUMBNAIL_STEP = 8


class FeedError(RuntimeError):
    """Frames got lost between us and the camera source; the message says how many."""


@dataclass(frozen=True)
class Arrived:
    """What the camera source gave for a frame: the bytes that an edge would keep, or why it gave none."""

    jpeg: bytes | None
    refusal: str = ""


class Feed(Protocol):
    """A way to the camera source; a context manager."""

    def __enter__(self) -> Self:
        """Open it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""

    def take(self, frames: Sequence[Picture]) -> list[Arrived]:
        """Return what came of each frame uint8 [height, width, 3], in their order; raises `FeedError`."""


def open_feed(kind: FeedKind) -> Feed:
    """Return the feed of this name."""
    return FileFeed() if kind == "file" else HttpFeed()


def each_frame(device: str) -> WebcamSettings:
    """Return the settings with which every frame of a rendered stream becomes a picture."""
    return WebcamSettings(
        device=device,
        trigger="interval",
        interval_s=0,
        burst_frames=1,
        settle_max_s=0,
        pace="fast",
        frozen_after_s=0,
    )


def camera_source(settings: WebcamSettings, locate: Locate | None = None) -> WebcamSource:
    """Return the edge's own camera source."""
    return WebcamSource(settings, "bench", locate=locate, rng=random.Random(0))  # noqa: S311  it spreads retries


def refusal_code(reason: str) -> str:
    """Return the code of what the camera source said."""
    return next((str(refusal) for refusal in Refusal if sentence(refusal) == reason), UNUSABLE)


class FileFeed:
    """Each part of the frames is written as MJPEG in AVI, and read by a camera source of its own."""

    def __enter__(self) -> Self:
        """Make a folder for the video."""
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sliceloop-capture-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove it."""
        self._stack.close()

    def take(self, frames: Sequence[Picture]) -> list[Arrived]:
        """Return what came of each frame; raises `FeedError`."""
        path = self._folder / "frames.avi"
        write_video(path, frames)
        with camera_source(each_frame(str(path))) as source:
            arrived = list(arriving(source))
        if len(arrived) != len(frames):
            raise FeedError(f"{len(arrived)} of {len(frames)} frames of a video came out of the camera source")
        return arrived


class HttpFeed:
    """A small MJPEG server on loopback, which shows a frame until the camera source has given it."""

    def __enter__(self) -> Self:
        """Listen, and let the camera source look."""
        self._over = threading.Event()
        self._current: bytes | None = None
        self._is_awaited = threading.Event()
        self._last: Picture | None = None
        self._server = _listening(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="capture-bench-mjpeg", daemon=True
        )
        self._thread.start()
        settings = each_frame(f"http://127.0.0.1:{self._server.server_port}/frames.mjpg")
        self._source = camera_source(settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the source, then the server."""
        self._over.set()
        self._source.__exit__(kind, error, traceback)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_DEADLINE_S)

    def take(self, frames: Sequence[Picture]) -> list[Arrived]:
        """Return what came of each frame; raises `FeedError`."""
        return [self._take(frame) for frame in frames]

    def send(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a reader with the current frame, again and again."""
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        while not self._over.is_set():
            jpeg = self._current
            if jpeg is not None:
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                try:
                    request.wfile.write(head + jpeg + b"\r\n")
                except OSError:  # the source has gone
                    return
            if self._is_awaited.is_set():
                self._over.wait(_REPEAT_S)
            else:
                self._is_awaited.wait(_IDLE_S)

    def _take(self, frame: Picture) -> Arrived:
        if is_black(frame):  # of a live camera such a frame never comes
            return Arrived(None, Refusal.BLACK_FRAME)
        _, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, VIDEO_QUALITY])
        self._current = encoded.tobytes()
        self._is_awaited.set()
        deadline_s = time.monotonic() + _DEADLINE_S
        while time.monotonic() < deadline_s:
            arrived = self._step()
            if arrived is not None and (arrived.jpeg is None or self._is_new(arrived.jpeg, frame)):
                self._is_awaited.clear()
                self._last = frame
                return arrived
            self._over.wait(_LOOK_S)
        raise FeedError(f"a frame did not come through the MJPEG stream within {_DEADLINE_S:g} s")

    def _step(self) -> Arrived | None:
        try:
            captured = self._source.step(time.monotonic())
        except SourceError:  # not open yet, or lost; it opens again by itself
            return None
        except FrameRefusedError as error:
            self._source.taken(error.key, time.monotonic())
            return Arrived(None, refusal_code(str(error)))
        if captured is None:
            return None
        self._source.taken(captured.key, time.monotonic())
        return Arrived(captured.data)

    def _is_new(self, jpeg: bytes, frame: Picture) -> bool:
        """Tell whether this is the frame that is shown now, and not the one before it."""
        if self._last is None:
            return True
        came = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        return came is not None and _distance(came, frame) <= _distance(came, self._last)


def write_video(path: Path, frames: Sequence[Picture], fps: float = FPS) -> None:
    """Write frames uint8 [height, width, 3] of one size as MJPEG in AVI; raises `FeedError`."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(
        str(path),
        cv2.CAP_OPENCV_MJPEG,
        cv2.VideoWriter.fourcc(*"MJPG"),
        fps,
        (width, height),
        [cv2.VIDEOWRITER_PROP_QUALITY, VIDEO_QUALITY],
    )
    if not writer.isOpened():
        raise FeedError(f"{path.name} cannot be written; check the temporary folder's space and rights")
    for frame in frames:
        writer.write(frame)
    writer.release()


def arriving(source: WebcamSource) -> Iterator[Arrived]:
    """Give each picture that the camera source takes of a recording, until its end; raises `FeedError`."""
    deadline_s = time.monotonic() + _DEADLINE_S
    while not source.finished:
        try:
            captured = source.step(time.monotonic())
        except FrameRefusedError as error:
            source.taken(error.key, time.monotonic())
            yield Arrived(None, refusal_code(str(error)))
        except SourceError as error:
            raise FeedError(str(error)) from error
        else:
            if captured is None:
                if time.monotonic() > deadline_s:
                    raise FeedError(f"no picture came out of the camera source within {_DEADLINE_S:g} s")
                continue
            source.taken(captured.key, time.monotonic())
            yield Arrived(captured.data)
        deadline_s = time.monotonic() + _DEADLINE_S


def _listening(feed: HttpFeed) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            feed.send(self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server


def _distance(one: NDArray[np.generic], other: Picture) -> float:
    step = _THUMBNAIL_STEP
    return float(np.abs(one[::step, ::step].astype(np.int16) - other[::step, ::step]).mean())
