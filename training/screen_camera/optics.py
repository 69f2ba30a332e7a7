"""The lens: how it blurs and darkens, what is mirrored in the screen."""

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from training.screen_camera.display import Light

Kernel = NDArray[np.float32]
"""[odd, odd], sums to 1."""
Field = NDArray[np.floating]
"""[rows, columns] over the frame."""

_FINE = 8
"""A spread function is drawn so many times finer than pixels, then gathered by them."""
_FIELD_STEP_PX = 8
"""Smooth fields are drawn at every eighth pixel."""


class Spread(StrEnum):
    """The shape of a point out of focus."""

    GAUSSIAN = "Gaussian"
    DISC = "disc"
    ASTIGMATIC = "astigmatic"
    HEXAGON = "hexagon"
    HALO = "halo"


class Mirrored(StrEnum):
    """What a screen mirrors."""

    BLOB = "blob"
    STRIP = "strip"
    WINDOW = "window"
    LAMP = "lamp"
    HAZE = "haze"


@dataclass(frozen=True)
class Blur:
    """Lens blur (`sigma_px`: the standard deviation along an axis) and a straight motion, in the frame's pixels."""

    spread: Spread = Spread.GAUSSIAN
    sigma_px: float = 0.0
    angle: float = 0.0
    motion_px: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Vignette:
    """The light lost at the corners, where the middle is (frame widths from the centre), and by which law.

    By the fourth power of the angle's cosine, or falling with the squared radius. `slope` is the gain across a frame's
    width, along x and y: a screen is darker where it is seen at a flatter angle.
    """

    loss: float
    centre: tuple[float, float]
    by_cosine: bool
    slope: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Reflection:
    """One glare: centre and half sizes in frame widths, turn in radians, peak light, softness, colour (BGR)."""

    shape: Mirrored
    centre: tuple[float, float]
    half: tuple[float, float]
    turn: float
    peak: float
    softness: float
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)


def blur_kernel(blur: Blur) -> Kernel | None:
    """Return the kernel of lens and motion together; None where nothing blurs visibly."""
    reach = 3 * blur.sigma_px + max(abs(step) for step in blur.motion_px) / 2
    if reach < 0.3:
        return None
    size = 2 * int(np.ceil(reach)) + 1
    fine = _spread(blur, size * _FINE)
    moved = cv2.filter2D(fine, -1, _motion_line(blur.motion_px), borderType=cv2.BORDER_CONSTANT)
    kernel = cv2.resize(moved, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(kernel / kernel.sum(), np.float32)


def blurred(light: Light, kernel: Kernel | None) -> Light:
    """Return what arrives at the sensor of light that a point spreads over a kernel."""
    if kernel is None:
        return light
    return np.asarray(cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32)


def vignette_field(size: tuple[int, int], shape: tuple[int, int], vignette: Vignette) -> Light:
    """Return the share of the light that reaches each of a plane's pixels float32 [rows, columns]; 1 in the middle."""
    x, y = _field_grid(size)
    dx, dy = x - vignette.centre[0], y - vignette.centre[1]
    squared = (dx * dx + dy * dy) / (0.25 * (1 + (size[0] / size[1]) ** 2))
    loss = vignette.loss
    field = (1 + ((1 - loss) ** -0.5 - 1) * squared) ** -2 if vignette.by_cosine else 1 - loss * squared
    field = field * (1 + vignette.slope[0] * x + vignette.slope[1] * y)
    return _enlarged(np.maximum(field, 0).astype(np.float32), size, shape)


def glare_field(size: tuple[int, int], shape: tuple[int, int], reflections: tuple[Reflection, ...]) -> Light:
    """Return the light that reflections add on a plane's pixels float32 [rows, columns, 3]."""
    x, y = _field_grid(size)
    total = np.zeros((*x.shape, 3), np.float32)
    for glare in reflections:
        cos, sin = np.cos(glare.turn), np.sin(glare.turn)
        dx, dy = x - glare.centre[0], y - glare.centre[1]
        across = (cos * dx + sin * dy) / glare.half[0], (cos * dy - sin * dx) / glare.half[1]
        shape_of = _SHAPES[glare.shape](*across, glare.softness)
        total += shape_of[..., None] * np.array(glare.colour, np.float32) * np.float32(glare.peak)
    return _enlarged(total, size, shape)


def _spread(blur: Blur, size: int) -> Kernel:
    x, y = np.meshgrid(*(2 * [(np.arange(size) - (size - 1) / 2) / _FINE]))
    sigma = max(blur.sigma_px, 0.5 / _FINE)
    cos, sin = np.cos(blur.angle), np.sin(blur.angle)
    along, across = (cos * x + sin * y) / sigma, (cos * y - sin * x) / sigma
    squared = along**2 + across**2
    match blur.spread:
        case Spread.GAUSSIAN:
            seen = np.exp(-squared / 2)
        case Spread.DISC:
            seen = (squared <= 4).astype(np.float64)  # a disc's standard deviation along an axis is half its radius
        case Spread.ASTIGMATIC:
            seen = np.exp(-(along**2 / 1.35**2 + across**2 / 0.65**2) / 2)
        case Spread.HEXAGON:
            turns = np.arange(3) * np.pi / 3
            seen = np.max([np.abs(along * np.cos(t) + across * np.sin(t)) for t in turns], axis=0) <= 1.9
        case Spread.HALO:
            seen = 0.8 * np.exp(-squared / (2 * 0.6**2)) / 0.6**2 + 0.2 * np.exp(-squared / (2 * 1.7**2)) / 1.7**2
    return np.asarray(seen / np.sum(seen), np.float32)


def _motion_line(motion_px: tuple[float, float]) -> Kernel:
    dx, dy = motion_px[0] * _FINE / 2, motion_px[1] * _FINE / 2
    reach = int(np.ceil(max(abs(dx), abs(dy))))
    line = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    start, end = (round(reach - dx), round(reach - dy)), (round(reach + dx), round(reach + dy))
    cv2.line(line, start, end, 255, 1, cv2.LINE_8)
    return np.asarray(line / line.sum(dtype=np.float64), np.float32)


def _blob(u: Field, v: Field, _softness: float) -> Field:
    return np.exp(-(u * u + v * v) / 2)


def _box(u: Field, v: Field, softness: float) -> Field:
    return _soft_step(1 - np.abs(u), softness) * _soft_step(1 - np.abs(v), softness)


def _window(u: Field, v: Field, softness: float) -> Field:
    bars = np.minimum(np.abs(u), np.abs(v) * 1.3)
    return _box(u, v, softness) * (0.25 + 0.75 * _soft_step(bars - 0.1, softness))


def _lamp(u: Field, v: Field, softness: float) -> Field:
    radius = np.sqrt(u * u + v * v)
    return _soft_step(1 - radius, softness) + 0.25 * np.exp(-radius)


def _haze(u: Field, v: Field, _softness: float) -> Field:
    return np.clip(0.6 + 0.4 * u + 0.2 * v, 0, 1)


def _soft_step(inside: Field, softness: float) -> Field:
    return np.asarray(1 / (1 + np.exp(-np.clip(inside / (0.25 * softness + 1e-3), -30, 30))))


_SHAPES = {
    Mirrored.BLOB: _blob,
    Mirrored.STRIP: _box,
    Mirrored.WINDOW: _window,
    Mirrored.LAMP: _lamp,
    Mirrored.HAZE: _haze,
}


def _field_grid(size: tuple[int, int]) -> tuple[Field, Field]:
    """Return x and y from the frame's centre in frame widths, at every eighth pixel."""
    rows, columns = (-(-n // _FIELD_STEP_PX) for n in size)
    x, y = ((np.arange(n) + 0.5) * _FIELD_STEP_PX for n in (columns, rows))
    grid = np.meshgrid((x - size[1] / 2) / size[1], (y - size[0] / 2) / size[1])
    return np.asarray(grid[0], np.float32), np.asarray(grid[1], np.float32)


def _enlarged(field: Light, size: tuple[int, int], shape: tuple[int, int]) -> Light:
    """Interpolate a field for a plane that holds all of a frame's pixels, or every second row and column."""
    step = _FIELD_STEP_PX * shape[0] // size[0]
    fine = cv2.resize(field, (field.shape[1] * step, field.shape[0] * step), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine[: shape[0], : shape[1]], np.float32)
