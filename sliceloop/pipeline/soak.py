"""Whether memory stays flat over very many slices: the worker's, and that of a process with edges in it."""

import statistics
import threading
from collections.abc import Callable

from sliceloop.fleet.edge import Pace
from sliceloop.fleet.run import FleetPlan, run_fleet
from sliceloop.pipeline.result import Soak
from sliceloop.pipeline.stage import Stage, resident_bytes

EDGES, MAX_WAITING = 4, 16
LIMIT_S = 3 * 3600.0
WARM_UP_SHARE = 0.05
"""Of the slices: caches fill and allocators settle before memory is compared."""
TENTH = 10


def measure_soak(
    stage: Stage,
    slices: int,
    with_frames: bool,
    stop: threading.Event,
    on_slice: Callable[[int, int], None] = lambda _done, _total: None,
) -> Soak:
    """Send so many slices as fast as they go, looking at memory all the while."""
    looks: list[tuple[int, int, int]] = []

    def look(done: int, total: int) -> None:
        looks.append((done, stage.resident_bytes("worker-1"), resident_bytes()))
        on_slice(done, total)

    plan = FleetPlan(EDGES, Pace(0, slices // EDGES, MAX_WAITING), with_frames, LIMIT_S)
    report = run_fleet(plan, stage.broker, stage.folder / "fleet", stop, look)
    settled = [each for each in looks if each[0] >= WARM_UP_SHARE * slices] or looks
    tenth = max(1, len(settled) // TENTH)
    return Soak(
        slices=report.receipted,
        seconds=report.seconds,
        worker_bytes=_ends([worker for _, worker, _ in settled], tenth),
        edge_bytes=_ends([edge for _, _, edge in settled], tenth),
    )


def _ends(values: list[int], tenth: int) -> tuple[int, int]:
    return int(statistics.median(values[:tenth])), int(statistics.median(values[-tenth:]))
