"""Augmentation as arithmetic on a whole batch: what scanners, windows and cameras do to a slice."""

import torch
from torch import Tensor
from torch.nn import functional as F

_TILT_RAD = 0.14
_SCALE = 0.12
_SHIFT = 0.12
"""In half sides."""
_GAMMA = 0.2
"""Of its logarithm."""
_CONTRAST = 0.08
_BRIGHTNESS = 0.04
_WINDOW_LOW, _WINDOW_HIGH, _LEAST_WINDOW = 0.15, 0.5, 0.3
"""Up to this the black level rises and the white level falls; so far apart do they stay. A wide window with tissue at
0.65 becomes a lung window with white tissue by it."""
_BLUR_CHANCE, _BLUR = 0.3, 0.6
"""How often, and how much at most of a 3x3 mean is mixed in."""
_NOISE = 0.02
"""Largest standard deviation; 1 is white."""


def augmented(grey: Tensor, strength: float = 1.0, window: float = 0.0, greys: float = 1.0) -> Tensor:
    """Vary a batch float [n, 1, px, px], 0..1: flip, place, size, tilt, greys, blur, noise.

    A share `window` of the slices is first shown in a narrower grey window; gamma, contrast and brightness vary `greys`
    times as strongly as the rest. Randomness is torch's global generator's; at strength and window 0 the slices are
    only mirrored.
    """
    return _regreyed(_moved(_some_windowed(grey, window) if window else grey, strength), strength, greys)


def augmented_pairs(pairs: Tensor, strength: float = 1.0, window: float = 0.0, greys: float = 1.0) -> Tensor:
    """Vary pairs float [n, 2, px, px] of a slice and its view: moved alike, their greys each in a way of its own."""
    n = len(pairs)
    single = _moved(pairs, strength).flatten(0, 1).unsqueeze(1)
    shown = _some_windowed(single, window) if window else single
    return _regreyed(shown, strength, greys).view(n, 2, *pairs.shape[2:])


def _moved(grey: Tensor, strength: float) -> Tensor:
    tilted = F.affine_grid(_affine(grey, strength), list(grey.shape), align_corners=False)
    return F.grid_sample(grey, tilted, align_corners=False)


def _regreyed(grey: Tensor, strength: float, greys: float) -> Tensor:
    by = strength * greys
    grey = grey.clamp_(min=0).pow_(torch.exp(_uniform(grey, _GAMMA * by)))
    grey = grey.sub_(0.5).mul_(1 + _uniform(grey, _CONTRAST * by)).add_(0.5 + _uniform(grey, _BRIGHTNESS * by))
    grey = _some_blurred(grey, strength)
    noise = torch.randn_like(grey).mul_(_share(grey) * _NOISE * strength)
    return grey.add_(noise).clamp_(0, 1)


def _some_windowed(grey: Tensor, chance: float) -> Tensor:
    chosen = (_share(grey) < chance).to(grey.dtype)
    low = _share(grey) * _WINDOW_LOW * chosen
    high = torch.maximum(1 - _share(grey) * _WINDOW_HIGH * chosen, low + _LEAST_WINDOW)
    return ((grey - low) / (high - low)).clamp_(0, 1)


def _affine(grey: Tensor, strength: float) -> Tensor:
    """Return matrices [n, 2, 3] that mirror every second slice, tilt, scale and shift."""
    n = len(grey)
    angle, scale = _uniform(grey, _TILT_RAD * strength).view(n), 1 + _uniform(grey, _SCALE * strength).view(n)
    mirror = torch.where(_share(grey).view(n) < 0.5, -1.0, 1.0)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    shift_x, shift_y = (_uniform(grey, _SHIFT * strength).view(n) for _ in range(2))
    rows = torch.stack([cos * mirror, -sin, shift_x], 1), torch.stack([sin * mirror, cos, shift_y], 1)
    return torch.stack(rows, 1)


def _some_blurred(grey: Tensor, strength: float) -> Tensor:
    """Blur only the slices whose turn it is: the others would pay for nothing."""
    chosen = torch.nonzero(_share(grey).flatten() < _BLUR_CHANCE).flatten()
    sharp = grey[chosen]
    soft = F.avg_pool2d(sharp, 3, stride=1, padding=1, count_include_pad=False)
    return grey.index_copy_(0, chosen, torch.lerp(sharp, soft, (_share(sharp) * _BLUR * strength).clamp(max=1)))


def _uniform(grey: Tensor, most: float) -> Tensor:
    """Return a number for each slice [n, 1, 1, 1] between -most and most."""
    return (_share(grey) * 2 - 1) * most


def _share(grey: Tensor) -> Tensor:
    return torch.rand(len(grey), 1, 1, 1, device=grey.device)
