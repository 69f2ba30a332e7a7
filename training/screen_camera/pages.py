"""Pages: what the camera looks at, a slice on a light box, in a viewer on a monitor, or on paper."""

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.screen_camera.display import Picture
from training.screen_camera.drawing import Colour, Rect, canvas_size, draw_room, fill, middle_of
from training.screen_camera.factors import Dice, Family

Slice = NDArray[np.uint8]

OUR_FRAME_SHARE = 0.008
"""Our own page draws a black frame around the slice, so thick as a part of the slice's longer side."""

_MELTING = 24
"""Grey levels between slice and border below which their edge is not seen."""
_SEEN_EDGE = 0.35
"""A side of the slice has to show this part of its length, or else the viewer draws an outline."""


class PageKind(StrEnum):
    """What a slice is shown on."""

    FILM = "film on a light box"
    VIEWER_WHITE = "viewer with a white border"
    VIEWER_GREY = "viewer with a grey border"
    VIEWER_BLACK = "viewer with a black border"
    WHITE_PAGE = "white page"
    OUR_PAGE = "our page"
    TINTED_VIEWER = "viewer with a tinted border"
    PRINTED_FIGURE = "figure in a printed article"


HELD_OUT_KINDS = (PageKind.TINTED_VIEWER, PageKind.PRINTED_FIGURE)
PAPER_KINDS = (PageKind.WHITE_PAGE, PageKind.PRINTED_FIGURE)


@dataclass(frozen=True)
class Scene:
    """A picture to photograph: what the camera is aimed at (a slice), what lies around it, and where a screen is lit.

    `sheet` is the surface that the slice lies on: the screen, the light box or the paper.
    """

    picture: Picture
    aim: Rect
    sheet: Rect
    is_lit_screen: bool
    name: str


def draw_page(
    slice_: Slice,
    dice: Dice,
    side_px: float,
    size: tuple[int, int],
    kind: PageKind | None = None,
    room_beside_px: tuple[int, int] = (0, 0),
) -> Scene:
    """Draw a page with this slice uint8 [h, w], its longer side so many pixels, for a frame of this size.

    The kind of page is drawn too where none is given. The page also has room left and right of the slice.
    """
    rng = dice.rng("page")
    kinds = [k for k in PageKind if dice.family is Family.HELD_OUT or k not in HELD_OUT_KINDS]
    drawn = kinds[rng.integers(len(kinds))]
    kind = kind or drawn
    canvas = draw_room(rng, canvas_size(size))
    shown = zoomed(slice_, side_px)
    at = middle_of(canvas, *shown.shape)
    left, right = room_beside_px
    sheet, border = _draw_sheet(canvas, at.grown(left, 0, right, 0), kind, dice.family, rng)
    _draw_rim(canvas, at, shown, kind, border, rng)
    canvas[at.top : at.bottom, at.left : at.right] = shown[..., None]
    return Scene(canvas, at, sheet, kind not in (PageKind.FILM, *PAPER_KINDS), kind)


def zoomed(slice_: Slice, side_px: float) -> Slice:
    """Scale the slice as a viewer does; its sides are even, so that it can sit in the middle."""
    scale = side_px / max(slice_.shape)
    height, width = (max(2, 2 * round(n * scale / 2)) for n in slice_.shape)
    if (height, width) == slice_.shape:
        return slice_
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(slice_, (width, height), interpolation=interpolation), np.uint8)


def draw_monitor(canvas: Picture, screen: Rect, rng: Generator) -> None:
    """Draw a monitor's bezel and stand around its screen."""
    bezel = rng.uniform(0.012, 0.045) * screen.height
    dark = int(rng.choice([10, 22, 40, 90, 170, 205]))
    chin = bezel * rng.uniform(1, 2.4)
    body = screen.grown(bezel, bezel, bezel, chin)
    middle, foot = (screen.left + screen.right) // 2, screen.height // 12
    fill(canvas, Rect(middle - foot, body.bottom, middle + foot, body.bottom + 2 * foot), (dark // 2,) * 3)
    fill(canvas, body, (dark, dark, dark))
    fill(canvas, screen.grown(2, 2, 2, 2), (dark // 3,) * 3)


def _draw_sheet(canvas: Picture, at: Rect, kind: PageKind, family: Family, rng: Generator) -> tuple[Rect, Colour]:
    """Draw what the slice lies on; return its rectangle, and its colour next to the slice."""
    if kind is PageKind.FILM:
        return _draw_light_box(canvas, at, rng)
    if kind in PAPER_KINDS:
        return _draw_paper(canvas, at, rng)
    screen = _screen_around(at, rng)
    border = _border_colour(kind, family, rng)
    draw_monitor(canvas, screen, rng)
    fill(canvas, screen, border)
    return screen, border


def _draw_rim(canvas: Picture, at: Rect, shown: Slice, kind: PageKind, border: Colour, rng: Generator) -> None:
    """Draw our own page's black frame, or a viewer's thin outline where the slice would melt into the border."""
    outline = _outline_colour(kind, border, rng)
    if kind is PageKind.OUR_PAGE:
        thickness = max(2, round(OUR_FRAME_SHARE * max(shown.shape)))
        fill(canvas, at.grown(thickness, thickness, thickness, thickness), (0, 0, 0))
    elif _melts(shown, border):
        fill(canvas, at.grown(1, 1, 1, 1), outline)


def _screen_around(at: Rect, rng: Generator) -> Rect:
    """Return a screen of a usual shape that the slice mostly fills."""
    share, aspect = rng.uniform(0.62, 0.92), rng.choice([16 / 9, 16 / 9, 16 / 10, 4 / 3])
    height = max(at.height / share, at.width / (0.85 * aspect))
    spare_x, spare_y = height * aspect - at.width, height - at.height
    x, y = rng.uniform(0.35, 0.65), rng.uniform(0.4, 0.65)
    return at.grown(spare_x * x, spare_y * y, spare_x * (1 - x), spare_y * (1 - y))


def _border_colour(kind: PageKind, family: Family, rng: Generator) -> Colour:
    match kind:
        case PageKind.VIEWER_WHITE | PageKind.OUR_PAGE:
            level = int(rng.integers(235, 256))
        case PageKind.VIEWER_GREY:
            level = int(rng.integers(70, 200) if family is Family.TRAINING else rng.integers(50, 170))
        case PageKind.TINTED_VIEWER:
            tones: tuple[Colour, ...] = ((90, 60, 40), (70, 50, 30), (60, 70, 50), (110, 95, 80))
            return tones[rng.integers(len(tones))]
        case _:
            level = int(rng.integers(0, 14))
    return level, level, level


def _draw_light_box(canvas: Picture, at: Rect, rng: Generator) -> tuple[Rect, Colour]:
    """Draw a lit panel in its casing, clips, and mostly a sheet of clear film around the slice."""
    side = max(at.width, at.height)
    panel = at.grown(*rng.uniform(0.1, 0.9, 4) * side)
    level = int(rng.integers(225, 256))
    casing = int(rng.integers(40, 200))
    fill(canvas, panel.grown(side / 14, side / 10, side / 14, side / 10), (casing, casing, casing))
    fill(canvas, panel, (level, level, level - 8))
    for y in np.linspace(panel.top, panel.bottom, 5)[:-1].astype(int):  # between the tubes the panel is darker
        fill(canvas, Rect(panel.left, y, panel.right, y + panel.height // 12), (level - 3, level - 4, level - 12))
    fill(canvas, Rect(panel.left, panel.top, panel.right, panel.top + side // 40), (casing // 2,) * 3)
    if rng.uniform() < 0.35:
        return panel, (level, level, level - 8)
    base = int(rng.integers(165, 215))
    film = (min(255, base + 18), base + 4, base)
    fill(canvas, at.grown(*rng.uniform(0.03, 0.09, 4) * side), film)
    return panel, film


def _draw_paper(canvas: Picture, at: Rect, rng: Generator) -> tuple[Rect, Colour]:
    """Draw a sheet of paper, with its shadow, around the slice."""
    sheet = at.grown(*rng.uniform(0.12, 0.6, 4) * max(at.width, at.height))
    level = int(rng.integers(215, 250))
    paper = (level - int(rng.integers(0, 12)), level, level)
    shadow = Rect(sheet.left + 6, sheet.top + 8, sheet.right + 6, sheet.bottom + 8)
    canvas[max(shadow.top, 0) : max(shadow.bottom, 0), max(shadow.left, 0) : max(shadow.right, 0)] //= 2
    fill(canvas, sheet, paper)
    return sheet, paper


def _melts(shown: Slice, border: Colour) -> bool:
    """Tell whether a side of the slice is mostly of the border's grey."""
    sides = (shown[0], shown[-1], shown[:, 0], shown[:, -1])
    return any(np.mean(np.abs(side.astype(int) - border[1]) > _MELTING) < _SEEN_EDGE for side in sides)


def _outline_colour(kind: PageKind, border: Colour, rng: Generator) -> Colour:
    """Return a thin outline's colour; some viewers mark the active picture with one of their own."""
    grey = int(rng.integers(90, 170) if border[1] < 128 else rng.integers(20, 90))
    bright = ((40, 190, 230), (60, 200, 90), (220, 150, 60))[rng.integers(3)]
    return bright if kind is PageKind.TINTED_VIEWER else (grey, grey, grey)
