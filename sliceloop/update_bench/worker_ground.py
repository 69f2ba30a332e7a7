"""Broker, S3 server, ledger and worker as processes: where edges of the bench fetch a release as in the field."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import stamina

from broker.embedded import EmbeddedBroker, free_port
from cloud_worker.embedded_s3 import credentials_env, prepare
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, ObjectStoreError, S3Settings
from cloud_worker.release import Releasable, Release, make_release
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.releasing import store_release
from cloud_worker.signing_keys import load_signer
from sliceloop.chaos.mqtt_proxy import MqttProxy
from sliceloop.demo.processes import Processes
from sliceloop.keys import KeyFolder, new_keys

BUCKET = "sliceloop-bench"
LOOK_S = 0.1
START_TIMEOUT_S = 60.0


class LateError(TimeoutError):
    """What the bench waits for did not come."""


@dataclass(frozen=True)
class WorkerGround:
    """What runs: the worker talks through `worker_line`; every edge is in its ring."""

    folder: Path
    broker_port: int
    worker_line: MqttProxy
    processes: Processes
    store: ObjectStore
    ledger: Ledger
    keys: KeyFolder

    def release(self, network: bytes) -> Release:
        """Sign the network as version 1, and enter it in the ledger: the worker assigns it to all edges."""
        signers, now = [load_signer(self.keys.signing)], datetime.now(UTC)
        made = make_release(Releasable(network, "bench", 1.0, None, None, {}), 1, ReleaseSettings(), signers, now)
        store_release(self.store, self.ledger, made, b"no checkpoint", {"by hand": "bench"})
        return made

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for it while all processes run; raises `LateError`, or `ProcessFailedError` for one that ended."""
        never, until_s = threading.Event(), time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > until_s:
                raise LateError(f"{what}: not within {timeout_s:g} s; see {self.folder / 'logs'}")
            self.processes.check()
            never.wait(LOOK_S)


@contextmanager
def worker_ground(folder: Path, *, repeat_after_s: float | None = None) -> Iterator[WorkerGround]:
    """Start everything but edges in an empty folder; without `repeat_after_s` the worker's own default holds."""
    keys = new_keys(folder / "keys")
    s3 = prepare(folder / "s3", None)
    os.environ.update(credentials_env(s3))
    url = f"http://127.0.0.1:{s3.port}"
    with (
        EmbeddedBroker(free_port(), folder / "broker") as broker,
        MqttProxy(broker.port) as worker_line,
        Processes(folder / "logs", credentials_env(s3)) as processes,
    ):
        s3_folder = ["--folder", str(folder / "s3"), "--port", str(s3.port)]
        processes.start("s3", ["cloud_worker.embedded_s3", *s3_folder])
        store = ObjectStore(S3Settings(endpoint_url=url, bucket=BUCKET))
        _wait_for(store)
        config = _write_worker(folder, worker_line.port, url, keys, repeat_after_s)
        processes.start("worker", ["sliceloop", "worker", "--config", str(config)])
        with Ledger(_ledger_url(folder)) as ledger:
            yield WorkerGround(folder, broker.port, worker_line, processes, store, ledger, keys)


def _write_worker(folder: Path, port: int, url: str, keys: KeyFolder, repeat_after_s: float | None) -> Path:
    lines = [
        "[broker]",
        f"port = {port}",
        "[s3]",
        f'endpoint_url = "{url}"',
        f'bucket = "{BUCKET}"',
        "[worker]",
        f'ledger_url = "{_ledger_url(folder)}"',
        f'assign_key_file = "{keys.assign}"',
        f'trusted_keys_dir = "{keys.trusted}"',
        *([] if repeat_after_s is None else ["[worker.delivery]", f"repeat_after_s = {repeat_after_s}"]),
        "[[worker.rollout.rings]]",
        'name = "all"',
        "share = 1.0",
    ]
    path = folder / "worker.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _ledger_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.sqlite'}"


def _wait_for(store: ObjectStore) -> None:
    """Wait for the S3 server, which takes some seconds to come up."""
    for attempt in stamina.retry_context(on=ObjectStoreError, attempts=None, timeout=START_TIMEOUT_S, wait_max=1.0):
        with attempt:
            store.ensure_bucket()
