"""Store what edges say: object first, then ledger, then the receipt, then the broker's acknowledgement."""

import contextlib
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from pydantic import ValidationError

from broker.errors import BrokerError
from broker.messages import Inbound, Outbound
from broker.session import Session
from cloud_worker.ledger import Ledger, LedgerUnavailableError, RefusedByLedgerError
from cloud_worker.object_store import OUTAGES, ObjectRefusedError, ObjectStore, frame_key, image_key, quarantine_key
from protocol.codec import EventContext, decode, decode_frame, encode
from protocol.errors import MalformedPayloadError, ProtocolError
from protocol.manifest import sha256_of
from protocol.messages import ModelReported, Receipt, SliceRead, Status
from protocol.topics import CLOUD_KINDS, Address, Kind, edge_topic, every_edge, parse, shared
from training.model.decode import ImageError, decode_image
from training.model.preprocess import INPUT_PX

log = structlog.get_logger()

RECEIVED_KINDS = (Kind.SLICE, Kind.FRAME, Kind.STATUS, Kind.MODEL_REPORTED)
SHARED_KINDS = (Kind.SLICE, Kind.FRAME)
"""Each goes to one worker; the others, which are retained, to all, so that one that was away hears of every edge."""
SUBSCRIPTIONS = [shared(every_edge(kind)) if kind in SHARED_KINDS else every_edge(kind) for kind in RECEIVED_KINDS]
WAIT_S = 0.2
MAX_REFUSALS = 3
"""So often is an object offered that the store refuses as such; then the message is quarantined."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Receiver:
    """Handles one message after the other; while S3 or ledger are away it waits, and the broker holds the rest."""

    def __init__(self, store: ObjectStore, ledger: Ledger, session: Session, name: str, store_retry_s: float) -> None:
        """Remember where things go; the session belongs to the caller."""
        self._store, self._ledger, self._session = store, ledger, session
        self._name, self._store_retry_s = name, store_retry_s
        self._handlers: dict[Kind, Callable[[Address, Inbound], None]] = {
            Kind.SLICE: self._on_slice,
            Kind.FRAME: self._on_frame,
            Kind.STATUS: self._on_status,
            Kind.MODEL_REPORTED: self._on_reported,
        }

    def run(self, stop: threading.Event) -> None:
        """Receive until the stop."""
        while not stop.is_set():
            inbound = self._session.receive(WAIT_S)
            if inbound is not None and self._handle_until_done(inbound, stop):
                self._session.ack(inbound)

    def _handle_until_done(self, inbound: Inbound, stop: threading.Event) -> bool:
        """Try until the message is stored or quarantined; False when stopped before that."""
        told, refused = "", 0
        while not stop.is_set():
            try:
                self._handle(inbound, last_try=refused + 1 == MAX_REFUSALS)
            except (*OUTAGES, ObjectRefusedError, LedgerUnavailableError) as error:
                refused += isinstance(error, ObjectRefusedError)
                if str(error) != told:
                    told = str(error)
                    log.error("cannot store", reason=told, next=f"tried again every {self._store_retry_s} s")
                stop.wait(self._store_retry_s)
            else:
                return True
        return False

    def _handle(self, inbound: Inbound, *, last_try: bool) -> None:
        try:
            address = parse(inbound.topic)
            if address.kind not in CLOUD_KINDS:  # `+/+/status` brings the trainers' status too: the desk hears that
                self._handlers[address.kind](address, inbound)
        except (ProtocolError, RefusedByLedgerError) as error:
            self._quarantine(inbound, error)
        except ObjectRefusedError as error:
            if not last_try:
                raise
            self._quarantine(inbound, error)

    def _on_slice(self, address: Address, inbound: Inbound) -> None:
        event = decode(Kind.SLICE, inbound.payload, inbound.user_properties)
        said = event.message
        assert isinstance(said, SliceRead)
        _check_image(said)
        key = image_key(said.image_sha256)
        self._store.put(key, said.image, "image/png")
        new = self._ledger.store_slice(
            message_id=event.id,
            site=address.site,
            edge=address.edge,
            slice=said,
            image_key=key,
            received_at=datetime.now(UTC),
        )
        self._receipt(address, event.id)
        log.info("slice stored" if new else "slice known", slice_id=said.slice_id, edge=address.edge)

    def _on_frame(self, address: Address, inbound: Inbound) -> None:
        event = decode_frame(inbound.payload, inbound.user_properties)
        frame = event.frame
        key = frame_key(frame.sha256, frame.media_type)
        self._store.put(key, frame.data, frame.media_type)
        self._ledger.store_frame(
            message_id=event.id,
            slice_id=frame.slice_id,
            sha256=frame.sha256,
            frame_key=key,
            media_type=frame.media_type,
            received_at=datetime.now(UTC),
        )
        self._receipt(address, event.id)

    def _on_status(self, address: Address, inbound: Inbound) -> None:
        status = decode(Kind.STATUS, inbound.payload, inbound.user_properties).message
        assert isinstance(status, Status)
        self._ledger.record_status(address.site, address.edge, status.model_dump(mode="json"), datetime.now(UTC))

    def _on_reported(self, address: Address, inbound: Inbound) -> None:
        reported = decode(Kind.MODEL_REPORTED, inbound.payload, inbound.user_properties).message
        assert isinstance(reported, ModelReported)
        self._ledger.record_reported(address.site, address.edge, reported.model_dump(mode="json"), datetime.now(UTC))

    def _quarantine(self, inbound: Inbound, error: Exception) -> None:
        """Keep what cannot be taken in, with its reason; the edge gets a receipt, since nothing is lost by then."""
        reason = f"{type(error).__name__}: {error}"
        sender = _awaits_receipt(inbound.topic)
        if sender is not None:
            # whole, and for good: the ledger keeps the newest dead letters only, and the edge forgets it now.
            # Before the ledger, which would get a row at each try; a store that refuses this leaves it to the ledger.
            with contextlib.suppress(ObjectRefusedError):
                key = quarantine_key(sha256_of(inbound.payload))
                self._store.put(key, inbound.payload, "application/octet-stream")
        self._ledger.dead_letter(inbound.topic, inbound.payload, reason, datetime.now(UTC))
        log.warning("message quarantined", topic=inbound.topic, reason=reason)
        if sender is not None:
            with contextlib.suppress(ProtocolError, ValidationError):  # no id, no receipt
                self._receipt(sender, dict(inbound.user_properties).get("id", ""))

    def _receipt(self, address: Address, message_id: str) -> None:
        context = EventContext(id=uuid.uuid4().hex, source=f"/workers/{self._name}", time=datetime.now(UTC))
        encoded = encode(Receipt(message_ids=(message_id,)), context)
        topic = edge_topic(address.site, address.edge, Kind.RECEIPT)
        try:
            self._session.publish(
                Outbound(
                    topic,
                    encoded.payload,
                    content_type=encoded.content_type,
                    user_properties=encoded.user_properties,
                )
            )
        except BrokerError as failure:  # the edge sends the message again, and gets its receipt then
            log.debug("receipt not said", reason=str(failure))


def _awaits_receipt(topic: str) -> Address | None:
    """Return whose outbox waits for a receipt of what came on this topic."""
    try:
        address = parse(topic)
    except ProtocolError:
        return None
    return address if address.kind in (Kind.SLICE, Kind.FRAME) else None


def _check_image(said: SliceRead) -> None:
    if sha256_of(said.image) != said.image_sha256:
        raise MalformedPayloadError(Kind.SLICE, "the image has another SHA-256 than stated")
    if not said.image.startswith(PNG_SIGNATURE):
        raise MalformedPayloadError(Kind.SLICE, "the image is no PNG")
    try:
        pixels = decode_image(said.image)
    except ImageError as error:
        raise MalformedPayloadError(Kind.SLICE, f"the image cannot be read ({error})") from error
    if pixels.shape != (INPUT_PX, INPUT_PX):
        raise MalformedPayloadError(Kind.SLICE, f"the image is {pixels.shape}, not {INPUT_PX}x{INPUT_PX}")
