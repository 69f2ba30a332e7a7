"""Lungs in another body, as augmentation: what surrounds the lungs then says less of the class.

Sources that show lungs only hold other classes than those that show the whole body, so that a network learns "a body
around it: no pneumonia". Here a slice of lungs only is sometimes shown inside the body of another training slice, whose
own lungs are taken out. Pure arithmetic on prepared slices; nothing is learnt for it.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.lungs import Lungs, Region, lung_fields
from training.data.slices import Pixels
from training.model.preprocess import Box, Frame

_LEAST_LUNG_SHARE = 0.08
"""A slice of lungs only shows at least this share of its square; less is a table or a tip of a lung."""
_TRIES = 4
"""As many slices are looked at for a body; where there is none the slice stays as it is."""
_AIRED, _VESSEL, _TISSUE = 30, 99, 75
"""Percentiles: of aired lung and of its brightest vessels in the lungs, of soft tissue in the body."""
_LEAST_SPAN = 20.0
"""Grey levels between aired lung and tissue, at least; without them there is no scale to match."""
_GAINS = (0.5, 3.0)
_FILL_SHARE, _FILL_NOISE, _SEAM_PX = 0.95, 4.0, 1.2
"""What takes the place of the body's own lungs: a little below soft tissue, with noise, softly joined."""


class _Host(NamedTuple):
    """A body to put lungs into: the slice and its lungs' mask, both uint8 [256, 256]."""

    slice: Frame
    lungs: NDArray[np.uint8]


def exchanged(
    slices: NDArray[np.uint8], bodies: Pixels, chance: float, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the slices uint8 [n, 256, 256], of which those of lungs only lie with a chance (0..1) in a drawn body."""
    shown = slices.copy()
    for at in np.flatnonzero(generator.random(len(slices)) < chance):
        donor = lung_fields(slices[at])
        if donor.region is not Region.LUNGS_ONLY or donor.mask.mean() < _LEAST_LUNG_SHARE:
            continue
        host = _drawn_host(bodies, generator)
        if host is not None:
            shown[at] = in_body(slices[at], donor, host.slice, host.lungs, generator)
    return shown


def in_body(lungs: Frame, donor: Lungs, body: Frame, place: NDArray[np.uint8], generator: np.random.Generator) -> Frame:
    """Put a slice of lungs only into a body uint8 [256, 256], where its own lungs are (`place` is 1), in its greys."""
    to, by = _bounds(place), _bounds(donor.mask)
    size = (to.right - to.left, to.bottom - to.top)
    picture = cv2.resize(by.cut(lungs), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    opaque = cv2.resize(by.cut(donor.mask) * 255, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    aired = float(np.percentile(body[place > 0], _AIRED))
    tissue = max(float(np.percentile(body[(place == 0) & (body > 0)], _TISSUE)), aired + _LEAST_SPAN)
    fill = tissue * _FILL_SHARE + generator.normal(0, _FILL_NOISE, body.shape).astype(np.float32)
    seam = cv2.GaussianBlur(place.astype(np.float32), (0, 0), _SEAM_PX)
    canvas = body * (1 - seam) + fill * seam
    inside = to.cut(canvas)
    inside[:] = inside * (1 - opaque) + _in_greys(picture, lungs[donor.mask > 0], aired, tissue) * opaque
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _drawn_host(bodies: Pixels, generator: np.random.Generator) -> _Host | None:
    for at in generator.integers(len(bodies), size=_TRIES):
        body = bodies[np.array([at])][0]
        found = lung_fields(body)
        if found.region is Region.WHOLE_BODY:
            return _Host(body, found.mask)
    return None


def _in_greys(
    picture: NDArray[np.float32], lung: NDArray[np.uint8], aired: float, tissue: float
) -> NDArray[np.float32]:
    """Scale greys such that aired lung and the brightest vessels become the body's aired lung and soft tissue."""
    low, high = np.percentile(lung, (_AIRED, _VESSEL))
    gain = np.clip((tissue - aired) / max(high - low, _LEAST_SPAN), *_GAINS)
    matched: NDArray[np.float32] = (picture - np.float32(low)) * np.float32(gain) + np.float32(aired)
    return matched.clip(0, 255)


def _bounds(mask: NDArray[np.uint8]) -> Box:
    left, top, width, height = cv2.boundingRect(mask)
    return Box(top, left, top + height, left + width)
