"""A photographed slice comes back near its digital greys, by references alone and by a calibration."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photometry_parts import (
    RECTIFIED_PX,
    SLICE_PX,
    Camera,
    as_picture,
    difference,
    lungs_only,
    on_page,
    phantom,
    plain_grey,
    rectified,
    simulated,
)

from edge_agent.light import code_of, light_of
from edge_agent.photometry import MARGIN, restore, with_margin

DIGITAL = [phantom("site-a"), phantom("site-b"), lungs_only(), phantom("site-a", 1) // 2 + 40]


@pytest.mark.parametrize("slice_", DIGITAL, ids=["air around", "black around", "lungs only", "dull window"])
def test_a_digital_slice_stays_what_it_is(slice_):
    """A slice without cast, veil and page comes out unchanged, whatever its window: no contrast is invented."""
    assert difference(restore(as_picture(slice_)), slice_) < 0.5


@pytest.mark.parametrize("slice_", DIGITAL[:3], ids=["air around", "black around", "lungs only"])
def test_restoring_twice_is_restoring_once(slice_):
    """What is restored has nothing left to restore."""
    seen = Camera(gains=(0.8, 1.0, 1.15), veil=0.008).sees(as_picture(slice_))
    once = restore(seen)
    assert difference(restore(as_picture(once)), once) < 1.5


def test_light_over_black_is_taken_away():
    """A display's black and the room's light, which lift the whole slice, leave with the slice's own black."""
    slice_ = phantom("site-b")
    seen = Camera(veil=0.012).sees(as_picture(slice_))
    assert difference(plain_grey(seen), slice_) > 8
    assert difference(restore(seen), slice_) < 2


def test_air_is_not_taken_for_black():
    """A slice that has no black keeps its air: -1000 HU is grey 59 in the lung window, not 0."""
    slice_ = phantom("site-a")
    seen = Camera(gains=(0.9, 0.9, 0.9)).sees(as_picture(slice_))
    assert np.percentile(restore(seen), 5) > 0.8 * np.percentile(slice_, 5)


def test_smooth_glare_over_black_is_followed():
    """Where black joins around the lungs, glare over it is taken away place by place, and beside it."""
    slice_ = lungs_only()
    rows, columns = np.mgrid[-1 : 1 : SLICE_PX * 1j, -1 : 1 : SLICE_PX * 1j]
    glare = 0.06 * np.exp(-(np.square(rows + 0.6) + np.square(columns)) / 0.4)
    seen = np.rint(code_of(light_of(as_picture(slice_)) + glare[..., None])).astype(np.uint8)
    black = slice_ == 0
    before, after = plain_grey(seen), restore(seen)
    assert before[black].mean() > 15
    assert after[black].mean() < 3
    assert difference(after, slice_) < 0.3 * difference(before, slice_)


def test_a_cast_is_taken_away():
    """A slice is grey: warm and cold light give the same greys."""
    slice_ = phantom("site-b")
    warm, cold = (Camera(gains=gains).sees(as_picture(slice_)) for gains in ((0.75, 1.0, 1.1), (1.1, 1.0, 0.75)))
    assert difference(restore(warm), restore(cold)) < 2


def test_a_white_page_tells_the_exposure():
    """Beside a white page an underexposed slice is brightened, and beside a black one left alone."""
    slice_ = phantom("site-b")
    dark = Camera(gains=(0.5, 0.5, 0.5))
    beside_white, beside_black = (restore(dark.sees(on_page(slice_, page)), margin=MARGIN) for page in (250, 4))
    assert difference(beside_white, slice_) < 0.4 * difference(beside_black, slice_)
    assert difference(beside_black, plain_grey(dark.sees(as_picture(slice_)))) < 2


@settings(max_examples=15, deadline=None)
@given(
    gains=st.tuples(*[st.floats(0.5, 1.2)] * 3),
    veil=st.floats(0, 0.05),
    gamma=st.floats(0.7, 1.4),
    seed=st.integers(0, 99),
)
def test_greys_keep_their_order(gains, veil, gamma, seed):
    """Whatever the camera did, a brighter grey of the slice does not come out darker than a darker one."""
    greys = np.random.default_rng(seed).permutation(np.arange(128 * 128) % 256).reshape(128, 128).astype(np.uint8)
    restored = restore(Camera(gamma, gains, veil=veil).sees(as_picture(greys)))
    means = [restored[greys == grey].mean() for grey in range(256)]
    assert (np.diff(means) >= -1e-6).all()


@pytest.mark.parametrize("side", [97, 256, 320])
def test_the_margin_is_cut_off_again(side):
    """The result is the slice alone: a square without the margin, of the same size for the same side."""
    picture = np.full((side, side, 3), 120, np.uint8)
    assert restore(picture).shape == (side, side)
    assert restore(picture, margin=MARGIN).shape == 2 * (side - 2 * round(side * MARGIN / (1 + 2 * MARGIN)),)


def test_the_margin_lies_in_the_slices_plane():
    """A slice seen at an angle and rectified with a margin has its own corners at the margin's inner corners."""
    slice_ = phantom("site-b")
    shot = simulated(slice_, 5, severity=0)
    with_page = rectified(shot.frame, shot.quad)
    alone = rectified(shot.frame, shot.quad, margin=0.0, side=SLICE_PX)
    assert difference(plain_grey(with_page[16:-16, 16:-16]), plain_grey(alone)) < 1
    assert np.allclose(with_margin(shot.quad, 0.0), shot.quad, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.uint16)],
    ids=["grey", "four channels", "16 bits"],
)
def test_another_array_is_refused(wrong):
    """A picture that is not uint8 with three channels is refused, with its type and shape."""
    with pytest.raises(ValueError, match=r"not uint8 \[s, s, 3\]"):
        restore(wrong)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_grey_is_no_accident(level):
    """A picture that shows nothing is restored to one grey, without a warning or an error."""
    assert np.ptp(restore(np.full((RECTIFIED_PX, RECTIFIED_PX, 3), level, np.uint8), margin=MARGIN)) == 0


def test_simulated_photographs_come_nearer_to_the_digital_slices():
    """On simulated frames at severity 1, restoring takes away a good part of the difference to the digital slice."""
    before, after = [], []
    for patient in range(8):
        slice_ = phantom("site-b", patient)
        shot = simulated(slice_, 300 + patient)
        seen = rectified(shot.frame, shot.quad)
        before.append(difference(plain_grey(seen[16:-16, 16:-16]), slice_))
        after.append(difference(restore(seen, margin=MARGIN), slice_))
    assert np.mean(after) < 0.85 * np.mean(before)
