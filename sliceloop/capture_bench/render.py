"""Show a case before the simulated webcam."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sliceloop.capture_bench.cases import Case
from training.screen_camera import Family, empty_scene, shoot

Picture = NDArray[np.uint8]

FRAME_SIZE = (720, 1280)
FAMILY = Family.HELD_OUT
"""Never the one that networks learn with."""


@dataclass(frozen=True)
class Shown:
    """A frame uint8 [720, 1280, 3] BGR, the true quad float32 [4, 2] or None, and the page's or scene's name."""

    frame: Picture
    quad: NDArray[np.float32] | None
    page: str


def render(case: Case, slice_: Picture | None) -> Shown:
    """Return the frame of a case; `slice_` is its slice uint8 [h, w], None for a scene without one."""
    if case.scene is not None:
        frame = empty_scene(case.scene, severity=case.severity, seed=case.seed, family=FAMILY, size=FRAME_SIZE)
        return Shown(frame, None, case.scene)
    assert slice_ is not None, "a case of a slice has one"
    only = None if case.only is None else (case.only,)
    shot = shoot(slice_, severity=case.severity, seed=case.seed, family=FAMILY, only=only, size=FRAME_SIZE)
    return Shown(shot.frame, shot.quad, shot.page)
