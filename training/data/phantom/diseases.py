"""Diseases: which lesions each label puts into a healthy person's lungs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from protocol.labels import Label
from training.data.phantom.anatomy import LUNG_HEIGHT_MM, Body
from training.data.phantom.cavity import cavity_point
from training.data.phantom.lesion import Lesion

COVID_19_SEVERITY, PNEUMONIA_SEVERITY = (0.4, 1.0), (0.3, 1.0)  # 1 is obvious; below 0.2 hardly anybody sees it
UNDER_PLEURA = 0.93  # where ground glass has its middle, as a part of the way to the chest wall
SURROUND_SIZE, SURROUND_EDGE = 1.35, 0.8  # by the consolidation's radii; a soft edge
PATCH_EDGE = 0.6
LOBE_ANGLES = {-1: -0.5, 0: 0.2, 1: 0.9}  # front, either and back of the fissure; 0 is the side, pi/2 the back
LOBE_ODDS = (0.25, 0.25, 0.5)  # pneumonia favours the lower lobes, which lie at the back


def _healthy(_rng: Generator, _body: Body) -> tuple[Lesion, ...]:
    return ()


def _covid_19(rng: Generator, body: Body) -> tuple[Lesion, ...]:
    """Scatter faint, rounded patches along the pleura of both lungs, mostly at the sides and the back."""
    severity = rng.uniform(*COVID_19_SEVERITY)
    count = 5 + round(9 * severity) + int(rng.integers(0, 3))
    sides = np.where(np.arange(count) % 2 == 0, -1, 1)
    mesh = max(0.0, rng.uniform(-0.5, 0.9))
    return tuple(_ground_glass(rng, body, int(side), severity, mesh) for side in sides)


def _ground_glass(rng: Generator, body: Body, side: int, severity: float, mesh: float) -> Lesion:
    angle = rng.normal(0.45, 0.6)
    z = rng.uniform(0.22, 0.85)
    x, y = cavity_point(body, _on_side(side, angle), z)
    radius = rng.uniform(11, 18) + 17 * severity * rng.uniform(0.4, 1)
    return Lesion(
        center=(UNDER_PLEURA * x, UNDER_PLEURA * y, z * LUNG_HEIGHT_MM),
        radii=(radius * rng.uniform(0.7, 1.1), radius * rng.uniform(0.9, 1.4), radius * rng.uniform(1.1, 1.9)),
        angle=rng.uniform(-0.4, 0.4),
        opacity=(0.2 + 0.38 * severity) * rng.uniform(0.7, 1.35),
        edge=rng.uniform(0.35, 0.7),
        rim_mm=rng.uniform(16, 34),
        mesh=mesh,
    )


def _pneumonia(rng: Generator, body: Body) -> tuple[Lesion, ...]:
    """Fill a lobe or segment of one lung, with a paler surround and some patches beside it."""
    severity = rng.uniform(*PNEUMONIA_SEVERITY)
    side = int(rng.choice([-1, 1]))
    lobe = int(rng.choice(list(LOBE_ANGLES), p=LOBE_ODDS))
    angle = LOBE_ANGLES[lobe] + rng.normal(0, 0.2)
    main = _consolidation(rng, body, side, angle, severity, lobe)
    count = int(rng.integers(1, 4))
    patches = [_patch(rng, main, severity) for _ in range(count)]
    return (_surround(rng, main), main, *patches)


def _consolidation(rng: Generator, body: Body, side: int, angle: float, severity: float, lobe: int) -> Lesion:
    z = rng.uniform(0.4, 0.62)
    x, y = cavity_point(body, _on_side(side, angle), z)
    reach, radius = rng.uniform(0.65, 0.88), 20 + 32 * severity * rng.uniform(0.6, 1)
    return Lesion(
        center=(reach * x, reach * y, z * LUNG_HEIGHT_MM),
        radii=(radius * rng.uniform(1.0, 1.6), radius * rng.uniform(0.7, 1.0), rng.uniform(55, 75) + 25 * severity),
        angle=side * (angle + rng.normal(0, 0.3)),
        opacity=min(0.97, 0.42 + 0.6 * severity * rng.uniform(0.7, 1.2)),
        edge=rng.uniform(0.25, 0.5),
        wedge=rng.uniform(0.2, 0.6),
        lobe=lobe,
    )


def _surround(rng: Generator, main: Lesion) -> Lesion:
    """Lay ground glass around the consolidation."""
    rx, ry, rz = (SURROUND_SIZE * radius for radius in main.radii)
    return replace(main, radii=(rx, ry, rz), opacity=rng.uniform(0.1, 0.35), edge=SURROUND_EDGE)


def _patch(rng: Generator, main: Lesion, severity: float) -> Lesion:
    x, y, z = main.center
    radius = rng.uniform(6, 12) + 6 * severity
    return Lesion(
        center=(x * rng.uniform(0.75, 1.1), y + rng.normal(0, 28), z + rng.normal(0, 30)),
        radii=(radius, radius * rng.uniform(0.7, 1.3), 2 * radius),
        angle=0,
        opacity=rng.uniform(0.2, 0.6),
        edge=PATCH_EDGE,
    )


def _on_side(side: int, angle: float) -> float:
    """Return the angle as it is on the image's right (+1), or mirrored to its left (-1)."""
    return angle if side > 0 else np.pi - angle


DISEASES: dict[Label, Callable[[Generator, Body], tuple[Lesion, ...]]] = {
    Label.NORMAL: _healthy,
    Label.PNEUMONIA: _pneumonia,
    Label.COVID_19: _covid_19,
}
