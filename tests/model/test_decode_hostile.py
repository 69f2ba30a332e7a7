"""No bytes make the decoder raise anything but an `ImageError`."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image_files import PNG_SIGNATURE, ct_file, image_file, slice_like

from training.model.decode import MIN_SIDE_PX, ImageError, decode_image

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = slice_like(40, 48)
PREAMBLE = bytes(128) + b"DICM"
WHOLE = {
    "png": image_file(SMALL),
    "palette": image_file(np.repeat(SMALL[..., None], 3, axis=2)),
    "jpeg": image_file(SMALL, "JPEG"),
    "progressive": image_file(SMALL, "JPEG", progressive=True),
    "dicom": ct_file(),
}


def decoded_or_refused(data: bytes) -> None:
    try:
        frame = decode_image(data)
    except ImageError as error:
        assert str(error)
        return
    assert frame.ndim == 2
    assert frame.dtype == np.uint8
    assert min(frame.shape) >= MIN_SIDE_PX


@settings(max_examples=300)
@given(st.sampled_from([b"", PNG_SIGNATURE, b"\xff\xd8\xff\xe0", PREAMBLE]), st.binary(max_size=400))
@example(PREAMBLE, b"\x02\x00\x00\x00UL\x04\x00\xff\xff\xff\xff")
@example(PREAMBLE, b"\xff" * 300)
@example(PREAMBLE, b"\x28\x00\x10\x00US\x02\x00\x40\x00")
def test_any_bytes_are_decoded_or_refused(start: bytes, rest: bytes) -> None:
    """Arbitrary bytes, also behind the signature of a format, raise only `ImageError`, and it says something."""
    decoded_or_refused(start + rest)


@pytest.mark.parametrize("name", sorted(WHOLE))
@settings(max_examples=120)
@given(data=st.data())
def test_a_damaged_file_is_decoded_or_refused(name: str, data: st.DataObject) -> None:
    """A file with some bytes overwritten, mostly in its header, gives a whole frame or raises only `ImageError`."""
    damaged = bytearray(WHOLE[name])
    header = min(len(damaged), 900)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, header - 1) | st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    decoded_or_refused(bytes(damaged))


@pytest.mark.parametrize("name", sorted(WHOLE))
@given(data=st.data())
def test_a_file_with_a_piece_missing_or_doubled_is_decoded_or_refused(name: str, data: st.DataObject) -> None:
    """A file that lost or repeats a piece gives a whole frame or raises only `ImageError`."""
    whole = WHOLE[name]
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    decoded_or_refused(whole[:first] + whole[last:])
    decoded_or_refused(whole[:last] + whole[first:])
