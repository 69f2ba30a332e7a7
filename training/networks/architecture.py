"""What the table knows of one kind of network, and what every network answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

Outputs = tuple[Tensor, Tensor, Tensor]
"""logits [n, 3], features [n, d], activation map [n, 3, h, w]; the logits are linear in the features."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of 0..1; torchvision's and most of timm's weights were trained on pixels brought to these."""


@dataclass(frozen=True)
class Architecture:
    """How one kind of network is made and read, and what trains it well."""

    builder: Callable[[], nn.Module]
    read: Callable[[Any, Tensor], Outputs]
    head: str
    """Name of the last layer, the one that the classes are told by."""
    learning_rate: float
    """AdamW's at its peak, from scratch."""
    fine_tune_rate: float
    """AdamW's at its peak, from weights that were trained before."""
    description: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    linear_in_features: bool = True
    """False for the seed's SqueezeNet alone: its last ReLU stands between features and logits."""


def by_position(head: nn.Linear, maps: Tensor) -> Tensor:
    """Apply the last layer to each position of maps [n, d, h, w]: a class activation map [n, 3, h, w]."""
    return F.conv2d(maps, head.weight[:, :, None, None], head.bias)
