"""`sliceloop demo`: prepare, start everything, stream, review, wait for the release on every edge, and take stock."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from broker.embedded import free_port
from broker.settings import BrokerSettings
from broker.trusted_keys import load_key_set
from cloud_worker.embedded_s3 import credentials_env, prepare
from cloud_worker.ledger import Ledger, Release
from cloud_worker.object_store import ObjectStore, S3Settings
from edge_agent.outbox import Outbox
from protocol.manifest import MODEL_FILE, Manifest
from protocol.messages import ModelPhase
from protocol.signing import verify
from sliceloop.config import read_section
from sliceloop.demo.measure import compare_releases, reviews_asked, stored_frames, timeline, worst_swap
from sliceloop.demo.processes import Processes, exit_on_signals
from sliceloop.demo.result import LEARNT_FROM_PHANTOMS, AccuracyPair, DemoResult, EdgeRow, ReleaseRow, summary
from sliceloop.demo.scanner import EdgeFeed, Scanner
from sliceloop.demo.screen import DemoScreen
from sliceloop.demo.stage import (
    BATCH,
    EDGE_ARCHITECTURE,
    EDGES,
    INPUT_PX,
    SECOND_ARCHITECTURE,
    SITE,
    Stage,
    inbox,
    prepare_stage,
    write_configs,
)
from sliceloop.logs import configure_logs
from training.data.labelled import load_slices
from training.model.reader import Calibration, OnnxReader

STEP_S = 0.1
LOOK_S = 0.5
"""How often the reviewer and the bookkeeping look into the ledger."""
LOOP_TIMEOUT_S = 900
TRAIN_TIMEOUT_S = 600
START_TIMEOUT_S = 60
FIRST_EPOCHS, SECOND_EPOCHS = 60, 30
FIRST_VERSION = 1
REVIEWER = "scripted-reviewer"
LABELS_SHARE = 0.35
"""Share of the streamed slices that must be labelled before a retraining is asked for."""
MIN_LABELS = 8

Say = Callable[[str], None]


@dataclass
class Account:
    """What the demo saw happen, beside the ledger."""

    started_s: float
    loop_started_s: float = 0.0
    swapped: set[str] = field(default_factory=set)


def run_demo(
    images: Path | None,
    n_slices: int,
    seed: int,
    folder: Path,
    *,
    headless: bool = False,
    json: Path | None = None,
    svg: Path | None = None,
) -> int:
    """Run the demo; return the exit code: 0 only when nothing was lost, doubled or missing."""
    exit_on_signals()
    run_folder = folder.absolute() / f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    account = Account(time.monotonic())
    with DemoScreen(headless, svg) as screen:
        with screen.counting("phantom slices") as on_slice:
            stage = prepare_stage(run_folder, folder.absolute(), images, n_slices, seed, on_slice)
        screen.say(f"{len(stage.stream)} slices of {stage.images} to stream; data and logs in {run_folder}")
        if not stage.labelled:
            screen.say(LEARNT_FROM_PHANTOMS)
        result = _run_logged(_Demo(stage, seed, account, screen), run_folder / "logs")
    Console().print(summary(result))
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(result.model_dump_json(indent=2) + "\n")
    return 1 if result.faults() else 0


def _run_logged(demo: "_Demo", logs: Path) -> DemoResult:
    logs.mkdir()
    with (logs / "demo.log").open("w") as file:
        configure_logs("info", file)  # not the terminal, where the dashboard is drawn
        return demo.run()


class _Demo:
    """One run: holds what its steps share."""

    def __init__(self, stage: Stage, seed: int, account: Account, screen: DemoScreen) -> None:
        self._stage, self._seed, self._account, self._screen = stage, seed, account, screen
        self._folder = stage.folder
        self._broker = BrokerSettings(port=free_port())
        self._labels = {file.sha256: file.label for file in stage.stream}
        files = [stage.edge_files(index) for index in range(len(EDGES))]
        self._feeds = [
            EdgeFeed(inbox(stage.folder, edge), [file.path for file in mine])
            for edge, mine in zip(EDGES, files, strict=True)
        ]

    def run(self) -> DemoResult:
        """Go once round the loop and take stock."""
        with ExitStack() as stack:
            processes = stack.enter_context(Processes(self._folder / "logs"))
            s3_state = prepare(self._folder / "s3", None)
            processes.add_env(credentials_env(s3_state))
            os.environ.update(credentials_env(s3_state))  # for our own look into the store; boto3 reads nothing else
            self._start_servers(processes, s3_state.port)
            configs = self._configure(f"http://127.0.0.1:{s3_state.port}")
            self._train_readers(processes)
            self._release_first(processes, configs["signer"])
            ledger = stack.enter_context(Ledger(f"sqlite:///{self._folder / 'ledger.sqlite'}"))
            for name in ("worker", "trainer", *EDGES):
                command = "edge" if name in EDGES else name
                processes.start(name, ["sliceloop", command, "--config", str(configs[name])])
            # it stands for an engineer, who looks at the gate's figures and signs on a machine of their own
            watch = ["sliceloop", "release", "--candidates", "--watch", "--config", str(configs["signer"])]
            processes.start("signer", watch)
            self._screen.attach(self._broker)
            self._account.loop_started_s = time.monotonic()
            self._go_round(processes, ledger)
            self._screen.take_picture()
            store = ObjectStore(read_section(configs["worker"], "s3", S3Settings))
            return self._take_stock(ledger, store)

    def _start_servers(self, processes: Processes, s3_port: int) -> None:
        processes.start("broker", ["broker.embedded", "--port", str(self._broker.port)])
        s3_folder = str(self._folder / "s3")
        processes.start("s3", ["cloud_worker.embedded_s3", "--folder", s3_folder, "--port", str(s3_port)])
        self._screen.say(f"embedded broker on port {self._broker.port}, S3 server on port {s3_port}")

    def _configure(self, s3_url: str) -> dict[str, Path]:
        min_new_labels = max(MIN_LABELS, int(LABELS_SHARE * len(self._stage.stream)))
        return write_configs(self._stage, self._broker.port, s3_url, min_new_labels=min_new_labels, seed=self._seed)

    def _train_readers(self, processes: Processes) -> None:
        self._screen.say("training a weak first model on few patients, and a second reader on more")
        for name, architecture, epochs in (
            ("first", EDGE_ARCHITECTURE, FIRST_EPOCHS),
            ("second", SECOND_ARCHITECTURE, SECOND_EPOCHS),
        ):
            out = str(self._folder / f"{name}-model")
            data = str(self._folder / name)
            options = ["--architecture", architecture, "--input-px", str(INPUT_PX), "--batch", str(BATCH)]
            processes.start(
                f"train-{name}", ["sliceloop", "train", data, "--out", out, "--epochs", str(epochs), *options]
            )
        for name in ("first", "second"):
            processes.wait_for_end(f"train-{name}", TRAIN_TIMEOUT_S)
            self._screen.say((self._folder / "logs" / f"train-{name}.log").read_text().splitlines()[-1])

    def _release_first(self, processes: Processes, config: Path) -> None:
        bundle = str(self._folder / "first-model")
        why = "first model of the demo, weak on purpose"
        processes.start("release", ["sliceloop", "release", bundle, "--why", why, "--config", str(config)])
        processes.wait_for_end("release", START_TIMEOUT_S)
        self._screen.say("release 1 signed; starting worker, trainer, signer and two edges")

    def _go_round(self, processes: Processes, ledger: Ledger) -> None:
        scanner = Scanner(self._feeds)
        pause = threading.Event()
        next_look_s, done, hold_reserve = 0.0, False, False
        deadline_s = time.monotonic() + LOOP_TIMEOUT_S
        while not done:
            now_s = time.monotonic()
            if now_s > deadline_s:
                self._screen.say(f"the loop did not close within {LOOP_TIMEOUT_S} s")
                return
            if now_s >= next_look_s:
                next_look_s = now_s + LOOK_S
                processes.check()
                self._review(ledger)
                self._note_swaps(ledger)
                hold_reserve = self._stage.labelled and not self._settled(ledger)
                self._hold_tails(ledger, hold_reserve)
                done = self._is_done(ledger, scanner)
            requested = bool(ledger.last_request_at())
            scanner.step(now_s, requested=requested, hold_reserve=hold_reserve)
            self._screen.refresh()
            pause.wait(STEP_S)

    def _review(self, ledger: Ledger) -> None:
        """Enter the label of every open disagreement, as a radiologist would who knows the truth."""
        if not self._stage.labelled:
            return
        for row in ledger.open_disagreements():
            label = self._labels.get(row.slice.frame_sha256)
            if label is not None:
                why = "labels.csv of the streamed slices"
                ledger.set_label(row.slice.slice_id, label, REVIEWER, why, datetime.now(UTC))

    def _note_swaps(self, ledger: Ledger) -> None:
        for edge, feed in zip(EDGES, self._feeds, strict=True):
            if edge not in self._account.swapped and _version_read(ledger, edge) > 1:
                self._account.swapped.add(edge)
                feed.swapped_at = feed.given
                self._screen.say(f"{edge} reads with release {_version_read(ledger, edge)}")

    def _hold_tails(self, ledger: Ledger, unsettled: bool) -> None:
        """Keep slices for the new release: without any an edge has nothing to compare it by, and never swaps."""
        newest, fallen = _newest(ledger)
        told = {each.edge: each.version for each in ledger.assignments()}
        expected = self._stage.labelled and (unsettled or self._under_way(ledger))
        for edge, feed in zip(EDGES, self._feeds, strict=True):
            offered = 0 if fallen else newest
            swapped = edge in self._account.swapped
            feed.waiting = not swapped and tail_waits(offered, told.get(edge, 0), expected=expected)

    def _under_way(self, ledger: Ledger) -> bool:
        return bool(ledger.requests_open() or ledger.pending_candidates() or ledger.accepted_unreleased())

    def _settled(self, ledger: Ledger) -> bool:
        """Tell whether all that was given so far is stored, read again and labelled: waiting brings no request."""
        given = sum(feed.given for feed in self._feeds) - len(self._refused())
        behind = sum(stored_frames(ledger).values()) < given or ledger.slices_without("second", 1)
        return not behind and not ledger.open_disagreements(1)

    def _is_done(self, ledger: Ledger, scanner: Scanner) -> bool:
        if not scanner.finished:
            return False
        stored = sum(stored_frames(ledger).values())
        if stored + len(self._refused()) < scanner.given or ledger.slices_without("second", 1):
            return False
        if any(_outbox_depth(ledger, edge) for edge in EDGES):
            return False
        return not self._stage.labelled or self._loop_closed(ledger)

    def _loop_closed(self, ledger: Ledger) -> bool:
        """Tell whether every edge reads with what was learnt here, or nothing is under way that could bring it.

        A further release is not waited for: after the last slice it would stay in its shadow for good.
        """
        running = [_running(ledger, edge) for edge in EDGES]
        if all(version > FIRST_VERSION for version, _ in running):
            return True
        newest, fallen = _newest(ledger)
        return not self._under_way(ledger) and (fallen or all(in_use(newest, *each) for each in running))

    def _refused(self) -> list[tuple[str, str]]:
        refused = []
        for edge in EDGES:
            path = self._folder / edge / "data" / "outbox.sqlite"
            if path.exists():
                with Outbox(path, max_rows=1, max_bytes=1) as outbox:
                    refused += outbox.refused()
        return refused

    def _take_stock(self, ledger: Ledger, store: ObjectStore) -> DemoResult:
        now_s = time.monotonic()
        loop_seconds = now_s - self._account.loop_started_s
        frames, refused = stored_frames(ledger), len(self._refused())
        given = sum(feed.given for feed in self._feeds)
        asked, releases = reviews_asked(ledger), ledger.releases()
        return DemoResult(
            images=self._stage.images,
            captured=given - refused,
            refused=refused,
            stored=sum(frames.values()),
            lost=max(given - refused - len(frames), 0),
            duplicates=sum(count - 1 for count in frames.values()),
            disagreements=asked.total() - asked["audit"],
            audits=asked["audit"],
            labelled=len(ledger.labelled_slices()),
            retrain_requests=len(ledger.requests()),
            gate_refusals=sum(candidate.verdict == "refused" for candidate in ledger.candidates()),
            releases=tuple(
                ReleaseRow(version=release.version, sha256=release.sha256, gate=dict(release.gate or {}))
                for release in releases
            ),
            edges=tuple(EdgeRow(id=f"{SITE}/{edge}", version=_running(ledger, edge)[0]) for edge in EDGES),
            accuracy=self._accuracy(ledger, store),
            swap=worst_swap(ledger, EDGES),
            stopped_at_review=not self._stage.labelled,
            setup_seconds=self._account.loop_started_s - self._account.started_s,
            loop_seconds=loop_seconds,
            seconds=time.monotonic() - self._account.started_s,
        )

    def _accuracy(self, ledger: Ledger, store: ObjectStore) -> AccuracyPair | None:
        if not self._stage.labelled:
            return None
        self._screen.say("reading the evaluation patients with the first and the last release")
        evaluation = load_slices(Path("/"), self._stage.roles.evaluation)
        releases = ledger.releases()
        in_use_last = max(_running(ledger, edge)[0] for edge in EDGES)
        last = next((each for each in releases if each.version == in_use_last), releases[0])
        before, after = (self._reader(release, store) for release in (releases[0], last))
        return compare_releases(before, after, evaluation, self._stage.evaluation_data)

    def _reader(self, release: Release, store: ObjectStore) -> OnnxReader:
        """Load a release as an edge does, with the calibration that its manifest signs."""
        keys = load_key_set(self._folder / "keys" / "trusted", 1)
        manifest = Manifest.model_validate_json(verify(release.envelope, keys.release))
        calibration = Calibration(manifest.labels, manifest.temperature, manifest.uncertain_below)
        return OnnxReader(store.get(release.files[MODEL_FILE]), calibration)


def tail_waits(newest: int, told: int, *, expected: bool) -> bool:
    """Tell whether the last slices of an edge that has not swapped wait: for a release, and until it is told of it."""
    return told != newest if newest > FIRST_VERSION else expected


def in_use(wanted: int, version: int, phase: str) -> bool:
    """Tell whether an edge that reports this version and phase reads with the wanted release.

    One that comes after the last slice stays on probation for good: there is nothing left to read with it.
    """
    return version == wanted and phase in (ModelPhase.PROBATION, ModelPhase.ACTIVE)


def _newest(ledger: Ledger) -> tuple[int, bool]:
    """Return the newest release, and whether its rollout was aborted."""
    latest = ledger.latest_release()
    assert latest is not None, "the demo made the first release"
    aborted = any(each.version == latest.version and each.state == "aborted" for each in ledger.rollouts())
    return latest.version, aborted


def _version_read(ledger: Ledger, edge: str) -> int:
    diagnoses = timeline(ledger, edge)
    return diagnoses[-1].version if diagnoses else 0


def _running(ledger: Ledger, edge: str) -> tuple[int, str]:
    """Return the version that an edge last reported, and its phase."""
    for record in ledger.edges():
        if record.edge == edge and record.reported:
            running = record.reported.get("running") or {}
            return int(running.get("version", 0)), str(record.reported.get("phase", ""))
    return 0, ""


def _outbox_depth(ledger: Ledger, edge: str) -> int:
    return next((int((r.status or {}).get("outbox_depth", 0)) for r in ledger.edges() if r.edge == edge), 0)
