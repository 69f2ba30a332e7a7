"""The display: code values become light, through gamma, black level and the raster of sub-pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""Code values uint8 [height, width, 3], blue first."""
Light = NDArray[np.float32]
"""Linear light; 1 is a display's white."""

_PHASES = 256
_HARMONICS = 4
"""Of a stripe's profile; no camera resolves more."""


@dataclass(frozen=True)
class Look:
    """How a display turns codes into light: an exponent on top of sRGB, the light of black, the tint of white (BGR)."""

    exponent: float = 1.0
    black: float = 0.0
    contrast: float = 0.0
    white: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Raster:
    """The sub-pixels: stripes side by side within a pixel.

    `pitch` is display pixels per pixel of the page's picture, `fill` the lit share of a stripe (the black matrix takes
    the rest), `aperture` the width of a camera pixel that gathers light, in camera pixels.
    """

    pitch: float
    fill: float
    aperture: float
    blue_first: bool
    upright: bool
    strength: float


def srgb_light(code: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the linear light 0..1 of sRGB codes 0..1 (IEC 61966-2-1)."""
    code = np.asarray(code, np.float64)
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def srgb_code(light: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sRGB codes 0..1 of linear light 0..1."""
    light = np.asarray(light, np.float64)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


def emitted(page: Picture, look: Look, rows: slice, columns: slice) -> Light:
    """Return the light of a page float32 [height, width, 3]; only these rows and columns of it are filled in."""
    code = np.linspace(0, 1, 256)
    code = code + look.contrast * (code * code * (3 - 2 * code) - code)
    grey = look.black + (1 - look.black) * srgb_light(code) ** look.exponent
    table = (grey[:, None] * np.asarray(look.white)).astype(np.float32)
    light = np.empty(page.shape, np.float32)
    cv2.LUT(page[rows, columns], table[None], dst=light[rows, columns])
    return light


def raster_gain(x: Light, y: Light, channel: int, raster: Raster, blur_px: float) -> Light:
    """Return what camera pixels under one colour filter see of the sub-pixels, as a gain with mean 1.

    x and y [rows, columns] are the page's points that the pixels look at. The camera samples the raster at a point per
    pixel, so that fine stripes alias to moire as they do on a sensor; before that, the pixel's aperture and the lens
    blur (sigma in camera pixels) damp each harmonic of the stripes.
    """
    across, along = (x, y) if raster.upright else (y, x)
    third = channel if raster.blue_first else 2 - channel
    stripe = np.roll(_profile(raster.fill / 3, raster, blur_px), third * _PHASES // 3)
    row = _profile(raster.fill, raster, blur_px)
    gain = cv2.LUT(_phase(across, raster.pitch), stripe[None])
    return np.asarray(cv2.multiply(gain, cv2.LUT(_phase(along, raster.pitch), row[None])), np.float32)


def _phase(place: Light, pitch: float) -> NDArray[np.uint8]:
    """Return where in a display's pixel a place lies; a whole pixel is 256 steps."""
    return (place * np.float32(pitch * _PHASES)).astype(np.int32).astype(np.uint8)


def _profile(duty: float, raster: Raster, blur_px: float) -> Light:
    """Return the gain over one period of a stripe of this duty cycle, as the camera's pixel sees it."""
    turn = np.arange(_PHASES) / _PHASES
    gain = np.ones(_PHASES)
    for k in range(1, _HARMONICS + 1):
        cycles_per_px = k * raster.pitch
        seen = np.sinc(cycles_per_px * raster.aperture) * np.exp(-2 * (np.pi * blur_px * cycles_per_px) ** 2)
        gain += 2 * np.sinc(k * duty) * seen * np.cos(2 * np.pi * k * turn)
    return np.maximum(1 + min(raster.strength, 1.0) * (gain - 1), 0).astype(np.float32)
