"""One thread that owns a camera and keeps its newest frame, so that nobody else ever waits for a driver."""

import threading
from collections import deque
from enum import Enum, auto

import structlog

from edge_agent.capture.device import kind_of
from edge_agent.capture.opened import CameraError, Item, open_device
from edge_agent.capture.webcam_settings import WebcamSettings

log = structlog.get_logger()

MAX_WAITING = 2
"""Frames of a recording that are read ahead."""


class Phase(Enum):
    """How far a camera is."""

    OPENING = auto()
    OPEN = auto()
    ENDED = auto()
    FAILED = auto()


class Camera:
    """A camera from its opening to its end; `take` never blocks longer than it is told to."""

    def __init__(self, settings: WebcamSettings) -> None:
        """Remember what to open."""
        self._settings = settings
        self._keeps_all = kind_of(settings.device).is_recording
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._phase = Phase.OPENING
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)

    def start(self) -> None:
        """Begin to open it."""
        self._thread.start()

    @property
    def phase(self) -> Phase:
        """Return how far it is; what was read before its end can still be taken."""
        with self._changed:
            return Phase.OPEN if self._items else self._phase

    @property
    def problem(self) -> str:
        """Say why it failed, or what was missing when it ended."""
        with self._changed:
            return self._problem

    @property
    def is_running(self) -> bool:
        """Tell whether its thread is still there, perhaps stuck in a driver."""
        return self._thread.is_alive()

    def take(self, wait_s: float = 0.0) -> Item | None:
        """Return the newest frame (of a recording the next) that nobody took yet, waiting for it so long at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._phase in (Phase.ENDED, Phase.FAILED), wait_s)
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()

    def close(self) -> None:
        """Ask the thread to end; it does as soon as the driver lets go of it."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; return whether it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with open_device(self._settings) as opened:
                self._turn(Phase.OPEN)
                for item in opened.items():
                    if not self._keep(item):
                        return
                self._turn(Phase.ENDED, opened.fell_short())
        except CameraError as error:
            self._turn(Phase.FAILED, str(error))
        except Exception as error:  # the top of a thread: whoever takes frames hears of it, and opens another
            log.exception("camera failed")
            self._turn(Phase.FAILED, f"the camera's driver failed ({type(error).__name__}); see the log")

    def _keep(self, item: Item) -> bool:
        """Put a frame where it is taken from: instead of an older one, or behind it; False when it is over."""
        with self._changed:
            if self._keeps_all:
                self._changed.wait_for(lambda: self._closed or len(self._items) < MAX_WAITING)
            else:
                self._items.clear()
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def _turn(self, phase: Phase, problem: str = "") -> None:
        with self._changed:
            self._phase, self._problem = phase, problem
            self._changed.notify_all()
