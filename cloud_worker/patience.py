"""How a worker's threads wait for an object store or a ledger that is away: once said, jittered, until the stop."""

import random
import threading

import structlog

from broker.backoff import backoff_s

log = structlog.get_logger()

MAX_WAITS = 5
"""A wait grows to so many times the shortest one."""


class Patience:
    """Shared by the threads that need the same thing; counts what went through."""

    def __init__(self, retry_s: float, rng: random.Random) -> None:
        """Remember the shortest full wait, and where jitter comes from."""
        self._retry_s, self._rng = retry_s, rng
        self._lock = threading.Lock()
        self._told = ""
        self._failures = 0
        self.successes = 0

    def succeeded(self) -> None:
        """Note that something went through."""
        with self._lock:
            self.successes += 1
            if self._told:
                log.info("storing again")
            self._told, self._failures = "", 0

    def wait(self, error: Exception, stop: threading.Event) -> None:
        """Say a new trouble aloud, and wait before the next try."""
        with self._lock:
            self._failures += 1
            if not self._told:
                self._told = str(error)
                log.error("cannot store", reason=self._told, next=f"tried again about every {self._retry_s} s")
            wait_s = self._retry_s / 2 + backoff_s(self._failures, self._retry_s, MAX_WAITS * self._retry_s, self._rng)
        stop.wait(wait_s)
