"""What the benchmark measures: a path from a frame to the network's input, or to the reasons why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outcome:
    """What a path made of a frame: pixels uint8 [256, 256] or None, with the reasons' codes; the quad where found."""

    pixels: NDArray[np.uint8] | None
    quad: NDArray[np.float32] | None
    score: float = 0.0
    refusals: tuple[str, ...] = ()
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Of each stage that was reached."""


class PicturePath(Protocol):
    """Turns a frame uint8 [height, width, 3] BGR into the network's input."""

    def __call__(self, frame: NDArray[np.uint8], /) -> Outcome:
        """Develop a frame; never raises for what it shows."""


@dataclass(frozen=True)
class Paths:
    """The whole path, and the same with one stage off each, by that stage's name."""

    whole: PicturePath
    without: Mapping[str, PicturePath]
