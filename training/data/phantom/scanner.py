"""The scanner and the viewer: HU become the grey picture that a site sends."""

import cv2
import numpy as np
from numpy.random import Generator

from training.data.phantom.grid import SIDE_PX, FloatImage, Paint
from training.data.phantom.sites import PhantomSite

UNSHARP_PX = 1.6  # the blur whose difference from the picture edge enhancement adds
WHITE_GREY = 255


def scan(hu: FloatImage, site: PhantomSite, rng: Generator) -> Paint:
    """Apply the site's kernel, noise, window and gamma to HU; return grey [512, 512]."""
    seen = _reconstructed(hu, site) + np.float32(site.noise_hu) * _noise(rng, site.noise_grain_px)
    grey = _windowed(seen, site)
    if site.scan_circle:
        grey = grey * _circle_mask()
    return np.asarray(grey * np.float32(WHITE_GREY) + np.float32(0.5)).astype(np.uint8)


def _reconstructed(hu: FloatImage, site: PhantomSite) -> FloatImage:
    """Blur, then overshoot at edges where the site's kernel does."""
    seen = cv2.GaussianBlur(hu, (0, 0), site.blur_px)
    if site.sharpen:
        seen = seen + np.float32(site.sharpen) * (seen - cv2.GaussianBlur(seen, (0, 0), UNSHARP_PX))
    return np.asarray(seen, np.float32)


def _noise(rng: Generator, grain_px: float) -> FloatImage:
    """Return noise of variance 1 whose grain has this size; the blur makes a bell of evenly spread bytes."""
    white = rng.integers(0, 256, (SIDE_PX, SIDE_PX), np.uint8).astype(np.float32)
    grains = cv2.GaussianBlur(white - np.float32(127.5), (0, 0), grain_px)
    return np.asarray(grains * np.float32(1 / grains.std()), np.float32)


def _windowed(hu: FloatImage, site: PhantomSite) -> FloatImage:
    """Bring the window to 0..1, and bend it by gamma."""
    low = site.window_level_hu - site.window_width_hu / 2
    grey = np.clip((hu - np.float32(low)) * np.float32(1 / site.window_width_hu), 0, 1)
    return np.asarray(grey if site.gamma == 1.0 else cv2.pow(grey, site.gamma), np.float32)


def _circle_mask() -> Paint:
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    cv2.circle(mask, (SIDE_PX // 2, SIDE_PX // 2), SIDE_PX // 2, 1, -1)
    return mask
