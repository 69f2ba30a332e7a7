"""One message from the broker's bytes to the ledger's entry: decode, check, put its object, wait out what passes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from broker.messages import Inbound
from cloud_worker.ledger import Entry, RefusedByLedgerError, ReportEntry, SliceEntry, StoredFrame
from cloud_worker.object_store import OUTAGES, ObjectRefusedError, ObjectStore, frame_key, image_key, quarantine_key
from cloud_worker.patience import Patience
from protocol.chunks import sha256_of
from protocol.codec import decode, decode_frame
from protocol.errors import MalformedPayloadError, ProtocolError
from protocol.messages import ModelReported, SliceRead, Status
from protocol.topics import CLOUD_KINDS, Address, Kind, parse
from training.model.decode import ImageError, decode_image
from training.model.preprocess import INPUT_PX

log = structlog.get_logger()

MAX_REFUSALS = 3
"""So often is an object offered that the store refuses as such; then the message is quarantined."""
MAX_LONE_FAILURES = 5
"""So often may an object fail while others go through; then its message is left to its edge, which says it again."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Refusal = ProtocolError | RefusedByLedgerError | ObjectRefusedError


@dataclass(frozen=True)
class Arrived:
    """A message and when it came."""

    inbound: Inbound
    at: datetime


@dataclass(frozen=True)
class Stored:
    """What became of a message: an entry for the ledger, or a refusal to be quarantined; with neither it is let go."""

    arrived: Arrived
    entry: Entry | None = None
    refusal: Refusal | None = None
    kept: bool = True
    """Whether what was refused is in the object store, so that its edge may forget it."""


class Storing:
    """Works on many threads at once; raises nothing, since one message must not end the worker."""

    def __init__(self, store: ObjectStore, patience: Patience) -> None:
        """Remember the store, and how outages are waited out."""
        self._store, self._patience = store, patience
        self._entries: dict[Kind, Callable[[Address, Arrived], Entry]] = {
            Kind.SLICE: self._slice,
            Kind.FRAME: self._frame,
            Kind.STATUS: _status,
            Kind.MODEL_REPORTED: _reported,
        }

    def store(self, arrived: Arrived, stop: threading.Event) -> Stored | None:
        """Put the message's object and return its entry, however long the store is away; None when stopped."""
        lone, refused = 0, 0
        while not stop.is_set():
            puts = self._patience.successes
            try:
                return self._try(arrived)
            except ObjectRefusedError as error:
                refused += 1
                if refused == MAX_REFUSALS:
                    return self._refused(arrived, error, stop)
                self._patience.wait(error, stop)
            except OUTAGES as error:
                self._patience.wait(error, stop)
                lone += self._patience.successes > puts
                if lone == MAX_LONE_FAILURES:
                    log.error("message let go", topic=arrived.inbound.topic, reason=str(error), next="its edge has it")
                    return Stored(arrived)
            except ProtocolError as error:
                return self._refused(arrived, error, stop)
            except Exception:
                log.exception("message not understood", topic=arrived.inbound.topic)
                return self._refused(arrived, MalformedPayloadError("message", "see the worker's log"), stop)
        return None

    def keep_whole(self, inbound: Inbound, stop: threading.Event) -> bool:
        """Put a message that cannot be taken in among the quarantined; False when refused, or stopped before that.

        Whole, and for good: the ledger keeps the newest dead letters only, and the edge forgets it now. Only what has a
        sender that waits for a receipt is kept.
        """
        key, told = quarantine_key(sha256_of(inbound.payload)), awaits_receipt(inbound.topic) is not None
        while told and not stop.is_set():
            try:
                self._store.put(key, inbound.payload, "application/octet-stream")
            except ObjectRefusedError:
                return False
            except OUTAGES as error:
                self._patience.wait(error, stop)
            else:
                return True
        return not told

    def _try(self, arrived: Arrived) -> Stored:
        address = parse(arrived.inbound.topic)
        if address.kind in CLOUD_KINDS:  # `+/+/status` brings the trainers' status too: the desk hears that
            return Stored(arrived)
        entry = self._entries[address.kind](address, arrived)
        if not isinstance(entry, ReportEntry):  # that puts nothing, and tells nothing of the store
            self._patience.succeeded()
        return Stored(arrived, entry)

    def _refused(self, arrived: Arrived, error: Refusal, stop: threading.Event) -> Stored | None:
        kept = self.keep_whole(arrived.inbound, stop)
        return None if stop.is_set() else Stored(arrived, refusal=error, kept=kept)

    def _slice(self, address: Address, arrived: Arrived) -> SliceEntry:
        event = decode(Kind.SLICE, arrived.inbound.payload, arrived.inbound.user_properties)
        said = event.message
        assert isinstance(said, SliceRead)
        _check_image(said)
        key = image_key(said.image_sha256)
        self._store.put(key, said.image, "image/png")
        return SliceEntry(event.id, address.site, address.edge, said, key, arrived.at)

    def _frame(self, _: Address, arrived: Arrived) -> StoredFrame:
        event = decode_frame(arrived.inbound.payload, arrived.inbound.user_properties)
        frame = event.frame
        key = frame_key(frame.sha256, frame.media_type)
        self._store.put(key, frame.data, frame.media_type)
        return StoredFrame(event.id, frame.slice_id, frame.sha256, key, frame.media_type, arrived.at)


def awaits_receipt(topic: str) -> Address | None:
    """Return whose outbox waits for a receipt of what came on this topic."""
    try:
        address = parse(topic)
    except ProtocolError:
        return None
    return address if address.kind in (Kind.SLICE, Kind.FRAME) else None


def _status(address: Address, arrived: Arrived) -> ReportEntry:
    status = decode(Kind.STATUS, arrived.inbound.payload, arrived.inbound.user_properties).message
    assert isinstance(status, Status)
    return ReportEntry(address.site, address.edge, status, arrived.at)


def _reported(address: Address, arrived: Arrived) -> ReportEntry:
    reported = decode(Kind.MODEL_REPORTED, arrived.inbound.payload, arrived.inbound.user_properties).message
    assert isinstance(reported, ModelReported)
    return ReportEntry(address.site, address.edge, reported, arrived.at)


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
