"""The edge's half of the conversation with the cloud: publish, hear receipts and releases, keep the status current."""

import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from broker.errors import BrokerError
from broker.messages import Inbound, Outbound
from broker.session import Session
from broker.settings import BrokerSettings
from edge_agent.download import Way
from edge_agent.model_slot import ModelSlot
from edge_agent.outbox import Outbox, OutboxError
from edge_agent.publisher import Publisher
from edge_agent.reading import EdgeIdentity
from edge_agent.settings import EdgeSettings
from edge_agent.trust import EdgeTrust
from edge_agent.updater import Pace, Proving, Updater, Voice
from protocol.codec import EventContext, decode, encode
from protocol.errors import ProtocolError
from protocol.messages import (
    KIND_OF,
    MAX_STATUS_RANGES,
    ChunkRequest,
    Diagnosis,
    Message,
    ModelReported,
    Receipt,
    Status,
)
from protocol.ranges import at_most
from protocol.topics import FLEET_CHUNKS, FLEET_KEYS, Kind, chunk_filter, edge_topic, parse

log = structlog.get_logger()

LOOP_S = 0.2
"""The longest wait for a message, or for a slice to send, before publishing and updating get their turn again."""
MAX_WAITING_DIAGNOSES = 100
TIDY_S = 60.0
"""So often the outbox may give space back to the disk."""
GUIDANCE_S = 1.0
"""Guidance changes with every move of the hand: the status follows it no more often than this."""


class Link:
    """Runs in a thread of its own; the reading thread only leaves diagnoses and problems with it."""

    def __init__(
        self,
        settings: EdgeSettings,
        broker: BrokerSettings,
        identity: EdgeIdentity,
        outbox: Outbox,
        slot: ModelSlot,
        trust: EdgeTrust,
        proving: Proving,
        software: str,
    ) -> None:
        """Wire session, publisher and updater; nothing is connected before `run`."""
        self._settings, self._identity, self._outbox, self._slot = settings, identity, outbox, slot
        self._software = software
        self._new_line = threading.Event()
        self._heard: dict[Kind, Callable[[Inbound], None]] = {
            Kind.RECEIPT: self._on_receipt,
            Kind.MODEL_DESIRED: self._on_desired,
            Kind.MODEL_ASSIGNED: self._on_assigned,
            Kind.MODEL_KEYS: self._on_keys,
        }
        self._diagnoses: deque[Diagnosis] = deque(maxlen=MAX_WAITING_DIAGNOSES)
        self._problem = self._outbox_trouble = self._unanswered = self._guidance = ""
        self._refusals: dict[str, int] = {}
        self._report_waits = False
        self._next_heartbeat_s = self._last_beat_s = self._next_tidy_s = 0.0
        self.updater = Updater(
            slot,
            trust,
            Pace(
                settings.shadow_slices,
                settings.probation_slices,
                Way(settings.chunk_timeout_s, settings.max_download_bytes_per_s),
                settings.download_by_url,
            ),
            Voice(self._say_reported, self._say_wanted, self._hear_shared),
            proving,
        )
        self.session = Session(
            broker,
            f"edge-{identity.site}-{identity.edge}",
            will=self._outbound(self._status("lost"), retain=True),
            subscriptions=[
                self._topic(Kind.RECEIPT),
                self._topic(Kind.MODEL_DESIRED),
                self._topic(Kind.MODEL_ASSIGNED),
                chunk_filter(identity.site, identity.edge),
                FLEET_KEYS,
            ],
            # so that every connection brings the retained release: rumqttd sends it to new subscriptions alone, and an
            # edge that died in a download has to hear of it again; what is missed besides is said again
            clean_start=True,
            birth=self._birth,
        )
        self._publisher = Publisher(
            outbox,
            self.session,
            site=identity.site,
            edge=identity.edge,
            window=broker.max_inflight,
            receipt_timeout_s=settings.receipt_timeout_s,
            max_inflight_bytes=settings.max_inflight_bytes,
        )

    def leave(self, diagnosis: Diagnosis) -> None:
        """Take a diagnosis for the live view, the oldest is dropped when the broker is away; and send its slice."""
        self._diagnoses.append(diagnosis)
        self.session.nudge()

    def problem(self, text: str) -> None:
        """Take what stands in the way of reading now (empty: nothing); the next status says it."""
        if text != self._problem:
            self._problem = text
            self._next_heartbeat_s = 0.0

    def camera_says(self, guidance: str, refusals: Mapping[str, int]) -> None:
        """Take what the person with the camera should do, and refused pictures by reason; the next status says it."""
        if guidance != self._guidance or refusals != self._refusals:
            self._guidance, self._refusals = guidance, dict(refusals)
            self._next_heartbeat_s = min(self._next_heartbeat_s, self._last_beat_s + GUIDANCE_S)

    def run(self, stop: threading.Event, now_s: Callable[[], float]) -> None:
        """Keep the conversation going until the stop; then say so, and let the broker have the last messages."""
        with self.session:
            while not stop.is_set():
                self.step(now_s())
            self.updater.close()
            self._settle(now_s())
            self._say(self._status("stopped"), retain=True)

    def step(self, now_s: float) -> None:
        """Do one round: hear, publish, update, and beat."""
        inbound = self.session.receive(LOOP_S)
        if self._new_line.is_set():
            self._new_line.clear()
            self.updater.line_was_cut()
        while inbound is not None:
            self._hear(inbound, now_s)
            inbound = self.session.receive(0)
        self.updater.step(now_s, datetime.now(UTC))
        if self._report_waits and self.session.connected:
            self._say_reported(self.updater.reported)
        while self._diagnoses and self.session.connected:
            self._say(self._diagnoses.popleft(), qos=0)
        self._outbox_trouble = self._try(lambda: self._use_outbox(now_s))
        if now_s >= self._next_heartbeat_s:
            self._last_beat_s, self._next_heartbeat_s = now_s, now_s + self._settings.heartbeat_s
            self._try(self._beat)

    def _use_outbox(self, now_s: float) -> None:
        self._publisher.step(now_s)
        self._unanswered = self._publisher.problem
        if now_s >= self._next_tidy_s:
            self._next_tidy_s = now_s + TIDY_S
            self._outbox.tidy()

    @staticmethod
    def _try(action: Callable[[], None]) -> str:
        """Do it; return what the outbox has against it, or nothing."""
        try:
            action()
        except OutboxError as error:
            return str(error)
        return ""

    def _settle(self, now_s: float) -> None:
        """Delete what the last receipts named; what is not deleted is sent again by the next life."""
        try:
            self._publisher.settle(now_s)
        except OutboxError as error:
            log.warning("receipts not noted", reason=str(error))

    def _hear(self, inbound: Inbound, now_s: float) -> None:
        try:
            address = parse(inbound.topic)
            if address.kind is Kind.MODEL_CHUNK:
                self.updater.chunk(address.sha256, inbound.payload, now_s, shared=not address.edge)
            else:
                self._heard[address.kind](inbound)
        except (ProtocolError, KeyError) as error:
            log.warning("message refused", topic=inbound.topic, reason=str(error))
        except OutboxError as error:
            self.problem(str(error))
        self.session.ack(inbound)

    def _on_receipt(self, inbound: Inbound) -> None:
        receipt = decode(Kind.RECEIPT, inbound.payload, inbound.user_properties).message
        assert isinstance(receipt, Receipt)
        self._publisher.receipt(receipt.message_ids)

    def _on_desired(self, inbound: Inbound) -> None:
        if inbound.payload:  # an empty retained message only clears the topic
            self.updater.offer(inbound.payload, datetime.now(UTC))

    def _on_assigned(self, inbound: Inbound) -> None:
        if inbound.payload:
            self.updater.hear_assignment(inbound.payload, datetime.now(UTC))

    def _on_keys(self, inbound: Inbound) -> None:
        if inbound.payload:
            self.updater.hear_keys(inbound.payload, datetime.now(UTC))

    def _hear_shared(self, wanted: bool) -> None:
        """Hear the chunks for all only while a release comes: other edges' releases would fill a narrow line."""
        if wanted:
            self.session.subscribe(FLEET_CHUNKS)
        else:
            self.session.unsubscribe(FLEET_CHUNKS)

    def _birth(self) -> Sequence[Outbound]:
        self._new_line.set()
        return [
            self._outbound(self._status("online"), retain=True),
            self._outbound(self.updater.reported, retain=True),
        ]

    def _say_reported(self, reported: ModelReported) -> None:
        """Say how it stands with the model; a rollout waits for it: what finds no room is said with the next step."""
        self._report_waits = not self._say(reported, retain=True)

    def _say_wanted(self, wanted: ChunkRequest) -> None:
        self._say(wanted)

    def _say(self, message: Message, *, qos: int = 1, retain: bool = False) -> bool:
        """Say it, and tell whether it is on its way."""
        try:
            self.session.publish(self._outbound(message, qos=qos, retain=retain))
        except BrokerError as error:  # all of these are said again: at the next beat, step or request
            log.debug("not said", type=type(message).__name__, reason=str(error))
            return False
        return True

    def _outbound(self, message: Message, *, qos: int = 1, retain: bool = False) -> Outbound:
        kind = KIND_OF[type(message)]
        context = EventContext(id=uuid.uuid4().hex, source=self._identity.source, time=datetime.now(UTC))
        encoded = encode(message, context)
        return Outbound(self._topic(kind), encoded.payload, qos, retain, encoded.content_type, encoded.user_properties)

    def _beat(self) -> None:
        self._say(self._status("online"), retain=True)

    def _status(self, state: str) -> Status:
        load = self._outbox.load()
        return Status.model_validate(
            {
                "state": state,
                "boot_id": self._identity.boot_id,
                "at": datetime.now(UTC),
                "software": self._software,
                "model": self._slot.running,
                "outbox_depth": load.rows,
                "outbox_bytes": load.bytes,
                "outbox_fullness": load.fullness,
                "outbox_high_water": load.high_water,
                "last_sequence": self._outbox.last_sequence(),
                "guidance": self._guidance[:200],
                "refusals": self._refusals,
                "dropped_originals": at_most(self._outbox.dropped_frames(), MAX_STATUS_RANGES),
                "refused_frames": self._outbox.refused_count(),
                "waiting": self._outbox.waiting_ranges(MAX_STATUS_RANGES),
                "waiting_originals": self._outbox.waiting_ranges(MAX_STATUS_RANGES, Kind.FRAME),
                "set_aside": at_most(self._outbox.lost_ranges(), MAX_STATUS_RANGES),
                "problem": "; ".join(filter(None, self._troubles()))[:2000],
            }
        )

    def _troubles(self) -> tuple[str, ...]:
        return self._problem, self._outbox_trouble, self._unanswered, self._outbox.trouble, self.updater.trouble

    def _topic(self, kind: Kind) -> str:
        return edge_topic(self._identity.site, self._identity.edge, kind)
