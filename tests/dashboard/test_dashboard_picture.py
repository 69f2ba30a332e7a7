"""The picture in half-block characters."""

import numpy as np
import pytest
from rich.color import Color
from rich.style import Style

from cloud_worker.dashboard.picture import UPPER_HALF, half_blocks


def brightness(color: Color | None) -> int:
    """Return the grey value of a colour."""
    assert color is not None
    assert color.triplet is not None
    return color.triplet.red


@pytest.mark.parametrize("width", [1, 16, 40])
def test_it_has_the_asked_width_and_half_as_many_rows(width: int) -> None:
    """A square picture of n columns has n/2 rows, since a cell is twice as high as wide."""
    lines = half_blocks(np.zeros((256, 256), np.uint8), width).plain.split("\n")
    assert [len(line) for line in lines] == [width] * max(1, round(width / 2))


def test_it_keeps_the_order_of_brightness() -> None:
    """What is brighter in the slice is brighter on the screen, above as below, left as right."""
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 256))
    picture = half_blocks(ramp, 40)
    greys: list[int] = []
    for span in picture.spans[::40]:
        assert isinstance(span.style, Style)
        greys += [brightness(span.style.color), brightness(span.style.bgcolor)]
    assert len(greys) == 40
    assert greys == sorted(set(greys))


def test_every_cell_shows_two_pixels() -> None:
    """White over black is a cell with white above and black below."""
    picture = half_blocks(np.array([[255], [0]], np.uint8), 1)
    assert picture.plain == UPPER_HALF
    style = picture.spans[0].style
    assert isinstance(style, Style)
    assert (brightness(style.color), brightness(style.bgcolor)) == (255, 0)
