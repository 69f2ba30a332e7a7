"""One slice from the captured frame to the messages that say what it is: decode, crop, read, and put into words."""

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from edge_agent.capture.frame import CapturedFrame
from edge_agent.crop import encode_png
from edge_agent.model_slot import ServedModel
from edge_agent.outbox import OutboxMessage
from edge_agent.probation.cost import read_costed, reading_clock
from edge_agent.unlike import refuse_unlike
from protocol.chunks import sha256_of
from protocol.codec import Encoded, EventContext, encode, encode_frame
from protocol.messages import Diagnosis, Frame, NetworkReading, SliceRead
from protocol.patients import patient_key
from protocol.topics import Kind
from training.model.decode import is_dicom
from training.model.preprocess import PREPROCESSING_VERSION
from training.model.preprocess import Frame as Slice
from training.model.reader import Reading


@dataclass(frozen=True)
class EdgeIdentity:
    """Who speaks: the edge, this run of it, and the site's secret under which patients' ids are hidden."""

    site: str
    edge: str
    boot_id: str
    patient_secret: bytes

    @property
    def source(self) -> str:
        """Return the CloudEvents source."""
        return f"/edges/{self.site}/{self.edge}"


@dataclass(frozen=True)
class OriginalsPolicy:
    """Which captured originals leave the edge; `max_bytes` is the broker's limit, and a frame's own holds as well."""

    send: bool
    send_dicom: bool
    max_bytes: int

    def why_not(self, frame: CapturedFrame) -> str:
        """Say why an original stays at the edge; empty when it is sent."""
        if not self.send:
            return "edge.send_originals is off"
        if is_dicom(frame.data) and not self.send_dicom:
            return "DICOM originals carry patient data; edge.send_dicom_originals is off"
        limit = min(self.max_bytes, Frame.max_bytes)
        if len(frame.data) > limit:
            return f"{len(frame.data):,} bytes exceed the message limit of {limit:,}"
        return ""


class NetworkFaultError(RuntimeError):
    """A network gave no answer to a slice; the message names what it raised."""


Prepare = Callable[[bytes], Slice]
"""Makes of a captured frame's bytes what a network reads: uint8 [256, 256]."""


@dataclass(frozen=True)
class ReadSlice:
    """A slice that was read: its messages for the outbox, and the one for the live view."""

    slice_id: str
    sequence: int
    diagnosis: Diagnosis
    messages: tuple[OutboxMessage, ...]
    pixels: Slice
    cost_ms: float
    """What the network's reading cost this thread, to be compared with another network's."""
    patient_key: str = ""
    """Empty where nobody knows whose it is."""


def read_slice(
    frame: CapturedFrame,
    model: ServedModel,
    identity: EdgeIdentity,
    sequence: int,
    originals: OriginalsPolicy,
    prepare: Prepare,
    most_unlike: float = math.inf,
) -> ReadSlice:
    """Prepare and read a frame; raises what `prepare` raises for one that shows no slice.

    Raises `NetworkFaultError` where the network fails, and `PictureRefusedError` for a slice that is more unlike what
    it learnt from than `most_unlike`.
    """
    started_s = time.perf_counter()
    pixels = prepare(frame.data)
    reading, cost_ms = _read(model, pixels)
    refuse_unlike(reading, most_unlike)
    latency_ms = (time.perf_counter() - started_s) * 1000
    png = encode_png(pixels)
    slice_id, omitted = uuid.uuid4().hex, originals.why_not(frame)
    said = SliceRead(
        slice_id=slice_id,
        boot_id=identity.boot_id,
        sequence=sequence,
        captured_at=frame.captured_at,
        source=frame.source,
        patient_key=patient_key(identity.patient_secret, frame.patient_id),
        preprocessing_version=PREPROCESSING_VERSION,
        frame_sha256=sha256_of(frame.data),
        frame_omitted=omitted,
        image=png,
        image_sha256=sha256_of(png),
        reading=NetworkReading(
            label=reading.label,
            uncertain=reading.uncertain,
            probabilities=reading.probabilities,
            model=model.ref,
            latency_ms=latency_ms,
        ),
    )
    messages = [_slice_message(said, identity)]
    if not omitted:
        messages.append(_frame_message(said, frame, identity))
    whose = said.patient_key if frame.patient_known else ""
    return ReadSlice(slice_id, sequence, _diagnosis(said), tuple(messages), pixels, cost_ms, whose)


def _read(model: ServedModel, pixels: Slice) -> tuple[Reading, float]:
    try:
        return read_costed(model.reader, pixels, reading_clock())
    except Exception as error:  # onnxruntime's error classes share no public base
        raise NetworkFaultError(f"{type(error).__name__}: {error}") from error


def _diagnosis(said: SliceRead) -> Diagnosis:
    return Diagnosis(slice_id=said.slice_id, captured_at=said.captured_at, source=said.source, reading=said.reading)


def _slice_message(said: SliceRead, identity: EdgeIdentity) -> OutboxMessage:
    context = _context(identity, said)
    return _outbox_message(context, Kind.SLICE, encode(said, context))


def _frame_message(said: SliceRead, frame: CapturedFrame, identity: EdgeIdentity) -> OutboxMessage:
    context = _context(identity, said)
    original = Frame(slice_id=said.slice_id, sha256=said.frame_sha256, media_type=frame.media_type, data=frame.data)
    return _outbox_message(context, Kind.FRAME, encode_frame(original, context))


def _context(identity: EdgeIdentity, said: SliceRead) -> EventContext:
    return EventContext(
        id=uuid.uuid4().hex,
        source=identity.source,
        time=datetime.now(UTC),
        subject=said.slice_id,
        sequence=said.sequence,
    )


def _outbox_message(context: EventContext, kind: Kind, encoded: Encoded) -> OutboxMessage:
    return OutboxMessage(context.id, kind, encoded.payload, encoded.content_type, encoded.user_properties)
