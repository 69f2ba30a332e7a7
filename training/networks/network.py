"""The one wrapper of all networks: a prepared slice in, reduced and normalised inside, three outputs out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.preprocess import INPUT_PX
from training.networks.architecture import Outputs
from training.networks.baselines import PaperCnn
from training.networks.table import ARCHITECTURES

INPUT_SIDES_PX = range(32, INPUT_PX + 1)
"""Sides that a slice can be reduced to; below them the networks' own strides leave nothing to see."""


class UnknownArchitectureError(ValueError):
    """No network of that name; the message lists those that exist."""


class Network(nn.Module):
    """A network with its preparation inside: uint8 or float grey 0..255 [n, 1, 256, 256] in, `Outputs` out.

    `net` keeps torchvision's or timm's key names, so that a state dict made elsewhere loads into it as it is.
    """

    mean: Tensor
    std: Tensor
    shares: Tensor

    def __init__(self, architecture: str, net: nn.Module, input_px: int) -> None:
        """Wrap the bare `net` of a known architecture; `build` is the usual way."""
        super().__init__()
        self.architecture = architecture
        self.input_px = input_px
        self.net = net
        known = ARCHITECTURES[architecture]
        self.register_buffer("mean", torch.tensor(known.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(known.std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shares", _area_shares(input_px), persistent=False)

    @property
    def head(self) -> nn.Module:
        """Return the last layer: Linear, or SqueezeNet's 1x1 convolution."""
        return self.net.get_submodule(ARCHITECTURES[self.architecture].head)

    def forward(self, slices: Tensor) -> Outputs:
        """Read prepared slices."""
        return self.read(self.reduce(slices))

    def reduce(self, slices: Tensor) -> Tensor:
        """Average the pixels [n, 1, 256, 256], 0..255, down to float [n, 1, input_px, input_px], 0..1."""
        grey = slices.float() / 255
        if self.input_px == INPUT_PX:
            return grey
        if INPUT_PX % self.input_px == 0:
            return F.avg_pool2d(grey, INPUT_PX // self.input_px)
        return self.shares @ grey @ self.shares.T

    def read(self, grey: Tensor) -> Outputs:
        """Read reduced slices; the training loop augments between `reduce` and here."""
        normalised = (grey - self.mean) / self.std
        return ARCHITECTURES[self.architecture].read(self.net, normalised)


def build(name: str, input_px: int = INPUT_PX) -> Network:
    """Make an untrained network; its weights come from torch's global random generator.

    Raises `UnknownArchitectureError`, and ValueError for an input side that is not in INPUT_SIDES_PX.
    """
    if name not in ARCHITECTURES:
        raise UnknownArchitectureError(f"no architecture '{name}'; known: {', '.join(ARCHITECTURES)}")
    _refuse_side(input_px)
    return Network(name, ARCHITECTURES[name].builder(), input_px)


def paper_variant(kernels: Sequence[int], maps: int, hidden: tuple[int, int], input_px: int = INPUT_PX) -> Network:
    """Make an untrained baseline of the paper's search; weights as in `build`.

    A checkpoint of it opens only as `baseline_cnn` with the paper's own sizes: keep a variant's sizes beside it.
    """
    _refuse_side(input_px)
    return Network("baseline_cnn", PaperCnn(kernels, maps, hidden), input_px)


def _refuse_side(input_px: int) -> None:
    if input_px not in INPUT_SIDES_PX:
        raise ValueError(f"input_px {input_px} is not from {INPUT_SIDES_PX[0]} to {INPUT_SIDES_PX[-1]}")


def _area_shares(side: int) -> Tensor:
    """Return [side, 256]: how much of each output pixel, as a share of its length, lies on each input pixel.

    On rows and columns this is the exact area average, for sides that 256 is no multiple of; as two products with a
    constant it needs no operator beyond MatMul, which every runtime of the edge has.
    """
    edges = torch.arange(side + 1, dtype=torch.float64) * INPUT_PX / side
    pixels = torch.arange(INPUT_PX, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * side / INPUT_PX).float()
