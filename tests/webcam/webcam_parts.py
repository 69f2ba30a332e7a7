"""What a camera is made of here: simulated frames of phantom slices, recordings, a real MJPEG server on loopback."""

import random
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.capture.frame import CapturedFrame, FrameRefusedError, SourceError
from edge_agent.capture.webcam import WebcamSource
from edge_agent.capture.webcam_settings import WebcamSettings
from protocol.labels import Label
from training.data.phantom.sites import SITES
from training.data.phantom.slice import render_slice

Frame = NDArray[np.uint8]

BOOT = "boot1"
DEADLINE_S = 20.0
FPS = 25
HEIGHT, WIDTH = 360, 640
SIDE, LEFT, TOP = 280, 180, 40
QUAD = np.array([[LEFT, TOP], [LEFT + SIDE, TOP], [LEFT + SIDE, TOP + SIDE], [LEFT, TOP + SIDE]], np.float32)
EACH_FRAME = {"trigger": "interval", "interval_s": 0, "burst_frames": 1, "settle_max_s": 0, "pace": "fast"}
"""Settings with which every frame of a recording becomes a picture."""


# Frames.


@lru_cache
def phantom(patient: int = 0, z: float = 0.5) -> Frame:
    """Return a phantom slice uint8 [280, 280]."""
    whole = render_slice(seed=1, site=SITES["site-a"], label=Label.NORMAL, patient=patient, z=z)
    return np.asarray(cv2.resize(whole, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def scene(shown: Frame | None = None, *, noise: float = 2.0, seed: int = 0, gain: float = 1.0) -> Frame:
    """Return a simulated frame uint8 [360, 640, 3]: a grey page, with a slice on it where one is shown."""
    grains = np.roll(_grains()[seed % len(_grains())], 37 * seed, axis=(0, 1))
    return np.clip(page(shown) * gain + noise * grains, 0, 255).astype(np.uint8)


@lru_cache
def _grains() -> tuple[NDArray[np.float32], ...]:
    """Draw a few fields of noise with standard deviation 1; shifted, they are as good as many."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((HEIGHT, WIDTH, 3), np.float32) for _ in range(5))


def page(shown: Frame | None = None) -> NDArray[np.float32]:
    """Return the same without noise, as float."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    clean = np.repeat((90 + 20 * np.sin(x / 60) + 20 * np.cos(y / 45))[..., None], 3, axis=2)
    if shown is not None:
        clean[TOP : TOP + SIDE, LEFT : LEFT + SIDE] = shown[..., None]
    return clean


def shifted(frame: Frame, x: float, y: float, turn_degrees: float = 0.0) -> Frame:
    """Move a frame, as a hand does."""
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), turn_degrees, 1)
    matrix[:, 2] += x, y
    size = (frame.shape[1], frame.shape[0])
    moved = cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def decoded(frame: CapturedFrame) -> Frame:
    """Decode a captured frame."""
    pixels = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(pixels, np.uint8)


def area_of(pixels: Frame) -> Frame:
    """Cut the slice out of a scene."""
    return pixels[TOP : TOP + SIDE, LEFT : LEFT + SIDE, 1]


def likeness(pixels: Frame, shown: Frame) -> float:
    """Return the correlation of a scene's slice with a slice."""
    return float(np.corrcoef(area_of(pixels).ravel(), shown.ravel())[0, 1])


@dataclass(frozen=True)
class Place:
    """An honest answer of whoever finds the slice."""

    quad: NDArray[np.float32] | None
    score: float = 1.0
    reason: str = ""


def locate(frame: Frame) -> Place:
    """Find the slice of a scene by knowing where it can only be: there is one where there is contrast."""
    return Place(QUAD) if area_of(frame).std() > 40 else Place(None, 0.0, "no-slice")


# Recordings.


def video(path: Path, frames: Iterable[Frame], *, fps: int = FPS) -> Path:
    """Write MJPEG in AVI."""
    writer = None
    for frame in frames:
        if writer is None:
            size = (frame.shape[1], frame.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
            assert writer.isOpened()
        writer.write(frame)
    assert writer is not None
    writer.release()
    return path


def flat(level: int, size: tuple[int, int] = (120, 160)) -> Frame:
    """Return a frame of one grey, with an edge, so that it is not empty."""
    frame = np.full((*size, 3), level, np.uint8)
    frame[: size[0] // 8] = 255 - level
    return frame


def level_of(frame: CapturedFrame) -> int:
    """Return the grey that `flat` was made with, to about 3."""
    return round(float(decoded(frame)[60:].mean()))


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG of some 60 bytes whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# Sources.


def settings(device: int | str | Path, **chosen: Any) -> WebcamSettings:
    """Return settings for a device; a path is taken as text."""
    return WebcamSettings.model_validate({"device": str(device) if isinstance(device, Path) else device, **chosen})


def source(device: int | str | Path, **chosen: Any) -> WebcamSource:
    """Return a source; the keywords are settings, but for locate, press, patient and boot_id."""
    parts = {name: chosen.pop(name) for name in ("locate", "press", "patient") if name in chosen}
    boot_id = chosen.pop("boot_id", BOOT)
    return WebcamSource(settings(device, **chosen), boot_id, rng=random.Random(1), **parts)


def play(webcam: WebcamSource) -> tuple[list[CapturedFrame], dict[str, str]]:
    """Take every picture of a recording, as fast as it goes; return them, and the reasons of refused ones by key."""
    frames, refused = [], {}
    deadline_s = time.monotonic() + DEADLINE_S
    with webcam:
        while not webcam.finished:
            assert time.monotonic() < deadline_s, "the recording does not end"
            try:
                frame = webcam.step(time.monotonic())
            except FrameRefusedError as error:
                refused[error.key] = error.reason
                webcam.taken(error.key, 0.0)
            else:
                if frame is not None:
                    frames.append(frame)
                    webcam.taken(frame.key, 0.0)
    return frames, refused


class Watcher:
    """Steps a live source at a clock of its own, which may be made to jump, and keeps what it says."""

    def __init__(self, webcam: WebcamSource, step_s: float = 0.02) -> None:
        """Begin at 0."""
        self.webcam, self.step_s, self.now_s = webcam, step_s, 0.0
        self.frames: list[CapturedFrame] = []
        self.problem = ""
        self.problems: list[str] = []

    def step(self) -> None:
        """Go on by a step; take what comes."""
        self.now_s += self.step_s
        try:
            frame = self.webcam.step(self.now_s)
        except SourceError as error:
            if str(error) != self.problem:
                self.problems.append(str(error))
            self.problem = str(error)
        else:
            self.problem = ""
            if frame is not None:
                self.frames.append(frame)
                self.webcam.taken(frame.key, self.now_s)

    def until(self, condition: Callable[[], bool], step_s: float | None = None) -> None:
        """Step until the condition holds; `step_s` makes time go faster."""
        never, deadline_s = threading.Event(), time.monotonic() + DEADLINE_S
        self.step_s = step_s or self.step_s
        while not condition():
            assert time.monotonic() < deadline_s, f"nothing came; it says {self.problem!r}, and said {self.problems}"
            self.step()
            never.wait(0.005)

    def until_says(self, words: str, step_s: float | None = None) -> None:
        """Step until the source complains with these words."""
        self.until(lambda: words in self.problem, step_s)
