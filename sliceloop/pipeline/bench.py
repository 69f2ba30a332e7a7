"""`sliceloop bench pipeline`: floors, full speed and latency for each number of edges; an outage; a soak."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sliceloop.fleet.edge import Pace
from sliceloop.fleet.mill import Mill, draw_pngs
from sliceloop.fleet.report import FleetReport
from sliceloop.fleet.run import FleetPlan, run_fleet
from sliceloop.pipeline.floors import measure_floors
from sliceloop.pipeline.outage import Stream, measure_outage
from sliceloop.pipeline.result import PipelineResult, Point
from sliceloop.pipeline.soak import measure_soak
from sliceloop.pipeline.stage import Stage, cpu_s, staged
from training.provenance import code_commit, machine, versions

WAITING_IN_ALL = 64
"""At full speed so many slices wait at once, whatever the number of edges: enough that nobody idles."""
MIN_WAITING = 4
WARM_UP_EDGES = 4
WARM_UP = 32
"""Slices before the first measurement, for connections and caches."""
LIMIT_S = 600.0
PACKAGES = ("paho-mqtt", "boto3", "obstore", "sqlalchemy", "sliceloop")


@dataclass(frozen=True)
class PipelinePlan:
    """What is measured."""

    edges: tuple[int, ...]
    workers: tuple[int, ...]
    slices: int
    """At full speed, in all."""
    with_frames: bool
    cut_s: float
    """0: no outage."""
    soak: int
    """0: none."""
    steady_s: float
    """How long the latency at half speed is measured, and a stream before and after an outage."""
    ledger_url: str | None


Say = Callable[[str], None]


def measure(plan: PipelinePlan, folder: Path, stop: threading.Event, say: Say) -> PipelineResult:
    """Measure everything that the plan names, each with a stage of its own; a stop leaves out the rest."""
    soak, points, outage = None, [], None
    name, url = "", ""
    if plan.soak:
        say(f"soak: {plan.soak} slices")
        with staged(folder, plan.ledger_url) as stage:
            stage.start_worker("worker-1")
            _warm_up(stage, plan, WARM_UP_EDGES, stop)
            soak = measure_soak(stage, plan.soak, plan.with_frames, stop)
    for workers in plan.workers:
        for edges in plan.edges:
            if stop.is_set():
                break
            with staged(folder, plan.ledger_url) as stage:
                name, url = stage.broker_name, stage.ledger_url
                points.append(_measure_point(stage, plan, edges, workers, stop, say))
    if plan.cut_s and points and not stop.is_set():
        say(f"outage: the line is cut for {plan.cut_s:g} s")
        with staged(folder, plan.ledger_url) as stage:
            stage.start_worker("worker-1")
            _warm_up(stage, plan, WARM_UP_EDGES, stop)
            outage = measure_outage(
                stage, Stream(points[-1].full.slices_per_s, plan.cut_s, plan.steady_s, plan.with_frames), stop
            )
    return PipelineResult(
        machine=machine(),
        versions=versions(*PACKAGES),
        commit=code_commit(),
        broker=name,
        ledger=url.partition(":")[0],
        payload_bytes=_payload_bytes(),
        with_frames=plan.with_frames,
        points=tuple(points),
        outage=outage,
        soak=soak,
    )


def _measure_point(
    stage: Stage, plan: PipelinePlan, edges: int, workers: int, stop: threading.Event, say: Say
) -> Point:
    for number in range(workers):
        stage.start_worker(f"worker-{number + 1}")
    say(f"{edges} edges, {workers} workers: warming up")
    _warm_up(stage, plan, edges, stop)
    say(f"{edges} edges, {workers} workers: floors")
    floors = measure_floors(stage, _payload_maker(), plan.slices, edges)
    say(f"{edges} edges, {workers} workers: full speed")
    waiting = max(MIN_WAITING, WAITING_IN_ALL // edges)
    parts = ["broker", "s3", *(f"worker-{number + 1}" for number in range(workers))]
    before = cpu_s(stage, parts)
    full = _run(stage, plan, edges, Pace(0, max(1, plan.slices // edges), waiting), stop)
    after = cpu_s(stage, parts)
    cpu_ms = {part: 1000 * (after[part] - before[part]) / max(1, full.receipted) for part in before}
    say(f"{edges} edges, {workers} workers: latency at half of {full.slices_per_s:.0f} slices/s")
    rate = max(full.slices_per_s / 2, 0.1)
    half = _run(stage, plan, edges, Pace(edges / rate, max(1, round(plan.steady_s * rate / edges)), waiting), stop)
    return Point(edges=edges, workers=workers, floors=floors, full=full, half=half, cpu_ms=cpu_ms)


def _warm_up(stage: Stage, plan: PipelinePlan, edges: int, stop: threading.Event) -> None:
    """Wait for the workers, open connections and fill caches."""
    _run(stage, plan, edges, Pace(0, max(1, WARM_UP // edges), MIN_WAITING), stop)


def _run(stage: Stage, plan: PipelinePlan, edges: int, pace: Pace, stop: threading.Event) -> FleetReport:
    fleet = FleetPlan(edges, pace, plan.with_frames, LIMIT_S)
    return run_fleet(fleet, stage.broker, stage.folder / "fleet", stop)


def _payload_maker() -> Callable[[int], Sequence[bytes]]:
    """Return what makes slice messages as edges send them, each once."""
    mill = Mill.of_floor(draw_pngs(0))

    def make(n: int) -> list[bytes]:
        return [mill.messages(number + 1)[1][0].payload for number in range(n)]

    return make


def _payload_bytes() -> int:
    payloads = _payload_maker()(12)
    return round(sum(map(len, payloads)) / len(payloads))
