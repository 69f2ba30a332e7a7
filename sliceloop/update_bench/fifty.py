"""Many edges fetch one release from one worker: how much of it goes into the broker, and how long it takes."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import stamina
from pydantic import BaseModel, ConfigDict

from broker.embedded import EmbeddedBroker, free_port
from cloud_worker.embedded_s3 import credentials_env, prepare
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, ObjectStoreError, S3Settings
from cloud_worker.release import Releasable, make_release
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.releasing import store_release
from cloud_worker.signing_keys import load_signer
from sliceloop.chaos.mqtt_proxy import MqttProxy
from sliceloop.demo.processes import Processes
from sliceloop.keys import new_keys
from sliceloop.update_bench.receivers import CHUNK_TIMEOUT_S, SITE

BUCKET = "sliceloop-bench"
PROCESSES = 2
TIMEOUT_S = 600.0
LOOK_S = 0.2
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
    """Run broker, S3 server, worker and edges; raises what does not start or does not end well."""
    folder = request.folder
    keys = new_keys(folder / "keys")
    s3 = prepare(folder / "s3", None)
    os.environ.update(credentials_env(s3))
    url = f"http://127.0.0.1:{s3.port}"
    with (
        EmbeddedBroker(free_port(), folder / "broker") as broker,
        MqttProxy(broker.port) as worker_line,
        MqttProxy(broker.port) as edges_line,
        Processes(folder / "logs", credentials_env(s3)) as processes,
    ):
        s3_folder = ["--folder", str(folder / "s3"), "--port", str(s3.port)]
        processes.start("s3", ["cloud_worker.embedded_s3", *s3_folder])
        store = ObjectStore(S3Settings(endpoint_url=url, bucket=BUCKET))
        _wait_for(store)
        config = _write_worker(folder, worker_line.port, url, keys.assign, keys.trusted)
        processes.start("worker", ["sliceloop", "worker", "--config", str(config)])
        shares = [request.edges // PROCESSES + (place < request.edges % PROCESSES) for place in range(PROCESSES)]
        for place, share in enumerate(shares):
            options = ["--first", str(sum(shares[:place])), "--count", str(share), "--port", str(edges_line.port)]
            options += ["--folder", str(folder / "edges"), "--trusted", str(keys.trusted)]
            processes.start(f"edges-{place}", ["sliceloop.update_bench.receivers", *options])
        told(f"starting {request.edges} edges")
        with Ledger(_ledger_url(folder)) as ledger:
            _wait_until(lambda: len(ledger.edges()) == request.edges, processes)
            size = _release(request, store, ledger, keys.signing)
        told(f"each fetches {size:,} bytes")
        began_s = time.monotonic()
        seconds: list[float] = []
        for place in range(PROCESSES):
            processes.wait_for_end(f"edges-{place}", TIMEOUT_S)
            last = (folder / "logs" / f"edges-{place}.log").read_text().splitlines()[-1]
            seconds += [ended_s - began_s for ended_s in json.loads(last).values()]
        return FiftyResult(
            edges=request.edges,
            artefact_bytes=size,
            from_worker=worker_line.to_broker,
            from_edges=edges_line.to_broker,
            to_edges=edges_line.to_clients,
            seconds=tuple(sorted(seconds)),
        )


def _release(request: FiftyRequest, store: ObjectStore, ledger: Ledger, key: Path) -> int:
    """Sign the network, and enter it in the ledger; return how many bytes an edge has to fetch."""
    made = make_release(
        Releasable(request.network, "bench", 1.0, None, None, {}),
        1,
        ReleaseSettings(),
        [load_signer(key)],
        datetime.now(UTC),
    )
    store_release(store, ledger, made, b"no checkpoint", {"by hand": f"bench of {SITE}"})
    return sum(len(data) for data in made.files.values())


def _write_worker(folder: Path, port: int, url: str, assign_key: Path, trusted: Path) -> Path:
    lines = [
        "[broker]",
        f"port = {port}",
        "[s3]",
        f'endpoint_url = "{url}"',
        f'bucket = "{BUCKET}"',
        "[worker]",
        f'ledger_url = "{_ledger_url(folder)}"',
        f'assign_key_file = "{assign_key}"',
        f'trusted_keys_dir = "{trusted}"',
        "[worker.delivery]",
        f"repeat_after_s = {REPEAT_AFTER * CHUNK_TIMEOUT_S}",
        "[[worker.rollout.rings]]",
        'name = "all"',
        "share = 1.0",
    ]
    path = folder / "worker.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _ledger_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.sqlite'}"


def _wait_until(condition: Callable[[], bool], processes: Processes) -> None:
    """Wait until all edges are known to the worker, and idle: a release comes to a fleet that runs."""
    never, until_s = threading.Event(), time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > until_s:
            raise TimeoutError(f"not all edges were heard of within {TIMEOUT_S:g} s; see the logs")
        processes.check()
        never.wait(LOOK_S)


def _wait_for(store: ObjectStore) -> None:
    """Wait for the S3 server, which takes some seconds to come up."""
    for attempt in stamina.retry_context(on=ObjectStoreError, attempts=None, timeout=60.0, wait_max=1.0):
        with attempt:
            store.ensure_bucket()
