"""A second network that reads the same slices silently, beside the reading loop and without ever delaying it."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
import structlog
from numpy.typing import NDArray

from edge_agent.probation.behaviour import Answer, Paired
from edge_agent.probation.cost import SilentReader, read_costed, reading_clock
from edge_agent.probation.kept_reading import KeptReading
from training.model.reader import Reading

log = structlog.get_logger()

DEPTH = 4
"""Slices that wait to be compared; while so many do, further ones are not."""
DUTY = 0.3
"""Share of the time in which the silent network reads at most: it heats the box and takes memory bandwidth."""
NICENESS = 10
"""Of the silent thread: where processors are short, the reading loop goes first."""
JOIN_TIMEOUT_S = 5.0
OVERDUE_S = 30.0
"""A silent reading that takes so long counts as hanging; the slowest network that may run takes seconds."""


class Role(StrEnum):
    """Which of the two reads silently: the candidate in shadow, the incumbent on probation."""

    CANDIDATE = "candidate"
    INCUMBENT = "incumbent"


@dataclass(frozen=True)
class _Waiting:
    pixels: NDArray[np.uint8]
    answer: Answer
    cost_ms: float


class Beside:
    """Reads offered slices in a thread of its own from `with` on; leaving stops it, or leaves it behind if it hangs."""

    def __init__(
        self,
        reader: SilentReader,
        role: Role,
        on_pair: Callable[[Paired], None],
        on_fault: Callable[[str], None],
        kept: KeptReading | None = None,
        *,
        duty: float = DUTY,
        join_timeout_s: float = JOIN_TIMEOUT_S,
        overdue_s: float = OVERDUE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Remember the silent network and who hears of it, in the silent thread (of a hang, in that which steps).

        Kept slices are for a silent candidate: it reads them, and the incumbent too, while no live one waits, and one
        after each live one: a loop that never rests would else keep them off for ever.
        """
        self._reader, self._role, self._on_pair, self._on_fault = reader, role, on_pair, on_fault
        self._kept, self._kept_is_due = kept, False
        self._duty, self._join_timeout_s, self._overdue_s = duty, join_timeout_s, overdue_s
        self._clock = clock or reading_clock()
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._stopped = False
        self._reading_since_s: float | None = None
        self.skipped = 0
        # a network that hangs inside onnxruntime cannot be interrupted: a daemon does not keep the process from ending
        self._thread = threading.Thread(target=self._run, name=f"silent-{role}", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; what waits is not compared any more, and nobody hears of a reading that ends later."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(self._join_timeout_s)
        if self._thread.is_alive():
            log.error("silent reading did not end", role=str(self._role), timeout_s=self._join_timeout_s)

    def offer(self, pixels: NDArray[np.uint8], answer: Answer, cost_ms: float) -> bool:
        """Take a slice uint8 [256, 256] that the loop has read, and tell whether it will be compared; never waits.

        The pixels are not copied: nobody may write to them. The cost is what `read_costed` gave for the loop's reading.
        """
        with self._changed:
            if self._stopped or len(self._waiting) >= DEPTH:
                self.skipped += 1
                return False
            self._waiting.append(_Waiting(pixels, answer, cost_ms))
            self._changed.notify()
            return True

    def step(self, now_s: float) -> None:
        """Report a silent reading that hangs; `now_s` is monotonic."""
        since_s = self._reading_since_s
        if since_s is not None and now_s - since_s > self._overdue_s:
            self._reading_since_s = None  # said once
            self._on_fault(f"no answer to a slice within {self._overdue_s:g} s")

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # Linux knows the priority of a thread, others do not
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (comparing := self._next()) is not None:
            started_s = time.monotonic()
            comparing()
            self._rest((time.monotonic() - started_s) * (1 / self._duty - 1))

    def _next(self) -> Callable[[], None] | None:
        """Return the comparison of the live slice that waits longest, or of a kept one, or None after the stop."""
        kept = self._kept if self._kept is not None and not self._kept.done else None
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._waiting or kept)
            if self._stopped:
                return None
            if self._waiting and not (kept and self._kept_is_due):
                self._kept_is_due = True
                return partial(self._compare, self._waiting.popleft())
        assert kept is not None, "it is what was waited for"
        self._kept_is_due = False
        return partial(self._compare_kept, kept)

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)

    def _compare(self, waiting: _Waiting) -> None:
        self._read(waiting.pixels, lambda silent, cost_ms: self._on_pair(self._paired(waiting, silent, cost_ms)))

    def _compare_kept(self, kept: KeptReading) -> None:
        """Let both networks read the next kept slice, without the lock; one that the incumbent fails on tells nothing.

        A hang of the incumbent is not looked for: it would hold up the reading loop just as well.
        """
        following = kept.next()
        if following is None:
            return
        name, pixels = following
        try:
            incumbent, incumbent_ms = read_costed(kept.incumbent, pixels, self._clock)
        except Exception as error:  # noqa: BLE001  onnxruntime's error classes share no public base
            log.warning("kept slice skipped", name=name, reason=f"{type(error).__name__}: {error}")
            return
        if not self._stopped:
            self._read(pixels, lambda silent, ms: kept.on_pair(name, Paired(silent, incumbent, ms, incumbent_ms)))

    def _read(self, pixels: NDArray[np.uint8], hear: Callable[[Reading, float], None]) -> None:
        self._reading_since_s = time.monotonic()
        try:
            silent, cost_ms = read_costed(self._reader, pixels, self._clock)
        except Exception as error:  # noqa: BLE001  onnxruntime's error classes share no public base
            self._tell(partial(self._on_fault, f"{type(error).__name__}: {error}"))
        else:
            self._tell(partial(hear, silent, cost_ms))
        finally:
            self._reading_since_s = None

    def _paired(self, waiting: _Waiting, silent: Answer, cost_ms: float) -> Paired:
        if self._role is Role.CANDIDATE:
            return Paired(silent, waiting.answer, cost_ms, waiting.cost_ms)
        return Paired(waiting.answer, silent, waiting.cost_ms, cost_ms)

    def _tell(self, hear: Callable[[], None]) -> None:
        if self._stopped:
            return
        try:
            hear()
        except Exception:  # the thread's top: the next slice is compared all the same
            log.exception("comparison not taken", role=str(self._role))
