"""Take in what edges say: many objects at once to the store, then ledger, receipt, and the broker's acknowledgement."""

import random
import threading
from contextlib import ExitStack
from datetime import UTC, datetime

from broker.session import Session
from broker.supervised import SupervisedThread
from cloud_worker.committer import Committer
from cloud_worker.in_hand import InHand
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore
from cloud_worker.patience import Patience
from cloud_worker.settings import WorkerSettings
from cloud_worker.storing import Arrived, Storing
from protocol.topics import Kind, every_edge, shared

RECEIVED_KINDS = (Kind.SLICE, Kind.FRAME, Kind.STATUS, Kind.MODEL_REPORTED)
SHARED_KINDS = (Kind.SLICE, Kind.FRAME)
"""Each goes to one worker; the others, which are retained, to all, so that one that was away hears of every edge."""
SUBSCRIPTIONS = [shared(every_edge(kind)) if kind in SHARED_KINDS else every_edge(kind) for kind in RECEIVED_KINDS]
WAIT_S = 0.2


class Receiver:
    """While S3 or ledger are away it waits, unacknowledged messages fill the window, and the broker holds the rest."""

    def __init__(self, store: ObjectStore, ledger: Ledger, session: Session, settings: WorkerSettings) -> None:
        """Remember where things go; the session belongs to the caller."""
        self._session, self._settings = session, settings
        self._in_hand = InHand(settings.max_in_hand_bytes)
        rng = random.Random()  # noqa: S311 - jitter, not a secret
        self._storing = Storing(store, Patience(settings.store_retry_s, rng))
        self._committer = Committer(
            ledger, session, self._storing, self._in_hand, settings.name, settings.store_retry_s
        )

    def run(self, stop: threading.Event) -> None:
        """Receive until the stop."""
        with ExitStack() as stack:
            stack.enter_context(SupervisedThread("worker-committer", lambda: self._committer.run(stop), stop))
            for number in range(self._settings.parallel_writes):
                name = f"worker-store-{number + 1}"
                stack.enter_context(SupervisedThread(name, lambda: self._store_all(stop), stop))
            stop.wait()

    def _store_all(self, stop: threading.Event) -> None:
        while not stop.is_set():
            inbound = self._session.receive(WAIT_S)
            if inbound is not None and self._in_hand.enter(len(inbound.payload), stop):
                stored = self._storing.store(Arrived(inbound, datetime.now(UTC)), stop)
                if stored is not None:
                    self._committer.ready.put(stored)
