"""Drawing: rectangles, lines of type and rooms out of focus, the strokes that pages and scenes are made of."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.screen_camera.display import Picture
from training.screen_camera.geometry import Points

Colour = tuple[int, int, int]
"""Blue, green, red."""

_CANVAS_OF_FRAME = 1.34
"""So much larger than the frame a scene is drawn, for turned and shifted views."""
_ROOM_STEP_PX = 16
_LETTERS = "etaoinshrdlucmfwypvbgk"
_CAP_HEIGHT = 22.0
"""Pixels of a capital letter in OpenCV's simplex font at scale 1."""


@dataclass(frozen=True)
class Rect:
    """A rectangle of whole pixels: `right` and `bottom` just outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def corners(self) -> Points:
        """Return the corners of its outer edge [4, 2], clockwise from the top left; pixels count at their centres."""
        x0, y0, x1, y1 = self.left - 0.5, self.top - 0.5, self.right - 0.5, self.bottom - 0.5
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])

    def moved(self, dx: int, dy: int) -> "Rect":
        """Return it shifted."""
        return Rect(self.left + dx, self.top + dy, self.right + dx, self.bottom + dy)

    def grown(self, left: float, top: float, right: float, bottom: float) -> "Rect":
        """Return it with each side moved outwards."""
        sides = (self.left - left, self.top - top, self.right + right, self.bottom + bottom)
        return Rect(*(round(side) for side in sides))


def canvas_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size (height, width) of the canvas on which a scene for a frame of this size is drawn."""
    return 2 * round(size[0] * _CANVAS_OF_FRAME / 2), 2 * round(size[1] * _CANVAS_OF_FRAME / 2)


def middle_of(canvas: Picture, height: int, width: int) -> Rect:
    """Return the rectangle of this size in the middle of the canvas."""
    top, left = (canvas.shape[0] - height) // 2, (canvas.shape[1] - width) // 2
    return Rect(left, top, left + width, top + height)


def fill(canvas: Picture, rect: Rect, colour: Colour) -> None:
    """Paint the part of a rectangle that lies on the canvas."""
    if rect.width > 0 and rect.height > 0:
        cv2.rectangle(canvas, (rect.left, rect.top), (rect.right - 1, rect.bottom - 1), colour, -1)


def write(canvas: Picture, text: str, at: tuple[float, float], height_px: float, colour: Colour) -> None:
    """Write a line; `at` is its lower left corner, `height_px` that of a capital letter."""
    place = (round(at[0]), round(at[1]))
    thickness = max(1, round(height_px / 9))
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, height_px / _CAP_HEIGHT, colour, thickness, cv2.LINE_AA)


def text_width(text: str, height_px: float) -> int:
    """Return the width in pixels of a line of this height."""
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, height_px / _CAP_HEIGHT, 1)
    return int(width)


def words(rng: Generator, letters: int) -> str:
    """Return about so many letters of words that mean nothing."""
    drawn = rng.integers(0, len(_LETTERS), letters)
    gaps = rng.uniform(size=letters) < 0.17
    return "".join(" " if gap else _LETTERS[i] for i, gap in zip(drawn, gaps, strict=True)).strip()


def write_paragraph(canvas: Picture, rect: Rect, height_px: float, ink: Colour, rng: Generator) -> None:
    """Fill a rectangle with lines of type, the last one shorter; what is off the canvas is left out."""
    leading = 2.1 * height_px
    lines = int(rect.height / leading)
    for i in range(lines):
        y = rect.top + leading * (i + 0.7)
        letters = int(rect.width / (0.85 * height_px) * (1.0 if i < lines - 1 else 0.4))
        if 0 < y < canvas.shape[0] + leading and letters > 1:
            write(canvas, words(rng, letters), (rect.left, y), height_px, ink)


def draw_room(rng: Generator, size: tuple[int, int]) -> Picture:
    """Draw a wall, things before it and a table top, all out of focus."""
    rows, columns = (-(-n // _ROOM_STEP_PX) for n in size)
    room = _wall(rng, rows, columns)
    for _ in range(rng.integers(2, 7)):
        _draw_thing(room, rng)
    table = round(rows * rng.uniform(0.72, 1.0))
    room[table:] = _muted(rng, rng.uniform(20, 170))
    room = np.asarray(cv2.GaussianBlur(room, (0, 0), rng.uniform(0.5, 2.0)), np.float32)
    room *= ramp(rng, 0.6, 1.25, columns)[None, :, None] * ramp(rng, 0.7, 1.2, rows)[:, None, None]
    return enlarged(np.clip(room, 0, 255).astype(np.uint8), size)


def enlarged(small: Picture, size: tuple[int, int]) -> Picture:
    """Interpolate a picture that was drawn smaller to a size (height, width)."""
    return np.asarray(cv2.resize(small, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)


def ramp(rng: Generator, least: float, most: float, count: int) -> NDArray[np.float32]:
    """Return a slope float32 [count] between two levels drawn from this range."""
    first, last = rng.uniform(least, most, 2).tolist()
    return np.linspace(first, last, count, dtype=np.float32)


def any_colour(rng: Generator, least: int, most: int) -> Colour:
    """Return a colour whose channels are each drawn from this range."""
    blue, green, red = rng.integers(least, most, 3).tolist()
    return blue, green, red


def _wall(rng: Generator, rows: int, columns: int) -> NDArray[np.float32]:
    return np.full((rows, columns, 3), _muted(rng, rng.uniform(10, 165)), np.float32)


def _draw_thing(room: NDArray[np.float32], rng: Generator) -> None:
    """Draw a cupboard, a book, a picture, a plant, a lamp: upright rectangles and rounds."""
    rows, columns = room.shape[:2]
    x, y = rng.uniform(0, columns), rng.uniform(0.1, 0.9) * rows
    width, height = rng.uniform(0.03, 0.22) * columns, rng.uniform(0.08, 0.6) * rows
    colour = _muted(rng, rng.uniform(8, 200))
    if rng.uniform() < 0.65:
        corners = (round(x - width / 2), round(y - height / 2)), (round(x + width / 2), round(y + height / 2))
        cv2.rectangle(room, *corners, colour, -1)
    else:
        cv2.ellipse(room, (round(x), round(y)), (round(width / 2) + 1, round(width / 2) + 1), 0, 0, 360, colour, -1)


def _muted(rng: Generator, level: float) -> tuple[float, float, float]:
    """Return a colour of this level that a room has: mostly grey, rather warm than cold."""
    warm, green = rng.normal(0.08, 0.12), rng.normal(0, 0.05)
    return level * (1 - warm), level * (1 + green), level * (1 + warm)
