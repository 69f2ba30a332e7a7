"""What the tests of the simulated camera share: slices, shots, and how far apart frames are."""

import numpy as np
from numpy.typing import NDArray

from protocol.labels import Label
from training.data.phantom import SITES, render_slice
from training.screen_camera import Factor, Family, Shot, shoot

SMALL = (360, 640)
SEVERITIES = (0.0, 0.6, 1.0, 1.6)
FAMILIES = tuple(Family)

PHANTOM = render_slice(seed=11, site=SITES["site-a"], label=Label.NORMAL, patient=0, z=0.5)
WHITE = np.full((512, 512), 255, np.uint8)
BLACK = np.zeros((512, 512), np.uint8)


def small_shot(
    severity: float, seed: int, family: Family = Family.TRAINING, only: Factor | None = None, slice_=PHANTOM
) -> Shot:
    """Shoot into a quarter of the usual frame, which is as good and four times as fast."""
    kept = None if only is None else [only]
    return shoot(slice_, severity=severity, seed=seed, family=family, only=kept, size=SMALL)


def apart(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the mean difference of two pictures in grey levels."""
    return float(np.abs(first.astype(np.int16) - second).mean())
