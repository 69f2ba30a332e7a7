"""Vessels: a tree of arteries with bronchi, and one of veins, that fill each lung and are cut by each slice."""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.phantom.anatomy import LUNG_HEIGHT_MM, Body
from training.data.phantom.cavity import cavity_xy
from training.data.phantom.grid import Points

TREE_LEVELS = 10  # 2**10 twigs in each of four trees
ROOT_RADIUS_MM = 5.6
ROOT_X_MM = 26.0
ARTERY_ROOT, VEIN_ROOT = (2.0, 0.47), (12.0, 0.55)  # y in mm, z
MURRAY = 2.0 ** (-1 / 2.6)  # a daughter's radius by its mother's (Murray's law, exponent as measured in lungs)
THINNING = 0.9  # of the far half of a piece
LEAST_BRONCHUS_MM = 0.42  # thinner arteries have no bronchus that could be seen
TWIG_REACH = 0.8  # how far a last twig goes towards its target
BEND, WANDER = 0.12, 0.04  # of a piece's middle: along its mother's heading, and by chance
HILUM_X_MM = 20.0  # targets lie beyond it
LEAST_RISE_MM = 1e-3  # a level piece counts as rising so much, so that it can be cut


class Vessels(NamedTuple):
    """Straight pieces of vessel: start, end [n, 3] and radius [n] in mm; carries_air where a bronchus runs beside."""

    start: Points
    end: Points
    radius: Points
    carries_air: NDArray[np.bool_]

    def pick(self, chosen: NDArray[np.bool_]) -> "Vessels":
        return Vessels(self.start[chosen], self.end[chosen], self.radius[chosen], self.carries_air[chosen])

    def cut(self, z_mm: float, slab_mm: float) -> "Vessels":
        """Return what lies in the slab around z."""
        start, end, radius, air = self.pick(self._touch(z_mm, slab_mm))
        rise = end[:, 2] - start[:, 2]
        rise = np.where(np.abs(rise) < LEAST_RISE_MM, LEAST_RISE_MM, rise)
        a, b = (z_mm - slab_mm / 2 - start[:, 2]) / rise, (z_mm + slab_mm / 2 - start[:, 2]) / rise
        first, last = np.clip(np.minimum(a, b), 0, 1)[:, None], np.clip(np.maximum(a, b), 0, 1)[:, None]
        return Vessels(start + first * (end - start), start + last * (end - start), radius, air)

    def _touch(self, z_mm: float, slab_mm: float) -> NDArray[np.bool_]:
        low, high = np.minimum(self.start[:, 2], self.end[:, 2]), np.maximum(self.start[:, 2], self.end[:, 2])
        return (low < z_mm + slab_mm / 2 + self.radius / 2) & (high > z_mm - slab_mm / 2 - self.radius / 2)


def draw_vessels(rng: Generator, body: Body) -> Vessels:
    """Grow an artery tree (with bronchi) and a vein tree in each lung."""
    trees = [_grow(rng, body, side, artery) for side in (-1, 1) for artery in (True, False)]
    return Vessels(*(np.concatenate(parts) for parts in zip(*trees, strict=True)))


def _grow(rng: Generator, body: Body, side: int, artery: bool) -> Vessels:
    """Branch towards the centres of ever smaller halves of the lung (Tawhai et al. 2000, simplified)."""
    targets = _lung_points(rng, body, side, 2**TREE_LEVELS)[None]
    tip = _root(body, side, artery)
    heading = np.zeros_like(tip)
    pieces: list[tuple[Points, Points, Points]] = []
    for level in range(TREE_LEVELS + 1):
        middle, end = _next_piece(rng, tip, heading, targets, is_twig=level == TREE_LEVELS)
        radius = ROOT_RADIUS_MM * MURRAY**level * rng.uniform(0.8, 1.15, len(tip))
        pieces += [(tip, middle, radius), (middle, end, THINNING * radius)]
        if level < TREE_LEVELS:
            targets = _halve(rng, targets)
            tip, heading = np.repeat(end, 2, axis=0), np.repeat(end - middle, 2, axis=0)
    start, end, radius = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return Vessels(start, end, radius, (radius > LEAST_BRONCHUS_MM) & artery)


def _root(body: Body, side: int, artery: bool) -> Points:
    """Return the one point [1, 3] in the hilum where the tree begins."""
    y, z = ARTERY_ROOT if artery else VEIN_ROOT
    return np.array([[side * ROOT_X_MM * body.mediastinum, y, z * LUNG_HEIGHT_MM]])


def _next_piece(rng: Generator, tip: Points, heading: Points, targets: Points, is_twig: bool) -> tuple[Points, Points]:
    """Return the bent middle and the end [n, 3] of each tip's way towards the centre of its targets."""
    step = targets.mean(axis=1) - tip
    reach = TWIG_REACH if is_twig else rng.uniform(0.3, 0.5, (len(tip), 1))
    end = tip + reach * step
    middle = (tip + end) / 2 + BEND * heading + rng.normal(0, WANDER, tip.shape) * np.abs(step)
    return middle, end


def _lung_points(rng: Generator, body: Body, side: int, count: int) -> Points:
    """Return [count, 3] points spread evenly over one lung, up to just under the pleura."""
    z = rng.uniform(0.02, 1.0, count)
    angle, reach = rng.uniform(-np.pi / 2, np.pi / 2, count), np.sqrt(rng.uniform(0.02, 0.94, count))
    x, y = cavity_xy(body, angle, z)
    inner = HILUM_X_MM * body.mediastinum
    return np.column_stack([side * (inner + (np.abs(x) - inner).clip(0) * reach), y * reach, z * LUNG_HEIGHT_MM])


def _halve(rng: Generator, groups: Points) -> Points:
    """Split each of [n, m, 3] points across its longest direction, jittered, into [2 n, m / 2, 3]."""
    count, size, _ = groups.shape
    axis = groups.std(axis=1) ** 2 * rng.normal(1, 0.5, (count, 3))
    order = np.argsort(np.einsum("nmk,nk->nm", groups, axis), axis=1)
    return np.take_along_axis(groups, order[..., None], axis=1).reshape(2 * count, size // 2, 3)
