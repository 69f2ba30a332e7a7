"""A moving average of a network's weights: steadier than the last step's, and what is judged and kept when it is on."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from training.networks import Network

_WARM_STEPS = 10
"""The decay climbs as (1 + steps) / (10 + steps): a young average forgets the first weights fast (as in TensorFlow)."""


def moving_average(network: Network, decay: float) -> AveragedModel:
    """Return an average that follows the network at every `update_parameters`, normalisations' statistics too."""

    def follow(averages: Sequence[Tensor], values: Sequence[Tensor], steps: Tensor | int) -> None:
        warm = min(decay, (1 + float(steps)) / (_WARM_STEPS + float(steps)))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), 1 - warm)
            else:
                average.copy_(value)

    with torch.no_grad():
        return AveragedModel(network, multi_avg_fn=follow, use_buffers=True)
