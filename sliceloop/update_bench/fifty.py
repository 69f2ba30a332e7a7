"""Many edges fetch one release from one worker: how much of it goes into the broker, and how long it takes."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sliceloop.chaos.mqtt_proxy import MqttProxy
from sliceloop.update_bench.receivers import CHUNK_TIMEOUT_S
from sliceloop.update_bench.worker_ground import WorkerGround, worker_ground

PROCESSES = 2
TIMEOUT_S = 600.0
REPEAT_AFTER = 0.4
"""Of the time that edges wait for a chunk; by default it is 2 of 5 s, too."""


class FiftyResult(BaseModel):
    """What went into the broker until all edges ran the release."""

    model_config = ConfigDict(frozen=True)
    edges: int
    artefact_bytes: int
    """Network and golden slices."""
    from_worker: int
    """Bytes on the worker's line to the broker, all of MQTT included."""
    from_edges: int
    to_edges: int
    seconds: tuple[float, ...]
    """Of each edge, from the release on."""

    @property
    def inbound(self) -> float:
        """Return the bytes into the broker, in artefacts."""
        return (self.from_worker + self.from_edges) / self.artefact_bytes


@dataclass(frozen=True)
class FiftyRequest:
    """How many edges, and of which network."""

    network: bytes
    edges: int
    folder: Path


def bench_fifty(request: FiftyRequest, told: Callable[[str], None] = lambda _: None) -> FiftyResult:
    """Run worker and edges; a release comes to a fleet that runs. Raises what does not start or does not end well."""
    folder = request.folder
    with (
        worker_ground(folder, repeat_after_s=REPEAT_AFTER * CHUNK_TIMEOUT_S) as ground,
        MqttProxy(ground.broker_port) as edges_line,
    ):
        told(f"starting {request.edges} edges")
        _start_edges(ground, request.edges, edges_line.port)
        ground.wait_until(lambda: len(ground.ledger.edges()) == request.edges, TIMEOUT_S, "all edges are heard of")
        size = sum(map(len, ground.release(request.network).files.values()))
        told(f"each of {request.edges} edges fetches {size:,} bytes")
        began_s = time.monotonic()
        seconds: list[float] = []
        for place in range(PROCESSES):
            ground.processes.wait_for_end(f"edges-{place}", TIMEOUT_S)
            last = (folder / "logs" / f"edges-{place}.log").read_text().splitlines()[-1]
            seconds += [ended_s - began_s for ended_s in json.loads(last).values()]
        return FiftyResult(
            edges=request.edges,
            artefact_bytes=size,
            from_worker=ground.worker_line.to_broker,
            from_edges=edges_line.to_broker,
            to_edges=edges_line.to_clients,
            seconds=tuple(sorted(seconds)),
        )


def _start_edges(ground: WorkerGround, edges: int, port: int) -> None:
    shares = [edges // PROCESSES + (place < edges % PROCESSES) for place in range(PROCESSES)]
    for place, share in enumerate(shares):
        options = ["--first", str(sum(shares[:place])), "--count", str(share), "--port", str(port)]
        options += ["--folder", str(ground.folder / "edges"), "--trusted", str(ground.keys.trusted)]
        ground.processes.start(f"edges-{place}", ["sliceloop.update_bench.receivers", *options])
