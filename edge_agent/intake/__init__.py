"""Intake: decide from a prepared picture whether it is an axial chest slice, and which way round it lies."""

from edge_agent.intake.intake import Intake, NotFiniteIntakeError, UnreadableIntakeError, shipped_network
from edge_agent.intake.view import ORIENTATIONS, UPRIGHT, IntakeLimits, Orientation, View, judge, upright

__all__ = [
    "ORIENTATIONS",
    "UPRIGHT",
    "Intake",
    "IntakeLimits",
    "NotFiniteIntakeError",
    "Orientation",
    "UnreadableIntakeError",
    "View",
    "judge",
    "shipped_network",
    "upright",
]
