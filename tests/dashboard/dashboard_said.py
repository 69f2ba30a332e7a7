"""What edges, worker and trainer say, made short for the dashboard's tests."""

from datetime import UTC, datetime, timedelta

import cv2
import numpy as np

from protocol.labels import LABELS, Label
from protocol.messages import (
    Diagnosis,
    Disagreement,
    ModelPhase,
    ModelRef,
    ModelReported,
    NetworkReading,
    RetrainPhase,
    RetrainResult,
    RetrainStatus,
    Review,
    SliceRead,
    Status,
    Verdict,
)
from protocol.topics import Address, Kind

START = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
HASH = "a" * 64
SITE = "north"


def at(seconds: float) -> datetime:
    """Return the time so many seconds after the start."""
    return START + timedelta(seconds=seconds)


def to(kind: Kind, edge: str = "ct-1") -> Address:
    """Address a message of an edge."""
    return Address(kind, SITE, edge)


def model(version: int = 1) -> ModelRef:
    """Name a network."""
    return ModelRef(name="squeezenet", version=version, sha256=HASH)


def reading(
    label: Label = Label.PNEUMONIA, probability: float = 0.9, *, uncertain: bool = False, version: int = 1
) -> NetworkReading:
    """Say what a network sees."""
    rest = (1 - probability) / 2
    probabilities = {each: probability if each == label else rest for each in LABELS}
    return NetworkReading(
        label=label, uncertain=uncertain, probabilities=probabilities, model=model(version), latency_ms=12
    )


def png(value: int = 128) -> bytes:
    """Return a grey 256x256 PNG."""
    return bytes(cv2.imencode(".png", np.full((256, 256), value, np.uint8))[1])


PNG = png()


def diagnosis(slice_id: str = "s1", first: NetworkReading | None = None, source: str = "phantom-a") -> Diagnosis:
    """Say a reading without pixels."""
    return Diagnosis(slice_id=slice_id, captured_at=START, source=source, reading=first or reading())


def slice_read(
    slice_id: str = "s1",
    first: NetworkReading | None = None,
    source: str = "phantom-a",
    image: bytes = PNG,
    sequence: int = 1,
) -> SliceRead:
    """Say a reading with pixels."""
    return SliceRead(
        slice_id=slice_id,
        boot_id="boot-1",
        sequence=sequence,
        captured_at=START,
        source=source,
        patient_key=HASH,
        preprocessing_version=1,
        frame_sha256=HASH,
        image=image,
        image_sha256=HASH,
        reading=first or reading(),
    )


def verdict(slice_id: str = "s1", second: NetworkReading | None = None, kind: str = "", reviewer: str = "") -> Verdict:
    """Say a second reading."""
    return Verdict.model_validate(
        {
            "slice_id": slice_id,
            "first": reading(),
            "second": second or reading(),
            "disagreement": Disagreement.model_validate({"kind": kind, "reasons": ()}) if kind else None,
            "review": Review(label=Label.NORMAL, reviewer=reviewer, at=START) if reviewer else None,
        }
    )


def status(
    state: str = "online", boot: str = "boot-1", said: datetime = START, outbox: int = 0, full: float = 0.0
) -> Status:
    """Say how an edge is."""
    return Status.model_validate(
        {
            "state": state,
            "boot_id": boot,
            "at": said,
            "software": "0.1",
            "model": model(),
            "outbox_depth": outbox,
            "outbox_fullness": full,
            "last_sequence": 7,
        }
    )


def reported(phase: ModelPhase, running: int, desired: int, said: datetime = START, reason: str = "") -> ModelReported:
    """Say what an edge runs."""
    return ModelReported(
        phase=phase,
        at=said,
        running=model(running),
        desired_version=desired,
        chunks_done=31,
        chunks_total=62,
        reason=reason,
    )


def result(outcome: str = "candidate", said: datetime = START, reason: str = "", **gate: object) -> RetrainResult:
    """Say what a training came to, or what the gate made of it."""
    fields = {"request_id": "r1", "outcome": outcome, "at": said, "trainer": "trainer-1", "reason": reason}
    return RetrainResult.model_validate({**fields, **gate})


REFUSED = {"verdict": "refused", "reason": "refused by the gate: balanced accuracy 0.7 is not above 0.8"}
RELEASED = {"verdict": "released", "released_version": 3}


def progress(fraction: float, said: datetime = START, request_id: str = "r1") -> RetrainStatus:
    """Say how far a training is."""
    return RetrainStatus(
        request_id=request_id,
        trainer="trainer-1",
        phase=RetrainPhase.TRAINING,
        at=said,
        epoch=5,
        epochs=8,
        fraction=fraction,
        loss=0.413,
        validation_balanced_accuracy=0.713,
    )
