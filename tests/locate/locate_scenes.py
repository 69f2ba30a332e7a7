"""Small drawn scenes: a slice on a page, seen by a pinhole camera, with a little blur and noise.

The simulator of training is the benchmark; these are only as real as a named case needs.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.labels import LABELS
from training.data.phantom import SITES, render_slice

Image = NDArray[np.uint8]
Quad = NDArray[np.float32]

FRAME_SIZE = (720, 1280)
BLUR_SIGMA_PX, NOISE = 0.8, 2.0
_SAMPLES = 2
"""A pixel and side, so that nothing aliases."""


@dataclass(frozen=True)
class Scene:
    """A frame uint8 [720, 1280, 3], and where its slice is."""

    frame: Image
    quad: Quad


def phantom(patient: int = 0, site: str = "site-a", z: float = 0.5) -> Image:
    """Return a phantom slice uint8 [512, 512]; site-a fills its square, site-b has a round field of view."""
    return render_slice(seed=11, site=SITES[site], label=LABELS[patient % len(LABELS)], patient=patient, z=z)


def square(side_px: float = 480, centre: tuple[float, float] = (640, 360), turn_deg: float = 0.0) -> Quad:
    """Return a square outline, turned clockwise."""
    angle = np.deg2rad(turn_deg)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side_px / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (corners @ turn + centre).astype(np.float32)


def tilted() -> Quad:
    """Return a square's outline as a camera sees it from the side and a little from above."""
    return np.array([[420, 132], [868, 104], [892, 606], [398, 560]], np.float32)


def shown(page: tuple[Image, Quad], quad: Quad, *, surroundings: int = 70, seed: int = 0) -> Scene:
    """Photograph a page so that its slice comes to lie on the quad."""
    height, width = FRAME_SIZE
    matrix = cv2.getPerspectiveTransform(page[1], ((quad + 0.5) * _SAMPLES - 0.5).astype(np.float32))
    size = (width * _SAMPLES, height * _SAMPLES)
    fine = cv2.warpPerspective(page[0], matrix, size, borderValue=(surroundings,) * 3)
    return Scene(photographed(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA), seed), quad)


def photographed(seen: Image, seed: int = 0) -> Image:
    """Blur a little and add noise."""
    noise = np.random.default_rng(seed).normal(0, NOISE, seen.shape)
    return np.clip(cv2.GaussianBlur(seen, (0, 0), BLUR_SIGMA_PX) + noise, 0, 255).astype(np.uint8)


def bordered(slice_: Image, *rings: tuple[int, int]) -> tuple[Image, Quad]:
    """Put rings of (grey, width in pixels) around the slice, the innermost first; return page and slice corners."""
    page, at = slice_, 0
    for grey, width in rings:
        page = np.pad(page, width, constant_values=grey)
        at += width
    return cv2.cvtColor(page, cv2.COLOR_GRAY2BGR), corners_at(slice_.shape, at, at)


def white_page(slice_: Image) -> tuple[Image, Quad]:
    """Lay the slice on a white page."""
    return bordered(slice_, (240, 150))


def our_page(slice_: Image) -> tuple[Image, Quad]:
    """Lay the slice on our own page: white, with a thin black frame around the slice."""
    return bordered(slice_, (0, 5), (245, 150))


def viewer(slice_: Image, border: int) -> tuple[Image, Quad]:
    """Show the slice in a window with a border of this grey, on a desktop inside a dark bezel."""
    return bordered(slice_, (border, 60), (200, 24), (90, 40), (14, 40))


def corners_at(shape: tuple[int, ...], left: float, top: float) -> Quad:
    """Return the outline of a picture of this shape whose first pixel lies there."""
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return (unit * (shape[1], shape[0]) + (left - 0.5, top - 0.5)).astype(np.float32)


def overlap(first: Quad, second: Quad) -> float:
    """Return the intersection over union of two convex outlines."""
    both, _ = cv2.intersectConvexConvex(first.astype(np.float32), second.astype(np.float32))
    return both / (cv2.contourArea(first) + cv2.contourArea(second) - both)
