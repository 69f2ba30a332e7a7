"""A canvas: a picture to paint on in millimetres, its HU kept as 8-bit paint, which OpenCV draws anti-aliased."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.phantom.anatomy import Framing
from training.data.phantom.grid import COARSE_PX, SIDE_PX, FloatImage, Paint, Points
from training.data.phantom.materials import AIR

HU_STEP = 8.0  # of one step of paint
WHITE = AIR + 255 * HU_STEP
SUBPIXEL_BITS = 4
SOLID_HU, ALL_AIR_RISE_HU = -150, 850  # nothing from here up holds air; so far below, a pixel is air alone
AIRINESS = np.clip(255 * (SOLID_HU - AIR - HU_STEP * np.arange(256)) / ALL_AIR_RISE_HU, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Canvas:
    """Paint [512, 512], and where the millimetres lie on it."""

    pixels: Paint
    origin_px: tuple[float, float]
    px_per_mm: float
    tilt: float

    def blank(self) -> "Canvas":
        return Canvas(np.zeros_like(self.pixels), self.origin_px, self.px_per_mm, self.tilt)

    def fill(self, outline: Points, hu: float) -> None:
        self.fill_paint(outline, _paint_of(hu))

    def stroke(self, line: Points, hu: float, width_mm: float) -> None:
        self.stroke_paint(line, _paint_of(hu), max(1, round(width_mm * self.px_per_mm)))

    def fill_paint(self, outline: Points, paint: int) -> None:
        cv2.fillPoly(self.pixels, [self._fixed(outline)], paint, cv2.LINE_AA, SUBPIXEL_BITS)

    def stroke_paint(self, line: Points, paint: int, width_px: int) -> None:
        cv2.polylines(self.pixels, [self._fixed(line)], False, paint, width_px, cv2.LINE_AA, SUBPIXEL_BITS)

    def stroke_pieces(
        self, starts: Points, ends: Points, paints: NDArray[np.int_], widths_px: NDArray[np.int_]
    ) -> None:
        """Draw many straight lines, each with its own paint and width."""
        parts = (self._fixed(starts), self._fixed(ends), paints, widths_px)
        for start, end, paint, width in zip(*(part.tolist() for part in parts), strict=True):
            cv2.line(self.pixels, start, end, paint, width, cv2.LINE_AA, SUBPIXEL_BITS)

    def coarse_grid(self) -> tuple[FloatImage, FloatImage]:
        """Return x and y in mm of the coarse grid's pixels, [128, 128] each."""
        steps = (np.arange(COARSE_PX, dtype=np.float32) + 0.5) * (SIDE_PX / COARSE_PX)
        x, y = (steps - self.origin_px[0]) / self.px_per_mm, (steps - self.origin_px[1]) / self.px_per_mm
        c, s = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        return c * x[None, :] + s * y[:, None], c * y[:, None] - s * x[None, :]

    def hu(self) -> FloatImage:
        return np.asarray(self.pixels * np.float32(HU_STEP) + np.float32(AIR), np.float32)

    def airiness(self) -> Paint:
        """Return how much of each pixel is air, 0 to 255; fat and what is denser has none."""
        return np.asarray(cv2.LUT(self.pixels, AIRINESS), np.uint8)

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        """Return fixed-point pixel coordinates of points in mm."""
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        turned = points @ np.array([[c, s], [-s, c]])
        scaled = (turned * self.px_per_mm + np.array(self.origin_px)) * 2**SUBPIXEL_BITS
        return np.asarray(np.rint(scaled), np.int32)


def empty_canvas(framing: Framing) -> Canvas:
    """Return a canvas full of air, with the patient's middle where the framing puts it."""
    px_per_mm = SIDE_PX / framing.field_of_view_mm
    origin = (SIDE_PX / 2 + framing.offset_mm[0] * px_per_mm, SIDE_PX / 2 + framing.offset_mm[1] * px_per_mm)
    return Canvas(np.zeros((SIDE_PX, SIDE_PX), np.uint8), origin, px_per_mm, framing.tilt)


def _paint_of(hu: float) -> int:
    return round((hu - AIR) / HU_STEP)
