"""Light: codes of a picture as linear light and back, by the sRGB curve, which display and camera both follow roughly.

Exposure, shading and veiling glare are a factor or a sum in light, not in codes; so all of photometry works in light.
"""

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Picture = NDArray[np.uint8]
"""uint8 [height, width, 3], blue first."""
Light = NDArray[np.float32]
"""Linear light; 1 is white."""

T = TypeVar("T", np.uint8, np.float32)

STEPS = 16384
"""Steps of light in tables from light to codes: fine enough that black's neighbours keep their codes."""
_KNEE_CODE, _KNEE_LIGHT, _SLOPE, _OFFSET, _EXPONENT = 0.04045, 0.0031308, 12.92, 0.055, 2.4  # IEC 61966-2-1


def light_of(codes: NDArray[np.number]) -> Light:
    """Return the light of sRGB codes 0..255."""
    share = np.asarray(codes, np.float64) / 255
    curved = ((np.maximum(share, _KNEE_CODE) + _OFFSET) / (1 + _OFFSET)) ** _EXPONENT
    return np.where(share <= _KNEE_CODE, share / _SLOPE, curved).astype(np.float32)


def code_of(light: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the sRGB codes 0..255 of light; below 0 is black, above 1 white."""
    light = np.clip(np.asarray(light, np.float64), 0, 1)
    curved = (1 + _OFFSET) * np.maximum(light, _KNEE_LIGHT) ** (1 / _EXPONENT) - _OFFSET
    return (255 * np.where(light <= _KNEE_LIGHT, light * _SLOPE, curved)).astype(np.float32)


def linear(picture: Picture) -> Light:
    """Return the light of a picture uint8 [height, width, 3]."""
    return np.asarray(cv2.LUT(picture, LIGHT_OF_CODE), np.float32)


def looked_up(light: Light, table: NDArray[T]) -> NDArray[T]:
    """Return the table's entry [STEPS + 1] for each light, rounded to the nearest step; beyond 0..1 its ends."""
    steps = np.multiply(light, np.float32(STEPS))
    return np.take(table, np.clip(steps + np.float32(0.5), 0, STEPS, out=steps).astype(np.int16))


LIGHT_OF_CODE = light_of(np.arange(256))
CODES = code_of(np.arange(STEPS + 1) / STEPS)
"""The code 0..255 of each step of light."""
