"""Probation: compare a candidate with the incumbent on live slices, and tell when it is out of bounds."""

from edge_agent.probation.behaviour import Answer, Comparison, Paired
from edge_agent.probation.beside import Beside, Role
from edge_agent.probation.bounds import Bounds, BoundsLike
from edge_agent.probation.cost import SilentReader, read_costed
from edge_agent.probation.kept_reading import KeptReading, KeptSlice

__all__ = [
    "Answer",
    "Beside",
    "Bounds",
    "BoundsLike",
    "Comparison",
    "KeptReading",
    "KeptSlice",
    "Paired",
    "Role",
    "SilentReader",
    "read_costed",
]
