"""The calibration page: a square of grey patches, each level in many places, and a tag in each corner."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Page = NDArray[np.uint8]

GRID = 12
"""Cells along a side."""
TAG_BLOCK = 3
"""Cells along the side of a tag's block in each corner; the tag fills two of them, white the rest."""
LEVELS = 16
LEVEL_STEP = 255 // (LEVELS - 1)
"""Grey levels of the wedge: 0, 17, ... 255."""
TAG_DICTIONARY = cv2.aruco.DICT_4X4_50
"""Of large modules, so that a tag is read when the page is 300 pixels wide in the frame."""
CORNERS = ("top left", "top right", "bottom right", "bottom left")
"""The corner of tag 0, 1, 2 and 3."""
DEFAULT_SIDE_PX = 1200

_ROW_STEP, _COLUMN_STEP = 5, 7
"""Odd, so that each row and column has every level at most once, and a level's patches lie all over the page."""
_TAG_SHARE = 2 / 3


@dataclass(frozen=True)
class Patch:
    """A patch of one grey level: its cell's centre as a share of the page's side, and its level 0..255."""

    x: float
    y: float
    level: int


def patches() -> tuple[Patch, ...]:
    """Return the page's patches, row by row."""
    return tuple(
        Patch((column + 0.5) / GRID, (row + 0.5) / GRID, LEVEL_STEP * _level_index(row, column))
        for row in range(GRID)
        for column in range(GRID)
        if not _is_tag_cell(row, column)
    )


def tag_corners() -> NDArray[np.float64]:
    """Return where the tags' corners lie, [4 tags, 4 corners, 2] as shares of the page's side, clockwise each."""
    block, tag = TAG_BLOCK / GRID, _TAG_SHARE * TAG_BLOCK / GRID
    starts = np.array([[0, 0], [1 - block, 0], [1 - block, 1 - block], [0, 1 - block]]) + (block - tag) / 2
    square = tag * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return np.asarray(starts[:, None] + square[None], np.float64)


def draw_page(side_px: int = DEFAULT_SIDE_PX) -> Page:
    """Draw the page uint8 [side, side]; the side is rounded down to whole cells."""
    cell = side_px // GRID
    page = np.full((GRID * cell, GRID * cell), 255, np.uint8)
    for row in range(GRID):
        for column in range(GRID):
            if not _is_tag_cell(row, column):
                page[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = LEVEL_STEP * _level_index(
                    row, column
                )
    dictionary = cv2.aruco.getPredefinedDictionary(TAG_DICTIONARY)
    for tag, corners in enumerate(tag_corners()):
        left, top = np.floor(corners[0] * len(page)).astype(int)
        drawn = cv2.aruco.generateImageMarker(dictionary, tag, round(_TAG_SHARE * TAG_BLOCK * cell))
        page[top : top + len(drawn), left : left + len(drawn)] = drawn
    return page


def _level_index(row: int, column: int) -> int:
    return (_ROW_STEP * row + _COLUMN_STEP * column) % LEVELS


def _is_tag_cell(row: int, column: int) -> bool:
    return all(not TAG_BLOCK <= place < GRID - TAG_BLOCK for place in (row, column))
