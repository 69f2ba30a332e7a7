"""The networks that can read a slice, behind one table, in one wrapper: the same input, the same three outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from protocol.labels import LABELS
from training import vision
from training.model.preprocess import INPUT_PX

Outputs = tuple[Tensor, Tensor, Tensor]
"""logits [n, 3], features [n, d], activation map [n, 3, h, w]; the logits are linear in the features."""

INPUT_SIDES_PX = (256, 128, 64)
_GREY_MEAN = (0.485, 0.456, 0.406)
_GREY_STD = (0.229, 0.224, 0.225)
"""ImageNet's, so that weights trained there can be fine-tuned (issue 3)."""


class UnknownArchitectureError(ValueError):
    """No network of that name; the message lists those that exist."""


@dataclass(frozen=True)
class Architecture:
    """How one kind of network is made and read, and what trains it well from scratch."""

    builder: Callable[[], nn.Module]
    read: Callable[[Any, Tensor], Outputs]
    channels: int
    learning_rate: float
    description: str


class Network(nn.Module):
    """A network with its preparation inside: uint8 or float grey 0..255 [n, 1, 256, 256] in, `Outputs` out.

    `net` keeps torchvision's key names, so that a state dict made elsewhere loads into it as it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str, net: nn.Module, input_px: int) -> None:
        """Wrap the bare `net` of a known architecture; `build` is the usual way."""
        super().__init__()
        self.architecture = architecture
        self.input_px = input_px
        self.net = net
        channels = ARCHITECTURES[architecture].channels
        self.register_buffer("mean", torch.tensor(_GREY_MEAN[:channels]).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_GREY_STD[:channels]).view(1, -1, 1, 1), persistent=False)

    def forward(self, slices: Tensor) -> Outputs:
        """Read prepared slices."""
        return self.read(self.reduce(slices))

    def reduce(self, slices: Tensor) -> Tensor:
        """Average the pixels [n, 1, 256, 256], 0..255, down to float [n, 1, input_px, input_px], 0..1."""
        grey = slices.float() / 255
        return grey if self.input_px == INPUT_PX else F.avg_pool2d(grey, INPUT_PX // self.input_px)

    def read(self, grey: Tensor) -> Outputs:
        """Read reduced slices; the training loop augments between `reduce` and here."""
        normalised = (grey - self.mean) / self.std
        return ARCHITECTURES[self.architecture].read(self.net, normalised)


def build(name: str, input_px: int = INPUT_PX) -> Network:
    """Make an untrained network; its weights come from torch's global random generator.

    Raises `UnknownArchitectureError`, and ValueError for an input side that 256 is not reduced to.
    """
    if name not in ARCHITECTURES:
        raise UnknownArchitectureError(f"no architecture '{name}'; known: {', '.join(ARCHITECTURES)}")
    if input_px not in INPUT_SIDES_PX:
        raise ValueError(f"input_px {input_px} is not one of {INPUT_SIDES_PX}")
    return Network(name, ARCHITECTURES[name].builder(), input_px)


class PaperCnn(nn.Module):
    """The paper's baseline: three parallel convolutions of 25 maps, global max pooling, 75-200-50-3.

    It sees 4x4 pixels and is told only the strongest answer of each map: a texture detector. The paper's key names.
    """

    CELL_PX = 16
    """Side of the cells of its activation map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_list = nn.ModuleList(nn.Conv2d(1, 25, kernel) for kernel in (2, 3, 4))
        self.fc1 = nn.Linear(75, 200)
        self.fc2 = nn.Linear(200, 50)
        self.fc3 = nn.Linear(50, len(LABELS))

    def forward(self, x: Tensor) -> Outputs:
        """Read normalised slices; the activation map is what the network would answer if it saw that cell alone."""
        cells = torch.cat([F.max_pool2d(conv(x), self.CELL_PX, ceil_mode=True) for conv in self.conv2d_list], 1).relu()
        features = self._features(cells.amax((2, 3)))
        by_cell = self.fc3(self._features(cells.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.fc3(features), features, by_cell

    def _features(self, strongest: Tensor) -> Tensor:
        hidden: Tensor = self.fc2(self.fc1(strongest).relu()).relu()
        return hidden


def _squeezenet(version: str) -> nn.Module:
    net: nn.Module = getattr(vision.models(), f"squeezenet{version}")(num_classes=len(LABELS))
    return net


def _squeezenet_bn(version: str) -> nn.Module:
    """Leave the dropout out too: with it, learning from scratch stays at chance for more than twice as many steps."""
    net: Any = _with_batch_norm(_squeezenet(version))
    net.classifier[0] = nn.Identity()
    return net  # type: ignore[no-any-return]


def _with_batch_norm(net: Any) -> nn.Module:
    """Normalise after each convolution of the features; the export folds it away, so that it costs the edge nothing."""
    for parent in list(net.features.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                child.bias = None
                setattr(parent, name, nn.Sequential(child, nn.BatchNorm2d(child.out_channels)))
    return net  # type: ignore[no-any-return]


def _resnet18() -> nn.Module:
    net: nn.Module = vision.models().resnet18(num_classes=len(LABELS))
    return net


def _read_paper_cnn(net: PaperCnn, x: Tensor) -> Outputs:
    outputs: Outputs = net(x)
    return outputs


def _read_squeezenet(net: Any, x: Tensor) -> Outputs:
    """Leave torchvision's last ReLU out: behind it, a class whose map falls below zero can never learn again."""
    maps = net.features(x)
    dropout, last_convolution = net.classifier[0], net.classifier[1]
    class_maps = last_convolution(dropout(maps))
    return class_maps.mean((2, 3)), maps.mean((2, 3)), class_maps


def _read_resnet(net: Any, x: Tensor) -> Outputs:
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    maps = net.layer4(net.layer3(net.layer2(net.layer1(x))))
    class_maps = F.conv2d(maps, net.fc.weight[:, :, None, None], net.fc.bias)
    return class_maps.mean((2, 3)), maps.mean((2, 3)), class_maps


ARCHITECTURES: dict[str, Architecture] = {
    "baseline_cnn": Architecture(PaperCnn, _read_paper_cnn, 1, 1e-3, "the paper's baseline; 4x4 pixels, max pooled"),
    "squeezenet1_0": Architecture(lambda: _squeezenet("1_0"), _read_squeezenet, 3, 3e-4, "the paper's SqueezeNet"),
    "squeezenet1_1": Architecture(lambda: _squeezenet("1_1"), _read_squeezenet, 3, 3e-4, "2.4 times cheaper than 1.0"),
    "squeezenet1_0_bn": Architecture(
        lambda: _squeezenet_bn("1_0"), _read_squeezenet, 3, 5e-3, "SqueezeNet 1.0 with batch normalisation"
    ),
    "squeezenet1_1_bn": Architecture(
        lambda: _squeezenet_bn("1_1"), _read_squeezenet, 3, 5e-3, "SqueezeNet 1.1 with batch normalisation"
    ),
    "resnet18": Architecture(_resnet18, _read_resnet, 3, 2e-3, "the paper's largest; the second reader"),
}
