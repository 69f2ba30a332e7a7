"""Scenes without a slice, which a capture path must refuse: a desk, a face, a text page, a window, an empty monitor."""

from enum import StrEnum

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.screen_camera.display import Picture
from training.screen_camera.drawing import (
    Colour,
    Rect,
    any_colour,
    canvas_size,
    draw_room,
    enlarged,
    fill,
    middle_of,
    ramp,
    write,
    write_paragraph,
)
from training.screen_camera.factors import Family, dice
from training.screen_camera.families import draw_conditions
from training.screen_camera.pages import Scene, draw_monitor
from training.screen_camera.shot import check_size, photographed

_AIM_OF_FRAME = 512 / 720
"""The camera is aimed at the middle, as if a slice of this part of the frame's shorter side were there."""


class EmptyScene(StrEnum):
    """What stands before the camera when there is no slice."""

    DESK = "desk"
    FACE = "face"
    TEXT_PAGE = "text page"
    WINDOW = "window"
    EMPTY_MONITOR = "empty monitor"


def empty_scene(
    kind: EmptyScene, *, severity: float, seed: int, family: Family, size: tuple[int, int] = (720, 1280)
) -> Picture:
    """Return a simulated frame uint8 [height, width, 3] BGR of a scene that has no slice."""
    check_size(size)
    chance = dice(seed, family, severity)
    rng = chance.rng(f"scene {kind}")
    canvas = draw_room(rng, canvas_size(size))
    side = 2 * round(_AIM_OF_FRAME * min(size) / 2)
    aim = middle_of(canvas, side, side)
    sheet = _PAINTERS[EmptyScene(kind)](canvas, aim, rng)
    scene = Scene(canvas, aim, sheet or aim, sheet is not None, kind)
    frame, _ = photographed(scene, draw_conditions(chance, size), size, chance.rng("sensor"))
    return frame


def _paint_desk(canvas: Picture, aim: Rect, rng: Generator) -> None:
    """Paint a table top seen from above or at an angle, with paper, a keyboard, a cup, a telephone and pens."""
    unit = aim.width
    top = aim.top - round(rng.uniform(0.0, 0.5) * unit)
    _paint_wood(canvas, Rect(0, max(0, top), canvas.shape[1], canvas.shape[0]), rng)
    things = [_paint_sheet_of_paper, _paint_keyboard, _paint_cup, _paint_telephone, _paint_pen]
    for i in rng.permutation(len(things))[: rng.integers(2, 6)]:
        place = np.array([rng.uniform(-0.4, 1.4) * unit + aim.left, rng.uniform(0.0, 1.1) * unit + aim.top])
        things[i](canvas, place, unit, rng)


def _paint_wood(canvas: Picture, rect: Rect, rng: Generator) -> None:
    """Paint planks: noise that is drawn out along the grain."""
    spot = canvas[rect.top : rect.bottom, rect.left : rect.right]
    grain = rng.normal(0, 1, (spot.shape[0] // 3 + 1, spot.shape[1] // 40 + 1)).astype(np.float32)
    grain = np.asarray(cv2.resize(grain, (spot.shape[1], spot.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
    base = np.array(_WOODS[rng.integers(len(_WOODS))], np.float32)
    light = ramp(rng, 0.7, 1.2, spot.shape[0])[:, None]
    spot[:] = np.clip(base * (light * (1 + rng.uniform(0.02, 0.07) * grain))[..., None], 0, 255).astype(np.uint8)


_WOODS = ((80, 120, 165), (50, 75, 115), (130, 165, 200), (45, 50, 60), (205, 210, 215))


def _paint_sheet_of_paper(canvas: Picture, place: NDArray[np.float64], unit: int, rng: Generator) -> None:
    height = round(rng.uniform(0.4, 0.9) * unit)
    sheet = np.full((height, round(height / 1.414), 3), int(rng.integers(205, 250)), np.uint8)
    inner = Rect(0, 0, sheet.shape[1], height).grown(*(-0.08 * height,) * 4)
    write_paragraph(sheet, inner, max(5.0, 0.012 * height), (70, 70, 70), rng)
    _lay(canvas, sheet, place, rng.uniform(-0.6, 0.6))


def _paint_keyboard(canvas: Picture, place: NDArray[np.float64], unit: int, rng: Generator) -> None:
    key = round(rng.uniform(0.045, 0.07) * unit)
    board = np.full((6 * key, 16 * key, 3), int(rng.choice([25, 45, 190])), np.uint8)
    cap = int(rng.choice([40, 60, 225]))
    for row in range(5):
        for column in range(15):
            left, top = round((column + 0.5) * key), round((row + 0.5) * key)
            fill(board, Rect(left, top, left + round(0.85 * key), top + round(0.85 * key)), (cap, cap, cap))
    _lay(canvas, board, place, rng.uniform(-0.25, 0.25))


def _paint_cup(canvas: Picture, place: NDArray[np.float64], unit: int, rng: Generator) -> None:
    middle, radius = place.astype(int).tolist(), round(rng.uniform(0.08, 0.15) * unit)
    rim = any_colour(rng, 60, 250)
    cv2.circle(canvas, (middle[0] + radius // 5, middle[1] + radius // 5), radius, (25, 30, 35), -1, cv2.LINE_AA)
    cv2.circle(canvas, middle, radius, rim, -1, cv2.LINE_AA)
    cv2.circle(canvas, middle, round(0.8 * radius), (20, 35, 60), -1, cv2.LINE_AA)


def _paint_telephone(canvas: Picture, place: NDArray[np.float64], unit: int, rng: Generator) -> None:
    height = round(rng.uniform(0.3, 0.45) * unit)
    body = np.full((height, height // 2, 3), 18, np.uint8)
    fill(body, Rect(4, 8, height // 2 - 4, height - 8), any_colour(rng, 5, 90))
    _lay(canvas, body, place, rng.uniform(-1, 1))


def _paint_pen(canvas: Picture, place: NDArray[np.float64], unit: int, rng: Generator) -> None:
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.2, 0.35) * unit
    end = place + length * np.array([np.cos(angle), np.sin(angle)])
    colour = any_colour(rng, 10, 220)
    cv2.line(canvas, place.astype(int).tolist(), end.astype(int).tolist(), colour, max(3, unit // 60), cv2.LINE_AA)


def _lay(canvas: Picture, thing: Picture, middle: NDArray[np.float64], angle: float) -> None:
    """Lay a picture onto the canvas, turned, with its shadow."""
    height, width = thing.shape[:2]
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix = np.column_stack([turn, middle - turn @ (width / 2, height / 2)])
    size = (canvas.shape[1], canvas.shape[0])
    covered = cv2.warpAffine(np.full((height, width), 255, np.uint8), matrix, size, flags=cv2.INTER_LINEAR) > 127
    shadow = np.roll(covered, (height // 60 + 3, width // 60 + 3), (0, 1)) & ~covered
    canvas[shadow] //= 2
    canvas[covered] = cv2.warpAffine(thing, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[
        covered
    ]


def _paint_face(canvas: Picture, aim: Rect, rng: Generator) -> None:
    """Paint head and shoulders of someone before the webcam: shapes shaded like a face, no portrait."""
    unit = aim.width * rng.uniform(0.75, 1.2)
    x = (aim.left + aim.right) / 2 + rng.uniform(-0.25, 0.25) * unit
    y = (aim.top + aim.bottom) / 2 - rng.uniform(0.0, 0.15) * unit
    skin = np.array(_SKINS[rng.integers(len(_SKINS))], np.float64)
    hair = tuple(int(c) for c in rng.uniform(0.2, 1.0) * np.array([40, 60, 90]))
    step = 4
    small = np.ascontiguousarray(canvas[::step, ::step])

    def round_(dx: float, dy: float, rx: float, ry: float, colour: object, start: int = 0, end: int = 360) -> None:
        middle = (round((x + dx * unit) / step), round((y + dy * unit) / step))
        axes = (max(1, round(rx * unit / step)), max(1, round(ry * unit / step)))
        shade = [int(c) for c in np.asarray(colour, np.float64)]
        cv2.ellipse(small, middle, axes, 0, start, end, shade, -1, cv2.LINE_AA)

    round_(0, 0.95, 0.62, 0.45, rng.integers(20, 190, 3))
    round_(0, -0.06, 0.31, 0.39, hair)
    round_(0, 0.42, 0.14, 0.2, 0.8 * skin)
    round_(0, 0.03, 0.26, 0.35, 0.92 * skin)
    round_(rng.choice([-1, 1]) * 0.05, 0.02, 0.19, 0.3, skin)
    for side in (-1, 1):
        round_(side * 0.1, -0.05, 0.045, 0.022, (225, 225, 225))
        round_(side * 0.1, -0.05, 0.02, 0.02, (40, 40, 40))
        round_(side * 0.1, -0.11, 0.065, 0.014, hair)
        round_(side * 0.035, 0.13, 0.018, 0.012, 0.65 * skin)
    round_(0, 0.09, 0.04, 0.06, 0.95 * skin)
    round_(0, 0.22, 0.09, 0.024, skin * (0.65, 0.6, 0.85))
    round_(0, -0.24, 0.27, 0.16, hair, 180, 360)
    soft = np.asarray(cv2.GaussianBlur(small, (0, 0), max(0.8, 0.012 * unit / step)), np.uint8)
    canvas[:] = enlarged(soft, (canvas.shape[0], canvas.shape[1]))


_SKINS = ((150, 180, 225), (120, 150, 200), (85, 115, 165), (50, 75, 120))


def _paint_text(canvas: Picture, aim: Rect, rng: Generator) -> None:
    """Paint a printed page: heading, paragraphs in one or two columns, sometimes a table."""
    unit = aim.width
    _paint_wood(canvas, Rect(0, 0, canvas.shape[1], canvas.shape[0]), rng)
    sheet = aim.grown(*rng.uniform(-0.1, 0.35, 2) * unit, *rng.uniform(-0.1, 0.35, 2) * unit)
    level = int(rng.integers(205, 250))
    fill(canvas, sheet, (level - int(rng.integers(0, 14)), level, level))
    ink, height, gap = (int(rng.integers(15, 80)),) * 3, max(5.0, rng.uniform(0.011, 0.02) * unit), 0.05 * unit
    inner = sheet.grown(-gap, -gap, -gap, -gap)
    write(canvas, "Lorem ipsum dolor"[: rng.integers(8, 18)], (inner.left, inner.top + 2 * height), 2 * height, ink)
    columns = int(rng.integers(1, 3))
    width = (inner.width - (columns - 1) * gap) / columns
    for i in range(columns):
        left = inner.left + i * (width + gap)
        for share in (0.0, 0.33, 0.66):
            top = inner.top + 4 * height + share * (inner.height - 4 * height)
            block = Rect(round(left), round(top), round(left + width), round(top + 0.3 * inner.height))
            if rng.uniform() < 0.2:
                _rule_table(canvas, block, ink)
            else:
                write_paragraph(canvas, block, height, ink, rng)


def _rule_table(canvas: Picture, block: Rect, ink: Colour) -> None:
    for y in np.linspace(block.top, block.bottom - 1, 7).astype(int).tolist():
        fill(canvas, Rect(block.left, y, block.right, y + 1), ink)
    for x in np.linspace(block.left, block.right - 1, 5).astype(int).tolist():
        fill(canvas, Rect(x, block.top, x + 1, block.bottom), ink)


def _paint_window(canvas: Picture, aim: Rect, rng: Generator) -> None:
    """Paint a window in a dark wall: sky, trees, roofs, bars, sometimes curtains."""
    unit = aim.width
    wall = rng.uniform(0.2, 0.7)
    canvas[:] = (canvas * wall).astype(np.uint8)
    pane = aim.grown(*rng.uniform(-0.15, 0.5, 4) * unit)
    outside = _landscape(rng, (max(pane.height, 16), max(pane.width, 16)))
    _paste(canvas, outside, pane)
    frame, level = max(4, round(rng.uniform(0.015, 0.04) * unit)), int(rng.integers(30, 235))
    bars_x, bars_y = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    for x in np.linspace(pane.left, pane.right, bars_x + 1).astype(int).tolist():
        fill(canvas, Rect(x - frame // 2, pane.top, x + frame // 2, pane.bottom), (level,) * 3)
    for y in np.linspace(pane.top, pane.bottom, bars_y + 1).astype(int).tolist():
        fill(canvas, Rect(pane.left, y - frame // 2, pane.right, y + frame // 2), (level,) * 3)
    if rng.uniform() < 0.5:
        cloth = any_colour(rng, 40, 200)
        for left in (pane.left - round(0.1 * unit), pane.right - round(0.15 * unit)):
            for fold in range(8):
                x = left + fold * unit // 32
                shade = tuple(round(c * (0.75 + 0.25 * (fold % 2))) for c in cloth)
                fill(canvas, Rect(x, pane.top - 20, x + unit // 32, pane.bottom + 60), (shade[0], shade[1], shade[2]))


def _landscape(rng: Generator, size: tuple[int, int]) -> Picture:
    rows, columns = -(-size[0] // 8), -(-size[1] // 8)
    top, horizon = rng.uniform(190, 255, 3), round(rows * rng.uniform(0.5, 0.9))
    view = np.linspace(top, np.full(3, 250.0), rows, dtype=np.float32)[:, None].repeat(columns, axis=1)
    view = np.ascontiguousarray(view)
    for _ in range(rng.integers(4, 14)):
        radius = int(rng.uniform(0.03, 0.15) * columns) + 1
        place = (int(rng.uniform(0, columns)), horizon + int(rng.uniform(-0.5, 1) * radius))
        cv2.circle(view, place, radius, (rng.uniform(0.3, 1.2) * np.array([70, 110, 80])).tolist(), -1)
    view[horizon:] *= np.float32(rng.uniform(0.3, 0.7))
    return enlarged(np.clip(cv2.GaussianBlur(view, (0, 0), 0.8), 0, 255).astype(np.uint8), size)


def _paste(canvas: Picture, picture: Picture, rect: Rect) -> None:
    """Copy the part of a picture that lies on the canvas."""
    left, top = max(rect.left, 0), max(rect.top, 0)
    spot = canvas[top : max(rect.bottom, 0), left : max(rect.right, 0)]
    part = picture[top - rect.top :, left - rect.left :][: spot.shape[0], : spot.shape[1]]
    spot[: part.shape[0], : part.shape[1]] = part


def _paint_monitor(canvas: Picture, aim: Rect, rng: Generator) -> Rect:
    """Paint a monitor that shows no slice: off, a desktop, a document, a log-in, or a viewer with an empty view."""
    unit = aim.width
    height, aspect = rng.uniform(0.9, 1.5) * unit, rng.choice([16 / 9, 16 / 10, 4 / 3])
    screen = middle_of(canvas, round(height), round(height * aspect))
    draw_monitor(canvas, screen, rng)
    contents = [_show_nothing, _show_desktop, _show_document, _show_log_in, _show_empty_viewer]
    contents[rng.integers(len(contents))](canvas, screen, rng)
    return screen


def _show_nothing(canvas: Picture, screen: Rect, rng: Generator) -> None:
    level = int(rng.integers(0, 22))
    fill(canvas, screen, (level, level, level))


def _show_desktop(canvas: Picture, screen: Rect, rng: Generator) -> None:
    _paste(canvas, _landscape(rng, (screen.height, screen.width)), screen)
    icon = screen.height // 14
    for i in range(int(rng.integers(2, 7))):
        left, top = screen.left + icon // 2, screen.top + icon // 2 + round(1.6 * icon * i)
        fill(canvas, Rect(left, top, left + icon, top + icon), any_colour(rng, 30, 240))
    fill(canvas, Rect(screen.left, screen.bottom - icon // 2, screen.right, screen.bottom), (50, 40, 35))


def _show_document(canvas: Picture, screen: Rect, rng: Generator) -> None:
    fill(canvas, screen, (int(rng.integers(30, 120)),) * 3)
    margin = screen.width * rng.uniform(0.05, 0.3)
    page = screen.grown(-margin, -0.08 * screen.height, -margin, -0.03 * screen.height)
    fill(canvas, page, (245, 245, 245))
    height = max(5.0, 0.014 * screen.height)
    write_paragraph(canvas, page.grown(*(-3 * height,) * 4), height, (60, 60, 60), rng)


def _show_log_in(canvas: Picture, screen: Rect, rng: Generator) -> None:
    fill(canvas, screen, any_colour(rng, 20, 120))
    box = screen.grown(*(-0.36 * screen.width, -0.3 * screen.height) * 2)
    fill(canvas, box, (225, 225, 225))
    for share in (0.35, 0.6):
        top = box.top + round(share * box.height)
        fill(canvas, Rect(box.left + 20, top, box.right - 20, top + box.height // 9), (255, 255, 255))
    write(canvas, "Log in", (box.left + 20, box.top + 0.22 * box.height), 0.08 * box.height, (60, 60, 60))


def _show_empty_viewer(canvas: Picture, screen: Rect, rng: Generator) -> None:
    """Show a viewer before a study is opened: tools around, and an empty view with an outline."""
    border, bar = int(rng.choice([15, 60, 120, 240])), screen.height // 14
    fill(canvas, screen, (border, border, border))
    fill(canvas, Rect(screen.left, screen.top, screen.right, screen.top + bar), (90, 85, 80))
    side = round(0.8 * screen.height)
    left, top = (screen.left + screen.right - side) // 2, screen.top + bar + (screen.height - bar - side) // 2
    view = Rect(left, top, left + side, top + side)
    fill(canvas, view.grown(2, 2, 2, 2), (110, 110, 110))
    fill(canvas, view, (int(rng.integers(0, 12)),) * 3)
    if rng.uniform() < 0.6:
        write(
            canvas,
            "No study loaded",
            (view.left + 0.3 * side, (view.top + view.bottom) / 2),
            0.03 * side,
            (150, 150, 150),
        )


_PAINTERS = {
    EmptyScene.DESK: _paint_desk,
    EmptyScene.FACE: _paint_face,
    EmptyScene.TEXT_PAGE: _paint_text,
    EmptyScene.WINDOW: _paint_window,
    EmptyScene.EMPTY_MONITOR: _paint_monitor,
}
