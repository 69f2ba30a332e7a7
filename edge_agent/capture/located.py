"""What the camera asks of whoever finds the slice in a frame."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Located(Protocol):
    """Where the slice lies; `quad` is float32 [4, 2] in the frame's pixels, clockwise from the top left corner."""

    @property
    def quad(self) -> NDArray[np.float32] | None:
        """Return the outline, or None where there is no slice."""

    @property
    def score(self) -> float:
        """Return how sure it is, 0..1."""

    @property
    def reason(self) -> str:
        """Return the code of why nothing was found."""


class Locate(Protocol):
    """Finds the slice in a frame uint8 [height, width, 3]."""

    def __call__(self, frame: NDArray[np.uint8], /) -> Located:
        """Return where it lies."""
