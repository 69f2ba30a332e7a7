"""DICOM files are shown in the lung window, or an `ImageError` says what is wrong with them."""

import numpy as np
import pytest
from image_files import ct_elements, ct_file, dicom_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from training.model.decode import (
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    NotAnImageError,
    TruncatedImageError,
    decode_image,
    is_dicom,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
MID_GREY = 127.5


def flat(hu: float) -> np.ndarray:
    return np.full((48, 64), hu)


def shown(data: bytes) -> float:
    frame = decode_image(data)
    assert frame.shape == (48, 64)
    assert frame.dtype == np.uint8
    assert frame.min() == frame.max()
    return float(frame[0, 0])


@pytest.mark.parametrize(
    ("hu", "grey"), [(-600, MID_GREY), (-1350, 0), (150, 255), (-1000, 59.5), (0, 229.5), (-1024, 55.4), (3000, 255)]
)
def test_hounsfield_units_are_shown_in_the_lung_window(hu: float, grey: float) -> None:
    """-600 HU is mid-grey, -1350 and less is black, 150 and more is white, and air is 59."""
    assert shown(ct_file(flat(hu))) == pytest.approx(grey, abs=1)


def test_stored_values_are_rescaled() -> None:
    """Slope and intercept apply, for unsigned stored values too, and without them the stored values are HU."""
    unsigned = np.full((48, 64), 848, np.uint16)
    signed = np.full((48, 64), -600, np.int16)
    plain = {key: value for key, value in ct_elements(signed).items() if not key.startswith("Rescale")}
    assert shown(dicom_file(**ct_elements(unsigned, RescaleSlope="0.5"))) == pytest.approx(MID_GREY, abs=1)
    assert shown(dicom_file(**plain)) == pytest.approx(MID_GREY, abs=1)


def test_monochrome1_is_shown_inverted() -> None:
    """In MONOCHROME1 the lowest value is white (PS3.3 C.7.6.3.1.2); mid-grey stays mid-grey."""
    assert shown(ct_file(flat(-1350), PhotometricInterpretation="MONOCHROME1")) == 255
    assert shown(ct_file(flat(150), PhotometricInterpretation="MONOCHROME1")) == 0
    assert shown(ct_file(flat(-600), PhotometricInterpretation="MONOCHROME1")) == pytest.approx(MID_GREY, abs=1)


def test_rows_come_before_columns() -> None:
    """A ramp from left to right stays one: nothing is turned or mirrored."""
    frame = decode_image(ct_file(np.tile(np.linspace(-1300, 100, 64), (48, 1))))
    assert frame.shape == (48, 64)
    assert (np.diff(frame.astype(int), axis=1) >= 0).all()
    assert frame[0, 0] < 20 < 230 < frame[0, -1]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_uncompressed_transfer_syntaxes_are_decoded(syntax: str) -> None:
    """Implicit VR and deflated files show the same."""
    stored = np.full((48, 64), 424, np.int16)
    assert shown(dicom_file(syntax, **ct_elements(stored))) == pytest.approx(MID_GREY, abs=1)


def test_big_endian_is_decoded() -> None:
    """The retired big-endian transfer syntax, which archives still hold, shows the same."""
    stored = np.full((48, 64), 424, ">i2")
    data = dicom_file(ExplicitVRBigEndian, **{**ct_elements(stored), "PixelRepresentation": 1})
    assert shown(data) == pytest.approx(MID_GREY, abs=1)


def test_of_several_frames_the_first_is_shown() -> None:
    """A multi-frame object gives its first frame, in its own shape."""
    stored = np.stack([np.full((48, 64), hu + 1024, np.int16) for hu in (-600, 150)])
    elements = {**ct_elements(stored[0]), "PixelData": stored.tobytes(), "NumberOfFrames": "2"}
    assert shown(dicom_file(**elements)) == pytest.approx(MID_GREY, abs=1)


@pytest.mark.parametrize("planar", [0, 1])
def test_a_colour_object_is_shown_in_grey(planar: int) -> None:
    """A secondary capture in RGB gives the grey frame of its rows and columns; no lung window applies to colours."""
    grey = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    pixels = np.stack([grey] * 3, axis=0 if planar else 2)
    elements = {
        **ct_elements(np.zeros((48, 64), np.int16)),
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": planar,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    assert np.array_equal(decode_image(dicom_file(**elements)), grey)
    two_frames = {**elements, "PixelData": pixels.tobytes() * 2, "NumberOfFrames": "2"}
    assert np.array_equal(decode_image(dicom_file(**two_frames)), grey)


@pytest.mark.parametrize("element", ["Rows", "Columns", "PixelData", "SamplesPerPixel", "PhotometricInterpretation"])
def test_an_object_without_what_an_image_needs_is_refused(element: str) -> None:
    """A DICOM object without pixels, or without what describes them, is no image."""
    elements = ct_elements(np.zeros((48, 64), np.int16))
    del elements[element]
    with pytest.raises(ImageError):
        decode_image(dicom_file(**elements))


def test_an_object_that_is_no_image_is_called_so() -> None:
    """A report or a series list is named as what it is: no image."""
    with pytest.raises(NotAnImageError, match="no image"):
        decode_image(dicom_file(PatientID="nobody"))


@pytest.mark.parametrize(
    "changes",
    [
        {"Rows": 200},
        {"Columns": 65},
        {"BitsAllocated": 7},
        {"BitsAllocated": 64},
        {"SamplesPerPixel": 4},
        {"NumberOfFrames": "1000000"},
        {"NumberOfFrames": "-1"},
        {"RescaleSlope": ["1", "2"]},
        {"PixelData": b""},
        {"PixelData": bytes(2)},
    ],
)
def test_an_object_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    """Rows, bits or frames that the pixels do not fill, and a slope of two values, are refused."""
    with pytest.raises(ImageError):
        decode_image(dicom_file(**{**ct_elements(np.zeros((48, 64), np.int16)), **changes}))


def test_the_size_is_checked_before_the_pixels() -> None:
    """Too small and too large are named from the header alone."""
    with pytest.raises(ImageTooSmallError):
        decode_image(dicom_file(**ct_elements(np.zeros((1, 1), np.int16))))
    with pytest.raises(ImageTooLargeError):
        decode_image(dicom_file(Rows=20_000, Columns=20_000))


def test_a_file_that_was_cut_off_anywhere_is_refused() -> None:
    """Cut after any byte of the header, or in the pixels, a DICOM file is refused."""
    whole = ct_file()
    for end in [*range(0, len(whole) - 48 * 64 * 2 + 20, 3), len(whole) - 1000, len(whole) - 1]:
        with pytest.raises(ImageError):
            decode_image(whole[:end])


def test_a_file_cut_in_its_pixels_is_called_truncated() -> None:
    """Half the pixels are named as damage, with what to do."""
    whole = ct_file()
    with pytest.raises(TruncatedImageError, match="send it"):
        decode_image(whole[: len(whole) - 3000])


def test_the_preamble_tells_dicom_from_the_rest() -> None:
    """Only `DICM` at byte 128 makes a DICOM file."""
    assert is_dicom(ct_file())
    assert not is_dicom(b"")
    assert not is_dicom(b"DICM")
    assert not is_dicom(bytes(128) + b"DIC")
