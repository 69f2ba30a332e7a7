"""The edge agent: one loop that captures and reads, one thread that talks to the cloud."""

import fcntl
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import structlog

from broker.settings import BrokerSettings
from broker.supervised import SupervisedThread
from broker.trusted_keys import load_key_set
from edge_agent.capture.frame import CapturedFrame, FrameRefusedError, SourceError
from edge_agent.develop import PictureRefusedError
from edge_agent.durable import write_durably
from edge_agent.inlet import Inlet, open_inlet
from edge_agent.kept import KeptSlices
from edge_agent.link import Link
from edge_agent.model_slot import ModelSlot
from edge_agent.outbox import Outbox, OutboxError
from edge_agent.outbox.cipher import cipher_of
from edge_agent.priority import priority
from edge_agent.reading import EdgeIdentity, NetworkFaultError, OriginalsPolicy, ReadSlice, read_slice
from edge_agent.settings import EdgeSettings
from edge_agent.staging import StagingThread, Trial
from edge_agent.trial import TrialBounds, try_model
from edge_agent.trust import EdgeTrust
from edge_agent.updater import Proving
from edge_agent.watch import in_a_thread
from protocol.manifest import Manifest
from protocol.topics import check_edge_ids
from training.model.decode import ImageError
from training.model.preprocess import BlankFrameError
from training.model.reader import Calibration

log = structlog.get_logger()

PRIVATE = 0o700
"""Of the data folder: slices wait in it, and also lie where they waited until something is written over them."""
IDLE_S = 0.02
"""Wait between two looks at the source when nothing is due."""
MAX_FAILURES = 3
"""So often is a slice tried that cannot be prepared, or on which the network fails."""
RETRY_S = 1.0
"""Wait after something stood in the way: a missing folder, a full outbox, no model."""
ENVELOPE_BYTES = 4096
"""Room that topic and user properties take besides an original's bytes."""
TRIED_WITH = "onnx"
"""Takes a network's file apart in the process where it is tried; the agent itself does not load it."""
KEPT_FOLDER = "kept"
"""In the data folder."""
LOCK_FILE = "edge.lock"
"""In the data folder; locked as long as an edge uses it."""


class EdgeSetupError(RuntimeError):
    """The agent cannot start; the message says which setting to mend."""


def run_edge(settings: EdgeSettings, broker: BrokerSettings, stop: threading.Event) -> None:
    """Run one edge agent until the stop; raises `EdgeSetupError` or `OutboxError` when it cannot start."""
    check_edge_ids(settings.site, settings.edge)
    keys = load_key_set(settings.trusted_keys_dir, settings.trusted_threshold)
    with ExitStack() as stack:
        stack.enter_context(sole_user(settings.data_dir))
        identity = EdgeIdentity(settings.site, settings.edge, uuid.uuid4().hex, load_patient_secret(settings))
        trust = EdgeTrust(settings.data_dir / "trust", keys, site=settings.site, edge=settings.edge)
        trust.load()
        slot = ModelSlot(
            settings.data_dir / "models",
            trust.ever_trusted,
            threads=settings.threads,
            architectures=frozenset(settings.architectures),
            max_bytes=settings.max_model_bytes,
        )
        slot.load_active()
        outbox = stack.enter_context(settings.outbox())
        kept = KeptSlices(settings.data_dir / KEPT_FOLDER, settings.kept_slices, cipher_of(settings.outbox_key_file))
        kept.tidy()
        proving = Proving(stack.enter_context(StagingThread()), _trial(settings, stop), in_a_thread, kept)
        link = Link(settings, broker, identity, outbox, slot, trust, proving, f"sliceloop {version('sliceloop')}")
        inlet = stack.enter_context(open_inlet(settings, identity.boot_id, outbox, stop))
        originals = OriginalsPolicy(
            settings.send_originals, settings.send_dicom_originals, broker.max_payload_bytes - ENVELOPE_BYTES
        )
        log.info("edge started", site=settings.site, edge=settings.edge, waiting=outbox.depth())
        stack.enter_context(SupervisedThread("edge-link", lambda: link.run(stop, time.monotonic), stop))
        ReadingLoop(inlet, slot, outbox, link, identity, originals).run(stop)
    log.info("edge stopped")


class ReadingLoop:
    """Takes one frame after another from the source to the outbox; what stands in the way is said, and waited out."""

    def __init__(
        self,
        inlet: Inlet,
        slot: ModelSlot,
        outbox: Outbox,
        link: Link,
        identity: EdgeIdentity,
        originals: OriginalsPolicy,
    ) -> None:
        """Remember the parts."""
        self._inlet, self._slot, self._outbox, self._link = inlet, slot, outbox, link
        self._identity, self._originals = identity, originals
        self._failures = 0

    def run(self, stop: threading.Event) -> None:
        """Read until the stop."""
        problem = ""
        while not stop.is_set():
            said, problem = problem, self.step(time.monotonic())
            self._link.problem(problem)
            self._link.camera_says(self._inlet.guidance, self._inlet.refusals)
            if problem and problem != said:
                log.warning("not reading", reason=problem)
            elif said and not problem:
                log.info("reading again")
            stop.wait(RETRY_S if problem else IDLE_S)

    def step(self, now_s: float) -> str:
        """Read the frame that is due, if any; return what stands in the way, or nothing."""
        if self._slot.current is None:
            return "no model yet: waiting for a signed release on the model-update topic"
        try:
            frame = self._inlet.step(now_s)
            if frame is not None:
                self._read(frame, now_s)
        except FrameRefusedError as error:
            return self._refuse(error.key, error, now_s)
        except (SourceError, OutboxError) as error:
            return str(error)
        except OSError as error:  # its own words name the file, which may be a patient's
            return f"the source cannot be read ({error.strerror}); check the folder's rights"
        return ""

    def _read(self, frame: CapturedFrame, now_s: float) -> None:
        model = self._slot.current
        if model is None:  # rolled back a moment ago, with nothing to return to
            return
        sequence = self._outbox.last_sequence() + 1
        try:
            with self._slot.trying():
                inlet = self._inlet
                read = read_slice(
                    frame, model, self._identity, sequence, self._originals, inlet.prepare, inlet.most_unlike
                )
        except (ImageError, BlankFrameError, PictureRefusedError) as error:
            self._refuse(frame.key, error, now_s, frame)
            return
        except NetworkFaultError as error:
            version = model.manifest.version
            self._link.updater.slice_was_read(version, fault=str(error))
            self._failed_on(frame, "the network failed on a slice", f"release {version}: {error}", now_s)
            return
        except Exception as error:  # noqa: BLE001  of OpenCV, or no memory: nothing against the network
            self._failed_on(frame, "a slice could not be prepared", f"{type(error).__name__}: {error}", now_s)
            return
        self._failures = 0
        urgency = priority(read.diagnosis.reading, on_probation=self._slot.on_probation)
        self._outbox.add(frame.key, read.slice_id, read.sequence, read.messages, priority=urgency)
        self._inlet.taken(frame.key, now_s)
        self._link.leave(read.diagnosis)
        self._link.updater.slice_was_read(model.manifest.version, read)
        _log_reading(read)

    def _failed_on(self, frame: CapturedFrame, what: str, why: str, now_s: float) -> None:
        """Try a slice again, since another network may have been swapped in, or memory be free; but not for ever."""
        self._failures += 1
        log.error("reading failed", failures=self._failures, reason=f"{what} ({why})")
        if self._failures >= MAX_FAILURES:
            self._failures = 0
            self._refuse(frame.key, FrameRefusedError(frame.key, f"{what} ({why})"), now_s, frame)
            return
        raise SourceError(f"{what}; it is read again")

    def _refuse(self, key: str, reason: Exception, now_s: float, frame: CapturedFrame | None = None) -> str:
        try:
            self._inlet.refuse(key, reason, now_s, frame)
        except OutboxError as error:
            return str(error)
        # no file name here: it may be a patient's
        log.warning("frame refused", reason=str(reason), next="`sliceloop refused` lists it on this box")
        return ""


@contextmanager
def sole_user(data_dir: Path) -> Iterator[None]:
    """Keep other edges off the data folder, to the end of the process at the latest; raises `EdgeSetupError`."""
    data_dir.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    try:
        data_dir.chmod(PRIVATE)
    except OSError as error:
        log.warning("data folder open to others", reason=error.strerror, next=f"chmod 700 {data_dir}")
    with (data_dir / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EdgeSetupError(
                f"another edge runs on {data_dir}; stop it first, or give this one an edge.data_dir of its own"
            ) from None
        yield


def _trial(settings: EdgeSettings, stop: threading.Event) -> Trial:
    if find_spec(TRIED_WITH) is None:  # said now: in the process apart it would ban each release
        raise ModuleNotFoundError(f"No module named '{TRIED_WITH}'", name=TRIED_WITH)

    def trial(folder: Path, manifest: Manifest) -> None:
        calibration = Calibration(manifest.labels, manifest.temperature, manifest.uncertain_below)
        bounds = TrialBounds(
            manifest.golden_tolerance, manifest.trial.latency_ms, manifest.trial.memory_mb, settings.trial_timeout_s
        )
        try_model(folder, bounds, calibration, threads=settings.threads, stopped=stop.is_set)

    return trial


def load_patient_secret(settings: EdgeSettings) -> bytes:
    """Read the site's secret, or make one in the data folder; raises `EdgeSetupError` when a given file is missing."""
    path = settings.patient_secret_file or settings.data_dir / "patient-secret"
    try:
        secret = path.read_bytes().strip()
    except FileNotFoundError:
        if settings.patient_secret_file is not None:
            raise EdgeSetupError(f"{path} does not exist; copy the site's secret there (32 random bytes)") from None
        secret = secrets.token_hex(32).encode()
        write_durably(path, secret, mode=0o600)
        log.warning("patient secret made", path=str(path), next="copy it to the site's other edges, and keep a copy")
    if len(secret) < 16:
        raise EdgeSetupError(f"{path} holds {len(secret)} bytes; a secret has at least 16")
    return secret


def _log_reading(read: ReadSlice) -> None:
    reading = read.diagnosis.reading
    log.info(
        "slice read",
        slice_id=read.slice_id,
        sequence=read.sequence,
        label="Uncertain" if reading.uncertain else str(reading.label),
        confidence=round(reading.confidence, 3),
        model=reading.model.version,
        latency_ms=round(reading.latency_ms, 1),
    )
