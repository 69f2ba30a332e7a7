"""The networks that can read a slice, behind one table, in one wrapper: the same input, the same three outputs."""

from training.networks.architecture import Architecture, Outputs
from training.networks.baselines import PaperCnn, RepairedCnn
from training.networks.network import INPUT_SIDES_PX, Network, UnknownArchitectureError, build, paper_variant
from training.networks.table import ARCHITECTURES

__all__ = [
    "ARCHITECTURES",
    "INPUT_SIDES_PX",
    "Architecture",
    "Network",
    "Outputs",
    "PaperCnn",
    "RepairedCnn",
    "UnknownArchitectureError",
    "build",
    "paper_variant",
]
