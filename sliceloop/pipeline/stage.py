"""Broker, S3 server and workers as processes of their own, for a measurement."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.embedded import free_port
from broker.session import Session
from broker.settings import BrokerSettings
from cloud_worker.embedded_s3 import credentials_env, prepare
from cloud_worker.object_store import ObjectStore, ObjectStoreError, S3Settings
from sliceloop.chaos.mosquitto import find_mosquitto, write_config
from sliceloop.demo.processes import Processes

START_S = 60.0
POLL_S = 0.1
EMBEDDED = "rumqttd (embedded)"


class StageError(RuntimeError):
    """A part did not come up; the message says which."""


@dataclass
class Stage:
    """What runs, and where."""

    folder: Path
    broker: BrokerSettings
    broker_name: str
    s3: S3Settings
    ledger_url: str
    processes: Processes

    def start_worker(self, name: str) -> None:
        """Start a worker without second reader; it stores and says receipts."""
        config = self.folder / f"{name}.toml"
        config.write_text(
            f'[worker]\nname = "{name}"\nledger_url = "{self.ledger_url}"\n'
            f"[broker]\nport = {self.broker.port}\n"
            f'[s3]\nendpoint_url = "{self.s3.endpoint_url}"\n'
        )
        self.processes.start(name, ["sliceloop", "worker", "--config", str(config)])

    def resident_bytes(self, name: str) -> int:
        """Return how much memory a process has now (Linux: VmRSS)."""
        return resident_bytes(self.processes.pid(name))


def cpu_s(stage: Stage, names: Sequence[str]) -> dict[str, float]:
    """Return the CPU time that processes have used, in seconds (Linux), and `edges`, which are this process."""
    return {"edges": time.process_time(), **{name: _cpu_s(stage.processes.pid(name)) for name in names}}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc(5)


def resident_bytes(pid: int | str = "self") -> int:
    """Return VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Let this process's own S3 clients in; keys come by the environment alone."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def staged(folder: Path, ledger_url: str | None = None) -> Iterator[Stage]:
    """Start broker and S3 server in a folder that is emptied first; yields when both answer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = prepare(folder / "s3", None)
    credentials = credentials_env(state)
    with Processes(folder / "logs", credentials) as processes:
        broker = BrokerSettings(port=free_port(), reconnect_min_s=0.1, reconnect_max_s=1)
        name = _start_broker(processes, folder, broker.port)
        processes.start("s3", ["cloud_worker.embedded_s3", "--folder", str(folder / "s3"), "--port", str(state.port)])
        s3 = S3Settings(endpoint_url=f"http://127.0.0.1:{state.port}")
        url = ledger_url or f"sqlite:///{folder / 'ledger.sqlite'}"
        stage = Stage(folder, broker, name, s3, url, processes)
        with _environment(credentials):
            _wait_until_ready(stage)
            yield stage


def _wait_until_ready(stage: Stage) -> None:
    store, until_s, never = ObjectStore(stage.s3), time.monotonic() + START_S, threading.Event()
    while True:
        try:
            store.ensure_bucket()
        except ObjectStoreError:
            if time.monotonic() > until_s:
                raise
            never.wait(POLL_S)
        else:
            break
    with Session(stage.broker, "bench-waits", clean_start=True) as session:
        if not session.wait_connected(START_S):
            raise StageError(f"the broker does not answer within {START_S:.0f} s: {session.trouble}")


def _start_broker(processes: Processes, folder: Path, port: int) -> str:
    mosquitto = find_mosquitto()
    if mosquitto is None:
        processes.start("broker", ["broker.embedded", "--port", str(port)])
        return EMBEDDED
    config = write_config(folder / "mosquitto", port)
    processes.run("broker", [mosquitto, "-c", str(config)])
    said = subprocess.run([mosquitto, "-h"], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0] if said else "mosquitto"
