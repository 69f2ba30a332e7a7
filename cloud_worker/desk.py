"""Where the cloud decides: second readings, verdicts, retraining, gate, assignments, and the chunks that edges want."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from broker.errors import BrokerError, NotConnectedError, WindowFullError
from broker.messages import Inbound, Outbound
from broker.session import Session
from broker.settings import BrokerSettings
from cloud_worker.assigner import Assigner
from cloud_worker.chunk_queue import ChunkQueue
from cloud_worker.chunks import ChunkShelf
from cloud_worker.disagreement import compare
from cloud_worker.ledger import Ledger, LedgerError, RefusedByLedgerError, StoredSlice
from cloud_worker.object_store import (
    BucketDeniedError,
    ObjectMissingError,
    ObjectRefusedError,
    ObjectStore,
    ObjectStoreError,
)
from cloud_worker.retraining import Retraining
from cloud_worker.second_reader import SecondReader
from cloud_worker.settings import WorkerSettings
from protocol.codec import EventContext, decode, encode
from protocol.errors import HashMismatchError, ProtocolError
from protocol.messages import KIND_OF, ChunkRequest, Message, RetrainRequest, RetrainResult, RetrainStatus, Verdict
from protocol.topics import (
    FLEET_DESIRED,
    Address,
    Kind,
    cloud_topic,
    edge_topic,
    every_edge,
    fleet_chunk,
    parse,
    shared,
)
from training.model.decode import ImageError, decode_image
from training.model.reader import NotFiniteError

log = structlog.get_logger()

LOOP_S = 0.05
READINGS_A_STEP = 8
"""Second readings before messages are heard again."""
OTHERS = 8
"""Each worker draws its readings from so many times as many slices, so that two seldom read the same."""
FULL_SEARCH = timedelta(hours=1)
"""So often is the whole ledger searched for slices without a second reading, and else the newest, so far back."""
VERDICTS_A_STEP = 50
FLEET_SHARE = 0.05
"""Of the time goes into decisions on the whole fleet, however large it is."""


class Desk:
    """One loop in a thread of its own; every step leaves ledger and object store consistent, so it may die anywhere."""

    def __init__(
        self,
        settings: WorkerSettings,
        broker: BrokerSettings,
        store: ObjectStore,
        ledger: Ledger,
        reader: SecondReader | None,
        assigner: Assigner | None,
    ) -> None:
        """Wire session and parts; nothing is connected before `run`."""
        self._settings, self._store, self._ledger, self._reader = settings, store, ledger, reader
        self._retraining = Retraining(settings, store, ledger)
        self._assigner = assigner if settings.decides else None
        self._shelf = ChunkShelf(store, ledger)
        self._chunks = ChunkQueue(settings.delivery.repeat_after_s, settings.delivery.max_bytes_per_s)
        self._unreadable: set[str] = set()
        self._unread_since: datetime | None = None
        self._next_full_search_s = 0.0
        self._rng = random.Random()  # noqa: S311 - not a secret
        self._in_hand: Inbound | None = None
        self._reconnected = threading.Event()
        self._next_poll_s = 0.0
        self._next_fleet_s = 0.0
        self._handlers: dict[Kind, Callable[[Address, Inbound], None]] = {
            Kind.MODEL_GET: self._on_get,
            Kind.RETRAIN_STATUS: self._on_retrain_status,
            Kind.RETRAIN_RESULT: self._on_retrain_result,
        }
        self._session = Session(
            broker,
            f"desk-{settings.name}",
            subscriptions=[
                shared(every_edge(Kind.MODEL_GET)),
                shared(cloud_topic(Kind.RETRAIN_STATUS)),
                shared(cloud_topic(Kind.RETRAIN_RESULT)),
            ],
            clean_start=True,  # what is missed is said again: chunks are asked for, open requests repeated
            birth=self._birth,
        )

    def run(self, stop: threading.Event) -> None:
        """Decide until the stop; while S3 or ledger are away, wait."""
        told = ""
        with self._session:
            while not stop.is_set():
                try:
                    self.step(datetime.now(UTC), time.monotonic())
                    told = ""
                except (ObjectStoreError, LedgerError, ProtocolError) as error:
                    if str(error) != told:
                        told = str(error)
                        log.error("cannot decide", reason=told, next="tried again")
                    stop.wait(self._settings.store_retry_s)

    def step(self, now: datetime, now_s: float) -> None:
        """Do one round of everything that is due by the monotonic clock; `now` is what is written down."""
        self._decide_on_fleet(now, now_s)  # first: a release is withdrawn though the object store is away
        self._publish_fleet()
        self._in_hand = self._in_hand or self._session.receive(LOOP_S)
        while self._in_hand is not None:
            self._hear(self._in_hand)  # when that raises, it stays in hand for the next step
            self._in_hand = self._session.receive(0)
        if self._publish_fleet():  # once more: the window that has opened meanwhile is not for chunks first
            self._publish_chunks()
        if now_s < self._next_poll_s or not self._session.connected:
            return
        busy = self._read_again(now, now_s)
        self._publish_reviews(now)
        if self._settings.decides:
            for message in self._retraining.step(now):
                said = self._say(message, cloud_topic(KIND_OF[type(message)]))
                if said and isinstance(message, RetrainRequest):
                    self._ledger.touch_request(message.request_id, published_at=now)
        self._next_poll_s = now_s if busy else now_s + self._settings.poll_s

    def _hear(self, inbound: Inbound) -> None:
        try:
            address = parse(inbound.topic)
            self._handlers[address.kind](address, inbound)
        except (ProtocolError, KeyError, RefusedByLedgerError) as error:
            self._ledger.dead_letter(
                inbound.topic, inbound.payload, str(error), datetime.now(UTC), inbound.user_properties
            )
            log.warning("message quarantined", topic=inbound.topic, reason=str(error))
        self._session.ack(inbound)

    def _on_get(self, address: Address, inbound: Inbound) -> None:
        wanted = decode(Kind.MODEL_GET, inbound.payload, inbound.user_properties).message
        assert isinstance(wanted, ChunkRequest)
        now_s, edge = time.monotonic(), f"{address.site}/{address.edge}"
        listener = self._chunks.listens(edge, now_s, fresh=wanted.fresh) if wanted.shared else None
        try:
            for sha256, place in self._shelf.find(wanted):
                topic = (
                    fleet_chunk(sha256)
                    if wanted.shared
                    else edge_topic(address.site, address.edge, Kind.MODEL_CHUNK, sha256)
                )
                self._chunks.add(topic, place, now_s, listener)
        except (ObjectMissingError, ObjectRefusedError, BucketDeniedError, HashMismatchError) as error:
            # nothing that the edge asked is wrong, and it asks again
            log.error("chunks not served", version=wanted.version, edge=address.edge, reason=str(error))

    def _on_retrain_status(self, _: Address, inbound: Inbound) -> None:
        status = decode(Kind.RETRAIN_STATUS, inbound.payload, inbound.user_properties).message
        assert isinstance(status, RetrainStatus)
        self._ledger.touch_request(status.request_id, heard_at=datetime.now(UTC))

    def _on_retrain_result(self, _: Address, inbound: Inbound) -> None:
        result = decode(Kind.RETRAIN_RESULT, inbound.payload, inbound.user_properties).message
        assert isinstance(result, RetrainResult)
        if not result.verdict:  # a verdict is a worker's own word
            self._retraining.take_result(result, datetime.now(UTC))

    def _publish_chunks(self) -> None:
        """Publish what window and bandwidth allow; a chunk that is lost is asked for again."""
        while turn := self._chunks.next(time.monotonic()):
            topic, place = turn
            try:
                data = self._shelf.read(parse(topic).sha256, place)
                self._session.publish(Outbound(topic, data))
            except WindowFullError:
                return
            except NotConnectedError:
                self._chunks.clear()
                return
            except (BrokerError, HashMismatchError, ObjectMissingError, ObjectRefusedError) as error:
                log.error("chunk not published", reason=str(error))
                self._chunks.give_up(topic)
            else:
                self._chunks.sent(topic, time.monotonic())

    def _decide_on_fleet(self, now: datetime, now_s: float) -> None:
        """Say who runs what; the more edges there are, the longer is the pause before the next look."""
        if self._assigner is None or now_s < self._next_fleet_s or not self._session.connected:
            return
        began_s = time.monotonic()
        more = self._assigner.step(now)
        pause_s = max(self._settings.poll_s, (time.monotonic() - began_s) / FLEET_SHARE)
        self._next_fleet_s = now_s if more else now_s + pause_s

    def _publish_fleet(self) -> bool:
        """Publish what the window allows of assignments, releases and keys; False when some is left, and follows."""
        if self._assigner is None:
            return True
        if self._reconnected.is_set():
            self._reconnected.clear()
            self._assigner.forget_said()
            self._next_fleet_s = 0.0
        for outbound in self._assigner.untold():
            try:
                self._session.publish(outbound)
            except (WindowFullError, NotConnectedError):
                return False
            except BrokerError as error:
                log.error("not told", topic=outbound.topic, reason=str(error))
        return True

    def _read_again(self, now: datetime, now_s: float) -> bool:
        """Give slices their second reading; True when more may be waiting."""
        if self._reader is None:
            return False
        limit = OTHERS * READINGS_A_STEP + len(self._unreadable)
        since = self._unread_since if now_s < self._next_full_search_s else None
        waiting = self._ledger.slices_without("second", limit, since)
        due = [stored for stored in waiting if stored.slice_id not in self._unreadable]
        if since is None:
            self._next_full_search_s = now_s + FULL_SEARCH.total_seconds()
        if not waiting:
            self._unread_since = now - FULL_SEARCH
        for stored in self._rng.sample(due, min(READINGS_A_STEP, len(due))):
            self._read_one(stored, self._reader, now)
        return len(due) >= READINGS_A_STEP

    def _read_one(self, stored: StoredSlice, reader: SecondReader, now: datetime) -> None:
        try:
            second = reader.read(decode_image(self._store.get(stored.image_key)))
        except (ImageError, NotFiniteError, ObjectMissingError, ObjectRefusedError) as error:
            self._unreadable.add(stored.slice_id)
            log.error("no second reading", slice_id=stored.slice_id, reason=str(error))
            return
        first = self._ledger.verdict_parts(stored.slice_id).first
        found = compare(stored.slice_id, first, second, self._settings.disagreement)
        if self._ledger.add_second_reading(stored.slice_id, second, found, now):
            log.info("read again", slice_id=stored.slice_id, kind=found.kind if found else "agreement")
        self._publish_verdict(stored.slice_id)

    def _publish_reviews(self, now: datetime) -> None:
        for label in self._ledger.labels_to_publish(VERDICTS_A_STEP):
            if not self._publish_verdict(label.slice_id):
                return
            self._ledger.mark_published(label.id, now)

    def _publish_verdict(self, slice_id: str) -> bool:
        parts = self._ledger.verdict_parts(slice_id)
        verdict = Verdict(
            slice_id=slice_id,
            first=parts.first,
            second=parts.second,
            disagreement=parts.disagreement,
            review=parts.review,
        )
        return self._say(verdict, edge_topic(parts.site, parts.edge, Kind.VERDICT))

    def _birth(self) -> Sequence[Outbound]:
        """Say everything again on every connection: a broker may have forgotten what it retained."""
        self._reconnected.set()
        if self._assigner is None:
            return []
        # until manifest major 2 releases were announced to all edges at once: nothing may be left of that
        return [Outbound(FLEET_DESIRED, b"", retain=True)]

    def _say(self, message: Message, topic: str) -> bool:
        assert topic.endswith(KIND_OF[type(message)])
        context = EventContext(id=uuid.uuid4().hex, source=f"/workers/{self._settings.name}", time=datetime.now(UTC))
        encoded = encode(message, context)
        try:
            self._session.publish(
                Outbound(
                    topic, encoded.payload, content_type=encoded.content_type, user_properties=encoded.user_properties
                )
            )
        except BrokerError as error:
            log.debug("not said", topic=topic, reason=str(error))
            return False
        return True
