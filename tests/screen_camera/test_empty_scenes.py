"""Empty scenes are frames like any other, of what a webcam sees when there is no slice."""

import cv2
import numpy as np
import pytest
from screen_parts import FAMILIES, PHANTOM, SMALL, apart, small_shot

from training.screen_camera import EmptyScene, Family, empty_scene


def scene(kind, seed=0, severity=1.0, family=Family.TRAINING):
    return empty_scene(kind, severity=severity, seed=seed, family=family, size=SMALL)


def likeness(frame, slice_) -> float:
    """Return how well the slice, at about its size in a shot, is found anywhere in the frame: 1 is itself."""
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    return max(
        float(cv2.matchTemplate(grey, cv2.resize(slice_, (side, side)), cv2.TM_CCOEFF_NORMED).max())
        for side in (200, 228, 256, 284)
    )


@pytest.mark.parametrize("kind", EmptyScene)
@pytest.mark.parametrize("family", FAMILIES)
def test_empty_scenes_are_reproducible_frames(kind, family):
    """The same arguments give the same bits; another seed or severity gives another frame."""
    frame = scene(kind, 3, 1, family)
    assert frame.shape == (*SMALL, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, scene(kind, 3, 1, family))
    assert apart(frame, scene(kind, 4, 1, family)) > 1
    assert apart(frame, scene(kind, 3, 0, family)) > 1


def test_empty_scenes_of_one_seed_differ_by_kind():
    """A desk is no window."""
    frames = [scene(kind) for kind in EmptyScene]
    assert all(apart(a, b) > 2 for i, a in enumerate(frames) for b in frames[:i])


@pytest.mark.parametrize("kind", EmptyScene)
def test_an_empty_scene_shows_no_slice(kind):
    """A slice is found in a clean shot of it, and nothing like it in a clean empty scene."""
    assert likeness(small_shot(0, 0).frame, PHANTOM) > 0.95
    assert max(likeness(scene(kind, seed, 0), PHANTOM) for seed in range(2)) < 0.7


@pytest.mark.parametrize("wrong", [{"severity": -1}, {"size": (63, 64)}, {"seed": -1}], ids=str)
def test_wrong_arguments_of_a_scene_are_refused(wrong):
    """A severity, size or seed that cannot be raises `ValueError`."""
    arguments = {"severity": 1, "seed": 0, "family": Family.TRAINING, **wrong}
    with pytest.raises(ValueError, match=r"severity|size|seed"):
        empty_scene(EmptyScene.DESK, **arguments)
