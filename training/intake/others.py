"""Pictures that are no axial chest slice: scenes, pages, noise, textures, plates with holes, scrambled slices."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.intake.captured import scene_cuts
from training.intake.organs import organ_picture
from training.model.preprocess import BlankFrameError, Frame, prepare
from training.screen_camera import Family

_SIDE = 256
_CUTS_OF_SCENE = 3


def other_pictures(seed: int, number: int, chest: Frame) -> list[Frame]:
    """Return a few prepared pictures uint8 [256, 256] without a chest; one is made of the prepared `chest`."""
    rng = np.random.default_rng([seed, number, 1])
    pictures = [
        organ_picture(rng),
        *scene_cuts(_CUTS_OF_SCENE, rng, Family.TRAINING),
        _SCRAMBLES[rng.integers(len(_SCRAMBLES))](chest, rng),
        _DRAWINGS[rng.integers(len(_DRAWINGS))](rng),
        _DRAWINGS[rng.integers(len(_DRAWINGS))](rng),
    ]
    return [prepared for picture in pictures if (prepared := _prepared(picture)) is not None]


def _prepared(picture: Frame) -> Frame | None:
    try:
        return prepare(picture)
    except BlankFrameError:
        return None


def _shuffled(chest: Frame, rng: Generator) -> Frame:
    """Cut the picture into tiles and put them together in another order."""
    tiles = int(rng.integers(2, 7))
    side = _SIDE // tiles
    order = rng.permutation(tiles * tiles)
    if tiles == 2:  # with few tiles chance might leave them as they were
        order = np.roll(np.arange(4), rng.integers(1, 4))
    shown = np.zeros_like(chest)
    for to, by in enumerate(order):
        (y, x), (v, u) = divmod(to, tiles), divmod(int(by), tiles)
        tile = chest[v * side : (v + 1) * side, u * side : (u + 1) * side]
        shown[y * side : (y + 1) * side, x * side : (x + 1) * side] = tile
    return shown


def _phase_scrambled(chest: Frame, rng: Generator) -> Frame:
    """Keep how much of each frequency there is, and nothing of where."""
    spectrum = np.abs(np.fft.rfft2(chest.astype(np.float32)))
    phase = np.angle(np.fft.rfft2(rng.normal(size=chest.shape)))
    return _stretched(np.fft.irfft2(spectrum * np.exp(1j * phase), chest.shape))


def _magnified(chest: Frame, rng: Generator) -> Frame:
    """Show a small part alone."""
    side = int(rng.integers(30, 80))
    y, x = rng.integers(20, _SIDE - side - 20, 2)
    part = chest[y : y + side, x : x + side]
    return np.asarray(cv2.resize(part, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _negative(chest: Frame, rng: Generator) -> Frame:
    """Show white as black, more or less."""
    return np.asarray(rng.integers(200, 256) - np.minimum(chest, 200), np.uint8)


def _several(chest: Frame, rng: Generator) -> Frame:
    """Show a sheet of many small slices."""
    many = int(rng.integers(2, 5))
    side = _SIDE // many
    return np.tile(np.asarray(cv2.resize(chest, (side, side), interpolation=cv2.INTER_AREA), np.uint8), (many, many))


def _noise(rng: Generator) -> Frame:
    """Draw noise of any colour, from white to clouds."""
    frequency = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(_SIDE, _SIDE))) / frequency ** rng.uniform(0, 3)
    spectrum[0, 0] = 0
    return _stretched(np.fft.irfft2(spectrum, (_SIDE, _SIDE)))


def _gradient(rng: Generator) -> Frame:
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    turn = rng.uniform(0, 2 * np.pi)
    slope = np.cos(turn) * x + np.sin(turn) * y
    round_ = -(np.hypot(x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5)) ** rng.uniform(0.5, 3))
    return _stretched(slope * rng.uniform(0, 1) + round_ * rng.uniform(0, 1.5) + rng.normal(0, 0.02, x.shape))


def _stripes(rng: Generator) -> Frame:
    places = np.arange(_SIDE)
    level, upright = (np.sin(rng.uniform(0.02, 0.6) * places + phase) for phase in (1, 2))
    if rng.random() < 0.5:
        level, upright = np.sign(level), np.sign(upright)
    grain = rng.normal(0, 0.1, (_SIDE, _SIDE))
    return _stretched(level[None] + rng.uniform(0, 1) * upright[:, None] + grain)


def _leaves(rng: Generator) -> Frame:
    """Let discs and rectangles fall on one another: sizes and edges as photographs have them (dead leaves)."""
    canvas = _plain(rng)
    for _ in range(int(rng.integers(5, 150))):
        size = float(np.clip(6 / rng.uniform(0.02, 1) ** 0.7, 3, 120))
        place, grey = rng.integers(0, _SIDE, 2).tolist(), int(rng.integers(0, 256))
        axes = (round(size), round(size * rng.uniform(0.3, 1)))
        if rng.random() < 0.6:
            cv2.ellipse(canvas, place, axes, rng.uniform(0, 180), 0, 360, (grey,), -1, cv2.LINE_AA)
        else:
            corners = cv2.boxPoints((place, (2 * axes[0], 2 * axes[1]), rng.uniform(0, 180)))
            cv2.fillConvexPoly(canvas, corners.astype(np.int32), (grey,), cv2.LINE_AA)
    return _blurred(canvas, rng)


def _plate(rng: Generator) -> Frame:
    """Draw a bright round body with holes that are no lungs: a face, a button, a socket, a ring, a fruit."""
    canvas = np.full((_SIDE, _SIDE), rng.integers(0, 70), np.uint8)
    middle = rng.integers(112, 144, 2)
    a, b = rng.uniform(80, 125), rng.uniform(70, 125)
    body = int(rng.integers(120, 256))
    cv2.ellipse(canvas, middle.tolist(), (round(a), round(b)), 0, 0, 360, (body,), -1, cv2.LINE_AA)
    for _ in range(int(rng.choice([0, 1, 1, 3, 4, 5, 6, 8]))):
        place = (middle + rng.uniform(-0.6, 0.6, 2) * (a, b)).astype(int).tolist()
        axes = (round(rng.uniform(0.06, 0.4) * a), round(rng.uniform(0.06, 0.4) * b))
        grey = int(rng.integers(0, body - 40))
        cv2.ellipse(canvas, place, axes, rng.uniform(0, 180), 0, 360, (grey,), -1, cv2.LINE_AA)
    return _blurred(canvas, rng)


def _rings(rng: Generator) -> Frame:
    """Draw rings around one another and what lies about them: a cup, a wheel, a plate, a lens."""
    canvas = _leaves(rng) if rng.random() < 0.5 else _plain(rng)
    middle, flat, turn = rng.uniform(60, 196, 2), rng.uniform(0.4, 1), rng.uniform(0, 180)
    size = rng.uniform(60, 150)
    for _ in range(int(rng.integers(2, 8))):
        axes, grey = (round(size), round(size * flat)), int(rng.integers(0, 256))
        cv2.ellipse(canvas, middle.astype(int).tolist(), axes, turn, 0, 360, (grey,), -1, cv2.LINE_AA)
        middle, size = middle + rng.normal(0, 0.08, 2) * size, size * rng.uniform(0.4, 0.95)
    return _blurred(canvas, rng)


def _curves(rng: Generator) -> Frame:
    """Draw lines and bows: signs, cables, branches, cracks."""
    canvas = _plain(rng)
    for _ in range(int(rng.integers(1, 12))):
        bends = np.cumsum(rng.normal(0, 35, (int(rng.integers(3, 9)), 2)), axis=0) + rng.uniform(0, _SIDE, 2)
        steps = np.linspace(0, len(bends) - 1, 60)
        line = np.column_stack([np.interp(steps, np.arange(len(bends)), bends[:, k]) for k in (0, 1)])
        grey, thick = int(rng.integers(0, 256)), int(rng.integers(1, 22))
        soft = cv2.blur(line, (1, 9)).astype(np.int32)
        cv2.polylines(canvas, [soft], bool(rng.random() < 0.3), (grey,), thick, cv2.LINE_AA)
    return _blurred(canvas, rng)


def _specks(rng: Generator) -> Frame:
    """Scatter bright specks over the dark, or dark ones over the light: stars, dust, cells."""
    canvas = np.full((_SIDE, _SIDE), rng.integers(0, 60), np.uint8)
    for _ in range(int(rng.integers(5, 300))):
        place, size = rng.integers(0, _SIDE, 2).tolist(), round(min(1 / rng.uniform(0.03, 1), 18))
        axes = (size, max(1, round(size * rng.uniform(0.4, 1))))
        cv2.ellipse(canvas, place, axes, rng.uniform(0, 180), 0, 360, (int(rng.integers(60, 256)),), -1, cv2.LINE_AA)
    speckled = _blurred(canvas, rng)
    return np.asarray(255 - speckled) if rng.random() < 0.3 else speckled


def _text(rng: Generator) -> Frame:
    """Write a page, dark on light or light on dark."""
    paper, ink = (rng.integers(180, 256), rng.integers(0, 90)) if rng.random() < 0.7 else (rng.integers(0, 60), 220)
    page = np.full((_SIDE, _SIDE), paper, np.uint8)
    scale = rng.uniform(0.25, 1.2)
    step = round(30 * scale) + int(rng.integers(2, 12))
    for y in range(step, _SIDE, step):
        if rng.random() < 0.9:
            text = "".join(chr(c) for c in rng.integers(33, 123, 60))[: int(rng.integers(4, 60))]
            cv2.putText(page, text, (int(rng.integers(4, 30)), y), cv2.FONT_HERSHEY_SIMPLEX, scale, (int(ink),), 1)
    return page


def _plain(rng: Generator) -> Frame:
    return np.full((_SIDE, _SIDE), rng.integers(0, 256), np.uint8)


def _blurred(canvas: Frame, rng: Generator) -> Frame:
    grain = rng.normal(0, rng.uniform(0, 15), canvas.shape)
    soft = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 3)) + grain
    return np.asarray(np.clip(soft, 0, 255), np.uint8)


def _stretched(values: NDArray[np.floating]) -> Frame:
    low, high = np.percentile(values, (1, 99))
    return np.asarray(np.clip((values - low) / max(high - low, 1e-6) * 255, 0, 255), np.uint8)


_SCRAMBLES: tuple[Callable[[Frame, Generator], Frame], ...] = (
    _shuffled,
    _shuffled,
    _phase_scrambled,
    _magnified,
    _negative,
    _several,
)
_DRAWINGS: tuple[Callable[[Generator], Frame], ...] = (
    _noise,
    _gradient,
    _stripes,
    _leaves,
    _leaves,
    _plate,
    _rings,
    _curves,
    _specks,
    _text,
)
