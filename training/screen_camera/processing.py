"""The camera's processing: raw values become the picture that a webcam sends."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.screen_camera.display import Picture, srgb_code
from training.screen_camera.sensor import FULL, Raw

NO_LIMIT = 255
_ROWS_AT_ONCE = 40


@dataclass(frozen=True)
class Tone:
    """A tone curve on sRGB codes: exponent, S-shape, crushed black, and where a shoulder begins (1 is none)."""

    exponent: float = 1.0
    s_shape: float = 0.0
    crush: float = 0.0
    shoulder: float = 1.0


@dataclass(frozen=True)
class Sharpening:
    """An unsharp mask: amount, its blur's sigma, and the largest change in grey levels."""

    amount: float
    sigma_px: float
    limit: int = NO_LIMIT


@dataclass(frozen=True)
class Jpeg:
    """Quality, and whether colours are kept at full width (4:4:4), half width (4:2:2) or half both ways (4:2:0)."""

    quality: int
    sampling: int = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420


def developed(raw: Raw, tone: Tone, sharpening: Sharpening | None, jpeg: Jpeg | None) -> Picture:
    """Return the frame uint8 [height, width, 3] of demosaiced raw values."""
    return _compressed(_sharpened(_toned(raw, _tone_table(tone)), sharpening), jpeg)


def _toned(raw: Raw, table: NDArray[np.uint8]) -> Picture:
    """Look the values up, some rows at a time: numpy's indices are four times as large as the values."""
    picture = np.empty(raw.shape, np.uint8)
    for top in range(0, len(raw), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        np.take(table, raw[rows], out=picture[rows], mode="clip")  # no value lies outside; the other mode copies
    return picture


def _tone_table(tone: Tone) -> NDArray[np.uint8]:
    code = srgb_code(np.arange(FULL + 1) / FULL) ** tone.exponent
    code = code + tone.s_shape * (code * code * (3 - 2 * code) - code)
    code = np.maximum(code - tone.crush, 0) / (1 - tone.crush)
    if tone.shoulder < 1:
        over = np.maximum(code - tone.shoulder, 0) / (1 - tone.shoulder)
        code = np.minimum(code, tone.shoulder) + (1 - tone.shoulder) * (1 - np.exp(-1.8 * over)) / (1 - np.exp(-1.8))
    return np.asarray(np.clip(code * 255 + 0.5, 0, 255), np.uint8)


def _sharpened(picture: Picture, sharpening: Sharpening | None) -> Picture:
    if sharpening is None:
        return picture
    soft = cv2.GaussianBlur(picture, (0, 0), sharpening.sigma_px)
    sharp = np.asarray(cv2.addWeighted(picture, 1 + sharpening.amount, soft, -sharpening.amount, 0), np.uint8)
    if sharpening.limit == NO_LIMIT:
        return sharp
    low, high = (np.clip(np.arange(256) + sign * sharpening.limit, 0, 255).astype(np.uint8) for sign in (-1, 1))
    return np.asarray(cv2.min(cv2.max(sharp, cv2.LUT(picture, low)), cv2.LUT(picture, high)), np.uint8)


def _compressed(picture: Picture, jpeg: Jpeg | None) -> Picture:
    if jpeg is None:
        return picture
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg.quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, jpeg.sampling]
    _, encoded = cv2.imencode(".jpg", picture, options)
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
