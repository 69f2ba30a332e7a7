"""What can be varied: the factors between a digital slice and its photograph, and the dice that decide how much."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from zlib import crc32

import numpy as np
from numpy.random import Generator

MOST_SEVERITY = 3.0
"""Twice as bad as a bad frame; beyond it some magnitudes would stop to mean anything."""


class Family(StrEnum):
    """Two families with other ranges and partly other mechanisms, so that the benchmark is not the training set."""

    TRAINING = "training"
    HELD_OUT = "held-out"


class Factor(StrEnum):
    """One thing that happens to a slice on its way through screen and camera."""

    DISPLAY_GAMMA = "display gamma"
    SUBPIXELS = "sub-pixels"
    OVERLAYS = "viewer border and overlays"
    PERSPECTIVE = "perspective"
    LENS_BLUR = "lens blur"
    DISTORTION = "distortion"
    MOTION = "motion"
    VIGNETTE = "vignette"
    GLARE = "glare"
    EXPOSURE = "exposure"
    BAYER = "Bayer"
    NOISE = "noise"
    WHITE_BALANCE = "white balance"
    TONE_CURVE = "tone curve"
    SHARPENING = "sharpening"
    JPEG = "JPEG"


@dataclass(frozen=True)
class Dice:
    """All randomness of one shot: each topic has its own generator, so that no factor's draw moves another's."""

    seed: int
    family: Family
    severity: float
    only: frozenset[Factor] | None = None

    def rng(self, topic: str) -> Generator:
        return np.random.default_rng([self.seed, crc32(topic.encode()), crc32(self.family.encode())])

    def strength(self, factor: Factor) -> float:
        """Return the severity where this factor takes part, else 0."""
        return self.severity if self.only is None or factor in self.only else 0.0


def dice(seed: int, family: Family, severity: float, only: Collection[Factor] | None = None) -> Dice:
    """Return the dice of a shot; raises `ValueError` on a severity, seed, family or factor that there is not."""
    if not 0 <= severity <= MOST_SEVERITY:
        raise ValueError(f"severity {severity} is not from 0 to {MOST_SEVERITY}")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative")
    return Dice(seed, Family(family), float(severity), None if only is None else frozenset(map(Factor, only)))
