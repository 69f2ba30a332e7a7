"""Overlays: what a viewer, a film or a sheet of paper shows besides the slice, some of it over the slice."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.random import Generator

from training.screen_camera.display import Picture
from training.screen_camera.drawing import Colour, Rect, any_colour, fill, text_width, write, write_paragraph
from training.screen_camera.factors import Dice, Factor, Family
from training.screen_camera.pages import PAPER_KINDS, PageKind, Scene

_TEXT_COLOURS: tuple[Colour, ...] = ((235, 235, 235), (200, 200, 200), (60, 220, 240), (90, 230, 120), (60, 170, 250))
_BRIGHT = 128
_DARK_ON_WHITE: tuple[Colour, ...] = ((20, 20, 20), (70, 70, 70), (140, 60, 20))

Painter = Callable[[Picture, Scene, Generator], None]


def draw_overlays(scene: Scene, dice: Dice) -> None:
    """Paint onto a scene's picture what lies around and over its slice; how much is likely grows with severity."""
    strength = dice.strength(Factor.OVERLAYS)
    surface, placed = _surface_of(scene)
    for name, chance, painter in _PAINTERS[_table_of(scene, dice.family)]:
        rng = dice.rng(f"overlay {name}")
        if rng.uniform() < chance * strength:
            painter(surface, placed, rng)


def _surface_of(scene: Scene) -> tuple[Picture, Scene]:
    """Return the picture's part that the sheet covers, so that nothing is painted beside it, and the scene on it."""
    height, width = scene.picture.shape[:2]
    left, top = max(scene.sheet.left, 0), max(scene.sheet.top, 0)
    surface = scene.picture[top : min(scene.sheet.bottom, height), left : min(scene.sheet.right, width)]
    return surface, replace(scene, aim=scene.aim.moved(-left, -top), sheet=scene.sheet.moved(-left, -top))


def draw_pacs_text(canvas: Picture, at: Rect, rng: Generator, corners: int, inside: bool) -> None:
    """Write the patient's and the series' lines into some corners, inside the slice or beside it."""
    height = max(5.0, rng.uniform(0.015, 0.024) * max(at.width, at.height))
    is_bright = not inside and canvas[(at.top + at.bottom) // 2, max(at.left - 8, 0)].mean() > _BRIGHT
    colours = _DARK_ON_WHITE if is_bright else _TEXT_COLOURS
    colour = colours[rng.integers(len(colours))]
    for corner in rng.permutation(4)[:corners]:
        lines = [_PACS_LINES[i] for i in rng.permutation(len(_PACS_LINES))[: rng.integers(2, 5)]]
        right, below = bool(corner & 1), bool(corner & 2)
        for i, line in enumerate(lines):
            text = line.format(n=int(rng.integers(1, 400)), m=int(rng.integers(10, 99)), d=int(rng.integers(1, 9)))
            x = _beside(at, text_width(text, height), right, inside, height)
            y = at.bottom - (len(lines) - i - 0.5) * 1.7 * height if below else at.top + (i + 1) * 1.7 * height
            write(canvas, text, (x, y), height, colour)


_PACS_LINES = (
    "PHANTOM^{m}",
    "ID {n:07d}",
    "CT THORAX",
    "SE {m}  IM {n}",
    "W 1500  L -600",
    "120 kV {n} mA",
    "1.25 mm",
    "HFS  FOV {n} mm",
    "Z {n}.5",
    "Zoom 1{m} %",
    "2020-0{d}-1{d}",
)


def _beside(at: Rect, width: int, right: bool, inside: bool, gap: float) -> float:
    """Return the x where a line begins."""
    if inside:
        return at.right - width - gap if right else at.left + gap
    return at.right + gap if right else at.left - width - gap


def _table_of(scene: Scene, family: Family) -> str:
    if scene.name in PAPER_KINDS or scene.name == PageKind.FILM or scene.name == PageKind.OUR_PAGE:
        return scene.name
    return f"viewer {family}"


def _toolbar(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Draw a window's title and a row of icons in the space above the slice."""
    screen, spare = scene.sheet, scene.aim.top - scene.sheet.top
    title, icons = min(0.35 * spare, 0.03 * screen.height), min(0.45 * spare, 0.05 * screen.height)
    level = int(rng.choice([30, 50, 190, 235]))
    ink = (220, 220, 220) if level < 128 else (40, 40, 40)
    fill(canvas, Rect(screen.left, screen.top, screen.right, round(screen.top + title)), (level - 12,) * 3)
    fill(
        canvas,
        Rect(screen.left, round(screen.top + title), screen.right, round(screen.top + title + icons)),
        (level,) * 3,
    )
    if title > 6:
        write(canvas, "Viewer - CT THORAX", (screen.left + title, screen.top + 0.75 * title), 0.5 * title, ink)
    y, box = screen.top + title + 0.15 * icons, 0.7 * icons
    for i in range(int(rng.integers(6, 22))):
        x = screen.left + (i + 0.5) * 1.4 * icons
        colour = any_colour(rng, 40, 230)
        kind, middle = rng.integers(3), (round(x + box / 2), round(y + box / 2))
        if kind == 0:
            cv2.rectangle(canvas, (round(x), round(y)), (round(x + box), round(y + box)), colour, -1)
        elif kind == 1:
            cv2.circle(canvas, middle, round(box / 2), colour, -1, cv2.LINE_AA)
        else:
            cv2.line(canvas, (round(x), round(y + box)), (round(x + box), round(y)), ink, 2, cv2.LINE_AA)


def _side_panel(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Draw a list of series in the space left of the slice."""
    screen, spare = scene.sheet, scene.aim.left - scene.sheet.left
    panel = Rect(
        screen.left, screen.top + screen.height // 12, screen.left + int(rng.uniform(0.4, 0.75) * spare), screen.bottom
    )
    level = int(rng.choice([35, 60, 200, 240]))
    fill(canvas, panel, (level,) * 3)
    height = max(6.0, 0.012 * screen.height)
    inner = panel.grown(-height, -2 * height, -height, -panel.height / 2)
    write_paragraph(canvas, inner, height, (210, 210, 210) if level < 128 else (50, 50, 50), rng)


def _thumbnails(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Draw a column of small slices at the screen's left edge."""
    screen, at, spare = scene.sheet, scene.aim, scene.aim.left - scene.sheet.left
    width = int(min(0.6 * spare, 0.14 * screen.height))
    if width < 24:
        return
    fill(canvas, Rect(screen.left, screen.top, screen.left + width, screen.bottom), (25, 25, 25))
    small = cv2.resize(
        canvas[at.top : at.bottom, at.left : at.right], (width - 10, width - 10), interpolation=cv2.INTER_AREA
    )
    for i in range(int(rng.integers(2, 6))):
        top, left = screen.top + 8 + i * (width + 6), screen.left + 5
        spot = canvas[max(top, 0) : max(top + width - 10, 0), max(left, 0) : max(left + width - 10, 0)]
        shown = cv2.convertScaleAbs(small, alpha=float(rng.uniform(0.6, 1.2)))
        if spot.shape == shown.shape:
            spot[:] = shown


def _status_bar(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Draw a task bar or a status line at the screen's lower edge."""
    screen, spare = scene.sheet, scene.sheet.bottom - scene.aim.bottom
    height = min(0.6 * spare, 0.045 * screen.height)
    level = int(rng.choice([20, 45, 210]))
    bar = Rect(screen.left, round(screen.bottom - height), screen.right, screen.bottom)
    fill(canvas, bar, (level + 15, level + 5, level))
    for i in range(int(rng.integers(3, 10))):
        x = screen.left + (i + 0.5) * 1.5 * height
        colour = any_colour(rng, 30, 250)
        cv2.circle(canvas, (round(x), round(screen.bottom - height / 2)), max(2, round(height / 3.5)), colour, -1)


def _text_beside(canvas: Picture, scene: Scene, rng: Generator) -> None:
    draw_pacs_text(canvas, scene.aim, rng, int(rng.integers(1, 5)), inside=False)


def _text_inside(canvas: Picture, scene: Scene, rng: Generator) -> None:
    draw_pacs_text(canvas, scene.aim, rng, int(rng.integers(1, 4)), inside=True)


def draw_ruler(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Draw a scale with ticks, upright near the slice's right edge or level near its lower one."""
    at, upright = scene.aim, rng.uniform() < 0.6
    length, inset = rng.uniform(0.3, 0.6), rng.uniform(0.02, 0.06)
    colour = _TEXT_COLOURS[rng.integers(len(_TEXT_COLOURS))]
    for i in range(11):
        share, tick = 0.5 + length * (i / 10 - 0.5), (0.02 if i % 5 == 0 else 0.01)
        if upright:
            x, y = at.right - inset * at.width, at.top + share * at.height
            ends = (x - tick * at.width, y), (x, y)
        else:
            x, y = at.left + share * at.width, at.bottom - inset * at.height
            ends = (x, y - tick * at.height), (x, y)
        _line(canvas, *ends, colour)
    if upright:
        x = at.right - inset * at.width
        ends = (x, at.top + (0.5 - length / 2) * at.height), (x, at.top + (0.5 + length / 2) * at.height)
    else:
        y = at.bottom - inset * at.height
        ends = (at.left + (0.5 - length / 2) * at.width, y), (at.left + (0.5 + length / 2) * at.width, y)
    _line(canvas, *ends, colour)


def _cursor(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Draw an arrow somewhere on or near the slice."""
    at, size = scene.aim, max(8.0, rng.uniform(0.02, 0.04) * max(scene.aim.width, scene.aim.height))
    tip = np.array([at.left, at.top]) + rng.uniform(-0.1, 1.1, 2) * (at.width, at.height)
    shape = np.array([[0, 0], [0, 1], [0.24, 0.78], [0.4, 1.12], [0.53, 1.06], [0.38, 0.73], [0.7, 0.7]])
    arrow = np.round(tip + size * shape).astype(np.int32)
    cv2.fillPoly(canvas, [arrow], (255, 255, 255), cv2.LINE_AA)
    cv2.polylines(canvas, [arrow], True, (0, 0, 0), 1, cv2.LINE_AA)


def _crosshair(canvas: Picture, scene: Scene, rng: Generator) -> None:
    at = scene.aim
    x, y = at.left + rng.uniform(0.1, 0.9) * at.width, at.top + rng.uniform(0.1, 0.9) * at.height
    reach = rng.uniform(0.02, 0.05) * max(at.width, at.height)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        _line(canvas, (x + 0.3 * reach * dx, y + 0.3 * reach * dy), (x + reach * dx, y + reach * dy), (80, 220, 250))


def _measurement(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Draw a measured distance over the slice."""
    at, colour = scene.aim, _TEXT_COLOURS[2 + rng.integers(3)]
    ends = np.array([at.left, at.top]) + rng.uniform(0.15, 0.85, (2, 2)) * (at.width, at.height)
    _line(canvas, ends[0], ends[1], colour)
    height = max(5.0, 0.018 * max(at.width, at.height))
    write(canvas, f"{rng.uniform(3, 90):.1f} mm", (ends[1, 0] + height, ends[1, 1]), height, colour)


def draw_orientation_letters(canvas: Picture, scene: Scene, rng: Generator) -> None:
    at, height = scene.aim, max(6.0, rng.uniform(0.018, 0.028) * max(scene.aim.width, scene.aim.height))
    colour = _TEXT_COLOURS[rng.integers(len(_TEXT_COLOURS))]
    middle_x, middle_y = (at.left + at.right) / 2, (at.top + at.bottom) / 2
    for letter, place in (
        ("A", (middle_x, at.top + 1.6 * height)),
        ("P", (middle_x, at.bottom - 0.6 * height)),
        ("R", (at.left + 0.6 * height, middle_y)),
        ("L", (at.right - 1.6 * height, middle_y)),
    ):
        write(canvas, letter, place, height, colour)


def _film_marker(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Write a side's letter and a line of data onto the film, in what the film's black lets through."""
    at, height = scene.aim, 0.03 * max(scene.aim.width, scene.aim.height)
    write(canvas, str(rng.choice(["L", "R"])), (at.right - 2 * height, at.top + 2 * height), height, (245, 240, 235))
    draw_pacs_text(canvas, at, rng, 1, inside=True)


def _clips(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Draw the clips that hold the film at its upper edge, clear of the slice."""
    at, panel = scene.aim, scene.sheet
    for share in rng.uniform(0.05, 0.95, 2):
        x, half = at.left + share * at.width, 0.03 * at.width
        reach = panel.top + rng.uniform(0.3, 0.8) * max(at.top - panel.top, 0)
        fill(canvas, Rect(round(x - half), panel.top, round(x + half), round(reach)), (90, 95, 95))


def _caption(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Write a heading above and a few lines below the slice."""
    at, height = scene.aim, max(6.0, rng.uniform(0.016, 0.026) * max(scene.aim.width, scene.aim.height))
    ink = _DARK_ON_WHITE[rng.integers(len(_DARK_ON_WHITE))]
    write(canvas, f"Figure {rng.integers(1, 9)}", (at.left, at.top - 1.6 * height), 1.2 * height, ink)
    below = Rect(at.left, round(at.bottom + 1.5 * height), at.right, round(at.bottom + 10 * height))
    write_paragraph(canvas, below, height, ink, rng)


def _article(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Set the columns of an article around the slice."""
    at, sheet = scene.aim, scene.sheet
    height, gap = max(5.0, 0.013 * max(at.width, at.height)), 0.035 * max(at.width, at.height)
    inner = sheet.grown(-gap, -gap, -gap, -gap)
    for column in (
        Rect(inner.left, inner.top, round(at.left - gap), inner.bottom),
        Rect(round(at.right + gap), inner.top, inner.right, inner.bottom),
        Rect(at.left, inner.top, at.right, round(at.top - gap)),
        Rect(at.left, round(at.bottom + gap), at.right, inner.bottom),
    ):
        if column.width > 8 * height and column.height > 0:
            write_paragraph(canvas, column, height, (50, 50, 50), rng)


def _page_title(canvas: Picture, scene: Scene, rng: Generator) -> None:
    """Write our own page's title and the slice's number."""
    at, height = scene.aim, max(7.0, 0.022 * max(scene.aim.width, scene.aim.height))
    write(canvas, "sliceloop", (at.left, at.top - 1.8 * height), height, (90, 90, 90))
    number = f"slice {rng.integers(1, 300)}"
    write(canvas, number, (at.right - text_width(number, height), at.bottom + 2.6 * height), height, (90, 90, 90))


def _line(canvas: Picture, start: object, end: object, colour: Colour) -> None:
    ends = np.round(np.array([start, end], np.float64)).astype(int).tolist()
    cv2.line(canvas, ends[0], ends[1], colour, 1, cv2.LINE_AA)


_PAINTERS: dict[str, tuple[tuple[str, float, Painter], ...]] = {
    f"viewer {Family.TRAINING}": (
        ("toolbar", 0.6, _toolbar),
        ("side panel", 0.35, _side_panel),
        ("status bar", 0.3, _status_bar),
        ("text beside", 0.45, _text_beside),
        ("text inside", 0.35, _text_inside),
        ("ruler", 0.3, draw_ruler),
        ("cursor", 0.4, _cursor),
    ),
    f"viewer {Family.HELD_OUT}": (
        ("toolbar", 0.5, _toolbar),
        ("thumbnails", 0.4, _thumbnails),
        ("status bar", 0.5, _status_bar),
        ("text beside", 0.4, _text_beside),
        ("text inside", 0.35, _text_inside),
        ("letters", 0.35, draw_orientation_letters),
        ("measurement", 0.25, _measurement),
        ("crosshair", 0.3, _crosshair),
        ("cursor", 0.2, _cursor),
    ),
    PageKind.FILM: (("clips", 0.6, _clips), ("marker", 0.6, _film_marker)),
    PageKind.WHITE_PAGE: (("caption", 0.7, _caption),),
    PageKind.PRINTED_FIGURE: (("article", 0.9, _article),),
    PageKind.OUR_PAGE: (("title", 0.8, _page_title), ("cursor", 0.25, _cursor)),
}
