"""The paper's own small network, and one of its spirit that sees anatomy."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from protocol.labels import LABELS
from training.networks.architecture import Outputs, by_position


class PaperCnn(nn.Module):
    """The paper's baseline: three parallel convolutions of 25 maps, global max pooling, 75-200-50-3; 26,203 parameters.

    It sees 4x4 pixels and is told only the strongest answer of each map: a texture detector. The paper's key names;
    the arguments are what the paper's search varied.
    """

    CELL_PX = 16
    """Side of the cells of its activation map."""

    def __init__(self, kernels: Sequence[int] = (2, 3, 4), maps: int = 25, hidden: tuple[int, int] = (200, 50)) -> None:
        """Make it of convolutions of these sides, so many maps each, and two hidden layers of these widths."""
        super().__init__()
        self.conv2d_list = nn.ModuleList(nn.Conv2d(1, maps, kernel) for kernel in kernels)
        self.fc1 = nn.Linear(maps * len(kernels), hidden[0])
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.fc3 = nn.Linear(hidden[1], len(LABELS))

    def forward(self, x: Tensor) -> Outputs:
        """Read normalised slices; the activation map is what the network would answer if it saw that cell alone."""
        cells = torch.cat([F.max_pool2d(conv(x), self.CELL_PX, ceil_mode=True) for conv in self.conv2d_list], 1).relu()
        features = self._features(cells.amax((2, 3)))
        by_cell = self.fc3(self._features(cells.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.fc3(features), features, by_cell

    def _features(self, strongest: Tensor) -> Tensor:
        hidden: Tensor = self.fc2(self.fc1(strongest).relu()).relu()
        return hidden


class RepairedCnn(nn.Module):
    """The paper's idea, three scales side by side, five times over, normalised and told by average and maximum.

    Each stage halves the side by three parallel 3x3 convolutions of dilation 1, 2 and 4, so that the last one sees
    249 of 256 pixels where the paper's sees 4. What that costs: 219,243 parameters (the paper's 26,203) and, at
    256 px, 115 million multiplications a slice (53 million).
    """

    WIDTHS = (24, 48, 96, 96, 96)
    DILATIONS = (1, 2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(_Scales(before, after) for before, after in pairwise((1, *self.WIDTHS))))
        self.fc = nn.Linear(2 * self.WIDTHS[-1], len(LABELS))

    def forward(self, x: Tensor) -> Outputs:
        """Read normalised slices; the activation map is what the network would answer if it saw that cell alone."""
        maps = self.stages(x)
        features = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return self.fc(features), features, by_position(self.fc, torch.cat([maps, maps], 1))


class _Scales(nn.Module):
    """Three dilations side by side at half the side, each normalised by itself, so that the export folds that away."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        maps = after // len(RepairedCnn.DILATIONS)
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, maps, 3, stride=2, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(maps),
            )
            for dilation in RepairedCnn.DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([scale(x).relu() for scale in self.scales], 1)


def read_baseline(net: nn.Module, x: Tensor) -> Outputs:
    """Read by a network that gives all three outputs itself."""
    outputs: Outputs = net(x)
    return outputs
