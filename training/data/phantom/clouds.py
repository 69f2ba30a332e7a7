"""Clouds: smooth noise that makes lung uneven, and the finer grain of its opacities."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from training.data.phantom.grid import COARSE_PX, SIDE_PX, FloatImage, enlarge

# About so many humps across a slice.
MEDIUM_HUMPS, LARGE_HUMPS, SMALL_HUMPS = 22, 9, 52
GRAIN_HUMPS, MESH_HUMPS = 96, 60
GRAIN_STRENGTH, MESH_STRENGTH = 0.2, 0.5
VARIANCE_GAIN = 1.4  # gives back about what interpolating takes away
DRIFT_RAD = 7.0  # how far the pattern changes from apex to base; a quarter turn is another pattern


class Clouds(NamedTuple):
    """A patient's noise, a pair [2, 128, 128] of each size of hump."""

    medium: FloatImage
    large: FloatImage
    small: FloatImage


def draw_clouds(rng: Generator) -> Clouds:
    """Draw the pairs of clouds, variance near 1."""
    return Clouds(
        *(
            np.stack([_cloud(rng, COARSE_PX, humps) for _ in range(2)])
            for humps in (MEDIUM_HUMPS, LARGE_HUMPS, SMALL_HUMPS)
        )
    )


def drift(pair: FloatImage, z: float) -> FloatImage:
    """Blend two clouds so that the pattern changes smoothly with z."""
    turn = np.float32(DRIFT_RAD * z)
    return np.asarray(np.cos(turn) * pair[0] + np.sin(turn) * pair[1], np.float32)


def grain(rng: Generator, mesh: float) -> FloatImage:
    """Return the fine texture [512, 512] of opacities, mean near 0: patchy, with ridges where there is crazy paving."""
    fine = np.float32(GRAIN_STRENGTH) * enlarge(rng.standard_normal((GRAIN_HUMPS, GRAIN_HUMPS), dtype=np.float32))
    if mesh > 0:
        fine += np.float32(MESH_STRENGTH * mesh) * (1 - np.abs(_cloud(rng, SIDE_PX, MESH_HUMPS)))
    return fine


def _cloud(rng: Generator, side: int, humps: int) -> FloatImage:
    """Return smooth noise [side, side], variance near 1, with about so many humps across."""
    small = rng.standard_normal((humps, humps), dtype=np.float32) * np.float32(VARIANCE_GAIN)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)
