"""What a reading costs the thread that makes it, so that two networks' speeds can be compared on a busy box."""

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.model.reader import Reading, best_providers


class SilentReader(Protocol):
    """A network that reads prepared slices; `OnnxReader` is one."""

    def read(self, prepared: NDArray[np.uint8]) -> Reading:
        """Read one prepared slice uint8 [256, 256]; raises what the network's run time raises."""
        ...


def reading_clock(providers: list[str] | None = None) -> Callable[[], float]:
    """Return the clock (in seconds) by which readings are compared.

    The two readings of a slice are made one after another, by two threads, while other threads and processes come and
    go: by wall-clock time the one that met more of them would be called slow. The processor time of the thread itself
    holds none of that (what remains, caches and memory bandwidth that are shared, stays well below the factor that is
    allowed), and onnxruntime computes in the thread that calls it. On an accelerator the thread only waits: there
    wall-clock time it is.
    """
    on_cpu = (best_providers() if providers is None else providers) == ["CPUExecutionProvider"]
    return time.thread_time if on_cpu else time.perf_counter


def read_costed(reader: SilentReader, prepared: NDArray[np.uint8], clock: Callable[[], float]) -> tuple[Reading, float]:
    """Read one prepared slice uint8 [256, 256], and return what it cost in milliseconds by the clock."""
    started_s = clock()
    reading = reader.read(prepared)
    return reading, (clock() - started_s) * 1000
