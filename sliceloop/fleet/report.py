"""What a fleet measured: throughput, and the percentiles of capture to receipt."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict


class Latency(BaseModel):
    """Milliseconds from a slice's capture to the last of its receipts."""

    model_config = ConfigDict(frozen=True)

    n: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class FleetReport(BaseModel):
    """How a fleet's slices went."""

    model_config = ConfigDict(frozen=True)

    edges: int
    with_frames: bool
    interval_s: float
    captured: int
    receipted: int
    refused: int
    """Not captured, since the outbox was full."""
    waiting: int
    seconds: float
    """From the first capture to the last receipt."""
    slices_per_s: float
    latency: Latency | None


def latency_of(seconds: Sequence[float]) -> Latency | None:
    """Return the percentiles; None of nothing."""
    if not seconds:
        return None
    p50, p90, p99, most = (float(value) for value in np.percentile(np.asarray(seconds) * 1000, [50, 90, 99, 100]))
    return Latency(n=len(seconds), p50_ms=p50, p90_ms=p90, p99_ms=p99, max_ms=most)
