"""Make as many different slices as are asked for from a few drawn phantoms: each PNG carries a number of its own."""

import struct
import uuid
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Self

import cv2
import numpy as np

from edge_agent.crop import encode_png
from edge_agent.outbox import OutboxMessage
from edge_agent.reading import EdgeIdentity
from protocol.chunks import sha256_of
from protocol.codec import Encoded, EventContext, encode, encode_frame
from protocol.labels import LABELS, Label
from protocol.messages import Frame, ModelRef, NetworkReading, SliceRead
from protocol.patients import patient_key
from protocol.topics import Kind
from training.data.phantom import SITES, render_slice
from training.model.preprocess import INPUT_PX, PREPROCESSING_VERSION

PHANTOMS = 12
END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG."""
MODEL = ModelRef(name="simulated", version=1, sha256="0" * 64)
"""No network read these slices."""
PROBABILITIES = {Label.NORMAL: 0.7, Label.PNEUMONIA: 0.2, Label.COVID_19: 0.1}


def draw_pngs(seed: int) -> list[bytes]:
    """Draw the phantoms as 256x256 PNGs, a second or two."""
    site = SITES["site-a"]
    drawn = (
        render_slice(seed=seed, site=site, label=LABELS[patient % 3], patient=patient, z=0.5)
        for patient in range(PHANTOMS)
    )
    small = (cv2.resize(each, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA) for each in drawn)
    return [encode_png(each.astype(np.uint8)) for each in small]


class Mill:
    """The slices of one edge."""

    def __init__(self, pngs: Sequence[bytes], identity: EdgeIdentity, *, with_frames: bool) -> None:
        """Remember what to vary, and whether a captured original goes with each slice."""
        self._pngs, self.identity, self._with_frames = pngs, identity, with_frames
        self._numbers = count()

    @classmethod
    def of_floor(cls, pngs: Sequence[bytes]) -> Self:
        """Return a mill of nobody's edge, for measurements of bytes alone."""
        return cls(pngs, EdgeIdentity("simulated", "floor", uuid.uuid4().hex, b"no secret"), with_frames=False)

    def messages(self, sequence: int) -> tuple[str, list[OutboxMessage]]:
        """Return the id of a slice that nobody has seen, and its messages."""
        image = self._stamped("slice")
        original = self._stamped("frame") if self._with_frames else image
        slice_id = uuid.uuid4().hex
        said = SliceRead(
            slice_id=slice_id,
            boot_id=self.identity.boot_id,
            sequence=sequence,
            captured_at=datetime.now(UTC),
            source="simulated",
            patient_key=patient_key(self.identity.patient_secret, str(sequence)),
            preprocessing_version=PREPROCESSING_VERSION,
            frame_sha256=sha256_of(original),
            frame_omitted="" if self._with_frames else "simulated without originals",
            image=image,
            image_sha256=sha256_of(image),
            reading=NetworkReading(
                label=Label.NORMAL, uncertain=False, probabilities=PROBABILITIES, model=MODEL, latency_ms=0
            ),
        )
        context = self._context(slice_id, sequence)
        slice_message = encode(said, context)
        messages = [_kept(context, Kind.SLICE, slice_message)]
        if self._with_frames:
            context = self._context(slice_id, sequence)
            frame = Frame(slice_id=slice_id, sha256=said.frame_sha256, media_type="image/png", data=original)
            messages.append(_kept(context, Kind.FRAME, encode_frame(frame, context)))
        return slice_id, messages

    def _stamped(self, what: str) -> bytes:
        """Return a PNG like the drawn ones whose text chunk, and so whose hash, is its own."""
        number = next(self._numbers)
        png = self._pngs[number % len(self._pngs)]
        text = f"Comment\0{what} {self.identity.boot_id} {number}".encode("latin-1")
        chunk = b"tEXt" + text
        return png.removesuffix(END) + struct.pack(">I", len(text)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + END

    def _context(self, slice_id: str, sequence: int) -> EventContext:
        return EventContext(
            id=uuid.uuid4().hex,
            source=self.identity.source,
            time=datetime.now(UTC),
            subject=slice_id,
            sequence=sequence,
        )


def _kept(context: EventContext, kind: Kind, encoded: Encoded) -> OutboxMessage:
    return OutboxMessage(context.id, kind, encoded.payload, encoded.content_type, encoded.user_properties)
