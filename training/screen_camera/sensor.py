"""The sensor: light becomes raw values, through exposure, colour filters, photons, electronics and a full well."""

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.screen_camera.display import Light

Raw = NDArray[np.uint16]
"""Raw values [height, width, 3]; 65535 is a full well."""

FULL = 65535
_QUANTILES = 65536


class Site(NamedTuple):
    """The places in the frame of the pixels under one colour filter (0 blue, 1 green, 2 red)."""

    channel: int
    rows: slice
    columns: slice


@dataclass(frozen=True)
class Bayer:
    """Colour filters: the channel (0 blue, 1 green, 2 red) of each place of a 2x2 cell, row by row."""

    cell: tuple[int, int, int, int]
    edge_aware: bool = False


@dataclass(frozen=True)
class Noise:
    """A full well's electrons (fewer are noisier), the reading's sigma, and that of whole rows, as parts of white."""

    electrons: float
    read: float
    row: float = 0.0


CELLS = ((0, 1, 1, 2), (2, 1, 1, 0), (1, 0, 2, 1), (1, 2, 0, 1))
_DEMOSAIC = {  # OpenCV names a pattern by the second row's second and third place
    CELLS[0]: (cv2.COLOR_BayerRG2BGR, cv2.COLOR_BayerRG2BGR_EA),
    CELLS[1]: (cv2.COLOR_BayerBG2BGR, cv2.COLOR_BayerBG2BGR_EA),
    CELLS[2]: (cv2.COLOR_BayerGR2BGR, cv2.COLOR_BayerGR2BGR_EA),
    CELLS[3]: (cv2.COLOR_BayerGB2BGR, cv2.COLOR_BayerGB2BGR_EA),
}


def sites_of(bayer: Bayer | None) -> tuple[Site, ...]:
    """Return the places of each plane of pixels under the same filter: four in a mosaic, three without one."""
    if bayer is None:
        return tuple(Site(channel, slice(None), slice(None)) for channel in range(3))
    corners = [(row, column) for row in (0, 1) for column in (0, 1)]
    return tuple(
        Site(channel, slice(row, None, 2), slice(column, None, 2))
        for channel, (row, column) in zip(bayer.cell, corners, strict=True)
    )


def gathered(light: Light, sites: tuple[Site, ...]) -> Light:
    """Return the light float32 [height, width, 3] that falls through the filters, as planes [site, rows, columns]."""
    return np.stack([light[site.rows, site.columns, site.channel] for site in sites])


def raw_values(
    planes: Light, gains: tuple[float, float, float], bayer: Bayer | None, noise: Noise | None, rng: Generator
) -> Raw:
    """Return the raw values of the light on the sensor's planes, white-balanced by the gains (BGR) and demosaiced."""
    sites = sites_of(bayer)
    values = [
        _counted(plane if noise is None else _noisy(plane, noise, rng), gains[site.channel])
        for plane, site in zip(planes, sites, strict=True)
    ]
    if bayer is None:
        return np.asarray(cv2.merge(values), np.uint16)
    mosaic = np.empty((2 * planes.shape[1], 2 * planes.shape[2]), np.uint16)
    for value, site in zip(values, sites, strict=True):
        mosaic[site.rows, site.columns] = value
    return np.asarray(cv2.demosaicing(mosaic, _DEMOSAIC[bayer.cell][bayer.edge_aware]), np.uint16)


def _noisy(plane: Light, noise: Noise, rng: Generator) -> Light:
    """Add shot noise (its variance grows with the light), reading noise, and a value for each row."""
    sigma = np.maximum(plane, 0)
    sigma *= np.float32(1 / noise.electrons)
    sigma += np.float32(noise.read**2)
    np.sqrt(sigma, out=sigma)
    sigma *= _normal(plane.shape, rng)
    sigma += plane
    if noise.row:
        sigma += np.float32(noise.row) * _normal((len(plane), 1), rng)
    return sigma


def _counted(plane: Light, gain: float) -> NDArray[np.uint16]:
    """Return the raw values of a plane: a full well cuts before the gain, the range of values after it."""
    seen = np.clip(plane, 0, 1)
    seen *= np.float32(gain * FULL)
    seen += np.float32(0.5)
    return np.minimum(seen, np.float32(FULL), out=seen).astype(np.uint16)


def _normal(shape: tuple[int, ...], rng: Generator) -> Light:
    """Draw from the normal distribution by its quantiles: twice as fast as numpy's, and cut at 4.3 sigma."""
    drawn = rng.integers(0, _QUANTILES, shape, np.uint16)
    return np.asarray(_quantiles()[drawn], np.float32)


@cache
def _quantiles() -> Light:
    inverse = NormalDist().inv_cdf
    return np.array([inverse((i + 0.5) / _QUANTILES) for i in range(_QUANTILES)], np.float32)
