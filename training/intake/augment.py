"""Variation of a batch of pictures, strong, since real slices differ from phantoms in more than we know."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.intake.network import READ_PX

_TILT_RAD, _STRETCH, _SHEAR, _SHIFT = math.radians(13), 0.22, 0.08, 0.12
_BENDS, _BEND = 5, 0.06
"""So many bends across a picture, and their largest standard deviation in half sides."""
_GAMMA, _GAIN, _OFFSET = 0.4, 0.3, 0.15
_WINDOW_LOW, _WINDOW_HIGH, _LEAST_WINDOW = 0.35, 0.5, 0.2
_NOISE, _RAMP = 0.08, 0.25
_HIDDEN_SHARE = (0.05, 0.25)
_ROUND_RADIUS = (0.8, 1.1)
_WINDOW_CHANCE, _NOISE_CHANCE, _BLUR_CHANCE, _HIDE_CHANCE, _RAMP_CHANCE, _ROUND_CHANCE = 0.3, 0.4, 0.3, 0.2, 0.2, 0.1


def varied(pictures: Tensor) -> Tensor:
    """Vary pictures float [n, 1, s, s], 0..1, and reduce them to [n, 1, 64, 64].

    Place, size, tilt, shear, bends, windows, gamma, light from one side, blur, noise, hidden rectangles, black corners.
    Randomness is torch's global generator's.
    """
    grid = F.affine_grid(_affine(pictures), list(pictures.shape), align_corners=False) + _bends(pictures)
    grey = F.avg_pool2d(F.grid_sample(pictures, grid, align_corners=False), pictures.shape[-1] // READ_PX)
    grey = _windowed(grey).clamp(0, 1) ** torch.exp(_uniform(grey, _GAMMA))
    grey = grey * (1 + _uniform(grey, _GAIN)) + _uniform(grey, _OFFSET)
    grey = grey * (1 + _chosen(grey, _RAMP_CHANCE) * _ramp(grey))
    grey = torch.where(_chosen(grey, _BLUR_CHANCE) > 0, F.avg_pool2d(grey, 3, 1, 1, count_include_pad=False), grey)
    grey = grey + torch.randn_like(grey) * _share(grey) * _NOISE * _chosen(grey, _NOISE_CHANCE)
    return _hidden(_rounded(grey)).clamp(0, 1)


def _affine(pictures: Tensor) -> Tensor:
    """Return matrices [n, 2, 3]; every picture keeps its way round."""
    flat = pictures[:, :, :1, :1]
    angle, shear = _uniform(flat, _TILT_RAD).flatten(), _uniform(flat, _SHEAR).flatten()
    wide, high = (torch.exp(_uniform(flat, _STRETCH)).flatten() for _ in range(2))
    x, y = (_uniform(flat, _SHIFT).flatten() for _ in range(2))
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([wide * cos, shear - sin, x], 1), torch.stack([sin, high * cos, y], 1)], 1)


def _bends(pictures: Tensor) -> Tensor:
    """Return smooth displacements [n, s, s, 2] in half sides: no two bodies have the same outline."""
    coarse = torch.randn(len(pictures), 2, _BENDS, _BENDS) * _BEND * _share(pictures)
    smooth = F.interpolate(coarse, size=pictures.shape[2:], mode="bilinear", align_corners=True)
    return smooth.permute(0, 2, 3, 1)


def _windowed(grey: Tensor) -> Tensor:
    chosen = _chosen(grey, _WINDOW_CHANCE)
    black = _share(grey) * _WINDOW_LOW * chosen
    white = torch.maximum(1 - _share(grey) * _WINDOW_HIGH * chosen, black + _LEAST_WINDOW)
    return (grey - black) / (white - black)


def _ramp(grey: Tensor) -> Tensor:
    y, x = _places(grey)
    turn = _share(grey) * 2 * math.pi
    return (torch.cos(turn) * x + torch.sin(turn) * y) * _share(grey) * _RAMP


def _rounded(grey: Tensor) -> Tensor:
    """Black out what lies outside a round field of view."""
    y, x = _places(grey)
    low, high = _ROUND_RADIUS
    radius = low + (high - low) * _share(grey)
    outside = (x * x + y * y > radius * radius) & (_chosen(grey, _ROUND_CHANCE) > 0)
    return grey.masked_fill(outside, 0.0)


def _hidden(grey: Tensor) -> Tensor:
    """Lay a rectangle of one grey over some: text, glare, a finger; nothing hangs on a single place."""
    y, x = _places(grey)
    middle_y, middle_x = _uniform(grey, 1), _uniform(grey, 1)
    low, high = _HIDDEN_SHARE
    tall, wide = (low + (high - low) * _share(grey) for _ in range(2))
    inside = ((y - middle_y).abs() < tall) & ((x - middle_x).abs() < wide) & (_chosen(grey, _HIDE_CHANCE) > 0)
    return torch.where(inside, _share(grey), grey)


def _places(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Return y and x of the pixels, -1..1, as [1, 1, s, 1] and [1, 1, 1, s]."""
    steps = torch.linspace(-1, 1, grey.shape[-1])
    return steps.view(1, 1, -1, 1), steps.view(1, 1, 1, -1)


def _chosen(grey: Tensor, chance: float) -> Tensor:
    return (_share(grey) < chance).to(grey.dtype)


def _uniform(grey: Tensor, most: float) -> Tensor:
    return (_share(grey) * 2 - 1) * most


def _share(grey: Tensor) -> Tensor:
    return torch.rand(len(grey), 1, 1, 1)
