"""Shoot: photograph a slice on a page, from the digital picture to the webcam's frame."""

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.screen_camera.display import Light, Look, Picture, emitted, raster_gain
from training.screen_camera.factors import Factor, Family, dice
from training.screen_camera.families import Conditions, Exposure, draw_conditions
from training.screen_camera.geometry import View, clockwise_from_top_left, region, view_of
from training.screen_camera.optics import blur_kernel, blurred, glare_field, vignette_field
from training.screen_camera.overlays import draw_overlays
from training.screen_camera.pages import Scene, Slice, draw_page
from training.screen_camera.processing import developed
from training.screen_camera.sensor import gathered, raw_values, sites_of

LENS_SIGMA_PX = 0.25
"""Even in focus a lens blurs the finest stripes so much."""
_MIDDLE_GREY = 0.18
_LEAST_FRAME_PX = 64


@dataclass(frozen=True)
class Shot:
    """A simulated webcam frame uint8 [height, width, 3] BGR, the true quad float32 [4, 2], and the page's name.

    The quad is the outer edge of the slice's outermost pixels, where a pixel's centre has whole coordinates: a slice
    that fills the frame's first ten columns has its left corners at x = -0.5 and its right ones at 9.5.
    """

    frame: Picture
    quad: NDArray[np.float32]
    page: str


def shoot(
    slice_: Slice,
    *,
    severity: float,
    seed: int,
    family: Family,
    only: Collection[Factor] | None = None,
    size: tuple[int, int] = (720, 1280),
) -> Shot:
    """Photograph a slice uint8 [h, w], shown on some page, as a webcam does; the same arguments give the same bits.

    At severity 0 the slice sits clean and upright on its page, at 1 the frame is what a careful person with a usual
    webcam gets, at 1.6 a bad one. `only` keeps these factors at this severity and switches all others off.
    Raises `ValueError` where an argument is of the wrong kind; the frame's sides must be even.
    """
    check_slice(slice_)
    check_size(size)
    chance = dice(seed, family, severity, only)
    conditions = draw_conditions(chance, size)
    scene = draw_page(slice_, chance, conditions.pose.side_px, size)
    draw_overlays(scene, chance)
    frame, view = photographed(scene, conditions, size, chance.rng("sensor"))
    return Shot(frame, quad_of(scene, view), scene.name)


def photographed(
    scene: Scene, conditions: Conditions, size: tuple[int, int], rng: Generator, keep_inside: bool = True
) -> tuple[Picture, View]:
    """Return the frame that a camera takes of a scene, and the view by which it sees it."""
    view = view_of(scene.aim.corners(), conditions.pose, conditions.distortion, size, keep_inside)
    places = view.sampling_map()
    light = blurred(_resampled(scene.picture, *places, conditions.look), blur_kernel(conditions.blur))
    planes = gathered(light, sites_of(conditions.bayer))
    if conditions.raster is not None and scene.is_lit_screen:
        _see_subpixels(planes, *places, region(scene.sheet.corners(), view), conditions)
    _see_fields(planes, size, conditions)
    raw = raw_values(planes, conditions.gains, conditions.bayer, conditions.noise, rng)
    return developed(raw, conditions.tone, conditions.sharpening, conditions.jpeg), view


def quad_of(scene: Scene, view: View) -> NDArray[np.float32]:
    """Return the true quad: the slice's corners in the frame, clockwise as seen there from the top left one."""
    return clockwise_from_top_left(view.into_frame(scene.aim.corners())).astype(np.float32)


def check_slice(slice_: Slice) -> None:
    """Refuse what is not a slice uint8 [h, w]."""
    if slice_.dtype != np.uint8 or slice_.ndim != 2 or min(slice_.shape) < 1:
        raise ValueError(f"slice of {slice_.dtype} {list(slice_.shape)}: not uint8 [h, w]")


def check_size(size: tuple[int, int]) -> None:
    """Refuse a frame's size that no sensor with 2x2 filter cells has."""
    if min(size) < _LEAST_FRAME_PX or size[0] % 2 or size[1] % 2:
        raise ValueError(f"frame size {size}: not two even numbers from {_LEAST_FRAME_PX} on")


def _resampled(picture: Picture, x: Light, y: Light, look: Look) -> Light:
    """Return the light that each pixel of the frame looks at; only the part of the page that is seen is lit."""
    columns, rows = _seen(x, picture.shape[1]), _seen(y, picture.shape[0])
    light = emitted(picture, look, rows, columns)
    seen = cv2.remap(light, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, np.float32)


def _seen(places: Light, length: int) -> slice:
    """Return the range of a page's rows or columns that these places lie in; the frame's rim reaches furthest."""
    rim = np.concatenate([places[0], places[-1], places[:, 0], places[:, -1]])
    first = min(max(int(rim.min()) - 1, 0), length - 2)
    return slice(first, max(min(int(rim.max()) + 3, length), first + 2))


def _see_subpixels(planes: Light, x: Light, y: Light, lit: NDArray[np.bool_], conditions: Conditions) -> None:
    """Multiply the planes by what they see of the screen's sub-pixels."""
    raster = conditions.raster
    assert raster is not None
    blur_px = float(np.hypot(LENS_SIGMA_PX, conditions.blur.sigma_px))
    for plane, (channel, rows, columns) in zip(planes, sites_of(conditions.bayer), strict=True):
        gain = raster_gain(x[rows, columns], y[rows, columns], channel, raster, blur_px)
        np.multiply(plane, gain, out=plane, where=lit[rows, columns])


def _see_fields(planes: Light, size: tuple[int, int], conditions: Conditions) -> None:
    """Add reflections to the planes, then darken and expose them."""
    shape = (planes.shape[1], planes.shape[2])
    channels = [site.channel for site in sites_of(conditions.bayer)]
    if conditions.glare:
        glare = cv2.split(glare_field(size, shape, conditions.glare))
        for plane, channel in zip(planes, channels, strict=True):
            plane += glare[channel]
    if conditions.vignette is not None:
        planes *= vignette_field(size, shape, conditions.vignette)
    planes *= _exposure_gain(planes, conditions.exposure)


def _exposure_gain(planes: Light, exposure: Exposure) -> Light:
    """Return the gain of each row float32 [rows, 1]: stops, automatic exposure and flicker bands."""
    mean = float(planes[:, ::8, ::8].mean())
    stops = exposure.stops + exposure.automatic * np.clip(np.log2(_MIDDLE_GREY / max(mean, 1e-4)), -2, 2)
    rows = planes.shape[1]
    wave = np.sin(2 * np.pi * (exposure.bands * np.arange(rows) / rows + exposure.phase))
    bands = 1 + exposure.flicker * (np.clip(3 * wave, -1, 1) if exposure.pulsed else wave)
    return np.asarray((2**stops * bands)[:, None], np.float32)
