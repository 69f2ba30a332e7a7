"""Commit what is stored in batches, then say the receipts, then acknowledge: in this order, whatever happens."""

import queue
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Set
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from broker.errors import BrokerError, WindowFullError
from broker.messages import Inbound, Outbound
from broker.session import Session
from cloud_worker.in_hand import InHand
from cloud_worker.ledger import Entry, Ledger, LedgerUnavailableError, RefusedByLedgerError, SliceEntry, StoredFrame
from cloud_worker.patience import Patience
from cloud_worker.storing import Refusal, Stored, Storing, awaits_receipt
from protocol.codec import EventContext, encode, stated_id
from protocol.messages import MessageId, Receipt
from protocol.topics import Address, Kind, edge_topic

log = structlog.get_logger()

WAIT_S = 0.2
UNSAID_WAIT_S = 0.01
"""With receipts that found the window full."""
SPACING_S = 0.02
"""Between two commits: fewer, larger transactions and receipts under load, and no wait where messages are rare."""
MAX_BATCH = 100
"""Messages in one transaction."""
MAX_RECEIPT = 500
"""So many ids a receipt may name."""
MAX_UNSAID_EDGES = 10_000


Unsaid = dict[Address, dict[MessageId, None]]
"""Receipts that are owed; each id once, in order."""


class Committer:
    """One loop in a thread of its own: while one batch goes to the disk, the next gathers."""

    def __init__(
        self, ledger: Ledger, session: Session, storing: Storing, in_hand: InHand, name: str, retry_s: float
    ) -> None:
        """Remember the parts, which belong to the caller."""
        self._ledger, self._session, self._storing, self._in_hand = ledger, session, storing, in_hand
        self._name = name
        self._patience = Patience(retry_s, random.Random())  # noqa: S311 - jitter, not a secret
        self._committed_at_s = 0.0
        self._unsaid: Unsaid = defaultdict(dict)
        self.ready = queue.SimpleQueue[Stored]()

    def run(self, stop: threading.Event) -> None:
        """Commit until the stop."""
        while not stop.is_set():
            self.step(stop)

    def step(self, stop: threading.Event) -> int:
        """Commit what is ready, waiting a little for the first; return how many messages that were."""
        batch = self._gather()
        if batch and not self._commit(batch, stop):
            return 0
        self._say_receipts()
        for stored in batch:
            self._session.ack(stored.arrived.inbound)
            self._in_hand.leave(len(stored.arrived.inbound.payload))
        return len(batch)

    def _gather(self) -> list[Stored]:
        """Return what is ready: at once when the last commit is a while ago, else what comes until it is."""
        batch: list[Stored] = []
        try:
            batch.append(self.ready.get(timeout=UNSAID_WAIT_S if self._unsaid else WAIT_S))
            until_s = self._committed_at_s + SPACING_S
            while len(batch) < MAX_BATCH:
                batch.append(self.ready.get(timeout=max(0.0, until_s - time.monotonic())))
        except queue.Empty:
            pass
        self._committed_at_s = time.monotonic()
        return batch

    def _commit(self, batch: list[Stored], stop: threading.Event) -> bool:
        """Bring a batch into the ledger, waiting for it as long as it is away; False when stopped before that."""
        while not stop.is_set():
            try:
                self._take_in([stored for stored in batch if stored.entry is not None], stop)
                for stored in batch:
                    if stored.refusal is not None:
                        self._dead_letter(stored, stored.refusal)
            except LedgerUnavailableError as error:
                self._patience.wait(error, stop)
            else:
                self._patience.succeeded()
                return not stop.is_set()
        return False

    def _take_in(self, batch: list[Stored], stop: threading.Event) -> None:
        entries = [stored.entry for stored in batch if stored.entry is not None]
        try:
            new = self._ledger.take_in(entries) if entries else set()
        except RefusedByLedgerError as error:
            self._take_in_singly(batch, error, stop)
            return
        for stored, entry in zip(batch, entries, strict=True):
            self._note(stored, entry, new)

    def _take_in_singly(self, batch: list[Stored], error: RefusedByLedgerError, stop: threading.Event) -> None:
        """Find the entry that the ledger refuses, and quarantine its message; the others are stored."""
        if len(batch) > 1:
            for stored in batch:
                self._take_in([stored], stop)
            return
        kept = self._storing.keep_whole(batch[0].arrived.inbound, stop)
        if not stop.is_set():
            self._dead_letter(replace(batch[0], kept=kept), error)

    def _note(self, stored: Stored, entry: Entry, new: Set[str]) -> None:
        if isinstance(entry, SliceEntry):
            log.info(
                "slice stored" if entry.message_id in new else "slice known",
                slice_id=entry.slice.slice_id,
                edge=entry.edge,
            )
        if isinstance(entry, SliceEntry | StoredFrame):
            self._owe_receipt(stored.arrived.inbound, entry.message_id)

    def _dead_letter(self, stored: Stored, error: Refusal) -> None:
        """Keep why; the edge gets a receipt where the message is kept whole, else it says it again."""
        inbound, reason = stored.arrived.inbound, f"{type(error).__name__}: {error}"
        self._ledger.dead_letter(inbound.topic, inbound.payload, reason, stored.arrived.at, inbound.user_properties)
        log.warning("message quarantined", topic=inbound.topic, reason=reason, kept=stored.kept)
        message_id = stated_id(inbound.user_properties)
        if message_id is not None and stored.kept:
            self._owe_receipt(inbound, message_id)

    def _owe_receipt(self, inbound: Inbound, message_id: MessageId) -> None:
        address = awaits_receipt(inbound.topic)
        if address is not None and len(self._unsaid) < MAX_UNSAID_EDGES:
            self._unsaid[Address(Kind.RECEIPT, address.site, address.edge)][message_id] = None

    def _say_receipts(self) -> None:
        """Say what the window allows; without a connection nothing is owed, since edges say again what got none."""
        unsaid, self._unsaid = self._unsaid, defaultdict(dict)
        for address, owed in unsaid.items():
            message_ids = list(owed)
            try:
                self._session.publish(self._receipt(address, message_ids[:MAX_RECEIPT]))
                rest = message_ids[MAX_RECEIPT:]
            except WindowFullError:
                rest = message_ids
            except BrokerError as error:
                log.debug("receipt not said", reason=str(error))
                continue
            if rest:
                self._unsaid[address] = dict.fromkeys(rest)

    def _receipt(self, address: Address, message_ids: list[MessageId]) -> Outbound:
        context = EventContext(id=uuid.uuid4().hex, source=f"/workers/{self._name}", time=datetime.now(UTC))
        encoded = encode(Receipt(message_ids=tuple(message_ids)), context)
        topic = edge_topic(address.site, address.edge, Kind.RECEIPT)
        return Outbound(
            topic, encoded.payload, content_type=encoded.content_type, user_properties=encoded.user_properties
        )
