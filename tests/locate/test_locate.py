"""Finding the slice in a frame, on scenes that are drawn here and, for the named ones, simulated."""

import cv2
import numpy as np
import pytest
from locate_scenes import (
    bordered,
    corners_at,
    our_page,
    overlap,
    phantom,
    photographed,
    shown,
    square,
    tilted,
    viewer,
    white_page,
)

from edge_agent.locate import (
    FrameError,
    FrameFormatError,
    FrameTooLargeError,
    FrameTooSmallError,
    as_bgr,
    locate,
)
from edge_agent.refusal import Refusal, Side
from training.screen_camera import EmptyScene, Family, empty_scene, shoot
from training.screen_camera.named import NamedFrame, named_frame

PAGES = {
    "white page": white_page,
    "our page": our_page,
    "viewer with a white border": lambda slice_: viewer(slice_, 250),
    "viewer with a grey border": lambda slice_: viewer(slice_, 128),
    "viewer with a black border": lambda slice_: viewer(slice_, 6),
    "film": lambda slice_: bordered(slice_, (190, 40), (245, 120), (60, 40)),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("quad", [square(), tilted()], ids=["upright", "tilted"])
def test_the_slice_s_own_outline_is_found_among_those_around_it(page, quad):
    """Of page, bezel, window, frame and slice the slice is found, to within a pixel or two."""
    scene = shown(PAGES[page](phantom()), quad)
    found = locate(scene.frame)
    assert found.quad is not None
    assert overlap(found.quad, quad) > 0.98
    assert found.reason == ""
    assert 0.5 < found.score <= 1


def test_a_round_field_of_view_keeps_its_black_corners():
    """The outline is that of the slice's square, not of the circle in it."""
    scene = shown(white_page(phantom(site="site-b")), tilted())
    assert overlap(locate(scene.frame).quad, scene.quad) > 0.98


@pytest.mark.parametrize("turn_deg", [-20, -9, 4, 15])
def test_the_outline_turns_with_the_slice(turn_deg):
    """A turned slice is found as well, its quad still beginning at the corner that is top left in the frame."""
    quad = square(420, turn_deg=turn_deg)
    found = locate(shown(white_page(phantom(1)), quad).frame)
    assert np.abs(found.quad - quad).max() < 3


@pytest.mark.parametrize(("side_px", "centre"), [(380, (500, 300)), (480, (700, 400)), (600, (640, 360))])
def test_the_outline_moves_and_grows_with_the_slice(side_px, centre):
    """The corners follow the slice, wherever and however large it is shown."""
    quad = square(side_px, centre)
    assert np.abs(locate(shown(viewer(phantom(2), 128), quad).frame).quad - quad).max() < 3


def test_half_the_resolution_gives_half_the_corners():
    """A smaller camera sees the same slice; the corners scale with the frame."""
    scene = shown(white_page(phantom()), tilted())
    small = cv2.resize(scene.frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert np.abs((locate(small).quad + 0.5) * 2 - 0.5 - scene.quad).max() < 3


def test_the_same_frame_gives_the_same_answer_and_stays_as_it_is():
    """Finding is a pure function of the frame."""
    frame = shown(white_page(phantom()), tilted()).frame
    before = frame.copy()
    first, second = locate(frame), locate(frame)
    assert np.array_equal(first.quad, second.quad)
    assert first.score == second.score
    assert np.array_equal(frame, before)


def test_of_two_slices_the_larger_is_found():
    """Two slices lie on a page: the largest whole one counts."""
    page, small, large = two_on_a_page(300, 420)
    assert overlap(locate(page).quad, large) > 0.97
    assert overlap(large, small) == 0


def test_of_two_equal_slices_the_one_nearer_to_the_centre_is_found():
    """Two equal slices lie on a page: the one nearer to the frame's centre counts."""
    page, _, nearer = two_on_a_page(380, 380, shift=120)
    assert overlap(locate(page).quad, nearer) > 0.97


def two_on_a_page(first_px: int, second_px: int, shift: int = 0):
    """Return a white frame with two slices beside each other, and their outlines; shifted, the second is nearer."""
    frame = np.full((720, 1280, 3), 235, np.uint8)
    quads = []
    for side, left in ((first_px, 60 - shift // 3), (second_px, 700 - shift)):
        top = (720 - side) // 2
        slice_ = cv2.resize(phantom(left % 3), (side, side), interpolation=cv2.INTER_AREA)
        frame[top : top + side, left : left + side] = slice_[..., None]
        quads.append(corners_at(slice_.shape, left, top))
    return photographed(frame), *quads


@pytest.mark.parametrize(
    ("centre", "side"), [((150, 360), Side.LEFT), ((1140, 360), Side.RIGHT), ((640, 110), Side.TOP)]
)
def test_a_cut_slice_is_not_found_and_the_side_is_said(centre, side):
    """A slice that the frame cuts is refused, with the side to which the camera has to move."""
    found = locate(shown(white_page(phantom()), square(480, centre)).frame)
    assert found.quad is None
    assert (found.reason, found.side) == (Refusal.CUT_BY_FRAME, side)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_plain_frame_holds_no_slice(grey):
    """A frame of one grey is refused without a fault."""
    found = locate(np.full((720, 1280, 3), grey, np.uint8))
    assert (found.quad, found.score, found.reason) == (None, 0.0, Refusal.NO_SLICE)


@pytest.mark.parametrize("scene", EmptyScene)
def test_simulated_scenes_without_a_slice_are_refused(scene):
    """A desk, a face, a page of text, a window and an empty monitor hold no slice."""
    found = [locate(empty_scene(scene, severity=1, seed=seed, family=Family.TRAINING)) for seed in (3, 4)]
    assert [each.quad for each in found] == [None, None]
    assert all(each.reason for each in found)


@pytest.mark.parametrize("severity", [0, 1])
def test_simulated_photographs_are_located(severity):
    """Of simulated frames of phantoms nearly all are found to 0.95, and none is found wrongly."""
    shots = [shoot(phantom(n), severity=severity, seed=n, family=Family.TRAINING) for n in range(8)]
    found = [(locate(shot.frame), shot.quad) for shot in shots]
    overlaps = [overlap(each.quad, quad) for each, quad in found if each.quad is not None]
    assert sum(value >= 0.95 for value in overlaps) >= 7
    assert min(overlaps) > 0.9


@pytest.mark.parametrize(
    "name",
    [
        NamedFrame.ROUND_FIELD,
        NamedFrame.TWO_SLICES,
        NamedFrame.PACS_TEXT,
        NamedFrame.GLARE_ACROSS_EDGE,
        NamedFrame.ROTATED,
        NamedFrame.MIRRORED,
    ],
)
def test_simulated_named_frames_are_located(name):
    """The frames that break capture paths: where a slice is whole and visible, it is found."""
    shot = named_frame(name, phantom(), seed=5, family=Family.TRAINING)
    assert overlap(locate(shot.frame).quad, shot.quad) > 0.95


def test_a_simulated_cut_slice_and_an_empty_scene_are_refused():
    """What is not whole, or not there, is not found."""
    for name in (NamedFrame.CUT_BY_FRAME, NamedFrame.NO_SLICE):
        assert locate(named_frame(name, phantom(), seed=5, family=Family.TRAINING).frame).quad is None


@pytest.mark.parametrize("shape", [(64, 64, 3), (65, 900, 3), (900, 70, 3)])
def test_odd_shapes_are_searched_without_a_fault(shape):
    """The smallest and the narrowest frames are answered, not crashed on."""
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert locate(noise).quad is None


def test_grey_sixteen_bit_and_four_channel_frames_give_the_same_quad():
    """Other forms of the same frame are brought into one form first."""
    frame = shown(white_page(phantom()), tilted()).frame
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    expected = locate(frame).quad
    forms = {
        "grey": grey,
        "one channel": grey[..., None],
        "alpha": cv2.cvtColor(frame, cv2.COLOR_BGR2BGRA),
        "16 bits": frame.astype(np.uint16) << 8,
        "12 bits": frame.astype(np.uint16) << 4,
    }
    for name, form in forms.items():
        assert np.abs(locate(form).quad - expected).max() < 1, name


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (np.zeros((720, 1280, 3), np.float32), FrameFormatError),
        (np.zeros((720, 1280, 2), np.uint8), FrameFormatError),
        (np.zeros((4, 720, 1280, 3), np.uint8), FrameFormatError),
        (np.zeros(1000, np.uint8), FrameFormatError),
        (np.zeros((0, 0, 3), np.uint8), FrameTooSmallError),
        (np.zeros((63, 1280, 3), np.uint8), FrameTooSmallError),
        (np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (6400, 6400, 3)), FrameTooLargeError),
    ],
)
def test_frames_of_no_use_are_refused_by_name(frame, error):
    """Each fault has its name, all of them are a FrameError, and the message says what to do."""
    with pytest.raises(error, match=r"give|set"):
        locate(frame)
    assert issubclass(error, FrameError)


def test_a_large_frame_within_the_limit_is_located():
    """Forty megapixels are allowed: the work does not grow with them."""
    scene = shown(white_page(phantom()), tilted())
    large = cv2.resize(scene.frame, None, fx=5, fy=5, interpolation=cv2.INTER_LINEAR)
    assert overlap((locate(large).quad + 0.5) / 5 - 0.5, scene.quad) > 0.98


def test_a_frame_in_the_right_form_is_not_copied():
    """The usual frame costs nothing."""
    frame = np.zeros((720, 1280, 3), np.uint8)
    assert as_bgr(frame) is frame
