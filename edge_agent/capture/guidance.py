"""Tell the person with the camera what to do next, in one sentence, by what a frame shows: pure functions."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.capture.located import Located
from edge_agent.refusal import Refusal, Side, sentence

READY = "Good: hold still, or press Enter."
MOVING = "Hold still."
STRAIGHT = "Hold the camera straight in front of the slice: its outline is askew."
CUT = {
    Side.TOP: "The picture is cut at the top: move the camera up, or back.",
    Side.BOTTOM: "The picture is cut at the bottom: move the camera down, or back.",
    Side.LEFT: "The picture is cut on the left: move the camera to the left, or back.",
    Side.RIGHT: "The picture is cut on the right: move the camera to the right, or back.",
}
CUT_TWICE = "The picture is cut on two sides: move the camera back."

DARK_MEAN = 35.0
"""Grey levels: a slice on a dim monitor still has about 60 in its middle."""
CLIPPED_LEVEL = 250
BRIGHT_SHARE = 0.5
"""Of the slice's area; no window leaves half of a chest white."""
LEAST_SHARPNESS = 0.3
"""Measured on phantom slices of 560 px (simulated): a blur of sigma 1 px leaves 0.41, 2 px 0.35, 3 px 0.29, 5 px 0.2,
with or without noise; a sigma of 2 px there is 0.9 px of what the network sees."""
LEAST_SIDE_PX = 300
LEAST_SIDE_SHARE = 0.4
"""Of the frame's height."""
LEAST_SIDES_RATIO = 0.8
"""Of opposite sides: what is less is seen from so far aside that its far half is blurred."""
MOVED_SHARE = 0.02
"""As in WebcamSettings."""
_EDGE_PX = 3
_GLARE_SHARE = 0.012
"""Of the slice's area."""
_SOFT_LEVEL, _SOFT_SHARE = 170, 0.5
"""Around glare at least half is still this bright: it fades out."""
_DARK_LEVEL, _DARK_SHARE = 130, 0.3
"""Opposite to glare some of the chest is darker than this: a chest is about the same on both sides."""
_LEAST_STEP = 4.0
"""Grey levels: smaller steps are noise."""
_WORK_PX = 320


@dataclass(frozen=True)
class Facts:
    """What a frame shows; brightness in grey levels of 255, shares and sharpness in 0..1, the quad in pixels."""

    width: int
    height: int
    quad: NDArray[np.float32] | None
    is_located: bool
    score: float
    reason: str
    brightness: float
    clipped_share: float
    sharpness: float
    glare: Side | None


def facts_of(pixels: NDArray[np.uint8], location: Located | None) -> Facts:
    """Measure a frame uint8 [height, width, 3]: within the slice's outline, or all of it where there is none."""
    height, width = pixels.shape[:2]
    quad = location.quad if location is not None else None
    area = _area(pixels, quad)
    grey = cv2.cvtColor(area, cv2.COLOR_BGR2GRAY)
    return Facts(
        width=width,
        height=height,
        quad=quad,
        is_located=location is not None,
        score=location.score if location is not None else 0.0,
        reason=str(location.reason) if location is not None else "",
        brightness=float(grey.mean()),
        clipped_share=float((grey >= CLIPPED_LEVEL).mean()),
        sharpness=sharpness(np.asarray(grey, np.uint8)),
        glare=glare_at(np.asarray(grey, np.uint8)),
    )


def guide(facts: Facts, moved_share: float = 0.0) -> str:
    """Return the sentence for the person: the first thing that stands in the way.

    `moved_share` is the way of the slice's corners since the last look, as a share of its side.
    """
    if facts.quad is None and facts.brightness < DARK_MEAN:
        return sentence(Refusal.TOO_DARK)
    if facts.quad is None and facts.is_located:
        return sentence(_refusal(facts.reason), facts.glare if facts.reason == Refusal.GLARE else None)
    if facts.quad is not None and (outline := _outline(facts, facts.quad)):
        return outline
    if facts.brightness < DARK_MEAN:
        return sentence(Refusal.TOO_DARK)
    if facts.glare is not None:
        return sentence(Refusal.GLARE, facts.glare)
    if moved_share > MOVED_SHARE:
        return MOVING
    if facts.sharpness < LEAST_SHARPNESS:
        return sentence(Refusal.NOT_SHARP)
    if facts.clipped_share > BRIGHT_SHARE:
        return sentence(Refusal.CLIPPED)
    return READY


def cut_sides(quad: NDArray[np.float32], width: int, height: int) -> tuple[Side, ...]:
    """Return the frame's sides that a quad float32 [4, 2] touches or crosses."""
    left, top = quad.min(axis=0)
    right, bottom = quad.max(axis=0)
    touched = {
        Side.TOP: top < _EDGE_PX,
        Side.BOTTOM: bottom > height - 1 - _EDGE_PX,
        Side.LEFT: left < _EDGE_PX,
        Side.RIGHT: right > width - 1 - _EDGE_PX,
    }
    return tuple(side for side, is_cut in touched.items() if is_cut)


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Return about 0 (blurred) to 0.5 (sharp) for uint8 [height, width]: how much of its steps a blur takes away.

    By Crete et al., "The blur effect" (SPIE 6492, 2007), at half the size and without the smallest steps, since noise
    looks sharp.
    """
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(half, (3, 3), 0).astype(np.float32)
    return min(_lost_steps(smooth), _lost_steps(np.ascontiguousarray(smooth.T)))


def glare_at(grey: NDArray[np.uint8]) -> Side | None:
    """Tell where a lamp or window is mirrored in a chest slice uint8 [height, width]; a hint, no measurement.

    It is a white spot that fades out softly, while the chest's other side is dark there. Glare in the middle is not
    told from tissue that the camera shows too bright.
    """
    scale = min(1.0, _WORK_PX / max(grey.shape))
    small = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    _, spots, stats, centres = cv2.connectedComponentsWithStats((small >= CLIPPED_LEVEL).astype(np.uint8))
    sizes = stats[1:, cv2.CC_STAT_AREA]
    for index in np.argsort(-sizes):
        if sizes[index] < _GLARE_SHARE * small.size:
            break
        spot = spots == index + 1
        if _fades(small, spot) and _is_one_sided(small, spot):
            x, y = centres[index + 1] / (small.shape[1], small.shape[0])
            return _side_of(float(x), float(y))
    return None


def _outline(facts: Facts, quad: NDArray[np.float32]) -> str:
    """Say what is wrong with where the slice lies; empty when nothing is."""
    cut = cut_sides(quad, facts.width, facts.height)
    if cut:
        return CUT[cut[0]] if len(cut) == 1 else CUT_TWICE
    sides = np.linalg.norm(quad - np.roll(quad, -1, axis=0), axis=1)
    if sides.mean() < max(LEAST_SIDE_PX, LEAST_SIDE_SHARE * facts.height):
        return sentence(Refusal.TOO_SMALL)
    ratios = (min(sides[0], sides[2]) / max(sides[0], sides[2]), min(sides[1], sides[3]) / max(sides[1], sides[3]))
    return STRAIGHT if min(ratios) < LEAST_SIDES_RATIO else ""


def _refusal(reason: str) -> Refusal:
    return Refusal(reason) if reason in set(Refusal) else Refusal.NO_SLICE


def _area(pixels: NDArray[np.uint8], quad: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """Cut the largest upright rectangle that lies surely within the quad."""
    if quad is None:
        return pixels
    xs, ys = np.sort(quad[:, 0]), np.sort(quad[:, 1])
    height, width = pixels.shape[:2]
    left, right = np.clip((xs[1], xs[2]), 0, width).astype(int)
    top, bottom = np.clip((ys[1], ys[2]), 0, height).astype(int)
    inside = pixels[top:bottom, left:right]
    return inside if min(inside.shape[:2]) >= 2 else pixels


def _lost_steps(smooth: NDArray[np.float32]) -> float:
    """Return which share of the steps along the rows a blur of 7 pixels takes away."""
    blurred = cv2.blur(smooth, (7, 1))
    steps, left = np.abs(np.diff(smooth, axis=1)), np.abs(np.diff(blurred, axis=1))
    counted = steps >= _LEAST_STEP
    return float(np.maximum(steps - left, 0)[counted].sum() / max(steps[counted].sum(), 1.0))


def _fades(grey: NDArray[np.uint8], spot: NDArray[np.bool_]) -> bool:
    inner = cv2.dilate(spot.astype(np.uint8), np.ones((3, 3), np.uint8))
    rim = cv2.dilate(inner, np.ones((7, 7), np.uint8)) > inner
    return bool(rim.any() and (grey[rim] >= _SOFT_LEVEL).mean() >= _SOFT_SHARE)


def _is_one_sided(grey: NDArray[np.uint8], spot: NDArray[np.bool_]) -> bool:
    opposite = cv2.blur(np.ascontiguousarray(grey[:, ::-1]), (15, 15))
    return bool((opposite[spot] < _DARK_LEVEL).mean() >= _DARK_SHARE)


def _side_of(x: float, y: float) -> Side:
    """Name the place of a point in the unit square."""
    if max(abs(x - 0.5), abs(y - 0.5)) < 0.2:
        return Side.MIDDLE
    if abs(x - 0.5) >= abs(y - 0.5):
        return Side.LEFT if x < 0.5 else Side.RIGHT
    return Side.TOP if y < 0.5 else Side.BOTTOM
