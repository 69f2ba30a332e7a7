"""Anatomy: the random numbers of a healthy person, and of the findings that mean nothing."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from training.data.phantom.grid import Points
from training.data.phantom.sites import PhantomSite

LUNG_HEIGHT_MM = 230.0
TURN_RAD, HALF_TURN_RAD = 6.28, 3.14  # rounded, since recipe version 1: more digits would change every picture

HALF_WIDTH_MM, HALF_DEPTH_MM = 128, 96  # of both lungs together, in the middle of adults
WAVE_AMPLITUDES = (0.024, 0.018, 0.013, 0.008)  # as parts of the outline's radius, long waves first
MEAN_SCARS, MEAN_NODULES = 0.9, 0.5


@dataclass(frozen=True)
class Body:
    """Sizes and shapes."""

    cavity_mm: tuple[float, float]  # half width, half depth of both lungs together
    squareness: float  # superellipse exponent
    waves: Points  # [4, 3] small waves of the outline: amplitude, phase, drift with z
    fat_mm: float
    breast_mm: float
    muscle_mm: float
    mediastinum: float  # width factors
    heart: float
    heart_x_mm: float
    aorta_mm: float
    spine_mm: float
    rib_phase: float
    dome_z: float


@dataclass(frozen=True)
class Tissue:
    """How the lungs are aired, and how they moved."""

    lung_hu: float
    gravity_hu: float  # front to back
    mottle_hu: float
    dependent: tuple[float, float]  # atelectasis at the back: opacity, depth in mm
    dependent_tilt: float
    motion_mm: float


@dataclass(frozen=True)
class Findings:
    """Harmless things in the lungs; x and y are parts of the cavity, z is 0 to 1."""

    bands: Points  # [n, 5] scars: x, y, z, angle, length in mm
    nodules: Points  # [n, 4] x, y, z, radius in mm


@dataclass(frozen=True)
class Framing:
    """How the patient lies in the picture."""

    field_of_view_mm: float
    offset_mm: tuple[float, float]
    tilt: float  # radians


@dataclass(frozen=True)
class Anatomy:
    """The healthy person on the scanner's table."""

    body: Body
    tissue: Tissue
    findings: Findings
    framing: Framing


def draw_anatomy(rng: Generator, site: PhantomSite) -> Anatomy:
    """Draw a person; the order of the draws is part of the recipe."""
    size = rng.uniform(0.9, 1.08)
    waves = _draw_waves(rng)
    scars, nodules = rng.poisson(MEAN_SCARS), rng.poisson(MEAN_NODULES)
    return Anatomy(
        body=_draw_body(rng, size, waves),
        tissue=_draw_tissue(rng),
        findings=_draw_findings(rng, scars, nodules),
        framing=_draw_framing(rng, site),
    )


def _draw_waves(rng: Generator) -> Points:
    count = len(WAVE_AMPLITUDES)
    return np.column_stack([rng.normal(0, WAVE_AMPLITUDES), rng.uniform(0, TURN_RAD, count), rng.normal(0, 1.5, count)])


def _draw_body(rng: Generator, size: float, waves: Points) -> Body:
    return Body(
        cavity_mm=(HALF_WIDTH_MM * size * rng.uniform(0.95, 1.05), HALF_DEPTH_MM * size * rng.uniform(0.88, 1.1)),
        squareness=rng.uniform(2.1, 2.7),
        waves=waves,
        fat_mm=rng.uniform(5, 26),
        breast_mm=max(0.0, rng.uniform(-25, 28)),
        muscle_mm=rng.uniform(10, 18),
        mediastinum=rng.uniform(0.85, 1.2),
        heart=rng.uniform(0.85, 1.2),
        heart_x_mm=rng.uniform(14, 30),
        aorta_mm=rng.uniform(11, 16),
        spine_mm=rng.uniform(17, 21),
        rib_phase=rng.uniform(0, 1),
        dome_z=rng.uniform(0.62, 0.85),
    )


def _draw_tissue(rng: Generator) -> Tissue:
    return Tissue(
        lung_hu=rng.normal(-865, 28),
        gravity_hu=rng.uniform(25, 110),
        mottle_hu=rng.uniform(8, 34),
        dependent=(max(0.0, rng.uniform(-0.25, 0.5)), rng.uniform(4, 13)),
        dependent_tilt=rng.normal(0, 0.35),
        motion_mm=max(0.0, rng.uniform(-5, 3.5)),
    )


def _draw_findings(rng: Generator, scars: int, nodules: int) -> Findings:
    return Findings(
        bands=_inside_lung(rng, scars, rng.uniform(0, HALF_TURN_RAD, scars), rng.uniform(10, 45, scars)),
        nodules=_inside_lung(rng, nodules, rng.uniform(1.5, 4.5, nodules)),
    )


def _inside_lung(rng: Generator, count: int, *more: Points) -> Points:
    """Return [count, 3 + more] places in the outer half of either lung, x and y as parts of the cavity."""
    angle, reach = rng.uniform(0, TURN_RAD, count), rng.uniform(0.55, 0.92, count)
    places = [np.cos(angle) * reach, np.sin(angle) * reach, rng.uniform(0.2, 0.8, count)]
    return np.column_stack([*places, *more])


def _draw_framing(rng: Generator, site: PhantomSite) -> Framing:
    return Framing(
        field_of_view_mm=rng.uniform(*site.field_of_view_mm),
        offset_mm=(site.offset_mm[0] + rng.normal(0, 5), site.offset_mm[1] + rng.normal(0, 5)),
        tilt=rng.normal(0, 0.03),
    )
