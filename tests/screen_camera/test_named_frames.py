"""Named frames show what they are named after, with the true quad."""

import cv2
import numpy as np
import pytest
from screen_parts import PHANTOM, SMALL, apart

from training.screen_camera.named import NamedFrame, named_frame

SEEDS = range(3)


def named(name, seed=0, severity=0.0, slice_=PHANTOM):
    return named_frame(name, slice_, seed, severity=severity, size=SMALL)


def flattened(shot, side=128):
    """Return the frame's part inside the quad as a square grey picture."""
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(shot.quad, square)
    return cv2.cvtColor(cv2.warpPerspective(shot.frame, matrix, (side, side), flags=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)


def likeness(first, second):
    return float(np.corrcoef(first.ravel().astype(float), second.ravel().astype(float))[0, 1])


def small(slice_):
    return cv2.resize(slice_, (128, 128), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("name", NamedFrame)
def test_named_frames_are_reproducible(name):
    """The same arguments give the same bits; only the frame without a slice has no quad."""
    shot, again, other = named(name, 1, 0.6), named(name, 1, 0.6), named(name, 2, 0.6)
    assert np.array_equal(shot.frame, again.frame)
    assert shot.frame.shape == (*SMALL, 3)
    assert apart(shot.frame, other.frame) > 0.5
    assert (shot.quad is None) == (name is NamedFrame.NO_SLICE)


@pytest.mark.parametrize(
    "name", sorted(set(NamedFrame) - {NamedFrame.CUT_BY_FRAME, NamedFrame.NO_SLICE, NamedFrame.GLARE_ACROSS_EDGE})
)
def test_the_quad_of_a_named_frame_holds_the_slice(name):
    """What lies inside the quad is the slice, turned or mirrored where the name says so."""
    shown = {
        NamedFrame.ROTATED: (np.rot90(PHANTOM), np.rot90(PHANTOM, -1)),
        NamedFrame.MIRRORED: (PHANTOM[:, ::-1],),
    }.get(name, (PHANTOM,))
    for seed in SEEDS:
        seen = flattened(named(name, seed, 0.6))
        assert max(likeness(seen, small(slice_)) for slice_ in shown) > 0.8


def test_nothing_shows_the_edge_of_a_black_slice_on_black():
    """Around the quad of the black slice all is black, inside as well as outside."""
    for seed in SEEDS:
        shot = named(NamedFrame.BLACK_ON_BLACK, seed)
        (left, top), (right, bottom) = np.round(shot.quad[0]).astype(int), np.round(shot.quad[2]).astype(int)
        ring = shot.frame[top - 5 : bottom + 6, left - 5 : right + 6].copy()
        ring[12:-12, 12:-12] = 0
        assert ring.max() <= 2


def test_the_corners_outside_a_round_field_are_black():
    """The field's four corners are black, its middle is not."""
    seen = flattened(named(NamedFrame.ROUND_FIELD))
    assert max(seen[:8, :8].max(), seen[:8, -8:].max(), seen[-8:, :8].max(), seen[-8:, -8:].max()) < 30
    assert seen[40:90, 40:90].mean() > 30


def test_two_slices_are_a_larger_and_a_smaller_one():
    """Beside the slice in the quad there is a smaller one, mirrored, in the frame as well."""
    for seed in SEEDS:
        shot = named(NamedFrame.TWO_SLICES, seed)
        side = np.ptp(shot.quad[:, 0])
        rest = shot.frame.copy()
        cv2.fillPoly(rest, [np.round(shot.quad).astype(np.int32)], (0, 0, 0))
        grey = cv2.cvtColor(rest, cv2.COLOR_BGR2GRAY)
        shares = np.arange(0.45, 0.8, 0.01)
        found = [
            float(cv2.matchTemplate(grey, cv2.resize(PHANTOM[:, ::-1], (n, n)), cv2.TM_CCOEFF_NORMED).max())
            for n in np.round(shares * side).astype(int)
        ]
        assert max(found) > 0.9


def test_text_lies_over_the_slice():
    """Text changes the slice's corners and leaves its middle."""
    change = np.abs(flattened(named(NamedFrame.PACS_TEXT, 1)).astype(int) - flattened(named(NamedFrame.ROUND_FIELD, 1)))
    text, round_ = named(NamedFrame.PACS_TEXT, 1), named(NamedFrame.ROUND_FIELD, 1)
    assert np.array_equal(text.quad, round_.quad)
    assert change[48:80, 48:80].mean() < 1
    assert change[:24].mean() > 3


def test_glare_covers_the_middle_of_an_edge():
    """Somewhere along the slice's outline, at the middle of a side, the frame is white on both sides of the edge."""
    for seed in SEEDS:
        shot = named(NamedFrame.GLARE_ACROSS_EDGE, seed, 0.6)
        middles = np.round((shot.quad + np.roll(shot.quad, -1, axis=0)) / 2).astype(int)
        spots = [shot.frame[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] for x, y in middles]
        assert max(spot.min() for spot in spots) > 240


def test_a_cut_quad_is_partly_outside_the_frame():
    """A tenth to a half of the slice is cut off, and the quad says where it would be."""
    frame_ring = np.array([[0, 0], [SMALL[1], 0], [SMALL[1], SMALL[0]], [0, SMALL[0]]], np.float32)
    for seed in range(6):
        quad = named(NamedFrame.CUT_BY_FRAME, seed, 0.6).quad
        inside, _ = cv2.intersectConvexConvex(quad, frame_ring)
        assert 0.1 < 1 - inside / cv2.contourArea(quad) < 0.5


def test_wrong_arguments_of_a_named_frame_are_refused():
    """What is no slice, or no name, raises `ValueError`."""
    with pytest.raises(ValueError, match="slice"):
        named_frame(NamedFrame.MIRRORED, np.zeros((4, 4), np.float32), 0)
    with pytest.raises(ValueError, match="NamedFrame"):
        named_frame("unheard of", PHANTOM, 0)
