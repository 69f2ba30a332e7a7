"""Run a fleet against a broker, behind which a worker must be at work, and say how fast it was."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.settings import BrokerSettings
from sliceloop.fleet.edge import Pace, SimulatedEdge
from sliceloop.fleet.mill import draw_pngs
from sliceloop.fleet.report import FleetReport, latency_of

LOOK_S = 0.1


@dataclass(frozen=True)
class FleetPlan:
    """How many edges, how fast, how much, and for how long at most."""

    edges: int
    pace: Pace
    with_frames: bool
    limit_s: float
    seed: int = 0


class Fleet:
    """Edges that run, each in threads of its own; `folder` keeps their outboxes, so that a next run sends the rest."""

    def __init__(self, plan: FleetPlan, broker: BrokerSettings, folder: Path) -> None:
        """Draw the phantoms."""
        self.plan = plan
        pngs = draw_pngs(plan.seed)
        names = [f"sim-{number:04d}" for number in range(plan.edges)]
        self.edges = [SimulatedEdge(name, folder / name, broker, pngs, plan.with_frames) for name in names]
        self._begun_s = time.monotonic()

    @contextmanager
    def running(self, stop: threading.Event) -> Iterator[None]:
        """Run all edges until the body ends."""
        rng = random.Random(self.plan.seed)  # noqa: S311 - phases, not secrets
        with ThreadPoolExecutor(len(self.edges), "simulated-edge") as pool:
            self._begun_s = time.monotonic()
            seeds = [rng.random() for _ in self.edges]
            running = [
                pool.submit(edge.run, self.plan.pace, stop, random.Random(seed))  # noqa: S311
                for edge, seed in zip(self.edges, seeds, strict=True)
            ]
            try:
                yield
            finally:
                stop.set()
        for each in running:
            each.result()

    def counts(self) -> tuple[int, int]:
        """Return how many slices were captured, and how many of them wait for a receipt."""
        return sum(edge.captured for edge in self.edges), sum(edge.outbox.waiting for edge in self.edges)

    def done(self) -> bool:
        """Say whether everything was captured and receipted."""
        captured, waiting = self.counts()
        return captured == self.plan.edges * self.plan.pace.slices and waiting == 0

    def report(self) -> FleetReport:
        """Say how it went until now."""
        times = [edge.outbox.latencies() for edge in self.edges]
        latencies = [seconds for each, _ in times for seconds in each]
        last_s = max((ends[-1] for _, ends in times if ends), default=self._begun_s)
        captured, waiting = self.counts()
        lasted_s = last_s - self._begun_s
        return FleetReport(
            edges=self.plan.edges,
            with_frames=self.plan.with_frames,
            interval_s=self.plan.pace.interval_s,
            captured=captured,
            receipted=len(latencies),
            refused=sum(edge.refused for edge in self.edges),
            waiting=waiting,
            seconds=lasted_s,
            slices_per_s=len(latencies) / lasted_s if lasted_s else 0.0,
            latency=latency_of(latencies),
        )


def run_fleet(
    plan: FleetPlan,
    broker: BrokerSettings,
    folder: Path,
    stop: threading.Event,
    on_slice: Callable[[int, int], None] = lambda _done, _total: None,
) -> FleetReport:
    """Run until every slice has its receipts, the limit has passed, or the stop; return what was measured."""
    fleet, halt = Fleet(plan, broker, folder), threading.Event()
    total = plan.edges * plan.pace.slices
    with fleet.running(halt):
        until_s = time.monotonic() + plan.limit_s
        while not (fleet.done() or stop.is_set() or halt.is_set() or time.monotonic() > until_s):
            captured, waiting = fleet.counts()
            on_slice(captured - waiting, total)
            stop.wait(LOOK_S)
        return fleet.report()
