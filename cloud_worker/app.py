"""Wire one worker: ledger, object store, receiver and desk."""

import threading
from contextlib import ExitStack

import structlog
from securesystemslib.signer import CryptoSigner

from broker.session import Session
from broker.settings import BrokerSettings
from broker.supervised import SupervisedThread
from broker.trusted_keys import load_key_set
from cloud_worker.assigner import Assigner
from cloud_worker.desk import Desk
from cloud_worker.ledger import Ledger, LedgerUnavailableError
from cloud_worker.object_store import ObjectStore, ObjectStoreUnreachableError, S3Settings
from cloud_worker.receiver import SUBSCRIPTIONS, Receiver
from cloud_worker.second_reader import SecondReader
from cloud_worker.settings import WorkerSettings
from cloud_worker.signing_keys import load_signer
from protocol.rotation import KeySet

log = structlog.get_logger()


def run_worker(settings: WorkerSettings, s3: S3Settings, broker: BrokerSettings, stop: threading.Event) -> None:
    """Run one worker until the stop; an object store or a database server that is away at the start is waited for."""
    reader, keys = _second_reader(settings), _keys(settings)
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
        assigner = Assigner(settings, store, ledger, *keys) if keys else None
        desk = Desk(settings, broker, store, ledger, reader, assigner)
        stack.enter_context(SupervisedThread("worker-receiver", lambda: receiver.run(stop), stop))
        stack.enter_context(SupervisedThread("worker-desk", lambda: desk.run(stop), stop))
        stop.wait()
    log.info("worker stopped", name=settings.name)


def _second_reader(settings: WorkerSettings) -> SecondReader | None:
    if settings.second_reader_dir is None:
        log.warning("no second reader", next="set worker.second_reader_dir to find disagreements")
        return None
    return SecondReader(settings.second_reader_dir, settings.second_reader_name, threads=settings.threads)


def _keys(settings: WorkerSettings) -> tuple[CryptoSigner, KeySet] | None:
    """Load the key that assigns, and those whose releases it may assign; raises what says which file to mend."""
    if settings.assign_key_file is None or settings.trusted_keys_dir is None:
        log.warning("assigns nothing", next="set worker.assign_key_file and worker.trusted_keys_dir")
        return None
    return load_signer(settings.assign_key_file), load_key_set(settings.trusted_keys_dir, settings.trusted_threshold)


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
