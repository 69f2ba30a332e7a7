"""Each factor alone does to a frame what its name says."""

import cv2
import numpy as np
import pytest
from screen_parts import FAMILIES, PHANTOM, SMALL, apart, small_shot

from training.screen_camera import Factor, Family, shoot

SEEDS = range(4)
GREY = np.full((256, 256), 128, np.uint8)
MONITOR_PAGES = ("viewer", "our page")


def slice_pixels(frame, quad):
    """Return the frame's pixels well inside a quad that stands upright."""
    left, top = np.ceil(quad.min(0)).astype(int) + 8
    right, bottom = np.floor(quad.max(0)).astype(int) - 8
    return frame[top:bottom, left:right].astype(float)


def frames_of(factor, family, severity=1.0, slice_=PHANTOM, seeds=SEEDS):
    return [small_shot(severity, seed, family, factor, slice_) for seed in seeds]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("factor", Factor)
def test_each_factor_alone_changes_the_frame_and_grows(factor, family):
    """A single factor moves frames away from the clean one, and further at a larger severity."""
    seeds = range(6)
    clean = [small_shot(0, seed, family).frame for seed in seeds]

    def far(severity):
        shots = frames_of(factor, family, severity, seeds=seeds)
        return np.mean([apart(shot.frame, before) for shot, before in zip(shots, clean, strict=True)])

    mild, strong = far(0.5), far(1.6)
    assert mild > 0.01
    assert mild == strong if factor is Factor.BAYER else mild < strong  # filters are there or not


@pytest.mark.parametrize("factor", sorted(set(Factor) - {Factor.PERSPECTIVE, Factor.DISTORTION}))
def test_only_geometry_moves_the_quad(factor):
    """What is no perspective and no distortion leaves the quad where it is."""
    for seed in SEEDS:
        assert np.array_equal(small_shot(1, seed, only=factor).quad, small_shot(0, seed).quad)


def test_no_factor_at_all_is_the_clean_frame():
    """With no factor kept, a frame of any severity is the clean one."""
    bare = shoot(PHANTOM, severity=1.6, seed=1, family=Family.TRAINING, only=[], size=SMALL)
    assert np.array_equal(bare.frame, small_shot(0, 1).frame)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_factor_is_the_same_alone_and_with_others(family):
    """Switching other factors off does not redraw a factor: the quad of perspective alone is that of the whole shot."""
    geometry = [Factor.PERSPECTIVE, Factor.DISTORTION]
    alone = shoot(PHANTOM, severity=1, seed=3, family=family, only=geometry, size=SMALL)
    assert np.array_equal(alone.quad, small_shot(1, 3, family).quad)


@pytest.mark.parametrize("family", FAMILIES)
def test_sub_pixels_give_coloured_moire_on_screens_alone(family):
    """Stripes beat with the camera's pixels on a lit screen; film and paper have none."""
    screens, others = [], []
    for seed in range(12):
        shot = small_shot(1, seed, family, Factor.SUBPIXELS, GREY)
        inside = slice_pixels(shot.frame, shot.quad)
        (screens if shot.page.startswith(MONITOR_PAGES) else others).append(np.ptp(inside, axis=2).mean())
    assert max(screens) > 1
    assert max(others) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_grows_with_light_and_keeps_the_mean(family):
    """Noise alone leaves a grey's mean, and has no pattern that repeats between seeds."""
    first, second = (slice_pixels(shot.frame, shot.quad) for shot in frames_of(Factor.NOISE, family, 1, GREY, (1, 2)))
    assert abs(first.mean() - 128) < 1
    assert 0.3 < first.std() < 12
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def test_the_mosaic_keeps_colours_in_their_channels():
    """Bayer filters alone blur details, and swap no colours: flat areas stay what they were, whatever the pattern."""
    for family in FAMILIES:
        for seed in range(6):
            mosaic, clean = small_shot(1, seed, family, Factor.BAYER).frame, small_shot(0, seed, family).frame
            assert np.median(np.abs(mosaic.astype(int) - clean)) <= 1
            assert apart(mosaic, clean) > 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_blur_and_motion_take_details_away(family):
    """Lens blur and motion each lower the slice's Laplacian, and keep its mean light about the same."""
    for factor in (Factor.LENS_BLUR, Factor.MOTION):
        sharp, soft = frames_of(factor, family, 0), frames_of(factor, family, 1.6)
        assert np.mean([detail(s) for s in soft]) < 0.8 * np.mean([detail(s) for s in sharp])


def detail(shot):
    return float(np.abs(cv2.Laplacian(slice_pixels(shot.frame, shot.quad), cv2.CV_64F)).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_glare_only_adds_light(family):
    """Reflections make no pixel darker."""
    for shot, clean in zip(frames_of(Factor.GLARE, family), frames_of(Factor.GLARE, family, 0), strict=True):
        assert (shot.frame >= clean.frame).all()


def test_white_balance_tints_a_grey():
    """A grey slice gets a cast, warm in some shots and cold in others."""
    warmth = []
    for seed in range(10):
        shot = small_shot(1, seed, Family.TRAINING, Factor.WHITE_BALANCE, GREY)
        blue, _, red = slice_pixels(shot.frame, shot.quad).mean((0, 1))
        warmth.append(red - blue)
    assert min(warmth) < -2
    assert max(warmth) > 2


@pytest.mark.parametrize("factor", [Factor.DISPLAY_GAMMA, Factor.TONE_CURVE])
@pytest.mark.parametrize("family", FAMILIES)
def test_curves_keep_the_order_of_greys(family, factor):
    """Display gamma and tone curve map greys to greys in order, however severe."""
    ramp = np.tile(np.arange(256, dtype=np.uint8).repeat(2), (512, 1))
    for seed in range(6):
        shot = shoot(ramp, severity=3, seed=seed, family=family, only=[factor])
        greys = slice_pixels(shot.frame, shot.quad).mean(0)
        assert (np.diff(greys, axis=0) >= 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_overlays_lie_on_and_around_the_slice(family):
    """What viewers write changes some pixels inside the slice and some outside, and never most of the slice."""
    inside, outside = [], []
    for seed in range(10):
        shot, clean = small_shot(1.6, seed, family, Factor.OVERLAYS), small_shot(0, seed, family)
        changed = (shot.frame != clean.frame).any(2)
        share = slice_pixels(changed[..., None], shot.quad).mean()
        inside.append(share)
        outside.append(changed.mean() - share * np.prod(np.ptp(shot.quad, axis=0)) / changed.size)
    assert 0 < np.mean(inside) < 0.1
    assert max(inside) < 0.25
    assert np.mean(outside) > 0.005
