"""A photograph of the calibration page gives a calibration, or the name of what is wrong with the photograph."""

import json
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photometry_parts import (
    FRAME_SIZE,
    Camera,
    as_picture,
    difference,
    phantom,
    plain_grey,
    rectified,
    simulated,
)

from edge_agent.calibration import Calibration, draw_page, parse_calibration, solve
from edge_agent.calibration.errors import (
    CalibrationError,
    PageMirroredError,
    TagsNotFoundError,
    UnknownCalibrationVersionError,
    UnreadableCalibrationError,
    WedgeClippedError,
    WedgeDisturbedError,
    WedgeFlatError,
)
from edge_agent.calibration.page import GRID, LEVELS, patches
from edge_agent.light import light_of
from edge_agent.photometry import MARGIN, Place, restore

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIDE, TOP, LEFT = 480, 120, 400


def framed(slice_, border=250):
    """Return the frame of a page with a square of 480 pixels in it."""
    frame = np.full((*FRAME_SIZE, 3), border, np.uint8)
    interpolation = cv2.INTER_AREA if len(slice_) > SIDE else cv2.INTER_LINEAR
    enlarged = cv2.resize(slice_, (SIDE, SIDE), interpolation=interpolation)
    frame[TOP : TOP + SIDE, LEFT : LEFT + SIDE] = enlarged[..., None]
    return frame


def shown(slice_):
    """Return the slice as it looks after being enlarged to its page and reduced again, by a perfect camera."""
    return plain_grey(rectified(framed(slice_), quad(), margin=0.0, side=len(slice_)))


def quad():
    corners = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], np.float32)
    return corners + np.array([LEFT, TOP], np.float32) - np.float32(0.5)


@pytest.fixture(scope="module")
def page_frame():
    return framed(draw_page())


@pytest.fixture(scope="module")
def clean(page_frame):
    return solve(page_frame, NOW)


def test_every_level_lies_in_many_places():
    """Each of the 16 greys has six patches or more, around the page's middle, so that light can be evened out."""
    for level in {patch.level for patch in patches()}:
        places = np.array([(patch.x, patch.y) for patch in patches() if patch.level == level])
        assert len(places) >= 6
        assert np.abs(places.mean(0) - 0.5).max() < 0.15
    assert len({patch.level for patch in patches()}) == LEVELS


def test_a_perfect_camera_is_found_to_be_one(clean):
    """The page itself gives sRGB's curve, no cast, no shading and no distortion."""
    assert clean.curve == pytest.approx(light_of(np.arange(256)), abs=0.01)
    assert clean.gains == pytest.approx((1, 1, 1), abs=0.01)
    assert clean.shading == pytest.approx((1, 0, 0, 0, 0, 0), abs=0.02)
    assert (clean.distortion, clean.residual) == pytest.approx((0, 0), abs=0.6)
    assert abs(clean.distortion) < 0.005


CAMERA = Camera(gamma=1.25, gains=(0.6, 0.75, 0.85), falls_right=0.2, falls_down=-0.1, veil=0.006)


@pytest.fixture(scope="module")
def calibrated(page_frame):
    return solve(CAMERA.sees(page_frame), NOW)


@pytest.mark.parametrize("site", ["site-a", "site-b"])
def test_gamma_gradient_cast_and_black_are_undone(calibrated, site):
    """A camera with known gamma, gradient, cast and black is undone within two grey levels, with and without air."""
    slice_ = phantom(site)
    seen = rectified(CAMERA.sees(framed(slice_)), quad())
    assert difference(plain_grey(seen[16:-16, 16:-16]), shown(slice_)) > 15
    assert difference(restore(seen, calibrated, margin=MARGIN, place=Place(quad(), FRAME_SIZE)), shown(slice_)) < 2


def test_the_place_tells_the_shading(calibrated):
    """Without the place in the frame the gradient stays, with it it goes: both sides of air come out alike."""
    slice_ = np.full((256, 256), 100, np.uint8)
    seen = rectified(CAMERA.sees(framed(slice_)), quad())

    def tilt(place):
        restored = restore(seen, calibrated, margin=MARGIN, place=place)
        return abs(float(restored[:, :32].mean()) - float(restored[:, -32:].mean()))

    assert tilt(Place(quad(), FRAME_SIZE)) < 2 < tilt(None)


def test_exposure_that_drifted_is_told_by_the_surround(calibrated):
    """When automatic exposure has moved since, the white around the slice says how far."""
    slice_ = phantom("site-b")
    drifted = Camera(1.25, tuple(0.75 * gain for gain in CAMERA.gains), 0.2, -0.1, 0.0045)
    seen = rectified(drifted.sees(framed(slice_)), quad())
    place = Place(quad(), FRAME_SIZE)
    with_margin = restore(seen, calibrated, margin=MARGIN, place=place)
    without = restore(np.ascontiguousarray(seen[16:-16, 16:-16]), calibrated, place=place)
    assert difference(with_margin, shown(slice_)) < 2
    assert difference(without, shown(slice_)) > 6


def test_simulated_photographs_calibrate():
    """Of simulated photographs of the page at severity 1 half and more solve, and do much better than references."""
    by_references, by_calibration = [], []
    for seed in range(1000, 1010):
        slice_ = phantom("site-b", seed)
        try:
            calibration = solve(simulated(draw_page(600), seed).frame, NOW)
        except CalibrationError:
            continue
        shot = simulated(slice_, seed)
        seen = rectified(shot.frame, shot.quad)
        by_references.append(difference(restore(seen, margin=MARGIN), slice_))
        restored = restore(seen, calibration, margin=MARGIN, place=Place(shot.quad, FRAME_SIZE))
        by_calibration.append(difference(restored, slice_))
    assert len(by_calibration) >= 5
    assert np.mean(by_calibration) < 0.75 * np.mean(by_references)


@pytest.mark.parametrize("bend", [-0.03, 0.04])
def test_lens_distortion_is_seen(page_frame, bend):
    """A lens that bends the frame's corner by some percent is found to do so within one percent."""
    height, width = FRAME_SIZE
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    dx, dy = x - (width - 1) / 2, y - (height - 1) / 2
    stretch = 1 + bend * (dx**2 + dy**2) / ((width**2 + height**2) / 4)
    maps = ((width - 1) / 2 + dx * stretch, (height - 1) / 2 + dy * stretch)
    seen = cv2.remap(page_frame, *(part.astype(np.float32) for part in maps), cv2.INTER_LINEAR)
    assert solve(cv2.GaussianBlur(seen, (0, 0), 0.7), NOW).distortion == pytest.approx(bend, abs=0.01)


def test_a_hidden_tag_is_named(page_frame):
    """A page whose corner is covered is refused, and the message says which corner."""
    covered = page_frame.copy()
    covered[TOP : TOP + 130, LEFT + SIDE - 130 : LEFT + SIDE] = 90
    with pytest.raises(TagsNotFoundError, match="top right") as caught:
        solve(covered, NOW)
    assert caught.value.missing == ("top right",)


def test_no_page_is_no_calibration():
    """A frame without the page lacks all four tags."""
    with pytest.raises(TagsNotFoundError) as caught:
        solve(framed(phantom("site-b")), NOW)
    assert len(caught.value.missing) == 4


def test_a_mirrored_page_is_named(page_frame):
    """A camera or viewer that mirrors is told so: its slices would be mirrored too."""
    with pytest.raises(PageMirroredError, match="mirrored"):
        solve(np.ascontiguousarray(page_frame[:, ::-1]), NOW)


def test_an_upside_down_page_is_still_the_page(page_frame):
    """Tags say which corner is which: a page upside down calibrates as well as upright."""
    turned = solve(np.ascontiguousarray(page_frame[::-1, ::-1]), NOW)
    assert turned.curve == pytest.approx(light_of(np.arange(256)), abs=0.01)


def test_an_overexposed_page_is_named(page_frame):
    """Light greys that are all white say: lower the exposure, and which levels are lost."""
    with pytest.raises(WedgeClippedError, match="lower the exposure") as caught:
        solve(Camera(gains=(2.2, 2.2, 2.2)).sees(page_frame), NOW)
    assert max(caught.value.levels) == 255


def test_a_page_with_crushed_dark_greys_is_named(page_frame):
    """Dark greys that are all black say: raise the exposure."""
    crushed = np.clip((page_frame.astype(np.int32) - 60) * 255 // 195, 0, 255).astype(np.uint8)
    with pytest.raises(WedgeClippedError, match="raise the exposure"):
        solve(crushed, NOW)


def test_a_washed_out_page_is_named(page_frame):
    """A page under so much other light that white is hardly brighter than black is refused."""
    with pytest.raises(WedgeFlatError, match="shade the screen"):
        solve(Camera(gains=(0.4, 0.4, 0.4), veil=0.35).sees(page_frame), NOW)


def test_a_page_under_shadows_is_named(page_frame):
    """Shadows that no smooth illumination explains are refused, with how far equal greys differ."""
    shadows = page_frame.copy()
    for column in range(3, GRID - 3, 2):
        left = LEFT + column * SIDE // GRID
        shadows[:, left : left + SIDE // GRID] = shadows[:, left : left + SIDE // GRID] // 2
    with pytest.raises(WedgeDisturbedError) as caught:
        solve(shadows, NOW)
    assert caught.value.residual > 20


def test_a_calibration_survives_its_file(calibrated):
    """What is written is what is read, and fields of a newer program are passed over."""
    written = calibrated.model_dump_json().encode()
    assert parse_calibration(written) == calibrated
    assert parse_calibration(json.dumps({**json.loads(written), "lens": "new"}).encode()) == calibrated


def test_a_newer_calibration_is_named(calibrated):
    """A calibration of a newer version is not half understood but refused by its version."""
    newer = json.dumps({**json.loads(calibrated.model_dump_json()), "version": 2}).encode()
    with pytest.raises(UnknownCalibrationVersionError) as caught:
        parse_calibration(newer)
    assert caught.value.version == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("curve", [0.5] * 256),
        ("curve", [0.1, 0.2]),
        ("weights", [0.5, 0.5, 0.5]),
        ("gains", [0, 1, 1]),
        ("gains", ["NaN", 1, 1]),
        ("shading", [0, 0, 0, 0, 0, 0]),
        ("frame_size", [0, 1280]),
        ("distortion", 7),
        ("made_at", "2026-03-01T12:00:00"),
        ("version", "one"),
    ],
)
def test_values_outside_their_ranges_are_named(clean, field, value):
    """A calibration with an impossible value is refused, and the message names the field or what is wrong with it."""
    broken = json.dumps({**json.loads(clean.model_dump_json()), field: value}).encode()
    with pytest.raises(UnreadableCalibrationError, match="calibrate again"):
        parse_calibration(broken)


@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode), st.integers().map(json.dumps)))
def test_hostile_bytes_are_a_calibration_error(data):
    """Whatever a calibration file holds, reading it ends with a calibration or a named error."""
    with pytest.raises(CalibrationError):
        parse_calibration(data if isinstance(data, bytes) else data.encode())


def test_a_huge_file_is_not_parsed():
    """A file beyond any calibration's size is refused before it is parsed."""
    with pytest.raises(UnreadableCalibrationError, match="at most"):
        parse_calibration(b"[" * 1_000_000)


def test_a_calibration_does_not_change(clean):
    """A calibration is frozen, and equal ones are one key."""
    assert hash(clean) == hash(Calibration.model_validate(clean.model_dump()))
    with pytest.raises(ValueError, match="frozen"):
        clean.surround = 0.5


def test_a_calibrated_digital_slice_stays_what_it_is(clean):
    """By the calibration of a perfect camera nothing changes."""
    slice_ = phantom("site-b")
    assert difference(restore(as_picture(slice_), clean), slice_) < 1
