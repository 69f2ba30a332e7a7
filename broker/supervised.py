"""A named thread whose failure stops its process, so that whoever supervises the process starts it afresh."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

log = structlog.get_logger()


class ThreadFailedError(RuntimeError):
    """A thread ended by an exception; its traceback is in the log."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} failed; see the log. The process ends, to be started again")
        self.name = name


class SupervisedThread:
    """Runs `work` in a thread from `with` on; leaving sets the stop event, joins, and raises when it had failed."""

    def __init__(
        self, name: str, work: Callable[[], None], stop: threading.Event, *, join_timeout_s: float = 15.0
    ) -> None:
        """Remember the work and the process's one stop event."""
        self._name, self._work, self._stop, self._join_timeout_s = name, work, stop, join_timeout_s
        self._failed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop and join; raises `ThreadFailedError` when the thread had failed."""
        self._stop.set()
        self._thread.join(self._join_timeout_s)
        if self._thread.is_alive():
            log.error("thread did not stop in time", thread=self._name, timeout_s=self._join_timeout_s)
        if self._failed and error is None:
            raise ThreadFailedError(self._name)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:  # the top of a thread: nobody else would see it
            log.exception("thread failed", thread=self._name)
            self._failed = True
        finally:
            self._stop.set()
