"""Any grey frame becomes 256x256 around the body, whatever its size, margins and air, or is called blank."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.model.preprocess import INPUT_PX, BlankFrameError, Box, content_box, prepare

Frame = NDArray[np.uint8]
AIR_IN_THE_LUNG_WINDOW = 59
sides = st.integers(32, 700)


def body_on(air: int, height: int = 400, width: int = 500, box: Box | None = None, lungs: int = 0) -> Frame:
    """Draw a body (an ellipse with two lungs) that fills the box on air of one grey."""
    place = box or Box(height // 5, width // 6, height * 4 // 5, width * 5 // 6)
    frame = np.full((height, width), air, np.uint8)
    y, x = np.mgrid[:height, :width]
    v = (2 * y + 1 - place.top - place.bottom) / (place.bottom - place.top)
    u = (2 * x + 1 - place.left - place.right) / (place.right - place.left)
    frame[u**2 + v**2 <= 1] = 200
    for side in (-0.42, 0.42):
        frame[((u - side) / 0.3) ** 2 + (v / 0.6) ** 2 <= 1] = lungs or air
    return frame


def assert_close(found: Box, drawn: Box, within_px: float) -> None:
    for name in ("top", "left", "bottom", "right"):
        assert abs(getattr(found, name) - getattr(drawn, name)) <= within_px, (name, found, drawn)


def assert_prepared(prepared: Frame) -> None:
    assert prepared.shape == (INPUT_PX, INPUT_PX)
    assert prepared.dtype == np.uint8


@given(sides, sides, st.sampled_from([0, AIR_IN_THE_LUNG_WINDOW]))
def test_a_body_in_a_frame_of_any_size_is_prepared(height: int, width: int, air: int) -> None:
    """Frames of any height and width from 32 pixels on become uint8 [256, 256]."""
    assert_prepared(prepare(body_on(air, height, width)))


@given(sides, sides, st.integers(0, 2**32 - 1), st.sampled_from([2, 40, 128, 256]))
def test_any_frame_is_prepared_or_called_blank(height: int, width: int, seed: int, levels: int) -> None:
    """Any pixels at all become uint8 [256, 256] or raise `BlankFrameError`."""
    pixels = np.random.default_rng(seed).integers(0, levels, (height, width)).astype(np.uint8)
    try:
        assert_prepared(prepare(pixels))
    except BlankFrameError as error:
        assert "nothing to read" in str(error)


@pytest.mark.parametrize("shape", [(32, 20_000), (20_000, 32), (32, 2_000_000), (2_000_000, 32)])
def test_a_strip_that_the_decoder_lets_through_is_prepared_or_called_blank(shape: tuple[int, int]) -> None:
    """A frame of 64 million pixels may be a strip; it costs no more memory than a square one."""
    strip = np.zeros(shape, np.uint8)
    strip[8:-8, 8:-8] = 200
    with suppress(BlankFrameError):
        assert_prepared(prepare(strip))


def test_the_caller_keeps_its_frame() -> None:
    """Neither finding the box nor preparing changes the frame that was given."""
    frame = body_on(AIR_IN_THE_LUNG_WINDOW)
    before = frame.copy()
    prepare(frame)
    assert np.array_equal(frame, before)


@pytest.mark.parametrize("air", [0, 20, AIR_IN_THE_LUNG_WINDOW])
@given(data=st.data())
def test_a_body_is_boxed_within_a_few_pixels(air: int, data: st.DataObject) -> None:
    """Anywhere on black or on the grey of air, the body's box is found within 2 % of the frame's side."""
    height, width = data.draw(st.integers(128, 600)), data.draw(st.integers(128, 600))
    top, left = data.draw(st.integers(2, height // 3)), data.draw(st.integers(2, width // 3))
    drawn = Box(
        top,
        left,
        data.draw(st.integers(top + height // 2, height - 2)),
        data.draw(st.integers(left + width // 2, width - 2)),
    )
    assert_close(content_box(body_on(air, height, width, drawn)), drawn, 2 + 0.02 * max(height, width))


@given(st.integers(0, 2**32 - 1), st.sampled_from([10, AIR_IN_THE_LUNG_WINDOW]))
def test_noise_specks_and_the_table_do_not_move_the_box(seed: int, air: int) -> None:
    """Sensor noise, single bright pixels and the thin rim of the table are not the body."""
    random = np.random.default_rng(seed)
    drawn = Box(80, 100, 320, 420)
    clean = body_on(air, box=drawn)
    noisy = np.clip(clean + random.normal(0, 6, clean.shape), 0, 255).astype(np.uint8)
    noisy[random.integers(0, 400, 12), random.integers(0, 500, 12)] = 255
    assert_close(content_box(noisy), drawn, 10)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_black_margins_around_a_slice_on_black_change_little(top: int, bottom: int, left: int, right: int) -> None:
    """Black margins of any width leave the prepared slice almost as it was."""
    assume(max(top + bottom, left + right) < 500)
    assert_margins_change_little(body_on(0, lungs=60), (top, bottom), (left, right))


@pytest.mark.parametrize("margin", [4, 40, 150])
def test_black_margins_around_a_slice_on_grey_air_change_little(margin: int) -> None:
    """A slice whose air is grey, shown on the black page of a viewer, is boxed as it is without the page."""
    assert_margins_change_little(body_on(AIR_IN_THE_LUNG_WINDOW), (margin, margin), (margin, margin))


def test_black_margins_around_a_tightly_cropped_slice_change_little() -> None:
    """A slice that is already cropped to tissue is taken whole, with or without a black page around it."""
    tight = np.full((300, 360), 180, np.uint8)
    tight[60:240, 60:160] = tight[60:240, 200:300] = 40
    assert content_box(tight) == Box(0, 0, 300, 360)
    assert_margins_change_little(tight, (70, 70), (50, 50))


def assert_margins_change_little(frame: Frame, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    change = np.abs(prepare(np.pad(frame, (rows, columns))).astype(int) - prepare(frame))
    assert change.mean() < 4, f"the prepared slice changed by {change.mean():.1f} grey levels on average"


@pytest.mark.parametrize("grey", [0, 1, 59, 128, 255])
def test_a_frame_of_one_grey_is_blank(grey: int) -> None:
    """All black, all white and all grey show nothing."""
    with pytest.raises(BlankFrameError, match="nothing to read"):
        prepare(np.full((300, 400), grey, np.uint8))


@settings(max_examples=30)
@given(st.integers(0, 80), st.integers(0, 2**32 - 1))
def test_a_frame_of_faint_noise_is_blank(level: int, seed: int) -> None:
    """The noise of a covered camera is no body."""
    noise = np.random.default_rng(seed).normal(level, 4, (200, 200))
    with pytest.raises(BlankFrameError):
        prepare(np.clip(noise, 0, 255).astype(np.uint8))


def test_a_line_of_text_or_a_few_specks_are_blank() -> None:
    """A caption or dust on a black frame is no body."""
    caption = np.zeros((400, 400), np.uint8)
    caption[370:385, 20:200:3] = 255
    dust = np.zeros((400, 400), np.uint8)
    dust[::97, ::89] = 255
    for frame in (caption, dust):
        with pytest.raises(BlankFrameError):
            prepare(frame)


@given(st.integers(60, 300), st.integers(60, 300))
def test_the_aspect_ratio_is_kept(height: int, width: int) -> None:
    """A body twice as wide as high stays so, centred, with black where the square is filled up."""
    drawn = Box(40, 40, 40 + height, 40 + width)
    prepared = prepare(body_on(0, height + 80, width + 80, drawn, lungs=120))
    rows, columns = np.flatnonzero(prepared.max(axis=1) > 60), np.flatnonzero(prepared.max(axis=0) > 60)
    high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert high / wide == pytest.approx(height / width, rel=0.08)
    assert max(high, wide) >= INPUT_PX - 8
    assert rows.mean() == pytest.approx(INPUT_PX / 2, abs=6)
    assert columns.mean() == pytest.approx(INPUT_PX / 2, abs=6)


def test_a_given_box_is_obeyed() -> None:
    """A caller that has located the slice gets exactly that rectangle."""
    frame = np.zeros((300, 300), np.uint8)
    frame[100:200, 50:150] = 77
    assert (prepare(frame, Box(100, 50, 200, 150)) == 77).all()


def test_a_slice_of_the_final_size_is_not_resampled() -> None:
    """A tight 256x256 slice passes pixel by pixel, so that preparing twice is preparing once."""
    tight = np.random.default_rng(0).integers(120, 256, (INPUT_PX, INPUT_PX)).astype(np.uint8)
    assert np.array_equal(prepare(tight), tight)
