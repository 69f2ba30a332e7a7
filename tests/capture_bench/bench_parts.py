"""An honest stand-in for the edge's path, small networks, and recordings of a page by a simulated camera."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sliceloop.capture_bench.path import Outcome, Paths
from sliceloop.capture_bench.slide import draw_slide
from training.model.preprocess import BlankFrameError, prepare
from training.screen_camera import Family
from training.screen_camera.drawing import Rect, middle_of
from training.screen_camera.factors import dice
from training.screen_camera.families import draw_conditions
from training.screen_camera.pages import Scene
from training.screen_camera.shot import photographed, quad_of

Frame = NDArray[np.uint8]

SIDE = 320
"""What the stand-in cuts out."""
_SQUARE = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], np.float32) - 0.5
_LEAST, _MOST = 0.08, 0.7
"""Of the frame's area."""


@dataclass(frozen=True)
class Place:
    """Where the stand-in found a slice."""

    quad: NDArray[np.float32] | None
    score: float = 1.0
    reason: str = ""


def find(frame: Frame) -> Place:
    """Find the largest quadrilateral whose edges are steep; many slices are missed, as a first attempt does."""
    edges = cv2.dilate(cv2.Canny(cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (0, 0), 1), 30, 90), None)
    outlines, _ = cv2.findContours(edges, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    shapes = [cv2.approxPolyDP(one, 0.02 * cv2.arcLength(one, True), True) for one in outlines]
    quads = [one for one in shapes if _is_like_a_slice(one, frame.shape[0] * frame.shape[1])]
    if not quads:
        return Place(None, 0.0, "no-slice")
    corners = np.asarray(max(quads, key=cv2.contourArea), np.float32).reshape(4, 2)
    return Place(_from_top_left(corners))


def stand_in(frame: Frame) -> Outcome:
    """Develop a frame without any photometry."""
    place = find(frame)
    if place.quad is None:
        return Outcome(None, None, 0.0, ("no-slice",), {"locate": 1.0})
    matrix = cv2.getPerspectiveTransform(place.quad, _SQUARE)
    cut = cv2.cvtColor(cv2.warpPerspective(frame, matrix, (SIDE, SIDE)), cv2.COLOR_BGR2GRAY)
    try:
        pixels = prepare(np.asarray(cut, np.uint8))
    except BlankFrameError:
        return Outcome(None, place.quad, 1.0, ("not-a-chest-ct",), {"locate": 1.0, "rectify": 0.5})
    return Outcome(pixels, place.quad, 1.0, (), {"locate": 1.0, "rectify": 0.5, "photometry": 0.25})


def refuses_all(frame: Frame) -> Outcome:
    """Refuse whatever comes, though it was found."""
    return Outcome(None, find(frame).quad, 0.0, ("glare",), {"locate": 1.0})


STAND_IN = Paths(stand_in, {"refine": stand_in, "intake": refuses_all})


def filmed(pictures: Sequence[Frame], shots: int = 14, gap: int = 3) -> Iterator[Frame]:
    """Film slides of square slices with a simulated camera: each still for so many frames, white in between."""
    quad = draw_slide(np.zeros((512, 512), np.uint8), 0).quad
    white, _ = filmed_page(np.full_like(pictures[0], 255), quad, seed=7)
    for picture in pictures:
        yield from [white] * gap
        frames = [filmed_page(picture, quad, seed=7, noise_seed=noise)[0] for noise in range(2)]
        yield from (frames[shot % len(frames)] for shot in range(shots))


def filmed_page(
    picture: Frame, quad: NDArray[np.float64], *, seed: int, noise_seed: int = 0, severity: float = 0.4
) -> tuple[Frame, NDArray[np.float32]]:
    """Photograph a slide in the middle of a white screen; return the slice's true outline too."""
    size = (720, 1280)
    chance = dice(seed, Family.HELD_OUT, severity)
    conditions = draw_conditions(chance, size)
    scale = conditions.pose.side_px / float(np.ptp(quad, axis=0).max())
    shown = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((964, 1716, 3), 255, np.uint8)
    at = middle_of(canvas, *shown.shape)
    canvas[at.top : at.bottom, at.left : at.right] = shown[..., None]
    left, top, right, bottom = (np.array([*quad[0], *quad[2]]) * scale).round().astype(int)
    aim = Rect(at.left + left, at.top + top, at.left + right, at.top + bottom)
    scene = Scene(canvas, aim, Rect(0, 0, canvas.shape[1], canvas.shape[0]), True, "page")
    frame, view = photographed(scene, conditions, size, np.random.default_rng(noise_seed))
    return frame, quad_of(scene, view)


def _is_like_a_slice(corners: NDArray[np.int32], frame_area: int) -> bool:
    if len(corners) != 4 or not cv2.isContourConvex(corners):
        return False
    width, height = cv2.minAreaRect(corners)[1]
    return _LEAST < cv2.contourArea(corners) / frame_area < _MOST and 0.6 < width / max(height, 1) < 1.7


def _from_top_left(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """Order corners clockwise from the top left."""
    middle = corners.mean(0)
    around = corners[np.argsort(np.arctan2(*(corners - middle).T[::-1]))]
    return np.roll(around, -int(around.sum(1).argmin()), axis=0)


def written(path: Path, frames: Iterator[Frame], fps: float) -> Path:
    """Write a recording as MJPEG in AVI, one frame in memory at a time."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (1280, 720))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path
