"""One grey channel instead of three equal ones: what a network made for colour is given at the edge."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from training.networks import Network

_COLOURS = 3


def with_grey_stem(network: Network) -> Network:
    """Return a copy that answers the same, its first convolution reading the grey slice itself.

    Copied to three channels and normalised, grey stays a straight line in each: the three sets of kernels add up to
    one, and the normalisation goes into it. That saves a third to two thirds of the first convolution, and int8 rounds
    the sum instead of three large summands that nearly cancel, as those of kernels for colour do. A network of one
    channel is copied as it is.
    """
    grey = deepcopy(network)
    if grey.mean.shape[1] != _COLOURS:
        return grey
    name, stem = next((name, part) for name, part in grey.net.named_modules() if isinstance(part, nn.Conv2d))
    if _alike(grey.mean) and _alike(grey.std):
        grey.mean, grey.std = grey.mean[:, :1], grey.std[:, :1]
        _set_kernels(stem, stem.weight.sum(1, keepdim=True))
        return grey
    slope = (stem.weight / grey.std).sum(1, keepdim=True)
    offset = -(stem.weight * grey.mean / grey.std).sum(1, keepdim=True)
    if stem.padding == (0, 0):
        stem.bias = nn.Parameter(offset.sum((1, 2, 3)) + (0 if stem.bias is None else stem.bias))
        _set_kernels(stem, slope)
    else:
        _set_kernels(stem, torch.cat([slope, offset], 1))
        parent, _, child = name.rpartition(".")
        setattr(grey.net.get_submodule(parent), child, nn.Sequential(_WithOnes(), stem))
    grey.mean, grey.std = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    return grey


class _WithOnes(nn.Module):
    """Adds a channel of ones, which the padding surrounds with zeros: so the offset ends where the slice does."""

    def forward(self, grey: Tensor) -> Tensor:
        return torch.cat([grey, torch.ones_like(grey)], 1)


def _alike(channels: Tensor) -> bool:
    return bool((channels == channels[:, :1]).all())


def _set_kernels(stem: nn.Conv2d, kernels: Tensor) -> None:
    stem.weight = nn.Parameter(kernels.detach())
    stem.in_channels = kernels.shape[1]
