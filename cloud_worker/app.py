"""Wire one worker: ledger, object store, receiver and desk; and make the first release."""

import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import structlog
from securesystemslib.signer import CryptoSigner

from broker.session import Session
from broker.settings import BrokerSettings
from broker.supervised import SupervisedThread
from cloud_worker.desk import Desk
from cloud_worker.ledger import Ledger, LedgerUnavailableError
from cloud_worker.object_store import ObjectStore, ObjectStoreUnreachableError, S3Settings
from cloud_worker.receiver import SUBSCRIPTIONS, Receiver
from cloud_worker.release import LeakedModelError, Releasable, load_signer, make_release
from cloud_worker.retraining import store_release
from cloud_worker.second_reader import SecondReader
from cloud_worker.settings import WorkerSettings
from protocol.manifest import Manifest
from training.bundle import read_bundle

log = structlog.get_logger()


def run_worker(settings: WorkerSettings, s3: S3Settings, broker: BrokerSettings, stop: threading.Event) -> None:
    """Run one worker until the stop; an object store or a database server that is away at the start is waited for."""
    reader, signer = _second_reader(settings), _signer(settings)
    store = ObjectStore(s3)
    with ExitStack() as stack:
        ledger = _wait_for_ledger(settings, stop)
        if ledger is None:
            return
        stack.callback(ledger.close)
        log.info("worker started", name=settings.name, second_reader=reader is not None)
        if not _wait_for_bucket(store, settings.store_retry_s, stop):
            return
        # clean start: an outbox says again what no worker heard, and a queue at the broker would grow by each of these
        session = Session(broker, f"worker-{settings.name}", subscriptions=SUBSCRIPTIONS, clean_start=True)
        stack.enter_context(session)
        receiver = Receiver(store, ledger, session, settings)
        desk = Desk(settings, broker, store, ledger, reader, signer)
        stack.enter_context(SupervisedThread("worker-receiver", lambda: receiver.run(stop), stop))
        stack.enter_context(SupervisedThread("worker-desk", lambda: desk.run(stop), stop))
        stop.wait()
    log.info("worker stopped", name=settings.name)


def release_bundle(folder: Path, why: str, settings: WorkerSettings, s3: S3Settings) -> Manifest:
    """Sign a trained network and enter it as the next release, past the gate; raises what its parts raise."""
    bundle = read_bundle(folder)
    report = bundle.report
    if report.leaked_patients:
        raise LeakedModelError(
            f"{folder}: {report.leaked_patients} patients stood on two sides of its training (--allow-leak); "
            "a leaked network is not released: train it again on a split by patient"
        )
    signer = load_signer(settings.release.signing_key_file)
    network = Releasable(
        model=bundle.model,
        architecture=report.architecture,
        temperature=report.temperature,
        training_data_sha256=report.training_data_sha256,
        split_sha256=report.split_sha256,
        metrics={"validation": report.validation.model_dump(mode="json"), "train_sources": report.train_sources},
    )
    store = ObjectStore(s3)
    store.ensure_bucket()
    with Ledger(settings.ledger_url) as ledger:
        release = make_release(network, ledger.next_version(), settings.release, signer, datetime.now(UTC))
        store_release(store, ledger, release, bundle.checkpoint, {"by hand": why})
    return release.manifest


def _second_reader(settings: WorkerSettings) -> SecondReader | None:
    if settings.second_reader_dir is None:
        log.warning("no second reader", next="set worker.second_reader_dir to find disagreements")
        return None
    return SecondReader(settings.second_reader_dir, settings.second_reader_name, threads=settings.threads)


def _signer(settings: WorkerSettings) -> CryptoSigner | None:
    if settings.release.signing_key_file is None:
        log.warning("no signing key", next="set worker.release.signing_key_file to release candidates")
        return None
    return load_signer(settings.release.signing_key_file)


def _wait_for_ledger(settings: WorkerSettings, stop: threading.Event) -> Ledger | None:
    """Open the ledger, waiting for a server that is away; None when stopped before. A file's folder is there or not."""
    ledger, told = Ledger(settings.ledger_url), False
    while not stop.is_set():
        try:
            return ledger.__enter__()
        except LedgerUnavailableError as error:
            if not ledger.on_server:
                raise
            if not told:
                log.error("ledger away", reason=str(error), next=f"tried again every {settings.store_retry_s} s")
                told = True
            stop.wait(settings.store_retry_s)
    return None


def _wait_for_bucket(store: ObjectStore, retry_s: float, stop: threading.Event) -> bool:
    """Make sure that the bucket is there; False when stopped before the object store answered."""
    told = False
    while not stop.is_set():
        try:
            store.ensure_bucket()
        except ObjectStoreUnreachableError as error:
            if not told:
                log.error("object store away", reason=str(error), next=f"tried again every {retry_s} s")
                told = True
            stop.wait(retry_s)
        else:
            return True
    return False
