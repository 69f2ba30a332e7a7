"""Shots are reproducible, clean at severity 0, worse with severity, and possible with any slice."""

import numpy as np
import pytest
from screen_parts import BLACK, FAMILIES, PHANTOM, SEVERITIES, SMALL, WHITE, apart, small_shot

from training.screen_camera import Family, shoot


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_same_bits(family):
    """The same arguments give the same frame and quad, bit for bit; another seed gives another."""
    first, again, other = small_shot(1, 5, family), small_shot(1, 5, family), small_shot(1, 6, family)
    assert np.array_equal(first.frame, again.frame)
    assert np.array_equal(first.quad, again.quad)
    assert first.page == again.page
    assert apart(first.frame, other.frame) > 1
    assert not np.array_equal(first.quad, other.quad)


def test_a_shot_leaves_the_slice_and_numpys_global_generator_alone():
    """Shooting neither writes to the slice nor draws from randomness that belongs to others."""
    slice_, state = PHANTOM.copy(), np.random.get_state()[1].copy()
    small_shot(1.6, 3, slice_=slice_)
    assert np.array_equal(slice_, PHANTOM)
    assert np.array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_severity_0_shows_the_slice_itself(family, seed):
    """At severity 0 the frame holds the slice's own pixels, upright, unblurred, grey for grey."""
    shot = shoot(PHANTOM, severity=0, seed=seed, family=family)
    left, top = np.round(shot.quad[0] + 0.5).astype(int)
    shown = shot.frame[top : top + 512, left : left + 512]
    assert np.array_equal(shown, np.repeat(PHANTOM[..., None], 3, axis=2))
    corners = [(left, top), (left + 512, top), (left + 512, top + 512), (left, top + 512)]
    assert np.allclose(shot.quad, np.array(corners) - 0.5, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_grow_worse_with_severity(family):
    """The larger the severity, the further are frames from the clean one, on average over pages."""
    seeds = range(6)
    clean = [small_shot(0, seed, family).frame for seed in seeds]
    far = [
        np.mean([apart(small_shot(severity, seed, family).frame, clean[seed]) for seed in seeds])
        for severity in SEVERITIES
    ]
    assert far[0] == 0
    assert 2 < far[1] < far[2] < far[3]


def test_a_shot_has_the_size_that_was_asked_for():
    """Frames are uint8 with three channels of the size asked for, and no grey picture: a camera has a cast."""
    for size in ((720, 1280), (480, 640), (64, 64)):
        shot = shoot(PHANTOM, severity=1, seed=1, family=Family.TRAINING, size=size)
        assert shot.frame.shape == (*size, 3)
        assert shot.frame.dtype == np.uint8
        assert shot.quad.shape == (4, 2)
        assert shot.quad.dtype == np.float32
        assert apart(shot.frame[..., 0], shot.frame[..., 2]) > 0.2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (97, 333), (700, 41), (1500, 1400)])
def test_any_slice_can_be_shot(family, shape):
    """Slices of any size and shape land wholly inside the frame, at every severity."""
    slice_ = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    for severity in (0.0, 1.6, 3.0):
        quad = small_shot(severity, 2, family, slice_=slice_).quad
        assert (quad > 0).all()
        assert (quad < np.array(SMALL[::-1])).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("slice_", [BLACK, WHITE], ids=["black", "white"])
def test_slices_without_contrast_can_be_shot_and_seen(family, slice_):
    """An all black and an all white slice can be told from their page on every page, by border or outline."""
    for seed in range(12):
        shot = small_shot(0, seed, family, slice_=slice_)
        left, top = np.round(shot.quad[0] + 0.5).astype(int)
        assert max(apart(shot.frame[top + 20, x], shot.frame[top + 20, left]) for x in range(left - 6, left)) > 24


def test_the_families_are_not_each_others_benchmark():
    """With the same seed the families give other frames, and the held-out one has pages that training never sees."""
    for seed in range(3):
        assert apart(small_shot(1, seed, Family.TRAINING).frame, small_shot(1, seed, Family.HELD_OUT).frame) > 2
    pages = {
        family: {shoot(BLACK[:8, :8], severity=0, seed=seed, family=family, size=(64, 64)).page for seed in range(60)}
        for family in FAMILIES
    }
    assert pages[Family.TRAINING] < pages[Family.HELD_OUT]


@pytest.mark.parametrize(
    "wrong",
    [
        {"severity": -0.1},
        {"severity": float("nan")},
        {"severity": 9},
        {"seed": -1},
        {"size": (721, 1280)},
        {"size": (32, 32)},
        {"family": "another"},
        {"only": ["fog"]},
        {"slice_": np.zeros((4, 4, 3), np.uint8)},
        {"slice_": np.zeros((4, 4), np.uint16)},
        {"slice_": np.zeros((0, 4), np.uint8)},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(wrong):
    """What is no slice, no severity, no seed, no family or no frame size raises `ValueError`."""
    arguments = {"slice_": PHANTOM, "severity": 1, "seed": 1, "family": Family.TRAINING, **wrong}
    with pytest.raises(ValueError, match=r"slice|severity|seed|size|Family|Factor"):
        shoot(arguments.pop("slice_"), **arguments)
