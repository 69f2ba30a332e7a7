"""A real edge fetches a release over a narrow line that is cut again and again: how much comes twice."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cloud_worker.release import Release
from protocol.messages import ModelPhase
from sliceloop.chaos.mqtt_proxy import MqttProxy
from sliceloop.update_bench.edge_ground import SITE, write_config
from sliceloop.update_bench.worker_ground import WorkerGround, worker_ground

WHOLE, CUT = "whole-line", "cut-line"
ARRIVED = frozenset({ModelPhase.TESTING, ModelPhase.SHADOW, ModelPhase.PROBATION, ModelPhase.ACTIVE})
START_TIMEOUT_S = 60.0
TIMES_SLOWER = 10
"""A line that is cut may take so many times as long before it counts as stuck."""


class CutLineResult(BaseModel):
    """What came through two lines of the same speed to two edges, of which one is cut."""

    model_config = ConfigDict(frozen=True)
    needed_bytes: int
    """Of chunks and pieces of index."""
    bytes_per_s: float
    every_s: float
    cuts: int
    whole_bytes: int
    """Through the line that is not cut: with topics, the manifest, and all else that MQTT says."""
    cut_bytes: int
    whole_sent: int
    """By the worker to the broker meanwhile: with chunks that were lost before the line."""
    cut_sent: int
    whole_s: float
    cut_s: float

    @property
    def overhead(self) -> float:
        """Return what the protocol adds, of the bytes needed."""
        return self.whole_bytes / self.needed_bytes - 1

    @property
    def repeated(self) -> float:
        """Return what came more for the cuts, of the bytes needed: chunks again or half, and each connection."""
        return (self.cut_bytes - self.whole_bytes) / self.needed_bytes

    @property
    def sent_again(self) -> float:
        """Return what the worker sent more for the cuts, of the bytes needed: all that was lost, wherever."""
        return (self.cut_sent - self.whole_sent) / self.needed_bytes


@dataclass(frozen=True)
class CutLineRequest:
    """Of which network, how fast the line is, and how often it is cut."""

    network: bytes
    folder: Path
    bytes_per_s: float = 2e6
    every_s: float = 5.0


@dataclass(frozen=True)
class _Fetched:
    bytes: int
    sent: int
    seconds: float
    cuts: int


def bench_cut_line(request: CutLineRequest, told: Callable[[str], None] = lambda _: None) -> CutLineResult:
    """Run broker, S3 server, worker and two edges, one after the other; raises `LateError`."""
    with worker_ground(request.folder) as ground:
        made = ground.release(request.network)
        needed = _needed(made)
        told(f"{needed:,} bytes over a line of {request.bytes_per_s / 1e6:g} MB/s")
        whole = _fetch(ground, WHOLE, request, needed, every_s=None)
        told(f"the same, cut every {request.every_s:g} s")
        cut = _fetch(ground, CUT, request, needed, every_s=request.every_s)
    return CutLineResult(
        needed_bytes=needed,
        bytes_per_s=request.bytes_per_s,
        every_s=request.every_s,
        cuts=cut.cuts,
        whole_bytes=whole.bytes,
        cut_bytes=cut.bytes,
        whole_sent=whole.sent,
        cut_sent=cut.sent,
        whole_s=whole.seconds,
        cut_s=cut.seconds,
    )


def _needed(made: Release) -> int:
    pieces = sum(len(piece) for name in made.manifest.fetched for piece in made.indices[name])
    return pieces + sum(len(made.files[name]) for name in made.manifest.fetched)


def _fetch(ground: WorkerGround, name: str, request: CutLineRequest, needed: int, every_s: float | None) -> _Fetched:
    """Start an edge behind a line of its own, and cut it until the release is there."""
    folder = ground.folder / name
    (folder / "inbox").mkdir(parents=True)
    timeout_s = START_TIMEOUT_S + TIMES_SLOWER * needed / request.bytes_per_s
    before = ground.worker_line.to_broker
    with MqttProxy(ground.broker_port) as line:
        line.narrow_to(request.bytes_per_s)
        config = write_config(folder, line.port, ground.keys.trusted, edge=f'"{name}"')
        ground.processes.start(name, ["sliceloop", "edge", "--config", str(config), "--log-level", "warning"])
        ground.wait_until(lambda: _phase(ground, name) is not None, START_TIMEOUT_S, f"{name} is heard of")
        with _Cuts(line, every_s) as cuts:
            ground.wait_until(lambda: _phase(ground, name) in ARRIVED, timeout_s, f"{name} has the release")
        ground.processes.dismiss(name)
        return _Fetched(line.to_clients, ground.worker_line.to_broker - before, cuts.lasted_s, cuts.count)


def _phase(ground: WorkerGround, edge: str) -> ModelPhase | None:
    for record in ground.ledger.edges():
        if (record.site, record.edge) == (SITE, edge) and record.reported is not None:
            return ModelPhase(record.reported["phase"])
    return None


class _Cuts:
    """Breaks a line again and again from `with` to its end; `every_s` None never does."""

    def __init__(self, line: MqttProxy, every_s: float | None) -> None:
        self._line, self._every_s = line, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bench-cuts", daemon=True)
        self.count, self.lasted_s = 0, 0.0

    def __enter__(self) -> "_Cuts":
        self._began_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.lasted_s = time.monotonic() - self._began_s
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._line.cut_once()
            self.count += 1
