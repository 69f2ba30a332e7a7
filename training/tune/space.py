"""What the search varies: 72 baseline CNNs, the paper's own among them."""

from dataclasses import dataclass
from typing import cast

import torch

from training.networks import Network, paper_variant
from training.plan import OptimizerName

SPACE: dict[str, tuple[str, ...]] = {
    "kernels": ("2-3-4", "3-4-5", "3-5-7"),
    "maps": ("10", "25", "50"),
    "hidden": ("100-25", "200-50", "400-100", "800-200"),
    "optimizer": ("adamw", "sgd"),
}
"""3 x 3 x 4 x 2 = 72, the paper's number. Its own lists of values are not known to us: these lie around its choice."""

PAPER_CHOICE = {"kernels": "2-3-4", "maps": "25", "hidden": "200-50"}
"""What the paper took, with either optimizer."""


@dataclass(frozen=True)
class Combination:
    """One baseline CNN: sides of its parallel convolutions, maps of each, widths of its hidden layers, optimizer."""

    kernels: tuple[int, ...]
    maps: int
    hidden: tuple[int, int]
    optimizer: OptimizerName

    @property
    def is_papers(self) -> bool:
        """Tell whether the paper chose this network."""
        return all(getattr(self, name) == getattr(_paper, name) for name in PAPER_CHOICE)

    def network(self, input_px: int, seed: int) -> Network:
        """Make a fresh network; the same seed gives the same weights, and torch's global generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return paper_variant(self.kernels, self.maps, self.hidden, input_px)


def combination(params: dict[str, str]) -> Combination:
    """Return the combination of a point in SPACE."""
    first, second = _numbers(params["hidden"])
    return Combination(
        _numbers(params["kernels"]), int(params["maps"]), (first, second), cast(OptimizerName, params["optimizer"])
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("-"))


_paper = combination(PAPER_CHOICE | {"optimizer": "adamw"})
