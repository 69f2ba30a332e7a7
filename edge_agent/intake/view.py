"""What a picture shows and which way round it is, and what follows from it: pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from edge_agent.refusal import Refusal

ROTATIONS_DEG = (0, 90, 180, 270)


class Orientation(NamedTuple):
    """How a slice lies: mirrored left to right or not, and then turned clockwise by so many degrees, as seen."""

    rotation_deg: int
    mirrored: bool

    @property
    def name(self) -> str:
        """Return the name by which a network's file calls it."""
        return f"rotated-{self.rotation_deg}" + ("-mirrored" if self.mirrored else "")


UPRIGHT = Orientation(0, mirrored=False)
ORIENTATIONS = tuple(Orientation(rotation, mirrored) for mirrored in (False, True) for rotation in ROTATIONS_DEG)


@dataclass(frozen=True)
class View:
    """What the network makes of one picture: nine probabilities that sum to 1."""

    orientations: Mapping[Orientation, float]
    """That it is an axial chest slice which lies so."""
    no_chest: float
    """That it is none."""

    @property
    def mirrored(self) -> float:
        """Return the probability that it is mirrored, if it is a chest slice."""
        return self._if_chest(sum(self.orientations[one] for one in ORIENTATIONS if one.mirrored))

    @property
    def rotation_deg(self) -> int:
        """Return the likeliest rotation."""
        return max(ROTATIONS_DEG, key=self.rotated)

    def rotated(self, rotation_deg: int) -> float:
        """Return the probability that it is turned clockwise by so much, mirrored or not, if it is a chest slice.

        Both together: they differ in left and right alone, and the patient's front lies at the same side.
        """
        return self._if_chest(sum(self.orientations[one] for one in ORIENTATIONS if one.rotation_deg == rotation_deg))

    def _if_chest(self, probability: float) -> float:
        return probability / max(sum(self.orientations.values()), 1e-12)


class IntakeLimits(BaseModel):
    """How sure the network must be before a picture is refused or turned; a picture in doubt is read as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    no_chest: float = Field(default=0.9, ge=0, le=1)
    """Above this probability that it is no axial chest slice, a picture is refused; 1 refuses none."""
    mirrored: float = Field(default=0.85, ge=0, le=1)
    """Above this probability that it is mirrored, a slice is refused; 1 refuses none."""
    rotated: float = Field(default=0.9, ge=0, le=1)
    """Above this probability of a rotation, a slice is refused, or turned; 1 refuses none."""
    sure_rotation: float = Field(default=0.95, ge=0, le=1)
    """Above this probability of a rotation, a slice is turned upright instead of refused; 1 turns none."""


def judge(view: View, limits: IntakeLimits) -> Refusal | None:
    """Tell why a picture is not read, or None where it is: upright, in doubt, or such that `upright` turns it."""
    if view.no_chest > limits.no_chest:
        return Refusal.NOT_A_CHEST_CT
    if view.mirrored > limits.mirrored:
        return Refusal.MIRRORED
    if _is_rotated(view, limits) and not _is_turned(view, limits):
        return Refusal.ROTATED
    return None


def upright(prepared: NDArray[np.uint8], view: View, limits: IntakeLimits) -> NDArray[np.uint8]:
    """Turn a slice uint8 [256, 256] upright where it is surely rotated; any other picture comes back as it is.

    Its view must be of the same picture; one that `judge` refuses is never turned.
    """
    if judge(view, limits) is not None or not _is_rotated(view, limits):
        return prepared
    return np.ascontiguousarray(np.rot90(prepared, view.rotation_deg // 90))


def _is_rotated(view: View, limits: IntakeLimits) -> bool:
    return view.rotation_deg != UPRIGHT.rotation_deg and view.rotated(view.rotation_deg) > limits.rotated


def _is_turned(view: View, limits: IntakeLimits) -> bool:
    return view.rotated(view.rotation_deg) > limits.sure_rotation
