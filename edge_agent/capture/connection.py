"""Keep a camera open: give its frames, name what is wrong with it, and open it again with growing pauses."""

import random

import structlog

from broker.backoff import backoff_s
from edge_agent.capture.camera import Camera, Phase
from edge_agent.capture.device import kind_of, named
from edge_agent.capture.frame import SourceError
from edge_agent.capture.health import Health
from edge_agent.capture.opened import Grabbed, Item, Unusable
from edge_agent.capture.webcam_settings import WebcamSettings
from edge_agent.refusal import sentence

log = structlog.get_logger()

MAX_STUCK = 3
"""Threads that hang in a driver; with so many the camera is not opened once more until one comes back."""
CLOSE_WAIT_S = 2.0
"""A stop waits for the driver no longer than this; the thread is a daemon."""
READ_WAIT_S = 0.02
"""A recording that goes fast is waited for so long; a live camera never."""


class Connection:
    """The frames of a camera over all its lives, at the caller's clock; closed when the `with` ends."""

    def __init__(self, settings: WebcamSettings, rng: random.Random) -> None:
        """Remember what to open."""
        self._settings, self._rng = settings, rng
        self._kind = kind_of(settings.device)
        self._camera: Camera | None = None
        self._stuck: list[Camera] = []
        self._health = Health(settings.black_after_s, settings.frozen_after_s)
        self._problem = ""
        self._attempt = 0
        self._opened_s = self._retry_s = self._heard_s = 0.0
        self._is_open = False
        self._ahead: Item | None = None
        self._begin_s: float | None = None
        self._read = 0
        self.losses = 0
        """How often frames stopped coming: whoever fuses several begins anew."""
        self.finished = False
        """Whether a recording has come to its end."""

    def __enter__(self) -> "Connection":
        """Nothing is opened before the first frame is asked for."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the camera."""
        self.close()

    def close(self) -> None:
        """Close the camera; a driver that does not let go is left behind."""
        if self._camera is not None:
            self._let_go(self._camera)
            self._camera = None
        if not all(camera.join(CLOSE_WAIT_S / MAX_STUCK) for camera in self._stuck):
            log.warning("camera left behind", device=named(self._settings.device), reason="its driver does not return")

    def next(self, now_s: float) -> Item | None:
        """Return the newest frame (of a recording the one that is due), or None; raises `SourceError`."""
        if self.finished:
            raise SourceError(self._problem)
        camera = self._camera or self._open(now_s)
        if self._kind.is_recording:
            return self._recorded(camera, now_s)
        return self._live(camera, now_s)

    def _open(self, now_s: float) -> Camera:
        if now_s < self._retry_s:
            raise SourceError(self._problem)
        self._stuck = [camera for camera in self._stuck if camera.is_running]
        if len(self._stuck) >= MAX_STUCK:
            raise SourceError(
                f"{self._name} hangs in its driver ({MAX_STUCK} times); unplug it, or restart the agent if that is "
                "no help"
            )
        self._camera = Camera(self._settings)
        self._health = Health(self._settings.black_after_s, self._settings.frozen_after_s)
        self._opened_s = self._heard_s = now_s
        self._is_open = False
        self._camera.start()
        return self._camera

    def _live(self, camera: Camera, now_s: float) -> Item | None:
        item = camera.take()
        if item is None:
            self._check(camera, now_s)
            self._complain()
            return None
        self._heard_s = now_s
        if isinstance(item, Unusable):  # the next ones would be no better
            self._lose(camera, f"{self._name}: {item.reason}", now_s)
            self._complain()
            return None
        return self._healthy(camera, item, now_s)

    def _healthy(self, camera: Camera, frame: Grabbed, now_s: float) -> Item | None:
        fault = self._health.see(frame.pixels, now_s)
        if fault is not None:
            self._lose(camera, f"{self._name}: {sentence(fault)}", now_s)
        if not self._health.is_good or fault is not None:
            self._complain()
            return None
        if self._problem:
            log.info("camera is back", device=self._name)
        self._problem = ""
        if now_s - self._opened_s >= self._settings.reconnect_max_s:  # a loose plug does not come here
            self._attempt = 0
        return frame

    def _complain(self) -> None:
        """Go on saying what is wrong until a good frame comes."""
        if self._problem:
            raise SourceError(self._problem)

    def _recorded(self, camera: Camera, now_s: float) -> Item | None:
        is_fast = self._settings.pace == "fast"
        item = self._next_recorded(camera, READ_WAIT_S) if is_fast else self._due(camera, now_s)
        if item is not None or self._ahead is not None:
            self._heard_s, self._problem = now_s, ""
            return item
        self._check(camera, now_s)
        if not self.finished:
            self._complain()
        return None

    def _due(self, camera: Camera, now_s: float) -> Item | None:
        """Return the newest frame whose time has come; those before it are dropped, as a camera's would be."""
        newest = None
        while (item := self._ahead or self._next_recorded(camera, 0.0)) is not None:
            self._ahead = item
            if self._begin_s is None:
                self._begin_s = now_s - item.at_s
            if item.at_s > now_s - self._begin_s:
                break
            newest, self._ahead = item, None
        return newest

    def _next_recorded(self, camera: Camera, wait_s: float) -> Item | None:
        item = camera.take(wait_s)
        self._read += item is not None
        return item

    def _check(self, camera: Camera, now_s: float) -> None:
        """Look why no frame comes; a recording that began is never opened again, or its slices would be read twice."""
        match camera.phase:
            case Phase.FAILED if self._kind.is_recording and self._read:
                self._finish(camera, camera.problem)
            case Phase.FAILED:
                self._lose(camera, camera.problem, now_s)
            case Phase.ENDED if self._kind.is_recording:
                self._finish(camera, camera.problem)
            case Phase.ENDED:
                self._lose(camera, f"{self._name} gives no more frames; it is opened again when it is back", now_s)
            case Phase.OPENING if now_s - self._heard_s > self._settings.open_timeout_s:
                waited = f"did not open within {self._settings.open_timeout_s:g} s"
                self._lose(camera, f"{self._name} {waited}; check it, it is tried again", now_s)
            case Phase.OPEN if not self._is_open:
                self._is_open, self._heard_s = True, now_s
            case Phase.OPEN if now_s - self._heard_s > self._settings.stall_timeout_s:
                self._stalled(camera, f"gave no frame for {self._settings.stall_timeout_s:g} s", now_s)

    def _stalled(self, camera: Camera, waited: str, now_s: float) -> None:
        if self._kind.is_recording:
            self._finish(camera, f"it {waited}; check the disk")
        else:
            self._lose(camera, f"{self._name} {waited}; it is opened again", now_s)

    def _lose(self, camera: Camera, problem: str, now_s: float) -> None:
        self._let_go(camera)
        self._camera, self._problem = None, problem
        self.losses += 1
        pause_s = backoff_s(self._attempt, self._settings.reconnect_min_s, self._settings.reconnect_max_s, self._rng)
        self._attempt, self._retry_s = self._attempt + 1, now_s + pause_s
        log.warning("camera lost", reason=problem, attempt=self._attempt, next_try_s=round(pause_s, 1))

    def _finish(self, camera: Camera, short: str) -> None:
        self._let_go(camera)
        self._camera, self.finished = None, True
        after = f"{self._name} has ended after {self._read} frames"
        self._problem = f"{after}, but {short}" if short else f"{after}; nothing is left to read"
        log.info("recording ended", frames=self._read, missing=short)

    def _let_go(self, camera: Camera) -> None:
        camera.close()
        self._ahead = None
        self._stuck.append(camera)

    @property
    def _name(self) -> str:
        return named(self._settings.device)
