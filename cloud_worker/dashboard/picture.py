"""Draw a grey picture with half-block characters: each cell shows two pixels, one above the other."""

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from rich.text import Text

UPPER_HALF = "▀"
PIXELS_PER_CELL = 2


def half_blocks(pixels: NDArray[np.uint8], width: int) -> Text:
    """Return uint8 [height, width] as text of `width` columns, in the picture's own proportions.

    A terminal's cell is about twice as high as wide, so half a cell is a square pixel.
    """
    rows = max(1, round(pixels.shape[0] / pixels.shape[1] * width / PIXELS_PER_CELL))
    small = cv2.resize(pixels, (width, rows * PIXELS_PER_CELL), interpolation=cv2.INTER_AREA)
    picture = Text(no_wrap=True, end="")
    for row in range(rows):
        if row:
            picture.append("\n")
        for upper, lower in zip(small[2 * row].tolist(), small[2 * row + 1].tolist(), strict=True):
            picture.append(UPPER_HALF, _grey(upper, lower))
    return picture


def _grey(upper: int, lower: int) -> Style:
    return Style(color=f"#{upper:02x}{upper:02x}{upper:02x}", bgcolor=f"#{lower:02x}{lower:02x}{lower:02x}")
