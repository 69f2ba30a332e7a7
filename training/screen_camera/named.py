"""Named test frames: the cases that break a capture path, each with what is true of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from training.screen_camera.display import Picture
from training.screen_camera.drawing import Rect, fill
from training.screen_camera.factors import Dice, Family, dice
from training.screen_camera.families import Conditions, draw_conditions
from training.screen_camera.geometry import clockwise_from_top_left
from training.screen_camera.optics import Mirrored, Reflection
from training.screen_camera.overlays import draw_orientation_letters, draw_overlays, draw_pacs_text, draw_ruler
from training.screen_camera.pages import PageKind, Scene, Slice, draw_page, zoomed
from training.screen_camera.scenes import EmptyScene, empty_scene
from training.screen_camera.shot import check_size, check_slice, photographed, quad_of

_USUAL_SEVERITY = 0.6
_LARGER_OF_TWO = 0.55
_LARGER_OF_WIDTH = 0.45
"""The larger slice's side, of the frame's shorter side, and at most of its width."""
_ABOVE_AIR = 24
"""Grey levels above the median of the slice's edges, up to which a pixel is air."""
_FADING_FROM = 0.75
"""Of the way to the slice's edges."""


class NamedFrame(StrEnum):
    """What is hard about a frame."""

    BLACK_ON_BLACK = "black slice on a black bezel"
    ROUND_FIELD = "round field of view"
    TWO_SLICES = "two slices on a page"
    PACS_TEXT = "PACS text over the slice"
    GLARE_ACROSS_EDGE = "glare across an edge"
    CUT_BY_FRAME = "quad cut by the frame"
    ROTATED = "90 degrees rotated"
    MIRRORED = "mirrored"
    NO_SLICE = "no slice"


@dataclass(frozen=True)
class NamedShot:
    """A simulated frame uint8 [height, width, 3] BGR, its true quad float32 [4, 2] or None, and the page's name.

    The quad is what is true, also where nobody can see it (black on black) or parts lie outside (cut by the frame).
    Of two slices it is the larger one. Of a rotated or mirrored slice it starts at the top left as seen in the frame.
    """

    frame: Picture
    quad: NDArray[np.float32] | None
    page: str


@dataclass(frozen=True)
class _Setting:
    """What a named frame is made from."""

    slice_: Slice
    dice: Dice
    conditions: Conditions
    size: tuple[int, int]

    def page(self, kind: PageKind | None = None, room_beside_px: tuple[int, int] = (0, 0)) -> Scene:
        side_px = self.conditions.pose.side_px
        scene = draw_page(self.slice_, self.dice, side_px, self.size, kind, room_beside_px)
        draw_overlays(scene, self.dice)
        return scene

    def shot(self, scene: Scene, conditions: Conditions | None = None, keep_inside: bool = True) -> NamedShot:
        taken = conditions or self.conditions
        frame, view = photographed(scene, taken, self.size, self.dice.rng("sensor"), keep_inside)
        return NamedShot(frame, quad_of(scene, view), scene.name)


def named_frame(
    name: NamedFrame,
    slice_: Slice,
    seed: int,
    *,
    severity: float = _USUAL_SEVERITY,
    family: Family = Family.HELD_OUT,
    size: tuple[int, int] = (720, 1280),
) -> NamedShot:
    """Return the frame of this name with a slice uint8 [h, w]; the same arguments give the same bits.

    Raises `ValueError` where an argument is of the wrong kind.
    """
    check_slice(slice_)
    check_size(size)
    chance = dice(seed, family, severity)
    return _MAKERS[NamedFrame(name)](_Setting(slice_, chance, draw_conditions(chance, size), size))


def _black_on_black(setting: _Setting) -> NamedShot:
    """Show a slice that fades into black on a black screen in a black bezel, without any outline."""
    dark = replace(setting, slice_=_fading_out(setting.slice_))
    scene = dark.page(PageKind.VIEWER_BLACK)
    at, margin = scene.aim, 0.06 * scene.sheet.height
    fill(scene.picture, scene.sheet.grown(margin, margin, margin, margin), (0, 0, 0))
    _show(scene.picture, at, zoomed(dark.slice_, setting.conditions.pose.side_px))
    return setting.shot(scene)


def _round_field(setting: _Setting) -> NamedShot:
    """Show a slice whose corners outside the scanner's round field are black."""
    inside = np.where(_radius(setting.slice_) <= 1, setting.slice_, np.uint8(0))
    return setting.shot(replace(setting, slice_=inside).page())


def _two_slices(setting: _Setting) -> NamedShot:
    """Show a second, smaller slice beside the first; both in the frame."""
    rng, pose = setting.dice.rng("two slices"), setting.conditions.pose
    side_px = min(_LARGER_OF_TWO * min(setting.size), _LARGER_OF_WIDTH * setting.size[1])
    gap = round(rng.uniform(0.03, 0.07) * min(setting.size))
    second = zoomed(setting.slice_[:, ::-1], side_px * float(rng.uniform(0.5, 0.75)))
    room, to_right = gap + second.shape[1], bool(rng.uniform() < 0.5)
    shift_px = (-room / 2 if to_right else room / 2, 0.0)
    two = replace(
        setting, conditions=replace(setting.conditions, pose=replace(pose, side_px=side_px, shift_px=shift_px))
    )
    kind = (PageKind.VIEWER_WHITE, PageKind.VIEWER_GREY, PageKind.VIEWER_BLACK)[rng.integers(3)]
    scene = two.page(kind, (0, room) if to_right else (room, 0))
    at = scene.aim
    left, top = at.right + gap if to_right else at.left - room, (at.top + at.bottom - second.shape[0]) // 2
    place = Rect(left, top, left + second.shape[1], top + second.shape[0])
    fill(scene.picture, place.grown(1, 1, 1, 1), (128, 128, 128))
    _show(scene.picture, place, second)
    return two.shot(scene)


def _pacs_text(setting: _Setting) -> NamedShot:
    """Write text into all four corners of the slice, letters at its edges, and a ruler."""
    scene, rng = setting.page(), setting.dice.rng("PACS text")
    draw_pacs_text(scene.picture, scene.aim, rng, corners=4, inside=True)
    draw_orientation_letters(scene.picture, scene, rng)
    draw_ruler(scene.picture, scene, rng)
    return setting.shot(scene)


def _glare_across_edge(setting: _Setting) -> NamedShot:
    """Mirror a lamp where an edge of the slice is, so bright that nothing is left to see there."""
    scene, rng = setting.page(), setting.dice.rng("glare across an edge")
    plain = setting.shot(scene, replace(setting.conditions, glare=()))
    assert plain.quad is not None
    edge = int(rng.integers(4))
    middle = (plain.quad[edge] + plain.quad[(edge + 1) % 4]) / 2
    height, width = setting.size
    centre = (float(middle[0] / width - 0.5), float((middle[1] - height / 2) / width))
    half = (float(rng.uniform(0.05, 0.09)), float(rng.uniform(0.03, 0.06)))
    glare = Reflection(Mirrored.BLOB, centre, half, float(rng.uniform(0, np.pi)), 2.0, 1.0)
    return setting.shot(scene, replace(setting.conditions, glare=(*setting.conditions.glare, glare)))


def _cut_by_frame(setting: _Setting) -> NamedShot:
    """Aim so far beside the slice that a sixth to a third of it lies outside the frame."""
    rng, pose = setting.dice.rng("cut by the frame"), setting.conditions.pose
    scene = setting.page()
    side, hidden = int(rng.integers(4)), float(rng.uniform(0.17, 0.33))
    shown = np.array([scene.aim.width, scene.aim.height]) * pose.side_px / max(scene.aim.width, scene.aim.height)
    reach = np.array(setting.size[::-1]) / 2 - shown / 2 + hidden * shown
    way = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)][side])
    shift_x, shift_y = (way * reach).tolist()
    cut = replace(setting.conditions, pose=replace(pose, shift_px=(shift_x, shift_y)))
    return setting.shot(scene, cut, keep_inside=False)


def _rotated(setting: _Setting) -> NamedShot:
    """Hold the camera upright, so that the page lies on its side."""
    turn = np.pi / 2 if setting.dice.rng("rotated").uniform() < 0.5 else -np.pi / 2
    pose = setting.conditions.pose
    return setting.shot(setting.page(), replace(setting.conditions, pose=replace(pose, roll=pose.roll + turn)))


def _mirrored(setting: _Setting) -> NamedShot:
    """Mirror the whole frame, as a webcam's preview does."""
    shot = setting.shot(setting.page())
    assert shot.quad is not None
    quad = clockwise_from_top_left(np.array([setting.size[1] - 1, 0]) + shot.quad * np.array([-1.0, 1.0]))
    return NamedShot(np.ascontiguousarray(shot.frame[:, ::-1]), quad.astype(np.float32), shot.page)


def _no_slice(setting: _Setting) -> NamedShot:
    """Show one of the empty scenes."""
    chance = setting.dice
    kinds = tuple(EmptyScene)
    kind = kinds[chance.rng("no slice").integers(len(kinds))]
    frame = empty_scene(kind, severity=chance.severity, seed=chance.seed, family=chance.family, size=setting.size)
    return NamedShot(frame, None, kind)


def _show(canvas: Picture, at: Rect, shown: Slice) -> None:
    canvas[at.top : at.bottom, at.left : at.right] = shown[..., None]


def _fading_out(slice_: Slice) -> Slice:
    """Make the air black, and let the rest fade to black towards the slice's inscribed ellipse."""
    edges = np.concatenate([slice_[0], slice_[-1], slice_[:, 0], slice_[:, -1]])
    without_air = np.where(slice_ > np.median(edges) + _ABOVE_AIR, slice_, 0)
    return (without_air * np.clip((1 - _radius(slice_)) / (1 - _FADING_FROM), 0, 1)).astype(np.uint8)


def _radius(slice_: Slice) -> NDArray[np.float64]:
    """Return how far out each pixel lies; 1 on the ellipse that touches the slice's edges."""
    height, width = slice_.shape
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    return np.asarray(np.hypot(x, y), np.float64)


_MAKERS: dict[NamedFrame, Callable[[_Setting], NamedShot]] = {
    NamedFrame.BLACK_ON_BLACK: _black_on_black,
    NamedFrame.ROUND_FIELD: _round_field,
    NamedFrame.TWO_SLICES: _two_slices,
    NamedFrame.PACS_TEXT: _pacs_text,
    NamedFrame.GLARE_ACROSS_EDGE: _glare_across_edge,
    NamedFrame.CUT_BY_FRAME: _cut_by_frame,
    NamedFrame.ROTATED: _rotated,
    NamedFrame.MIRRORED: _mirrored,
    NamedFrame.NO_SLICE: _no_slice,
}
