"""What changes the weights: AdamW or SGD over layer groups, with a rate that climbs and falls along a cosine."""

import math

import torch
from torch import nn

from training.networks import ARCHITECTURES, Network
from training.plan import TrainSettings

_MOMENTUM = 0.9
_SGD_RATE = 0.01
"""As in torchvision's recipe for SqueezeNet."""
_LEAST_RATE_SHARE = 0.01
"""The first step of a warm-up takes this share instead of nothing."""


def make_optimizer(network: Network, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimizer; weights decay, but neither biases nor the scales of a normalisation."""
    head = {id(parameter) for parameter in network.head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault((id(parameter) in head, parameter.ndim > 1), []).append(parameter)
    described = [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "rate_share": 1.0 if in_head else settings.backbone_rate_share,
        }
        for (in_head, decays), parameters in groups.items()
    ]
    rate = peak_rate(network, settings)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(described, lr=rate, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(described, lr=rate)


def peak_rate(network: Network, settings: TrainSettings) -> float:
    """Return the learning rate at its peak."""
    own = _SGD_RATE if settings.optimizer == "sgd" else ARCHITECTURES[network.architecture].learning_rate
    return settings.learning_rate or own


def rate_share(done: float, warmup_share: float) -> float:
    """Return the learning rate's share of its peak when this share (0..1) of all steps is done."""
    if done < warmup_share:
        return max(done / warmup_share, _LEAST_RATE_SHARE)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup_share) / (1 - warmup_share)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each layer group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_share"]


def set_learning(network: Network, *, head_only: bool) -> None:
    """Let all layers learn, or the last alone; what does not learn keeps its statistics and drops nothing out."""
    network.train(not head_only)
    network.requires_grad_(not head_only)
    network.head.train().requires_grad_(True)
