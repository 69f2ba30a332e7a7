"""A captured frame becomes the messages that say what it is, and nothing that names a patient leaves the edge."""

import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from edge_parts import body, dicom_file, filled_slot, image_file, png_claiming, slice_file
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edge_agent.capture.frame import CapturedFrame
from edge_agent.crop import crop, encode_png
from edge_agent.model_slot import ServedModel
from edge_agent.reading import EdgeIdentity, OriginalsPolicy, ReadSlice, patient_key, read_slice
from protocol.chunks import sha256_of
from protocol.codec import decode, decode_frame, stated_sequence
from protocol.labels import LABELS
from protocol.messages import Frame, SliceRead
from protocol.topics import Kind
from training.model.decode import ImageError, ImageTooLargeError, ImageTooSmallError, decode_image
from training.model.preprocess import BlankFrameError

SECRET = b"a secret of the site, 32 bytes.."
IDENTITY = EdgeIdentity("site-a", "edge-1", "boot-1", SECRET)
ALL = OriginalsPolicy(send=True, send_dicom=True, max_bytes=1_000_000)
DEFAULT = OriginalsPolicy(send=True, send_dicom=False, max_bytes=1_000_000)


def file_pixels(data: bytes) -> NDArray[np.uint8]:
    return crop(decode_image(data)).pixels


read_file = partial(read_slice, prepare=file_pixels)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    current = filled_slot(tmp_path_factory.mktemp("models")).current
    assert current is not None
    return current


def frame(data: bytes, patient_id: str = "MRN-0815", media_type: str = "image/png") -> CapturedFrame:
    return CapturedFrame("Doe^John.png", data, media_type, "here", patient_id, datetime(2026, 3, 1, tzinfo=UTC))


def said(read: ReadSlice) -> SliceRead:
    """Decode the slice's message as the cloud does."""
    first = read.messages[0]
    message = decode(first.kind, first.payload, first.user_properties).message
    assert isinstance(message, SliceRead)
    return message


def test_a_frame_becomes_a_slice_that_the_cloud_can_decode(model: ServedModel) -> None:
    """The message holds a PNG of 256x256, its hash, the frame's hash, the reading and who read it."""
    data = slice_file()
    read = read_file(frame(data), model, IDENTITY, 7, ALL)
    message = said(read)
    with Image.open(io.BytesIO(message.image)) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (256, 256), "L")
    assert message.image_sha256 == sha256_of(message.image)
    assert message.frame_sha256 == sha256_of(data)
    assert (message.sequence, message.boot_id, message.source) == (7, "boot-1", "here")
    assert message.reading.model == model.ref
    assert set(message.reading.probabilities) == set(LABELS)
    assert read.diagnosis.reading == message.reading
    assert read.diagnosis.slice_id == message.slice_id == read.slice_id


def test_the_reading_says_whose_slice_it_is_where_that_is_known(model: ServedModel) -> None:
    """Never by the id itself; an id that stands for a whole folder is nobody's."""
    known = frame(slice_file())
    assert read_file(known, model, IDENTITY, 1, ALL).patient_key == patient_key(IDENTITY.patient_secret, "MRN-0815")
    assert read_file(replace(known, patient_known=False), model, IDENTITY, 1, ALL).patient_key == ""


def test_the_original_travels_with_its_slice(model: ServedModel) -> None:
    """A PNG original is sent as it is, under the slice's id and its own hash."""
    data = slice_file()
    read = read_file(frame(data), model, IDENTITY, 1, DEFAULT)
    assert [message.kind for message in read.messages] == [Kind.SLICE, Kind.FRAME]
    original = decode_frame(read.messages[1].payload, read.messages[1].user_properties).frame
    assert (original.data, original.slice_id, original.media_type) == (data, read.slice_id, "image/png")
    assert said(read).frame_omitted == ""


def test_a_slice_and_its_original_state_their_number_beside_the_payload(model: ServedModel) -> None:
    """Who cannot decode one of them still learns which number it is."""
    read = read_file(frame(slice_file()), model, IDENTITY, 7, ALL)
    assert [stated_sequence(message.user_properties) for message in read.messages] == [7, 7]


@pytest.mark.parametrize("suffix", ["application/dicom", "image/png"])
def test_dicom_originals_stay_by_default(model: ServedModel, suffix: str) -> None:
    """A DICOM file stays at the edge, whatever its name says it is, and the slice says why."""
    captured = frame(dicom_file(PatientID="MRN-0815"), media_type=suffix)
    kept = read_file(captured, model, IDENTITY, 1, DEFAULT)
    assert [message.kind for message in kept.messages] == [Kind.SLICE]
    assert "edge.send_dicom_originals is off" in said(kept).frame_omitted
    assert len(read_file(captured, model, IDENTITY, 1, ALL).messages) == 2


def test_originals_stay_when_they_are_switched_off(model: ServedModel) -> None:
    """Without originals the slice alone is sent, and says so."""
    read = read_file(frame(slice_file()), model, IDENTITY, 1, OriginalsPolicy(False, True, 1_000_000))
    assert [message.kind for message in read.messages] == [Kind.SLICE]
    assert said(read).frame_omitted == "edge.send_originals is off"


def test_an_original_that_no_broker_takes_stays_with_a_reason(model: ServedModel) -> None:
    """An original above the broker's limit is omitted before it is sent, and the slice goes all the same."""
    data = slice_file()
    read = read_file(frame(data), model, IDENTITY, 1, OriginalsPolicy(True, True, len(data) - 1))
    assert [message.kind for message in read.messages] == [Kind.SLICE]
    assert said(read).frame_omitted == f"{len(data):,} bytes exceed the message limit of {len(data) - 1:,}"
    assert len(read_file(frame(data), model, IDENTITY, 1, OriginalsPolicy(True, True, len(data))).messages) == 2


def test_an_original_that_no_message_holds_stays_with_a_reason(model: ServedModel) -> None:
    """With a broker that takes more than our messages may have, a huge original is omitted and its slice still read."""
    data = image_file(np.pad(body(1200, 1600), 60)) + bytes(Frame.max_bytes)
    read = read_file(frame(data), model, IDENTITY, 1, OriginalsPolicy(True, True, 100_000_000))
    assert [message.kind for message in read.messages] == [Kind.SLICE]
    assert f"{Frame.max_bytes:,}" in said(read).frame_omitted


@pytest.mark.parametrize("data", [dicom_file(PatientID="MRN-0815", PatientName="Doe^John"), slice_file()])
def test_nothing_that_is_sent_names_the_patient(model: ServedModel, data: bytes) -> None:
    """Neither the patient's id nor the file's name is in a message of the default policy."""
    read = read_file(frame(data), model, IDENTITY, 1, DEFAULT)
    sent = b"".join(message.payload + repr(message).encode() for message in read.messages)
    sent += read.diagnosis.model_dump_json().encode()
    assert b"MRN-0815" not in sent
    assert b"Doe" not in sent
    assert SECRET not in sent


@given(st.text(), st.text(), st.binary(min_size=16), st.binary(min_size=16))
def test_a_patient_key_tells_patients_apart_and_hides_them(
    one: str, other: str, secret: bytes, elsewhere: bytes
) -> None:
    """One secret gives one patient one key, two patients two; another site's secret gives others."""
    key = patient_key(secret, one)
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert (patient_key(secret, other) == key) == (one == other)
    if secret.rstrip(b"\0") != elsewhere.rstrip(b"\0"):  # HMAC fills a short key up with zeros (RFC 2104)
        assert len(secret) > 64 or len(elsewhere) > 64 or patient_key(elsewhere, one) != key


def test_each_slice_and_message_has_an_id_of_its_own(model: ServedModel) -> None:
    """The same file captured twice gives two slices, and no two messages share an id."""
    reads = [read_file(frame(slice_file()), model, IDENTITY, number, ALL) for number in (1, 2)]
    assert len({read.slice_id for read in reads}) == 2
    assert len({message.message_id for read in reads for message in read.messages}) == 4


@pytest.mark.parametrize(
    ("data", "error", "fault"),
    [
        (b"", ImageError, "0 bytes are neither PNG, JPEG nor DICOM"),
        (b"hello, I am a text", ImageError, "neither PNG, JPEG nor DICOM"),
        (slice_file()[:2000], ImageError, "damaged or cut off"),
        (image_file(np.zeros((1, 1), np.uint8)), ImageTooSmallError, "1x1 px is no slice"),
        (png_claiming(20_000, 20_000), ImageTooLargeError, "exceeds 64,000,000 pixels"),
        (image_file(np.zeros((300, 300), np.uint8)), BlankFrameError, "one grey"),
        (dicom_file()[:400], ImageError, "DICOM"),
    ],
)
def test_what_shows_no_slice_is_refused_by_name(
    model: ServedModel, data: bytes, error: type[Exception], fault: str
) -> None:
    """Whatever is no slice raises the error that says why, before a network sees it."""
    with pytest.raises(error, match=fault):
        read_file(frame(data), model, IDENTITY, 1, ALL)


def test_the_crop_is_the_body_and_its_png_is_lossless() -> None:
    """The black around the body goes, the longer side fills the 256 pixels, and the PNG gives back each of them."""
    page = np.zeros((400, 600), np.uint8)
    page[100:250, 200:420] = body(150, 220)
    cropped = crop(page)
    assert abs(cropped.box.top - 115) < 4
    assert abs(cropped.box.bottom - 235) < 4
    assert abs(cropped.box.left - 222) < 4
    assert abs(cropped.box.right - 398) < 4
    assert cropped.pixels.shape == (256, 256)
    assert cropped.pixels[128, [2, -3]].min() > 0
    with Image.open(io.BytesIO(encode_png(cropped.pixels))) as image:
        assert (np.asarray(image) == cropped.pixels).all()


def test_crop_of_a_page_without_a_body_is_refused() -> None:
    """An empty page is no slice."""
    with pytest.raises(BlankFrameError):
        crop(np.zeros((300, 300), np.uint8))


def test_real_dicom_slices_are_read(model: ServedModel) -> None:
    """Real CT objects, where they are at hand, become slices without their originals."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "chest-ct-dicom"
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".dcm")[:3]
    if not files:
        pytest.skip(f"no real DICOM slices in {folder}")
    for path in files:
        read = read_file(frame(path.read_bytes(), media_type="application/dicom"), model, IDENTITY, 1, DEFAULT)
        assert len(said(read).image) > 1000
        assert len(read.messages) == 1
