"""Two edges, worker, trainer, broker and S3 server as the demo starts them, with what makes a test wait made short."""

import csv
import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from sqlalchemy import select

from broker.embedded import free_port
from broker.messages import Inbound
from broker.session import Session
from broker.settings import BrokerSettings
from cloud_worker.embedded_s3 import credentials_env, prepare
from cloud_worker.ledger import Ledger, StoredSlice
from cloud_worker.ledger.tables import slices
from cloud_worker.object_store import ObjectStore, ObjectStoreUnreachableError, S3Settings
from edge_agent.outbox import Outbox
from protocol.chunks import sha256_of
from protocol.labels import Label
from sliceloop.config import read_section
from sliceloop.demo.processes import ManagedProcess, Processes, ProcessFailedError
from sliceloop.demo.roles import Roles
from sliceloop.demo.stage import EDGES, SITE, Stage, inbox, write_configs, write_labels
from training.bundle import Bundle, write_bundle
from training.data.labelled import LABELS_FILE, load_slices, read_labels
from training.data.phantom import Cohort, write_phantoms
from training.data.slices import LabelledSlice
from training.learn import learn
from training.networks import build
from training.plan import TrainSettings
from training.train import EPOCH_FILE

DEADLINE_S = 60.0
POLL_S = 0.05
INTERVAL_S = 0.3
"""Between two slices on an edge."""
MAX_SLICES = 2_000
"""An edge's labels.csv names so many slices before they come."""
GIVEN_WHILE_DOWN = 2
"""Slices that each edge is given before a killed process is started again."""
EPOCHS = 16
"""Of a retraining: enough to be killed in the middle of it."""
MIN_NEW_LABELS = 12
PATIENT_SECRET = "0123456789abcdef" * 4
"""The same in every run, so that the same patients are held back."""

COMMANDS = {"signer": ("release", "--candidates", "--watch")}
"""Of services that are not named as their command."""
QUICK = {
    "SLICELOOP_BROKER__RECONNECT_MIN_S": "0.1",
    "SLICELOOP_BROKER__RECONNECT_MAX_S": "0.5",
    "SLICELOOP_EDGE__RECEIPT_TIMEOUT_S": "4",
    "SLICELOOP_EDGE__HEARTBEAT_S": "0.5",
    "SLICELOOP_EDGE__CHUNK_TIMEOUT_S": "1",
    "SLICELOOP_EDGE__PROBATION_SLICES": "2",
    "SLICELOOP_WORKER__STORE_RETRY_S": "0.3",
    "SLICELOOP_WORKER__ROLLOUT__RINGS": '[{"name": "all", "share": 1, "min_s": 0}]',
    "SLICELOOP_WORKER__RETRAIN__COOLDOWN_S": "0",
    "SLICELOOP_WORKER__RETRAIN__SILENCE_S": "8",
    "SLICELOOP_WORKER__RETRAIN__HELD_BACK_SHARE": "0.4",
    "SLICELOOP_TRAINER__TRAINING__EPOCHS": str(EPOCHS),
    "OMP_NUM_THREADS": "1",
}
"""Environment above the demo's configuration files."""


@dataclass(frozen=True)
class Materials:
    """Phantoms by path, those that teach and those that are streamed, and a network of one epoch."""

    teachers: tuple[LabelledSlice, ...]
    streamed: tuple[LabelledSlice, ...]
    bundle: Bundle


def make_materials(folder: Path) -> Materials:
    """Draw the phantoms and train the network; about ten seconds."""
    cohorts = [Cohort("site-a", "train", 3, 1), Cohort("site-a", "val", 2, 1), Cohort("site-b", "train", 8, 1)]
    write_phantoms(folder, cohorts, seed=7)
    rows = [LabelledSlice(str(folder / r.file), r.label, r.patient_id, r.source, r.split) for r in read_labels(folder)]
    teachers = tuple(row for row in rows if row.source == "phantom-site-a")
    sides = [load_slices(folder, [row for row in teachers if row.split == split]) for split in ("train", "val")]
    network = build("squeezenet1_1_bn", 64)
    bundle = learn(network, sides[0], sides[1], TrainSettings(epochs=1, batch=4), on_epoch=lambda _: None)
    return Materials(teachers, tuple(row for row in rows if row not in teachers), bundle)


@dataclass
class Feed:
    """What one edge was given: the SHA-256 of each file, in order."""

    edge: str
    given: list[str] = field(default_factory=list)
    next_due_s: float = 0.0


class Ear:
    """A subscriber that keeps all that it has heard."""

    def __init__(self, session: Session) -> None:
        """Remember the session, which belongs to the caller."""
        self._session = session
        self._heard: list[Inbound] = []

    def heard(self) -> list[Inbound]:
        """Return all messages until now, oldest first."""
        while (inbound := self._session.receive(0)) is not None:
            self._heard.append(inbound)
            self._session.ack(inbound)
        return self._heard


class Loop:
    """One loop in a folder; everything that a test waits for goes on streaming meanwhile, once `streaming` is set."""

    def __init__(self, folder: Path, materials: Materials) -> None:
        """Remember the folder and what to stream."""
        self.folder, self._materials = folder, materials
        self.streaming = False
        self.recovery_s: list[tuple[str, float]] = []
        self._feeds = {edge: Feed(edge) for edge in EDGES}
        self._truth: dict[str, Label] = {}
        self._started: dict[str, ManagedProcess] = {}
        self._down: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Write the configuration and open the ledger."""
        self.s3_state = prepare(self.folder / "s3", None)
        self.s3_url = f"http://127.0.0.1:{self.s3_state.port}"
        self.broker = BrokerSettings(port=free_port(), reconnect_min_s=0.1, reconnect_max_s=0.5)
        env = {**QUICK, **credentials_env(self.s3_state)}
        self.processes = self._stack.enter_context(Processes(self.folder / "logs", env))
        self._configure()
        self.store = ObjectStore(read_section(self._configs["worker"], "s3", S3Settings))
        self.ledger = self._stack.enter_context(Ledger(f"sqlite:///{self.folder / 'ledger.sqlite'}"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self._stack.close()

    # Processes.

    def start_broker(self) -> None:
        """Start the embedded broker."""
        self._start("broker", "broker.embedded", "--port", str(self.broker.port))

    def start_s3(self) -> None:
        """Start the embedded S3 server."""
        folder, port = str(self.folder / "s3"), str(self.s3_state.port)
        self._start("s3", "cloud_worker.embedded_s3", "--folder", folder, "--port", port)

    def start(self, *names: str) -> None:
        """Start services by their names."""
        for name in names:
            command = COMMANDS.get(name, ("edge",) if name in EDGES else (name,))
            self._start(name, "sliceloop", *command, "--config", str(self._configs[name]))

    def release(self) -> None:
        """Release the network by hand, as an engineer does; whether it is better does not matter here."""
        self.wait("the S3 server answers", self._s3_answers)
        bundle, config = str(self.folder / "second-model"), str(self._configs["signer"])
        command = ("sliceloop", "release", bundle, "--why", "a test", "--config", config)
        self.wait("a release by hand", lambda: self._released(command))

    def _released(self, command: Sequence[str]) -> bool:
        """Run it; where the signer was quicker it is to be run again, as it says."""
        self._start("release", *command)
        try:
            self.processes.wait_for_end("release", DEADLINE_S)
        except ProcessFailedError as error:
            if "do it again" not in str(error):
                raise
            return False
        return True

    def start_all(self) -> None:
        """Start everything and stream until the first slices of both edges are stored."""
        self.start_broker()
        self.start_s3()
        self.release()
        self.start("worker", "trainer", "signer", *EDGES)
        self.streaming = True
        self.wait_for_new_slices()

    def kill(self, name: str) -> None:
        """End a process by SIGKILL."""
        self.processes.kill(name)
        self._down.add(name)

    def restart(self, name: str) -> None:
        """Start a killed process again."""
        self.processes.restart(name)
        self._down.discard(name)

    def kill_and_restart(self, name: str) -> None:
        """Kill a process, stream on without it, start it again, and wait until new slices of both edges are stored."""
        self.kill(name)
        self.wait_for_given(GIVEN_WHILE_DOWN)
        self.restart(name)
        started_s = time.monotonic()
        self.wait_for_new_slices()
        self.recovery_s.append((name, time.monotonic() - started_s))

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process."""
        process = self._started[name].process
        assert process is not None
        process.send_signal(number)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the engineer's, on the worker's configuration, to its end."""
        command = [sys.executable, "-m", "sliceloop", *arguments, "--config", str(self._configs["worker"])]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def log(self, name: str) -> str:
        """Return what a process has said so far."""
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @contextmanager
    def listening(self, topic_filter: str) -> Iterator[Ear]:
        """Subscribe beside the services."""
        with Session(self.broker, "listener", subscriptions=[topic_filter], clean_start=True) as session:
            yield Ear(session)

    # The stream.

    def give(self, edge: str) -> None:
        """Put a slice that nobody has seen into an edge's folder, whole or not at all."""
        feed = self._feeds[edge]
        number = len(feed.given)
        row = self._row(edge, number)
        data = _noisy_copy(Path(row.file), seed=number * len(EDGES) + EDGES.index(edge))
        target = inbox(self.folder, edge) / f"{number:05d}.png"
        temporary = target.with_suffix(".part")
        temporary.write_bytes(data)
        temporary.replace(target)
        sha256 = hashlib.sha256(data).hexdigest()
        feed.given.append(sha256)
        self._truth[sha256] = row.label

    def given(self, edge: str) -> int:
        """Count the slices that an edge was given."""
        return len(self._feeds[edge].given)

    def wait(self, what: str, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Wait for something, streaming meanwhile; fails when it does not come, or when a process ends by itself."""
        never, until_s = threading.Event(), time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < until_s, f"not within {deadline_s:g} s: {what}\n{self._last_words()}"
            if not self._down:
                self.processes.check()
            self._stream(time.monotonic())
            never.wait(POLL_S)

    def wait_for_given(self, count: int) -> None:
        """Wait until every edge was given so many more slices."""
        goals = {edge: self.given(edge) + count for edge in EDGES}
        self.wait(f"{count} more slices", lambda: all(self.given(edge) >= goal for edge, goal in goals.items()))

    def wait_for_new_slices(self) -> None:
        """Wait until each edge has a slice in the ledger that it was given after this call."""
        before = {edge: self.given(edge) for edge in EDGES}
        self.wait(
            "new slices of both edges are stored",
            lambda: all(self._is_stored(feed.given[before[feed.edge] :]) for feed in self._feeds.values()),
        )

    def wait_until_all_is_stored(self) -> None:
        """End the stream, and wait until everything given is stored, every receipt has come, and no problem is left."""
        self.streaming = False
        self.wait("everything given is stored", self._is_all_stored)
        done = {edge: (self.given(edge), 0, "") for edge in EDGES}
        self.wait("the edges have said all", lambda: self._last_status() == done)

    def data_dir(self, edge: str) -> Path:
        """Return an edge's data folder."""
        return self.folder / edge / "data"

    def outbox(self, edge: str) -> Outbox:
        """Return an edge's outbox, to be opened."""
        return Outbox(self.data_dir(edge) / "outbox.sqlite", max_rows=1, max_bytes=1)

    def outbox_depth(self, edge: str) -> int:
        """Count the messages of an edge without a receipt."""
        with self.outbox(edge) as outbox:
            return outbox.depth()

    def slices_read(self, edge: str) -> int:
        """Count the slices that an edge has read and kept."""
        with self.outbox(edge) as outbox:
            return outbox.last_sequence()

    def chunks_kept(self, edge: str) -> int:
        """Count the whole chunks of a download on an edge's disk."""
        incoming = self.folder / edge / "data" / "models" / "incoming"
        return len([path for path in incoming.glob("*") if not path.suffix])

    # The cloud.

    def stored(self) -> list[StoredSlice]:
        """Return every stored slice, in the order of each edge's numbers."""
        return [
            StoredSlice(**row) for row in self.ledger.rows(select(slices).order_by(slices.c.edge, slices.c.sequence))
        ]

    def unlabelled(self) -> list[StoredSlice]:
        """Return the stored slices that no reviewer has seen, oldest first."""
        labelled = {labelled.slice_id for labelled in self.ledger.labelled_slices()}
        waiting = [stored for stored in self.stored() if stored.slice_id not in labelled]
        return sorted(waiting, key=lambda stored: stored.received_at)

    def label(self, count: int) -> None:
        """Set the labels of so many stored slices, as a reviewer does who knows the truth."""
        for stored in self.unlabelled()[:count]:
            label = self._truth[stored.frame_sha256]
            self.ledger.set_label(stored.slice_id, label, "reviewer", "the phantom's own", datetime.now(UTC))

    def finished_epochs(self, request_id: str) -> Path:
        """Return where the trainer keeps the last finished epoch of a request."""
        return self.folder / "trainer" / request_id / "epochs" / EPOCH_FILE

    def active_versions(self) -> dict[str, int]:
        """Return the version that each edge last reported as active."""
        reported = {record.edge: record.reported or {} for record in self.ledger.edges()}
        return {
            edge: int(said["running"]["version"])
            for edge, said in reported.items()
            if said.get("phase") == "active" and said.get("running")
        }

    def assert_nothing_is_lost_or_doubled(self) -> None:
        """Compare what was streamed with ledger and object store, message by message and byte by byte."""
        stored = self.stored()
        given = [sha256 for feed in self._feeds.values() for sha256 in feed.given]
        assert Counter(each.frame_sha256 for each in stored) == Counter(given)
        for edge in EDGES:
            sequences = [each.sequence for each in stored if each.edge == edge]
            assert sequences == list(range(1, self.given(edge) + 1)), f"numbers of {edge}"
            assert self.ledger.gaps(SITE, edge) == []
        assert self.ledger.dead_letters() == []
        for each in stored:
            assert sha256_of(self.store.get(each.image_key)) == each.image_sha256
            frames = self.ledger.frames_of(each.slice_id)
            assert [frame.sha256 for frame in frames] == [each.frame_sha256]
            assert sha256_of(self.store.get(frames[0].frame_key)) == each.frame_sha256

    def figures(self) -> str:
        """Say how much was streamed, how much came twice, and how long each process took to come back."""
        given = sum(self.given(edge) for edge in EDGES)
        twice = self.log("worker").count("slice known")
        recovered = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.recovery_s)
        return f"{given} slices streamed, {twice} came again; back after {recovered}"

    def _start(self, name: str, *arguments: str) -> None:
        self._started[name] = self.processes.start(name, arguments)

    def _configure(self) -> None:
        stage = Stage(self.folder, "phantoms", Roles((), (), (), ()), (), "", labelled=True)
        write_labels(self.folder / "first", self._materials.teachers)
        write_bundle(self.folder / "second-model", self._materials.bundle)
        self._configs = write_configs(stage, self.broker.port, self.s3_url, min_new_labels=MIN_NEW_LABELS, seed=0)
        (self.folder / "patient-secret").write_text(PATIENT_SECRET)
        for edge in EDGES:
            with (inbox(self.folder, edge) / LABELS_FILE).open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["file", "patient_id", "source"])
                rows = (self._row(edge, number) for number in range(MAX_SLICES))
                writer.writerows([f"{n:05d}.png", row.patient_id, row.source] for n, row in enumerate(rows))

    def _row(self, edge: str, number: int) -> LabelledSlice:
        mine: Sequence[LabelledSlice] = self._materials.streamed[EDGES.index(edge) :: len(EDGES)]
        return mine[number % len(mine)]

    def _stream(self, now_s: float) -> None:
        for feed in self._feeds.values():
            if self.streaming and now_s >= feed.next_due_s:
                self.give(feed.edge)
                feed.next_due_s = now_s + INTERVAL_S

    def _stored_frames(self) -> set[str]:
        return {row["frame_sha256"] for row in self.ledger.rows(select(slices.c.frame_sha256))}

    def _is_stored(self, given: Sequence[str]) -> bool:
        return not self._stored_frames().isdisjoint(given)

    def _is_all_stored(self) -> bool:
        return self._stored_frames() >= {sha256 for feed in self._feeds.values() for sha256 in feed.given}

    def _last_status(self) -> dict[str, tuple[int, int, str]]:
        said = {record.edge: record.status or {} for record in self.ledger.edges()}
        return {e: (s["last_sequence"], s["outbox_depth"], s["problem"]) for e, s in said.items() if s}

    def _s3_answers(self) -> bool:
        try:
            self.store.ensure_bucket()
        except ObjectStoreUnreachableError:
            return False
        return True

    def _last_words(self) -> str:
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"{log.stem}: {ManagedProcess(log.stem, (), log, {}).last_words(3)}" for log in logs)


def _noisy_copy(path: Path, seed: int) -> bytes:
    """Return a PNG of the picture with faint noise, so that no two are the same."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None, path
    noise = np.random.default_rng(seed).integers(-2, 3, pixels.shape)
    encoded, png = cv2.imencode(".png", np.clip(pixels + noise, 0, 255).astype(np.uint8))
    assert encoded
    return bytes(png)
