"""What is too large is found before it is published and before it is parsed."""

import io
import string
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from protocol.chunks import to_bitmap
from protocol.codec import EventContext, decode, decode_frame, encode, encode_frame
from protocol.errors import EnvelopeError, MessageTooLargeError
from protocol.labels import Label
from protocol.messages import (
    KIB,
    MAX_CHUNKS,
    MAX_INDEX_PIECES,
    MAX_SLICE_PNG_BYTES,
    MESSAGE_TYPES,
    ChunkRequest,
    Frame,
    ModelRef,
    NetworkReading,
    Receipt,
    RetrainRequest,
    RetrainResult,
    SliceRead,
)
from protocol.signing import MAX_ENVELOPE_BYTES, TrustedKeys, generate_signer, sign, verify
from protocol.topics import Kind

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LONGEST_ID = "z" * 32
LONGEST_TEXT = "\N{LUNGS}" * 200
"""Four bytes a character in UTF-8."""
CONTEXT = EventContext("m" * 64, f"sliceloop/v1/{LONGEST_ID}/{LONGEST_ID}", NOON, LONGEST_ID)
AWS_IOT_CORE_BYTES = 128 * KIB


def noise_png() -> bytes:
    """Encode a 256x256 slice that nothing can compress."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def longest_slice(image: bytes) -> SliceRead:
    model = ModelRef(name=LONGEST_TEXT, version=2**63 - 1, sha256="f" * 64)
    reading = NetworkReading(
        label=Label.PNEUMONIA,
        uncertain=True,
        probabilities=dict.fromkeys(Label, 1 / 3),
        model=model,
        latency_ms=1e12 / 3,
    )
    return SliceRead(
        slice_id=LONGEST_ID,
        boot_id=LONGEST_ID,
        sequence=2**63 - 1,
        captured_at=NOON,
        source=LONGEST_TEXT,
        patient_key="f" * 64,
        preprocessing_version=2**31,
        frame_sha256="f" * 64,
        frame_omitted=LONGEST_TEXT,
        image=image,
        image_sha256=sha256(image).hexdigest(),
        reading=reading,
    )


@pytest.mark.parametrize("image", [noise_png(), bytes(MAX_SLICE_PNG_BYTES)], ids=["noise", "largest-png"])
def test_the_largest_slice_fits_a_message_of_aws_iot_core(image: bytes) -> None:
    """A slice of pure noise with the longest texts stays under 128 KiB, its user properties counted."""
    encoded = encode(longest_slice(image), CONTEXT)
    properties = sum(len(name) + len(value) + 5 for name, value in encoded.user_properties)
    assert len(encoded.payload) + properties < AWS_IOT_CORE_BYTES
    assert decode(Kind.SLICE, encoded.payload, encoded.user_properties).message == longest_slice(image)


def test_no_message_may_exceed_aws_iot_core() -> None:
    """The limit of every type of message is within 128 KiB, and of every JSON message within 64 KiB."""
    assert all(message_type.max_bytes <= AWS_IOT_CORE_BYTES for message_type in MESSAGE_TYPES.values())
    assert all(t.max_bytes <= 64 * KIB for t in MESSAGE_TYPES.values() if t.encoding == "json")


def test_the_longest_receipt_and_chunk_request_fit() -> None:
    """As many ids, pieces of index and chunks as one message may name fit under its limit."""
    receipt = Receipt(message_ids=tuple(f"{number:064}" for number in range(500)))
    every_chunk = to_bitmap(range(MAX_CHUNKS))
    request = ChunkRequest(
        version=2**63 - 1,
        pieces=("f" * 64,) * MAX_INDEX_PIECES,
        wanted={f"{number}{LONGEST_TEXT[1:]}": every_chunk for number in range(8)},
        shared=True,
    )
    assert len(encode(receipt, CONTEXT).payload) <= Receipt.max_bytes
    assert len(encode(request, CONTEXT).payload) <= ChunkRequest.max_bytes


def too_many_urls() -> RetrainRequest:
    url = "https://store.example/" + "x" * 3900
    return RetrainRequest(
        request_id="r",
        reason="",
        requested_at=NOON,
        architecture="",
        base_version=1,
        base_checkpoint_url=url,
        base_checkpoint_sha256="0" * 64,
        dataset_url=url,
        dataset_sha256="0" * 64,
        upload_urls=dict.fromkeys(string.ascii_lowercase, url),
        seed=0,
    )


def too_many_metrics() -> RetrainResult:
    return RetrainResult(
        request_id="r", outcome="candidate", at=NOON, trainer="t", validation={"curve": list(range(20_000))}
    )


@pytest.mark.parametrize("make", [too_many_urls, too_many_metrics])
def test_an_oversized_message_is_found_before_publishing(make: Callable[[], RetrainRequest | RetrainResult]) -> None:
    """Encoding refuses what exceeds the limit of its type, and says by how much."""
    with pytest.raises(MessageTooLargeError) as refused:
        encode(make(), CONTEXT)
    assert refused.value.size > refused.value.limit == 64 * KIB


def test_an_oversized_slice_is_found_before_publishing() -> None:
    """A field of a newer peer that makes a slice too large is found when it is encoded again."""
    whole = longest_slice(bytes(MAX_SLICE_PNG_BYTES))
    with pytest.raises(MessageTooLargeError):
        encode(SliceRead(**whole.model_dump(), thumbnail=bytes(40 * KIB)), CONTEXT)


def test_an_oversized_frame_is_found_before_publishing() -> None:
    """An original of one byte more than 2 MiB is refused; one of 2 MiB passes."""
    largest = bytes(Frame.max_bytes)
    frame = Frame(slice_id="s", sha256="0" * 64, media_type="application/dicom", data=largest)
    assert encode_frame(frame, CONTEXT).payload == largest
    with pytest.raises(MessageTooLargeError):
        encode_frame(frame.model_copy(update={"data": largest + b"x"}), CONTEXT)


@pytest.mark.parametrize("kind", sorted(MESSAGE_TYPES))
def test_an_oversized_payload_is_refused_before_parsing(kind: Kind) -> None:
    """What is too large is refused by its size, whatever it holds and whatever its properties say."""
    limit = MESSAGE_TYPES[kind].max_bytes
    with pytest.raises(MessageTooLargeError) as refused:
        decode(kind, b"[" * (limit + 1), [])
    assert (refused.value.size, refused.value.limit) == (limit + 1, limit)


def test_an_oversized_frame_is_refused_before_parsing() -> None:
    """An original that is too large is refused by its size alone."""
    with pytest.raises(MessageTooLargeError):
        decode_frame(bytes(Frame.max_bytes + 1), [])


def test_an_oversized_envelope_is_refused_before_parsing() -> None:
    """An envelope that no broker would carry is refused by its size alone."""
    with pytest.raises(EnvelopeError, match="exceed"):
        verify(b"[" * (MAX_ENVELOPE_BYTES + 1), TrustedKeys((generate_signer().public_key,)))


def test_an_oversized_manifest_is_found_before_publishing() -> None:
    """Signing refuses a payload whose envelope every edge would refuse for its size."""
    with pytest.raises(MessageTooLargeError):
        sign(bytes(MAX_ENVELOPE_BYTES), [generate_signer()])
