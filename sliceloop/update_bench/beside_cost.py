"""What a silent reader costs the reading loop: the time from one reading to the next, with it and without."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edge_agent.crop import encode_png
from edge_agent.probation import Beside, Paired, Role, SilentReader, read_costed
from edge_agent.probation.cost import reading_clock


class BesideCost(BaseModel):
    """One run of the loop."""

    model_config = ConfigDict(frozen=True)

    duty: float | None
    """Of the silent reader; None where there was none."""
    readings: int
    compared: int
    interval_p50_ms: float
    interval_p99_ms: float
    interval_max_ms: float
    over_ratio: float
    """Share of compared readings that cost over twice the loop's of the same slice, though the network is the same."""


def cost_beside(
    loop: SilentReader,
    silent: SilentReader,
    slices: Sequence[NDArray[np.uint8]],
    duty: float | None,
    clock: Callable[[], float] | None = None,
) -> BesideCost:
    """Read the slices one after another as fast as it goes, each as the loop does: read, encode as PNG, offer."""
    clock, pairs, ends_s = clock or reading_clock(), list[Paired](), []
    beside = Beside(silent, Role.CANDIDATE, pairs.append, _fail, duty=duty or 1.0, clock=clock)
    with beside if duty is not None else nullcontext():
        for pixels in slices:
            reading, cost_ms = read_costed(loop, pixels, clock)
            encode_png(pixels)
            if duty is not None:
                beside.offer(pixels, reading, cost_ms)
            ends_s.append(time.perf_counter())
    intervals_ms = np.diff(ends_s) * 1000
    p50, p99 = np.quantile(intervals_ms, (0.5, 0.99))
    slow = [pair.candidate_ms > 2 * pair.incumbent_ms for pair in pairs]
    return BesideCost(
        duty=duty,
        readings=len(slices),
        compared=len(pairs),
        interval_p50_ms=p50,
        interval_p99_ms=p99,
        interval_max_ms=intervals_ms.max(),
        over_ratio=float(np.mean(slow)) if slow else 0.0,
    )


def _fail(fault: str) -> None:
    raise RuntimeError(fault)
