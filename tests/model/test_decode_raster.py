"""PNG and JPEG files become grey frames, or an `ImageError` says what is wrong with them."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from image_files import PNG_SIGNATURE, image_file, jpeg_claiming, png_chunk, png_claiming, slice_like
from PIL import Image

from training.model.decode import (
    MIN_SIDE_PX,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    NotAnImageError,
    TruncatedImageError,
    decode_image,
)

FRAME = slice_like()
COLOUR = np.repeat(FRAME[..., None], 3, axis=2)


@pytest.mark.parametrize("shape", [(MIN_SIDE_PX, MIN_SIDE_PX), (90, 120), (512, 512), (33, 700)])
def test_a_grey_png_is_decoded_exactly(shape: tuple[int, int]) -> None:
    """Every grey level of a PNG comes back, height first."""
    frame = slice_like(*shape)
    decoded = decode_image(image_file(frame))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, frame)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 60}])
def test_a_jpeg_is_decoded_closely(options: dict[str, int]) -> None:
    """A JPEG, baseline or progressive, comes back within its own loss."""
    decoded = decode_image(image_file(FRAME, "JPEG", **options))
    assert decoded.shape == FRAME.shape
    assert np.abs(decoded.astype(int) - FRAME).mean() < 4


def test_a_16_bit_png_is_scaled_to_8_bits() -> None:
    """The full range of 16 bits becomes the full range of 8."""
    deep = FRAME.astype(np.uint16) * 257
    assert np.array_equal(decode_image(image_file(deep)), FRAME)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_shown_in_colour_comes_back_grey(mode: str) -> None:
    """Files with colour or alpha of a grey picture give that picture."""
    decoded = decode_image(image_file(Image.fromarray(COLOUR).convert(mode)))
    assert decoded.shape == FRAME.shape
    assert np.abs(decoded.astype(int) - FRAME).max() <= 1


def test_a_palette_of_greys_is_looked_up() -> None:
    """The palette's colours count, not the indices into it."""
    image = Image.fromarray(255 - FRAME, "L").convert("P")
    image.putpalette([level for index in range(256) for level in (255 - index,) * 3])
    assert np.array_equal(decode_image(image_file(image)), FRAME)


def test_black_and_white_and_cmyk_are_decoded() -> None:
    """A one-bit PNG gives black and white; a CMYK JPEG gives the grey that it shows."""
    bits = decode_image(image_file(Image.fromarray(FRAME > 100)))
    assert set(np.unique(bits)) == {0, 255}
    cmyk = decode_image(image_file(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"))
    assert np.abs(cmyk.astype(int) - FRAME).mean() < 8


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"not an image", b"%PDF-1.7", b"GIF89a" + bytes(100), PNG_SIGNATURE, b"\xff\xd8\xff", bytes(10_000)],
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    """Text, PDF, GIF, bare signatures, zeros: the message says what to give instead."""
    with pytest.raises(NotAnImageError, match="PNG, JPEG nor DICOM"):
        decode_image(data)


@pytest.mark.parametrize("file_format", ["BMP", "GIF", "TIFF", "WEBP"])
def test_other_formats_of_pillow_are_refused(file_format: str) -> None:
    """Only PNG, JPEG and DICOM are read, so that no other decoder is within reach of a sender."""
    with pytest.raises(NotAnImageError):
        decode_image(image_file(FRAME, file_format))


@pytest.mark.parametrize(
    (
        "whole",
        "tail",
    ),  # a PNG ends with 4 + 4 bytes of checksums and an empty chunk, which hold no pixel; a JPEG with a 2-byte marker
    [
        pytest.param(image_file(FRAME), 24, id="png"),
        pytest.param(image_file(COLOUR), 24, id="colour-png"),
        pytest.param(image_file(FRAME.astype(np.uint16) * 257), 24, id="16-bit-png"),
        pytest.param(image_file(FRAME, "JPEG"), 4, id="jpeg"),
        pytest.param(image_file(FRAME, "JPEG", progressive=True), 4, id="progressive-jpeg"),
        pytest.param(image_file(COLOUR, "JPEG"), 4, id="colour-jpeg"),
    ],
)
def test_a_file_that_was_cut_off_anywhere_is_refused(whole: bytes, tail: int) -> None:
    """Cut after any byte, a file is refused, unless only what follows the last pixel is missing; never half a frame."""
    frame = decode_image(whole)
    for end in range(len(whole)):
        try:
            decoded = decode_image(whole[:end])
        except ImageError:
            continue
        assert np.array_equal(decoded, frame), f"half a frame from {end} of {len(whole)} bytes"
        assert end >= len(whole) - tail, f"only {end} of {len(whole)} bytes"


def test_a_file_cut_in_its_pixels_is_called_truncated() -> None:
    """Half a PNG or JPEG is named as damaged, with the advice to export it again."""
    for whole in (image_file(FRAME), image_file(FRAME, "JPEG")):
        with pytest.raises(TruncatedImageError, match="again"):
            decode_image(whole[: len(whole) * 2 // 3])


def test_a_png_with_damaged_pixels_is_refused() -> None:
    """A flipped bit in the pixels of a PNG is found by its checksum."""
    damaged = bytearray(image_file(FRAME))
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(TruncatedImageError):
        decode_image(bytes(damaged))


@pytest.mark.parametrize("shape", [(1, 1), (31, 512), (512, 31), (1, 4000)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_an_image_too_small_for_a_slice_is_refused(shape: tuple[int, int], file_format: str) -> None:
    """1x1 and anything with a side under 32 pixels is no slice, and the message names the size."""
    with pytest.raises(ImageTooSmallError, match=f"{shape[1]}x{shape[0]} px"):
        decode_image(image_file(np.zeros(shape, np.uint8), file_format))


@pytest.mark.parametrize("side", [8001, 10_000, 20_000, 60_000])
def test_an_image_too_large_for_a_slice_is_refused(side: int) -> None:
    """20,000x20,000 is refused by its header, in PNG and in JPEG, and without a warning of the library's own."""
    for data in (png_claiming(side, side), jpeg_claiming(side, side)):
        with (
            warnings.catch_warnings(),
            pytest.raises(ImageTooLargeError, match="64,000,000 pixels; give the slice alone"),
        ):
            warnings.simplefilter("error")
            decode_image(data)


def test_the_limit_of_pixels_is_the_callers() -> None:
    """A caller with less memory sets a lower limit."""
    with pytest.raises(ImageTooLargeError):
        decode_image(image_file(FRAME), max_pixels=FRAME.size - 1)
    assert decode_image(image_file(FRAME), max_pixels=FRAME.size).shape == FRAME.shape


def grown_mb(make_data: str) -> float:
    """Return by how many MB a fresh process grows when it refuses the image that the expression makes."""
    program = f"""
import resource, sys
sys.path[:0] = {[str(Path(__file__).parents[2]), str(Path(__file__).parent)]!r}
import image_files
from training.model.decode import ImageError, decode_image
data = {make_data}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
try:
    decode_image(data)
except ImageError:
    print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout)


@pytest.mark.parametrize(
    "make_data",
    [
        pytest.param("image_files.png_claiming(20000, 20000)", id="png"),
        pytest.param("image_files.jpeg_claiming(20000, 20000)", id="jpeg"),
        pytest.param("image_files.dicom_file(Rows=20000, Columns=20000)", id="dicom"),
        pytest.param("image_files.deflate_bomb(200 << 20)", id="deflated-dicom"),
    ],
)
def test_a_small_file_that_claims_to_be_huge_takes_no_memory(make_data: str) -> None:
    """A tiny file that would unpack to hundreds of megabytes is refused within 60 MB."""
    assert grown_mb(make_data) < 60


def test_odd_chunks_in_a_png_raise_only_our_errors() -> None:
    """Short, empty and overlong ancillary chunks, before and after the pixels, never raise anything else."""
    start, pixels = png_claiming(64, 64, bytes(65 * 64)).split(png_chunk(b"IEND", b""))[0], png_chunk(b"IEND", b"")
    header_end = len(PNG_SIGNATURE) + 25
    for kind in b"gAMA cHRM sRGB pHYs tIME iCCP tEXt zTXt iTXt eXIf acTL fcTL fdAT tRNS PLTE IHDR bKGD".split():
        for data in (b"", b"\0", b"a\0", b"a\0\0", b"a\0\0xx", b"\xff" * 40):
            chunk = png_chunk(kind, data)
            for odd in (start[:header_end] + chunk + start[header_end:] + pixels, start + chunk + pixels):
                decoded_or_refused(odd)


def test_every_depth_and_colour_type_of_png_raises_only_our_errors() -> None:
    """Every combination of depth and colour type in the header, legal or not, is decoded or refused."""
    for depth in (0, 1, 2, 3, 4, 8, 16, 32, 255):
        for colour in range(8):
            decoded_or_refused(png_claiming(40, 40, bytes(40 * (1 + 40 * 8)), depth, colour))


def decoded_or_refused(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            decoded = decode_image(data)
        except ImageError:
            return
    assert decoded.ndim == 2
    assert decoded.dtype == np.uint8
