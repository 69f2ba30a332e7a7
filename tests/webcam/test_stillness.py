"""What counts as settled, as standing still, and as a new slice."""

import numpy as np
import pytest
from webcam_parts import QUAD, Frame, phantom, scene, shifted

from edge_agent.capture.stillness import (
    Exposure,
    SettleLimits,
    Settling,
    StillLimits,
    StillWatch,
    View,
    difference,
    exposure,
    novelty,
    view_of,
    way_share,
)

SLICE = phantom(0)
LIMITS = StillLimits(still_s=0.5, still_change=0.12, new_slice_change=0.03, moved_share=0.02)


def seen(frame: Frame, quad: np.ndarray | None = QUAD) -> View:
    """Return what is in view."""
    return view_of(frame, quad)


def test_exposure_has_settled_when_frames_in_a_row_are_equally_bright() -> None:
    """One frame outside mean or spread begins the count anew; a camera that was opened again does too."""
    settling = Settling(SettleLimits(frames=3, mean=2.0, spread=2.0))
    told = []
    for mean, spread in [(90, 9), (99, 9), (100, 9), (101, 9), (101, 15), (101, 15), (101, 16)]:
        settling.add(Exposure(mean, spread))
        told.append(settling.has_settled)
    assert told == [False, False, False, True, False, False, True]
    settling.forget()
    assert not settling.has_settled


def test_exposure_is_mean_and_spread() -> None:
    """Of a frame that is half black and half white both are 127.5."""
    frame = np.zeros((80, 80, 3), np.uint8)
    frame[:40] = 255
    assert exposure(frame) == Exposure(127.5, 127.5)


def test_noise_and_exposure_are_no_difference() -> None:
    """Another frame of the same slice, or a darker one, is no other picture; another patient's slice is."""
    one = seen(scene(SLICE, seed=1)).thumbnail
    for frame in (scene(SLICE, seed=2), scene(SLICE, seed=3, gain=0.7)):
        assert difference(one, seen(frame).thumbnail) < 0.03
        assert novelty(one, seen(frame).thumbnail) < 0.02
    assert difference(one, seen(scene(phantom(1))).thumbnail) > 0.3


@pytest.mark.parametrize("quad", [QUAD, None])
def test_small_motion_is_no_novelty(quad: np.ndarray | None) -> None:
    """A slice that was moved a little is known again; one a centimetre further on in the same chest is new."""
    one = seen(scene(SLICE, seed=1), quad).thumbnail
    moved = seen(shifted(scene(SLICE, seed=2), 2, 1, 0.3), quad).thumbnail
    further = seen(scene(phantom(0, 0.54), seed=3), quad).thumbnail
    assert novelty(one, moved) < LIMITS.new_slice_change < novelty(one, further)


def test_a_flat_picture_has_no_contrast_to_differ_by() -> None:
    """Grey pages with noise are all the same, and nothing divides by zero."""
    pages = [seen(np.full((90, 90, 3), level, np.uint8), None).thumbnail for level in (0, 80, 255)]
    assert max(difference(pages[0], page) for page in pages) < 1e-3
    assert max(novelty(pages[0], page) for page in pages) < 1e-3


def test_the_way_of_an_outline_is_a_share_of_its_side() -> None:
    """The corner that moved furthest counts; with an outline on one side only the way has no end."""
    moved = QUAD.copy()
    moved[2] += (28, 0)
    assert way_share(QUAD, moved) == pytest.approx(0.1, rel=0.03)
    assert way_share(QUAD, None) == np.inf
    assert way_share(None, None) == 0


def test_a_slice_is_due_once_it_stood_still() -> None:
    """It is due after `still_s`, not before; once it was taken it is not, until it is forgotten."""
    watch = StillWatch(LIMITS)
    assert [watch.see(seen(scene(SLICE, seed=number)), number / 5) for number in range(4)] == [
        False,
        False,
        False,
        True,
    ]
    watch.took()
    assert not watch.see(seen(scene(SLICE, seed=9)), 1.0)
    watch.forget_taken()
    assert watch.see(seen(scene(SLICE, seed=10)), 1.2)


def test_something_that_comes_and_goes_begins_anew() -> None:
    """A slice that disappears for one look has to stand still for the whole time again."""
    watch = StillWatch(LIMITS)
    watch.see(seen(scene(SLICE)), 0.0)
    watch.see(None, 0.4)
    assert not watch.see(seen(scene(SLICE)), 0.5)
    assert not watch.see(seen(scene(SLICE)), 0.9)
    assert watch.see(seen(scene(SLICE)), 1.0)


def test_slow_motion_is_motion() -> None:
    """A slice that creeps, too slowly to be seen from one look to the next, does not stand still."""
    watch = StillWatch(LIMITS)
    told = [
        watch.see(seen(shifted(scene(SLICE), number, 0), QUAD + np.float32((number, 0))), number / 10)
        for number in range(40)
    ]
    assert told.count(True) <= 10  # five pixels of 280 are no motion yet
    assert not told[-1] or told.count(False) > 20
