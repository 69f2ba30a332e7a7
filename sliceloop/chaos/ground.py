"""The loop that is struck: every process real, each client of the broker and of S3 behind a line that can go bad."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from broker.embedded import answers, free_port
from cloud_worker.embedded_s3 import credentials_env, prepare
from cloud_worker.ledger import Ledger, LedgerUnavailableError
from cloud_worker.object_store import ObjectStore, ObjectStoreError, S3Settings
from sliceloop.chaos import clock, mosquitto, postgresql
from sliceloop.chaos.echo import Echo
from sliceloop.chaos.full_disk import Fillable, SmallDisk, on_small_disk, through_a_pipe
from sliceloop.chaos.materials import Materials
from sliceloop.chaos.mqtt_proxy import MqttProxy
from sliceloop.chaos.s3_proxy import S3Proxy
from sliceloop.chaos.schedule import Kind
from sliceloop.demo.processes import Processes
from sliceloop.demo.roles import Roles
from sliceloop.demo.stage import EDGES, Stage, inbox, write_configs, write_labels
from training.bundle import write_bundle

LedgerKind = Literal["sqlite", "postgresql"]

WORKERS = ("worker-1", "worker-2")
BROKER, S3, POSTGRESQL, TRAINER, DASHBOARD = "broker", "s3", "postgresql", "trainer", "dashboard"
NO_RETRAINING = 1_000_000
START_TIMEOUT_S = 60.0
POLL_S = 0.05
DISK_BYTES, DISK_BYTES_A_SLICE = 32 << 20, 256 << 10
"""An edge's disk: its release, and every slice that nobody has taken yet."""
BUCKET = "sliceloop-demo"

QUICK = {
    "SLICELOOP_BROKER__RECONNECT_MIN_S": "0.1",
    "SLICELOOP_BROKER__RECONNECT_MAX_S": "0.5",
    "SLICELOOP_BROKER__CONNECT_TIMEOUT_S": "3",
    "SLICELOOP_BROKER__KEEPALIVE_S": "10",
    "SLICELOOP_EDGE__RECEIPT_TIMEOUT_S": "4",
    "SLICELOOP_EDGE__HEARTBEAT_S": "0.5",
    "SLICELOOP_EDGE__CHUNK_TIMEOUT_S": "1",
    "SLICELOOP_EDGE__SHADOW_SLICES": "2",
    "SLICELOOP_EDGE__PROBATION_SLICES": "2",
    "SLICELOOP_WORKER__STORE_RETRY_S": "0.3",
    "SLICELOOP_S3__READ_TIMEOUT_S": "4",
    "OMP_NUM_THREADS": "1",
}
"""Environment above the configuration files: waits that a run need not spend."""


class NotUpError(RuntimeError):
    """A part of the loop did not come up."""

    def __init__(self, what: str, logs: Path) -> None:
        """Say what, and where to look."""
        super().__init__(f"not within {START_TIMEOUT_S:g} s: {what}; see {logs}")


@dataclass(frozen=True)
class Missing:
    """Kinds of fault that this machine cannot do, and what would make it able."""

    kinds: tuple[Kind, ...]
    why: str


class Ground:
    """The loop in a folder that is its own; the faults reach in by its public parts."""

    def __init__(self, folder: Path, materials: Materials, ledger: LedgerKind, slices: int) -> None:
        """Remember where and what; `with` starts the proxies, `start` the processes."""
        self.folder, self._materials, self._ledger_kind = folder.absolute(), materials, ledger
        self._slices = slices
        self._stack = ExitStack()
        self.mosquitto = mosquitto.find_mosquitto()
        self.lines: dict[str, MqttProxy] = {}
        self.disks: dict[str, Fillable] = {}

    def __enter__(self) -> Self:
        """Make the folder, the configuration and the lines."""
        _remove(self.folder)
        self.folder.mkdir(parents=True)
        state = prepare(self.folder / "s3", None)
        self._s3_port = state.port
        self.broker_port, self.postgresql_port, s3_door = free_port(), free_port(), free_port()
        self.processes = self._stack.enter_context(Processes(self.folder / "logs", {**QUICK, **credentials_env(state)}))
        self.s3 = self._stack.enter_context(S3Proxy(s3_door, state.port))
        for name in (*EDGES, *WORKERS):
            self.lines[name] = self._stack.enter_context(MqttProxy(self.broker_port))
        self._configure()
        self.store = ObjectStore(S3Settings(endpoint_url=f"http://127.0.0.1:{state.port}", bucket=BUCKET))
        os.environ.update(credentials_env(state))  # for the store above, which reads them as every client does
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self._stack.close()

    @property
    def ledger_url(self) -> str:
        """Return where the ledger is."""
        if self._ledger_kind == "postgresql":
            return postgresql.url(self.postgresql_port)
        return f"sqlite:///{self.folder / 'ledger.sqlite'}"

    @property
    def broker_data(self) -> Path:
        """Return where mosquitto keeps what it keeps."""
        return self.folder / "broker"

    def clock_file(self, name: str) -> Path:
        """Return the file that sets a process's clock."""
        return self.folder / f"{name}.clock"

    def publisher(self, edge: str) -> str:
        """Name the bare publisher beside an edge, which shares its fate."""
        return f"baseline-{edge}"

    def available(self) -> tuple[dict[Kind, tuple[str, ...]], list[Missing]]:
        """Return which kinds of fault can strike whom here, and what is missing for the others."""
        clients, database = (*EDGES, *WORKERS), (POSTGRESQL,) if self._ledger_kind == "postgresql" else ()
        kinds: dict[Kind, tuple[str, ...]] = dict.fromkeys(Kind, clients)
        kinds[Kind.KILL] = (*clients, TRAINER, BROKER, S3, *database)
        kinds[Kind.STOP] = (*clients, S3, BROKER)
        kinds |= dict.fromkeys((Kind.BROKER_RESTART, Kind.BROKER_WIPE, Kind.AGAIN), (BROKER,))
        kinds |= {kind: (S3,) for kind in Kind if kind.name.startswith("S3_")}
        kinds[Kind.DISK_FULL] = EDGES
        missing = []
        if self.mosquitto is None:
            missing.append(Missing((Kind.BROKER_RESTART, Kind.BROKER_WIPE), "the embedded broker keeps nothing"))
        away = {kind for each in missing for kind in each.kinds}
        return {kind: targets for kind, targets in kinds.items() if kind not in away}, missing

    def start(self, *, baseline: bool = True, dashboard: bool = False) -> None:
        """Start every process, release the network, and wait until the doors are open."""
        self._start_servers()
        self.ledger = self._stack.enter_context(Ledger(self.ledger_url))
        self._start_workers()
        self.processes.start(TRAINER, self._sliceloop(TRAINER, TRAINER))
        if dashboard:
            self.processes.start(DASHBOARD, self._sliceloop(DASHBOARD, TRAINER))
        for edge in EDGES:
            self._start_edge(edge)
        if baseline:
            self._start_baseline()
        self.echo = self._stack.enter_context(Echo(self.broker_port))

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for something at the start; raises `NotUpError`."""
        never, until_s = threading.Event(), time.monotonic() + START_TIMEOUT_S
        while not condition():
            if time.monotonic() > until_s:
                raise NotUpError(what, self.folder / "logs")
            self.processes.check()
            never.wait(POLL_S)

    def twice(self) -> int:
        """Count how often a slice came that was stored already."""
        return sum(self.log(name).count("slice known") for name in WORKERS)

    def log(self, name: str) -> str:
        """Return what a process has said so far."""
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # Starting.

    def _configure(self) -> None:
        stage = Stage(self.folder, "phantoms", Roles((), (), (), ()), (), "", labelled=True)
        write_labels(self.folder / "first", self._materials.teachers)
        write_bundle(self.folder / "second-model", self._materials.bundle)
        s3_url = f"http://127.0.0.1:{self.s3.port}"
        self._configs = write_configs(stage, self.broker_port, s3_url, min_new_labels=NO_RETRAINING, seed=0)

    def _start_servers(self) -> None:
        folder, port = str(self.folder / "s3"), str(self._s3_port)
        self.processes.start(S3, ["cloud_worker.embedded_s3", "--folder", folder, "--port", port])
        if self.mosquitto is None:
            self.processes.start(BROKER, ["broker.embedded", "--port", str(self.broker_port)])
        else:
            config = mosquitto.write_config(self.broker_data, self.broker_port)
            self.processes.run(BROKER, [self.mosquitto, "-c", str(config)])
        if self._ledger_kind == "postgresql":
            self._start_postgresql()
        self.wait("the broker answers", lambda: answers(self.broker_port))
        self.wait("the S3 server answers", self._s3_answers)
        self.processes.start("release", self._release())
        self.processes.wait_for_end("release", START_TIMEOUT_S)

    def _start_postgresql(self) -> None:
        command = postgresql.server_command(self.folder / "postgresql", self.postgresql_port)
        self.processes.run(POSTGRESQL, command)
        self.wait("PostgreSQL answers", self._ledger_answers)

    def _release(self) -> list[str]:
        bundle, config = str(self.folder / "second-model"), str(self._configs["signer"])
        self.processes.add_env({"SLICELOOP_WORKER__LEDGER_URL": self.ledger_url})
        return ["sliceloop", "release", bundle, "--why", "chaos", "--config", config]

    def _start_workers(self) -> None:
        for name in WORKERS:
            env = {
                "SLICELOOP_WORKER__NAME": name,
                "SLICELOOP_WORKER__DECIDES": str(name == WORKERS[0]).lower(),
                "SLICELOOP_WORKER__ROLLOUT__RINGS": '[{"name": "all", "share": 1}]',
            }
            self.processes.start(name, self._by_its_clock(name, "worker", "worker"), {**env, **self._line(name)})

    def _start_edge(self, edge: str) -> None:
        inbox(self.folder, edge).mkdir(parents=True, exist_ok=True)
        size = DISK_BYTES + DISK_BYTES_A_SLICE * self._slices // len(EDGES)
        self.disks[edge] = on_small_disk(self.folder / edge / "data", size, self._stack.callback)
        command = [sys.executable, "-m", *self._by_its_clock(edge, "edge", edge)]
        if not isinstance(self.disks[edge], SmallDisk):
            command = through_a_pipe(command)
        self.processes.run(edge, command, self._line(edge))

    def _start_baseline(self) -> None:
        lines = ["--port", str(self.broker_port), "--file", str(self.baseline_file)]
        self.processes.start("baseline", ["sliceloop.chaos.baseline", "subscribe", *lines])
        self.wait("the baseline's subscriber", lambda: self.baseline_file.exists())
        for edge in EDGES:
            line, cursor = str(self.lines[edge].port), str(self.folder / f"{edge}.cursor")
            options = ["--port", line, "--edge", edge, "--inbox", str(inbox(self.folder, edge)), "--file", cursor]
            self.processes.start(self.publisher(edge), ["sliceloop.chaos.baseline", "publish", *options])

    @property
    def baseline_file(self) -> Path:
        """Return what the bare subscriber wrote."""
        return self.folder / "baseline.txt"

    def _sliceloop(self, command: str, config: str) -> list[str]:
        return ["sliceloop", command, "--config", str(self._configs[config])]

    def _line(self, name: str) -> dict[str, str]:
        return {"SLICELOOP_BROKER__PORT": str(self.lines[name].port)}

    def _by_its_clock(self, name: str, command: str, config: str) -> list[str]:
        """Return how to run a command of ours by a clock that can jump."""
        clock.set_clock(self.clock_file(name), 0)
        return ["sliceloop.chaos.clock", str(self.clock_file(name)), *self._sliceloop(command, config)[1:]]

    def _s3_answers(self) -> bool:
        try:
            self.store.ensure_bucket()
        except ObjectStoreError:
            return False
        return True

    def _ledger_answers(self) -> bool:
        try:
            with Ledger(self.ledger_url):
                return True
        except LedgerUnavailableError:
            return False


def _remove(folder: Path) -> None:
    """Remove an earlier run, with the small disks that one which was killed left mounted."""
    for edge in EDGES:
        if os.path.ismount(folder / edge / "data"):
            SmallDisk(folder / edge / "data").unmount()
    shutil.rmtree(folder, ignore_errors=True)
