"""The two families: how each draws what happens to a slice, in magnitudes that grow with severity."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from training.screen_camera.display import Look, Raster
from training.screen_camera.factors import Dice, Factor, Family
from training.screen_camera.geometry import Distortion, Pose
from training.screen_camera.optics import Blur, Mirrored, Reflection, Spread, Vignette
from training.screen_camera.processing import Jpeg, Sharpening, Tone
from training.screen_camera.sensor import CELLS, Bayer, Noise

_SIDE_OF_FRAME = 512 / 720
"""A slice's longer side, of the frame's shorter side, in the middle of the range."""
_SIDE_RANGE = 130 / 720
_LEAST_SIDE = 260 / 720
_MOST_BEND = 0.8
"""Of an S-shape; from 1 on it would turn greys around."""


@dataclass(frozen=True)
class Exposure:
    """Stops above the display's white, how far automatic exposure goes towards grey, and flicker bands."""

    stops: float = 0.0
    automatic: float = 0.0
    flicker: float = 0.0
    bands: float = 0.0
    phase: float = 0.0
    pulsed: bool = False


@dataclass(frozen=True)
class Conditions:
    """Everything between a page and its frame; None where a stage is left out."""

    look: Look
    raster: Raster | None
    pose: Pose
    distortion: Distortion
    blur: Blur
    vignette: Vignette | None
    glare: tuple[Reflection, ...]
    exposure: Exposure
    gains: tuple[float, float, float]
    bayer: Bayer | None
    noise: Noise | None
    tone: Tone
    sharpening: Sharpening | None
    jpeg: Jpeg | None


@dataclass(frozen=True)
class _Ranges:
    """Half ranges (or largest values) at severity 1."""

    exponent: float
    black: float
    monitor_contrast: float
    tint: float
    yaw: float
    pitch: float
    roll: float
    shift: float
    lens_sigma_px: tuple[float, float]
    motion_px: float
    distortion: float
    vignette: float
    slope: float
    glare_peak: float
    stops: float
    flicker: float
    electrons: float
    read: float
    row_noise: float
    balance: float
    tone: float
    sharpening: tuple[float, float]
    jpeg_loss: tuple[float, float]


_RANGES = {
    Family.TRAINING: _Ranges(
        exponent=0.18,
        black=0.02,
        monitor_contrast=0.0,
        tint=0.08,
        yaw=0.20,
        pitch=0.17,
        roll=0.07,
        shift=0.05,
        lens_sigma_px=(0.2, 1.0),
        motion_px=3.0,
        distortion=0.035,
        vignette=0.30,
        slope=0.25,
        glare_peak=0.30,
        stops=0.5,
        flicker=0.04,
        electrons=2500,
        read=0.0012,
        row_noise=0.0,
        balance=0.11,
        tone=0.35,
        sharpening=(0.2, 1.0),
        jpeg_loss=(5, 25),
    ),
    Family.HELD_OUT: _Ranges(
        exponent=0.15,
        black=0.03,
        monitor_contrast=0.35,
        tint=0.10,
        yaw=0.22,
        pitch=0.19,
        roll=0.08,
        shift=0.06,
        lens_sigma_px=(0.3, 1.1),
        motion_px=3.5,
        distortion=0.04,
        vignette=0.35,
        slope=0.3,
        glare_peak=0.35,
        stops=0.55,
        flicker=0.05,
        electrons=2000,
        read=0.0015,
        row_noise=0.0006,
        balance=0.13,
        tone=0.4,
        sharpening=(0.3, 1.2),
        jpeg_loss=(8, 32),
    ),
}
_SPREADS = {
    Family.TRAINING: (Spread.GAUSSIAN, Spread.DISC),
    Family.HELD_OUT: (Spread.ASTIGMATIC, Spread.HEXAGON, Spread.HALO),
}
_MIRRORED = {
    Family.TRAINING: (Mirrored.BLOB, Mirrored.STRIP),
    Family.HELD_OUT: (Mirrored.WINDOW, Mirrored.LAMP, Mirrored.HAZE),
}


def draw_conditions(dice: Dice, size: tuple[int, int]) -> Conditions:
    """Draw the conditions of a shot; a factor of strength 0 changes nothing."""
    ranges, held_out = _RANGES[dice.family], dice.family is Family.HELD_OUT
    return Conditions(
        look=_draw_look(dice, ranges),
        raster=_draw_raster(dice, held_out),
        pose=_draw_pose(dice, ranges, size),
        distortion=Distortion(_signed(dice, Factor.DISTORTION, ranges.distortion), by_division=held_out),
        blur=_draw_blur(dice, ranges),
        vignette=_draw_vignette(dice, ranges, held_out),
        glare=_draw_glare(dice, ranges),
        exposure=_draw_exposure(dice, ranges, held_out),
        gains=_draw_gains(dice, ranges),
        bayer=_draw_bayer(dice, held_out),
        noise=_draw_noise(dice, ranges),
        tone=_draw_tone(dice, ranges, held_out),
        sharpening=_draw_sharpening(dice, ranges, held_out),
        jpeg=_draw_jpeg(dice, ranges, held_out),
    )


def _draw_look(dice: Dice, ranges: _Ranges) -> Look:
    rng, strength = dice.rng(Factor.DISPLAY_GAMMA), dice.strength(Factor.DISPLAY_GAMMA)
    exponent, warm, green = rng.uniform(-1, 1, 3)
    return Look(
        exponent=float(np.exp(strength * ranges.exponent * exponent)),
        black=float(strength * ranges.black * rng.uniform()),
        contrast=float(min(_MOST_BEND, strength * ranges.monitor_contrast * rng.uniform(-0.3, 1))),
        white=_gains(strength * ranges.tint * warm, 0.3 * strength * ranges.tint * green),
    )


def _draw_raster(dice: Dice, held_out: bool) -> Raster | None:
    rng, strength = dice.rng(Factor.SUBPIXELS), dice.strength(Factor.SUBPIXELS)
    if not strength:
        return None
    return Raster(
        pitch=float(rng.uniform(0.55, 1.6)),
        fill=float(rng.uniform(0.4, 0.7) if held_out else rng.uniform(0.65, 0.9)),
        aperture=float(rng.uniform(0.5, 0.9)),
        blue_first=bool(rng.uniform() < 0.3),
        upright=not (held_out and rng.uniform() < 0.5),
        strength=0.6 * strength,
    )


def _draw_pose(dice: Dice, ranges: _Ranges, size: tuple[int, int]) -> Pose:
    rng, strength = dice.rng(Factor.PERSPECTIVE), dice.strength(Factor.PERSPECTIVE)
    shorter = min(size)
    nearness, yaw, pitch, roll, x, y = strength * rng.uniform(-1, 1, 6)
    return Pose(
        side_px=max(_LEAST_SIDE, _SIDE_OF_FRAME + _SIDE_RANGE * nearness) * shorter,
        shift_px=(ranges.shift * x * size[1], ranges.shift * y * size[0]),
        yaw=ranges.yaw * yaw,
        pitch=ranges.pitch * pitch,
        roll=ranges.roll * roll,
        focal_widths=float(rng.uniform(0.7, 1.1)),
    )


def _draw_blur(dice: Dice, ranges: _Ranges) -> Blur:
    lens, motion = dice.rng(Factor.LENS_BLUR), dice.rng(Factor.MOTION)
    spreads = _SPREADS[dice.family]
    way, length = motion.uniform(0, np.pi), ranges.motion_px * dice.strength(Factor.MOTION) * motion.uniform() ** 1.5
    return Blur(
        spread=spreads[lens.integers(len(spreads))],
        angle=float(lens.uniform(0, np.pi)),
        sigma_px=float(dice.strength(Factor.LENS_BLUR) * lens.uniform(*ranges.lens_sigma_px)),
        motion_px=(float(length * np.cos(way)), float(length * np.sin(way))),
    )


def _draw_vignette(dice: Dice, ranges: _Ranges, held_out: bool) -> Vignette | None:
    rng, strength = dice.rng(Factor.VIGNETTE), dice.strength(Factor.VIGNETTE)
    if not strength:
        return None
    loss = min(0.9, strength * ranges.vignette * rng.uniform(0.3, 1))
    x, y = (strength * rng.uniform(-0.08, 0.08, 2)).tolist()
    slope_x, slope_y = (strength * ranges.slope * rng.uniform(-1, 1, 2)).tolist()
    return Vignette(float(loss), (x, y), held_out, (slope_x, slope_y))


def _draw_glare(dice: Dice, ranges: _Ranges) -> tuple[Reflection, ...]:
    rng, strength = dice.rng(Factor.GLARE), dice.strength(Factor.GLARE)
    if not strength:
        return ()
    kinds = _MIRRORED[dice.family]
    return tuple(
        _draw_reflection(rng, kinds[rng.integers(len(kinds))], strength * ranges.glare_peak)
        for _ in range(rng.integers(1, 4))
    )


def _draw_reflection(rng: Generator, shape: Mirrored, peak: float) -> Reflection:
    wide, narrow = rng.uniform(0.05, 0.2), rng.uniform(0.02, 0.1)
    half = (0.5, 0.5) if shape is Mirrored.HAZE else (wide, wide) if shape is Mirrored.LAMP else (wide, narrow)
    share = 0.3 if shape is Mirrored.HAZE else 1.0
    warm = rng.uniform(-0.25, 0.25)
    return Reflection(
        shape=shape,
        centre=(float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.25, 0.25))),
        half=half,
        turn=float(rng.uniform(0, np.pi)),
        peak=float(peak * share * rng.uniform(0.1, 1) ** 1.5),
        softness=float(rng.uniform(0.3, 1.5)),
        colour=_gains(warm, 0.0),
    )


def _draw_exposure(dice: Dice, ranges: _Ranges, held_out: bool) -> Exposure:
    rng, strength = dice.rng(Factor.EXPOSURE), dice.strength(Factor.EXPOSURE)
    return Exposure(
        stops=float(strength * ranges.stops * rng.uniform(-1.1, 0.7)),
        automatic=float(min(0.8, strength * rng.uniform(0.05, 0.3))),
        flicker=float(strength * ranges.flicker * rng.uniform() ** 2),
        bands=float(rng.uniform(0.7, 5)),
        phase=float(rng.uniform()),
        pulsed=held_out,
    )


def _draw_gains(dice: Dice, ranges: _Ranges) -> tuple[float, float, float]:
    rng, strength = dice.rng(Factor.WHITE_BALANCE), dice.strength(Factor.WHITE_BALANCE)
    warm, green = strength * ranges.balance * rng.uniform(-1, 1, 2)
    return _gains(warm, 0.4 * green)


def _draw_bayer(dice: Dice, held_out: bool) -> Bayer | None:
    rng = dice.rng(Factor.BAYER)
    cell = CELLS[rng.integers(len(CELLS))]
    return Bayer(cell, edge_aware=held_out) if dice.strength(Factor.BAYER) else None


def _draw_noise(dice: Dice, ranges: _Ranges) -> Noise | None:
    rng, strength = dice.rng(Factor.NOISE), dice.strength(Factor.NOISE)
    if not strength:
        return None
    share = strength * rng.uniform(0.3, 1)
    return Noise(float(ranges.electrons / share), float(ranges.read * share), float(ranges.row_noise * share))


def _draw_tone(dice: Dice, ranges: _Ranges, held_out: bool) -> Tone:
    rng, strength = dice.rng(Factor.TONE_CURVE), dice.strength(Factor.TONE_CURVE)
    bend, s_shape, crush, shoulder = rng.uniform(size=4)
    if not strength:
        return Tone()
    if held_out:
        exponent = float(np.exp(strength * 0.5 * ranges.tone * (2 * bend - 1)))
        return Tone(exponent, 0.0, float(0.05 * strength * crush), float(max(0.4, 1 - 0.3 * strength * shoulder)))
    exponent = float(np.exp(strength * 0.35 * ranges.tone * (2 * bend - 1)))
    return Tone(exponent, float(min(_MOST_BEND, strength * ranges.tone * (1.3 * s_shape - 0.3))))


def _draw_sharpening(dice: Dice, ranges: _Ranges, held_out: bool) -> Sharpening | None:
    rng, strength = dice.rng(Factor.SHARPENING), dice.strength(Factor.SHARPENING)
    if not strength:
        return None
    amount, sigma = float(strength * rng.uniform(*ranges.sharpening)), float(rng.uniform(0.7, 1.3))
    return Sharpening(amount, 1.6 * sigma, int(rng.integers(20, 60))) if held_out else Sharpening(amount, sigma)


def _draw_jpeg(dice: Dice, ranges: _Ranges, held_out: bool) -> Jpeg | None:
    rng, strength = dice.rng(Factor.JPEG), dice.strength(Factor.JPEG)
    if not strength:
        return None
    quality = max(20, round(98 - strength * rng.uniform(*ranges.jpeg_loss)))
    half_width = held_out and rng.uniform() < 0.5  # as UVC webcams send motion JPEG
    return Jpeg(quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422 if half_width else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)


def _signed(dice: Dice, factor: Factor, most: float) -> float:
    return float(dice.strength(factor) * most * dice.rng(factor).uniform(-1, 1))


def _gains(warm: float, green: float) -> tuple[float, float, float]:
    """Return gains (BGR) that turn white warm (or cold, below 0) and green (or magenta)."""
    return float(np.exp(-warm)), float(np.exp(green)), float(np.exp(warm))
