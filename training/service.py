"""The trainer: takes retraining trigger messages, trains in a child process, and answers with a candidate."""

import contextlib
import http.client
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path

import stamina
import structlog
from pydantic import ValidationError

from broker.errors import BrokerError
from broker.messages import Inbound, Outbound
from broker.session import Session
from broker.settings import BrokerSettings
from protocol.chunks import sha256_of
from protocol.codec import EventContext, decode, encode
from protocol.errors import HashMismatchError, ProtocolError
from protocol.messages import (
    KIND_OF,
    Dataset,
    Message,
    RetrainPhase,
    RetrainRequest,
    RetrainResult,
    RetrainStatus,
    UploadedFile,
)
from protocol.topics import Kind, cloud_topic, shared
from training.bundle import Bundle, BundleError, read_bundle
from training.job_folder import (
    BASE_FILE,
    BUNDLE_FOLDER,
    DATASET_FILE,
    EPOCHS_FOLDER,
    EXIT_REFUSED,
    JOB_FILE,
    SLICES_FOLDER,
    Job,
)
from training.plan import Progress
from training.settings import TrainerSettings

log = structlog.get_logger()

REQUESTS = shared(cloud_topic(Kind.RETRAIN_REQUEST))
WAIT_S = 0.2
SAY_AGAIN_S = 10.0
"""A trainer at work says so at least this often, so that the worker does not ask another one."""


class TransferError(RuntimeError):
    """A file could not be fetched or put; the message names the file, never its presigned URL."""


class StoreAwayError(RuntimeError):
    """The object store does not answer, and a trained candidate waits for it: too dear to be given up."""


class TrainingFailedError(RuntimeError):
    """The job ended without a bundle; the message is its last word."""


class Trainer:
    """Handles one request after the other; a request is acknowledged when its result is said."""

    def __init__(self, settings: TrainerSettings, broker: BrokerSettings) -> None:
        """Remember the settings; nothing is connected before `run`."""
        self._settings = settings
        self._progress: Progress | None = None
        # clean start: the worker repeats an open request; and rumqttd dies when the last of a shared subscription, with
        # a session that is kept, goes without its PUBACK
        self._session = Session(broker, f"trainer-{settings.name}", subscriptions=[REQUESTS], clean_start=True)

    def run(self, stop: threading.Event) -> None:
        """Wait for requests until the stop."""
        with self._session:
            log.info("trainer started", name=self._settings.name)
            while not stop.is_set():
                inbound = self._session.receive(WAIT_S)
                if inbound is not None:
                    self._handle(inbound, stop)
        log.info("trainer stopped")

    def _handle(self, inbound: Inbound, stop: threading.Event) -> None:
        try:
            request = decode(Kind.RETRAIN_REQUEST, inbound.payload, inbound.user_properties).message
        except ProtocolError as error:
            log.warning("request refused", reason=str(error))
            self._session.ack(inbound)
            return
        assert isinstance(request, RetrainRequest)
        try:
            result = self._answer(request, stop)
        except StoreAwayError as error:  # no result: what is there already is kept until the worker asks again
            log.error("request waits", request_id=request.request_id, reason=str(error), next="the worker asks again")
            self._session.ack(inbound)
            return
        if result is None:  # stopped: the request stays unacknowledged and comes again
            return
        if self._say_until_taken(result, stop):
            self._session.ack(inbound)
            _forget_inputs(self._settings.work_dir / request.request_id)

    def _answer(self, request: RetrainRequest, stop: threading.Event) -> RetrainResult | None:
        log.info("request taken", request_id=request.request_id, reason=request.reason)
        started_s = time.monotonic()
        folder = self._settings.work_dir / request.request_id
        try:
            self._tell(request, RetrainPhase.ACCEPTED)
            bundle = self._finished(folder) or self._train(folder, request, stop)
            if bundle is None:
                return None
            self._tell(request, RetrainPhase.EXPORTING)
            files = self._upload(bundle, request)
        except (TransferError, TrainingFailedError, BundleError, ProtocolError, OSError) as error:
            log.error("request failed", request_id=request.request_id, reason=str(error))
            return self._failed(request, str(error), time.monotonic() - started_s)
        report = bundle.report
        return RetrainResult(
            request_id=request.request_id,
            outcome="candidate",
            at=datetime.now(UTC),
            trainer=self._settings.name,
            architecture=report.architecture,
            files=files,
            temperature=report.temperature,
            training_data_sha256=report.training_data_sha256,
            split_sha256=report.split_sha256,
            validation=report.validation.model_dump(mode="json"),
            seconds=time.monotonic() - started_s,
        )

    def _finished(self, folder: Path) -> Bundle | None:
        """Return the bundle of a request that was trained before its result could be said."""
        with contextlib.suppress(BundleError):
            return read_bundle(folder / BUNDLE_FOLDER)
        return None

    def _train(self, folder: Path, request: RetrainRequest, stop: threading.Event) -> Bundle | None:
        self._tell(request, RetrainPhase.LOADING)
        self._download(folder, request)
        training = self._settings.training.model_copy(update={"seed": request.seed})
        base_data = self._settings.base_data.absolute() if self._settings.base_data else None
        secret_file = self._settings.patient_secret_file
        job = Job(
            architecture=request.architecture,
            training=training,
            base_data=base_data,
            patient_secret_file=secret_file.absolute() if secret_file else None,
        )
        (folder / JOB_FILE).write_text(job.model_dump_json())
        return read_bundle(folder / BUNDLE_FOLDER) if self._run_job(folder, request, stop) else None

    def _run_job(self, folder: Path, request: RetrainRequest, stop: threading.Event) -> bool:
        """Run the child process and pass on its progress; False when it was stopped, so it can go on later."""
        self._progress = None
        self._tell(request, RetrainPhase.TRAINING)
        told_s = time.monotonic()
        with (
            (folder / "job.log").open("wb") as errors,
            subprocess.Popen(
                [sys.executable, "-m", "training.job", str(folder.absolute())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as child,
        ):
            teller = threading.Thread(target=self._pass_on, args=(child, request), name="job-progress", daemon=True)
            teller.start()
            while child.poll() is None:
                if stop.wait(WAIT_S):
                    self._end(child)
                    return False
                if time.monotonic() - told_s > SAY_AGAIN_S:  # an epoch may last longer than the worker's patience
                    told_s = time.monotonic()
                    self._tell(request, RetrainPhase.TRAINING, self._progress)
            teller.join(self._settings.stop_timeout_s)
        if child.returncode != 0:
            lines = (folder / "job.log").read_text(errors="replace").strip().splitlines()
            last = lines[-1] if lines else f"exit code {child.returncode}"
            refused = "refused" if child.returncode == EXIT_REFUSED else "crashed"
            raise TrainingFailedError(f"training {refused}: {last[:500]}")
        return True

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        child.terminate()
        try:
            child.wait(self._settings.stop_timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()

    def _pass_on(self, child: "subprocess.Popen[bytes]", request: RetrainRequest) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            try:
                self._progress = Progress.model_validate_json(line)
            except ValidationError:
                continue
            self._tell(request, RetrainPhase.TRAINING, self._progress)

    def _download(self, folder: Path, request: RetrainRequest) -> None:
        settings = self._settings
        slices = folder / SLICES_FOLDER
        slices.mkdir(parents=True, exist_ok=True)
        self._fetch(
            request.base_checkpoint_url,
            folder / BASE_FILE,
            request.base_checkpoint_sha256,
            settings.max_checkpoint_bytes,
        )
        self._fetch(request.dataset_url, folder / DATASET_FILE, request.dataset_sha256, settings.max_dataset_bytes)
        try:
            dataset = Dataset.model_validate_json((folder / DATASET_FILE).read_bytes())
        except ValidationError as error:
            raise TransferError(f"{DATASET_FILE} is no data set ({error.error_count()} faults)") from None
        told_s = time.monotonic()
        for entry in dataset.slices:
            self._fetch(entry.url, slices / f"{entry.image_sha256}.png", entry.image_sha256, settings.max_slice_bytes)
            if time.monotonic() - told_s > SAY_AGAIN_S:
                told_s = time.monotonic()
                self._tell(request, RetrainPhase.LOADING)

    def _fetch(self, url: str, path: Path, sha256: str, limit: int) -> None:
        """Download a file unless it is there already, whole."""
        if path.exists() and sha256_of(path.read_bytes()) == sha256:
            return
        data = _get(url, path.name, self._settings.download_timeout_s, limit)
        if sha256_of(data) != sha256:
            raise HashMismatchError(f"{path.name} has another SHA-256 than the request says")
        temporary = path.with_name(path.name + ".part")
        temporary.write_bytes(data)
        temporary.replace(path)

    def _upload(self, bundle: Bundle, request: RetrainRequest) -> dict[str, UploadedFile]:
        uploaded = {}
        for name, data in bundle.files().items():
            if name not in request.upload_urls:
                raise TransferError(f"the request has no place to put {name}; the worker's software is another")
            _put(request.upload_urls[name], name, data, self._settings.download_timeout_s)
            uploaded[name] = UploadedFile(sha256=sha256_of(data), size=len(data))
        return uploaded

    def _failed(self, request: RetrainRequest, reason: str, seconds: float) -> RetrainResult:
        return RetrainResult(
            request_id=request.request_id,
            outcome="failed",
            at=datetime.now(UTC),
            trainer=self._settings.name,
            reason=reason[:2000],
            seconds=seconds,
        )

    def _tell(self, request: RetrainRequest, phase: RetrainPhase, progress: Progress | None = None) -> None:
        status = RetrainStatus(
            request_id=request.request_id, trainer=self._settings.name, phase=phase, at=datetime.now(UTC)
        )
        if progress is not None:
            status = status.model_copy(
                update={
                    "epoch": progress.epoch,
                    "epochs": progress.epochs,
                    "fraction": progress.epoch / progress.epochs,
                    "loss": progress.train_loss,
                    "validation_balanced_accuracy": progress.validation_balanced_accuracy,
                }
            )
        with contextlib.suppress(BrokerError):  # progress is for the eye; the result is said until it is taken
            self._session.publish(self._outbound(status))

    def _say_until_taken(self, result: RetrainResult, stop: threading.Event) -> bool:
        while not stop.is_set():
            try:
                if self._session.publish(self._outbound(result)).wait(SAY_AGAIN_S):
                    log.info("result said", request_id=result.request_id, outcome=result.outcome)
                    return True
            except BrokerError as error:
                log.debug("result waits", reason=str(error))
                stop.wait(WAIT_S)
        return False

    def _outbound(self, message: Message) -> Outbound:
        context = EventContext(id=uuid.uuid4().hex, source=f"/trainers/{self._settings.name}", time=datetime.now(UTC))
        encoded = encode(message, context)
        return Outbound(
            cloud_topic(KIND_OF[type(message)]),
            encoded.payload,
            content_type=encoded.content_type,
            user_properties=encoded.user_properties,
        )


def _may_pass(error: Exception) -> bool:
    """Tell whether trying again may help: not when the server said no."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code in (408, 429)
    return isinstance(error, OSError | http.client.HTTPException) and not isinstance(error, http.client.InvalidURL)


def _forget_inputs(folder: Path) -> None:
    """Delete slices and presigned addresses once the result is said; the bundle stays, for a repeated request."""
    for name in (SLICES_FOLDER, EPOCHS_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (DATASET_FILE, BASE_FILE):
        (folder / name).unlink(missing_ok=True)


@stamina.retry(on=_may_pass, attempts=5, timeout=60)
def _transfer(request: urllib.request.Request, timeout_s: float, limit: int) -> bytes:
    with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310  the message's type admits http(s) only
        data: bytes = response.read(limit + 1)
        promised = int(response.headers.get("Content-Length") or len(data))
        if len(data) < min(promised, limit + 1):  # read() with a size says nothing of a connection that was cut
            raise http.client.IncompleteRead(data, promised - len(data))
        return data


def _get(url: str, name: str, timeout_s: float, limit: int) -> bytes:
    try:
        data = _transfer(urllib.request.Request(url), timeout_s, limit)  # noqa: S310
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TransferError(
            f"{name} cannot be fetched ({_said(error)}); is the object store up, the URL not expired?"
        ) from None
    if len(data) > limit:
        raise TransferError(f"{name} exceeds {limit:,} bytes")
    return data


def _put(url: str, name: str, data: bytes, timeout_s: float) -> None:
    try:
        _transfer(urllib.request.Request(url, data=data, method="PUT"), timeout_s, 1024)  # noqa: S310
    except (OSError, http.client.HTTPException, ValueError) as error:
        kind = StoreAwayError if _may_pass(error) else TransferError
        raise kind(
            f"{name} cannot be uploaded ({_said(error)}); is the object store up, the URL not expired?"
        ) from None


def _said(error: Exception) -> str:
    """Return what an error says, but of those that quote the URL, which is a credential, only the name."""
    return str(error) if isinstance(error, OSError) else type(error).__name__


def run_trainer(settings: TrainerSettings, broker: BrokerSettings, stop: threading.Event) -> None:
    """Run one trainer until the stop."""
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    Trainer(settings, broker).run(stop)
