"""Even out a slice's light: what a camera, a screen and glare change first, removed by local mean and spread."""

import torch
from torch import Tensor

_REACH = 1 / 8
"""Standard deviation of the neighbourhood, as a share of the side: wide beside vessels, narrow beside glare."""
_LEAST_SPREAD = 0.03
"""Of white; what varies less, like black with a camera's noise, is not blown up to look like tissue."""
_MIDDLE, _SPREAD = 0.45, 0.2
"""Where the result lies in 0..1: about where ImageNet's pictures do, whose weights read it."""
_LOWEST, _HIGHEST = -0.5, 1.5


def evened(grey: Tensor) -> Tensor:
    """Return slices float [n, 1, px, px], 0..1, with the same mean and spread around each pixel.

    A gain, a veil of light and a gradient drop out, and so does how bright a lung is as a whole. The Gaussian means are
    two products with a constant: no operator beyond MatMul, which every runtime of the edge has.
    """
    blur = _gaussian(grey.shape[-1], grey.device)
    off = grey - blur @ grey @ blur.T
    spread = (blur @ off.square() @ blur.T).sqrt() + _LEAST_SPREAD
    return (off / spread * _SPREAD + _MIDDLE).clamp(_LOWEST, _HIGHEST)


def _gaussian(px: int, device: torch.device) -> Tensor:
    """Return [px, px]: rows of weights that add up to 1, also at the border."""
    at = torch.arange(px, dtype=torch.float32, device=device) / px
    weights = torch.exp(-0.5 * ((at[:, None] - at) / _REACH).square())
    return weights / weights.sum(1, keepdim=True)
