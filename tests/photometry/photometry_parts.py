"""Slices, and cameras of few words: a light model with known gamma, gradient, cast and black to be undone."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.light import code_of, light_of
from edge_agent.photometry import MARGIN, with_margin
from edge_agent.photometry.margin import margin_px
from protocol.labels import Label
from training.data.phantom import SITES, render_slice
from training.screen_camera import Family, Shot, shoot

Grey = NDArray[np.uint8]
Picture = NDArray[np.uint8]

FRAME_SIZE = (720, 1280)
SLICE_PX = 256
RECTIFIED_PX = SLICE_PX + 2 * 16
assert margin_px(RECTIFIED_PX, MARGIN) == 16


def phantom(site: str = "site-b", patient: int = 0, label: Label = "COVID-19") -> Grey:
    """Return a slice uint8 [256, 256]; site-b is black outside the scanner's circle, site-a shows air all over."""
    full = render_slice(seed=3, site=SITES[site], label=label, patient=patient, z=0.35 + 0.04 * (patient % 8))
    return np.asarray(cv2.resize(full, (SLICE_PX, SLICE_PX), interpolation=cv2.INTER_AREA), np.uint8)


def lungs_only(patient: int = 0) -> Grey:
    """Return a slice of which everything but the middle's two lungs is black."""
    slice_ = phantom("site-a", patient)
    kept = np.zeros_like(slice_)
    for x in (0.3, 0.7):
        cv2.ellipse(kept, (round(x * SLICE_PX), SLICE_PX // 2), (40, 75), 0, 0, 360, 1, -1)
    return slice_ * kept


def as_picture(slice_: Grey) -> Picture:
    return np.asarray(cv2.merge([slice_] * 3), np.uint8)


def on_page(slice_: Grey, page: int) -> Picture:
    """Return the slice in a margin of a page of this grey, as it would be rectified."""
    edge = (RECTIFIED_PX - SLICE_PX) // 2
    return as_picture(np.asarray(cv2.copyMakeBorder(slice_, *[edge] * 4, cv2.BORDER_CONSTANT, value=page), np.uint8))


@dataclass(frozen=True)
class Camera:
    """What happens to light: a gamma, then a gain for each channel (BGR), shading over the frame, and a veil."""

    gamma: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    falls_right: float = 0.0
    falls_down: float = 0.0
    veil: float = 0.0

    def sees(self, picture: Picture) -> Picture:
        height, width = picture.shape[:2]
        light = light_of(picture.astype(np.float32)) ** self.gamma
        right, down = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
        shading = (1 - self.falls_right * right - self.falls_down * down)[..., None]
        return np.rint(code_of(light * shading * np.array(self.gains) + self.veil)).astype(np.uint8)


def difference(one: Grey, other: Grey) -> float:
    """Return the mean absolute difference in grey levels."""
    return float(np.abs(one.astype(np.float32) - other).mean())


def plain_grey(picture: Picture) -> Grey:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)


def rectified(
    frame: Picture, quad: NDArray[np.float32], *, margin: float = MARGIN, side: int = RECTIFIED_PX
) -> Picture:
    """Return the slice with its margin, twice as fine and then averaged, so that it does not alias."""
    fine = 2 * side
    square = np.array([[0, 0], [fine, 0], [fine, fine], [0, fine]], np.float32) - np.float32(0.5)
    view = cv2.getPerspectiveTransform(with_margin(quad, margin), square)
    seen = cv2.warpPerspective(frame, view, (fine, fine), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(seen, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def simulated(slice_: Grey, seed: int, *, severity: float = 1.0) -> Shot:
    return shoot(slice_, severity=severity, seed=seed, family=Family.TRAINING)
