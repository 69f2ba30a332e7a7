"""Quality: whether a frame and its rectified slice are good enough to be read, as measures and as refusals."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from edge_agent.light import LIGHT_OF_CODE, Grey, Picture
from edge_agent.photometry.margin import margin_px
from edge_agent.refusal import Refusal, Side

Mask = NDArray[np.bool_]

SIDE_PX = 256
"""Measures are taken on a slice of this side, as networks see it."""

_FINE_SIGMA, _COARSE_SIGMA = 0.8, 2.0
"""Pixels of two smoothings; how much steeper an edge is after the finer one tells its own blur."""
_DIRECTIONS, _LEAST_EDGES, _MOST_EDGES = 4, 20, 60
"""Motion blurs the edges of one direction only; each direction is judged by so many edge pixels, its steepest."""
_LEAST_SLOPE, _EDGE_MARGIN_PX = 1.0, 6
"""Grey levels per pixel; and how far from the slice's own outline edges are looked for."""
MOST_BLUR = 8.0
"""Where edges are softer, or no direction has enough of them, the blur is given as this."""
_CLIPPED_GREY, _DARK_GREY, _LEAST_LIGHT = 250, 96, 0.05
_BRIGHTEST_PERCENT, _FRAME_BRIGHTEST_PERCENT = 99.5, 99.9
_MOST_SLOPE = 6.0
"""Grey levels per pixel: glare rises more slowly, the edges of tissue faster."""
_GLARE_RISE = 0.4
"""Light, of white, by which glare lifts a part of a region that has no edge inside."""
_LEAST_REGION, _BRIDGE_PX, _RIM_PX, _DARK_PERCENT = 0.01, 5, 3, 5
_AROUND_PX, _SOFT_SIGMA, _CORE = 25, 14.0, 0.7
"""Pixels around the mask, pixels of smoothing, and the share of the brightest that counts as the reflection's core."""
_OFF_MIDDLE = 0.12
"""Of the side: nearer to the middle glare is in the middle."""
_SPARSE = 4


@dataclass(frozen=True)
class SliceQuality:
    """What was measured on a slice; greys are 0..255, shares 0..1 of the slice's area."""

    outline_score: float
    """How sure the outline is, 0..1."""
    side_px: float
    """Side of a square as large as the quad, in the frame's pixels."""
    border_px: float
    """From the quad to the frame's border; negative outside."""
    blur: float
    """Sigma of the blur of edges, in 256ths of the slice's side, in the direction where it is worst."""
    brightest: float
    """Grey that hardly a pixel of the slice exceeds."""
    clipped_share: float
    """White that has lost what was in it, of all that is not dark."""
    glare_share: float
    """Lifted by light that rises without an edge."""
    glare_side: Side | None
    """Where that is; None without any."""


@dataclass(frozen=True)
class Quality:
    """What was measured on a frame: the grey 0..255 that hardly a pixel exceeds, and the slice where one was found."""

    frame_brightest: float
    slice_quality: SliceQuality | None = None


class QualityLimits(BaseModel):
    """From where a frame is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_frame_grey: float = Field(default=24, ge=0, le=255)
    """A frame without a brighter grey (0..255) comes from a covered or failing camera."""
    min_outline_score: float = Field(default=0.45, ge=0, le=1)
    """How sure the outline must be."""
    min_border_px: float = Field(default=1.0)
    """The least distance of the outline from the frame's border, in pixels."""
    min_side_px: float = Field(default=180, gt=0)
    """Side of a square as large as the slice in the frame, in pixels."""
    max_blur: float = Field(default=2.7, gt=0)
    """The most blur of edges (sigma), in 256ths of the slice's side."""
    min_brightest_grey: float = Field(default=60, ge=0, le=255)
    """A slice without a brighter grey (0..255) is too dark."""
    max_clipped_share: float = Field(default=0.45, ge=0, le=1)
    """The most of what is not dark in a slice that may be clipped to white."""
    max_glare_share: float = Field(default=0.06, ge=0, le=1)
    """The most of the slice that may be under strong glare."""


def measure(
    frame: Picture,
    quad: NDArray[np.float32] | None,
    outline_score: float,
    rectified: Picture | None,
    *,
    margin: float = 0.0,
) -> Quality:
    """Measure a frame uint8 [height, width, 3] BGR and the slice in it, rectified to uint8 [s, s, 3].

    `margin` is that of the rectified picture, as a share of the slice's side. Without a slice, both are None.
    """
    sparse = np.ascontiguousarray(frame[::_SPARSE, ::_SPARSE])
    brightest = float(np.percentile(cv2.cvtColor(sparse, cv2.COLOR_BGR2GRAY), _FRAME_BRIGHTEST_PERCENT))
    if quad is None or rectified is None:
        return Quality(brightest)
    grey = _slice_grey(rectified, margin)
    glare = glare_mask(grey)
    found = SliceQuality(
        outline_score=outline_score,
        side_px=float(np.sqrt(cv2.contourArea(np.asarray(quad, np.float32)))),
        border_px=_border_px(quad, frame.shape[:2]),
        blur=blur_of_edges(grey),
        brightest=float(np.percentile(grey, _BRIGHTEST_PERCENT)),
        clipped_share=float((grey >= _CLIPPED_GREY).sum() / max((grey > _DARK_GREY).sum(), _LEAST_LIGHT * grey.size)),
        glare_share=float(glare.mean()),
        glare_side=side_of(glare, grey),
    )
    return Quality(brightest, found)


def judge(facts: Quality, limits: QualityLimits) -> tuple[Refusal, ...]:
    """Return why the frame must not be read, the reason to tell the person first; empty when it may be read."""
    if facts.frame_brightest < limits.min_frame_grey:
        return (Refusal.BLACK_FRAME,)
    seen = facts.slice_quality
    if seen is None:
        return (Refusal.NO_SLICE,)
    is_sharp = seen.blur <= limits.max_blur
    refused = {
        Refusal.CUT_BY_FRAME: seen.border_px < limits.min_border_px,
        Refusal.UNSURE_OUTLINE: seen.outline_score < limits.min_outline_score,
        Refusal.TOO_SMALL: seen.side_px < limits.min_side_px,
        Refusal.TOO_DARK: seen.brightest < limits.min_brightest_grey,
        Refusal.CLIPPED: seen.clipped_share > limits.max_clipped_share,
        Refusal.NOT_SHARP: not is_sharp,
        Refusal.GLARE: is_sharp and seen.glare_share > limits.max_glare_share,  # blurred tissue has no edges either
    }
    return tuple(refusal for refusal, holds in refused.items() if holds)


def blur_of_edges(grey: Grey) -> float:
    """Return the sigma, in pixels, of the blur of the steepest edges of a slice uint8 [256, 256].

    A step that was blurred by sigma b, and once more by a or c, is sqrt((b² + c²) / (b² + a²)) times steeper after a
    than after c. Noise and contrast drop out, since both smoothings see the same edge. The worst direction counts.
    """
    fine, coarse = (_slopes(cv2.GaussianBlur(grey, (0, 0), sigma)) for sigma in (_FINE_SIGMA, _COARSE_SIGMA))
    rows, columns = np.nonzero(_crests(np.square(coarse).sum(0)))
    fine, coarse = fine[:, rows, columns], coarse[:, rows, columns]
    squared = np.square(coarse).sum(0)
    steeper = (fine * coarse).sum(0) / squared
    direction = np.rint(np.arctan2(coarse[1], coarse[0]) / np.pi * _DIRECTIONS).astype(int) % _DIRECTIONS
    sigmas = [_sigma_along(steeper, squared, direction == n) for n in range(_DIRECTIONS)]
    return max((sigma for sigma in sigmas if sigma is not None), default=MOST_BLUR)


def glare_mask(grey: Grey) -> Mask:
    """Return where a slice uint8 [256, 256] is under strong glare.

    Glare brightens a part of a region without an edge; tissue that is much brighter than its neighbour has one.
    """
    soft = cv2.blur(grey, (3, 3))
    smooth = (cv2.magnitude(*_slopes(soft)) < _MOST_SLOPE).astype(np.uint8)
    smooth[:_RIM_PX] = smooth[-_RIM_PX:] = 0
    smooth[:, :_RIM_PX] = smooth[:, -_RIM_PX:] = 0
    smooth = np.asarray(cv2.morphologyEx(smooth, cv2.MORPH_OPEN, np.ones((_BRIDGE_PX, _BRIDGE_PX), np.uint8)), np.uint8)
    _, part, boxes, _ = cv2.connectedComponentsWithStats(smooth, connectivity=4)
    light = LIGHT_OF_CODE[soft]
    glare = np.zeros(grey.shape, np.bool_)
    for region in np.flatnonzero(boxes[:, cv2.CC_STAT_AREA] >= _LEAST_REGION * grey.size):
        if region:
            inside = part == region
            glare |= inside & (light > np.percentile(light[inside], _DARK_PERCENT) + _GLARE_RISE)
    return glare


def side_of(glare: Mask, grey: Grey) -> Side | None:
    """Return on which side of a slice uint8 [256, 256] glare lies; None where there is none.

    That is the middle of the brightest light in and around it: the mask alone leaves out what it does to bright tissue.
    """
    if not glare.any():
        return None
    near = cv2.dilate(glare.astype(np.uint8), np.ones((_AROUND_PX, _AROUND_PX), np.uint8))
    light = cv2.GaussianBlur(LIGHT_OF_CODE[grey], (0, 0), _SOFT_SIGMA) * near
    weight = np.maximum(light - _CORE * light.max(), 0)
    steps = np.linspace(-0.5, 0.5, len(grey))
    down, right = (float(weight.sum(axis) @ steps / weight.sum()) for axis in (1, 0))
    if max(abs(down), abs(right)) < _OFF_MIDDLE:
        return Side.MIDDLE
    if abs(right) >= abs(down):
        return Side.RIGHT if right > 0 else Side.LEFT
    return Side.BOTTOM if down > 0 else Side.TOP


def _slice_grey(rectified: Picture, margin: float) -> Grey:
    edge = margin_px(rectified.shape[0], margin)
    inside = rectified[edge : rectified.shape[0] - edge, edge : rectified.shape[1] - edge]
    grey = cv2.cvtColor(inside, cv2.COLOR_BGR2GRAY)
    if grey.shape != (SIDE_PX, SIDE_PX):
        grey = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def _border_px(quad: NDArray[np.float32], frame_size: tuple[int, int]) -> float:
    height, width = frame_size
    x, y = quad[:, 0], quad[:, 1]
    return float(min(x.min(), y.min(), width - 1 - x.max(), height - 1 - y.max()))


def _slopes(grey: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the slopes to the right and down, in grey levels per pixel, [2, h, w]."""
    picture = np.asarray(grey)
    return np.stack([cv2.Sobel(picture, cv2.CV_32F, *way, scale=1 / 8) for way in ((1, 0), (0, 1))])


def _crests(squared: NDArray[np.float32]) -> Mask:
    """Return the pixels along the middle of edges, away from the slice's own outline."""
    inner = np.zeros_like(squared)
    within = slice(_EDGE_MARGIN_PX, -_EDGE_MARGIN_PX)
    inner[within, within] = squared[within, within]
    crest = inner >= 0.98 * cv2.dilate(inner, np.ones((3, 3), np.uint8))
    return np.asarray(crest & (inner > _LEAST_SLOPE**2), np.bool_)


def _sigma_along(steeper: NDArray[np.float32], squared: NDArray[np.float32], chosen: Mask) -> float | None:
    """Return the blur of one direction's steepest edges; None where it has too few to tell."""
    places = np.flatnonzero(chosen)
    if len(places) < _LEAST_EDGES:
        return None
    steepest = places[np.argsort(squared[places])[-_MOST_EDGES:]]
    return _sigma(float(np.median(steeper[steepest])))


def _sigma(steeper: float) -> float:
    if steeper <= 1:
        return MOST_BLUR
    squared = (_COARSE_SIGMA**2 - (steeper * _FINE_SIGMA) ** 2) / (steeper**2 - 1)
    return float(min(np.sqrt(max(squared, 0.0)), MOST_BLUR))
