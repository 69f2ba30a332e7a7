"""A slide: one slice on our own page, a black frame around it, and a tag at each corner that names its number.

Slides are drawn here pixel by pixel, and the browser only shows them, so that we know where the slice lies between its
tags. Lengths are shares of the slice's longer side; the slice sits in the middle of a square of that side.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.screen_camera.pages import OUR_FRAME_SHARE

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]

SIDE_PX = 720
"""Of the slice's longer side as drawn."""
TAG_SHARE, GAP_SHARE, MARGIN_SHARE = 0.16, 0.07, 0.06
"""A tag's side; white between the square and the tags; white around all."""
TAGS_A_SLIDE = 4
MOST_SLIDES = 1000 // TAGS_A_SLIDE
_DICTIONARY = cv2.aruco.DICT_5X5_1000
_TAG_SIZES = tuple(np.linspace(0.92, 1.04, 13))
"""White spreads into black in a photograph, so that tags look smaller: their size is fitted with the view."""
_LEAST_TAGS = 2
"""As many tags of one slide name it, where no tag says otherwise."""


@dataclass(frozen=True)
class Slide:
    """A slide uint8 [h, w], and the slice's outline in it, float64 [4, 2], clockwise from the top left."""

    picture: Picture
    quad: Points


@dataclass(frozen=True)
class Named:
    """Which slide a frame shows, and the slice's outline in it; None where not all four tags were read."""

    number: int
    quad: NDArray[np.float32] | None


def draw_slide(slice_: Picture, number: int) -> Slide:
    """Draw a slice uint8 [h, w] as the slide of this number, 0 to 249."""
    shown = _zoomed(slice_)
    page = np.full((_page_px(), _page_px(beside=True)), 255, np.uint8)
    left, top = (page.shape[1] - shown.shape[1]) // 2, (page.shape[0] - shown.shape[0]) // 2
    rim = max(2, round(OUR_FRAME_SHARE * SIDE_PX))
    page[top - rim : top + shown.shape[0] + rim, left - rim : left + shown.shape[1] + rim] = 0
    page[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    dictionary = cv2.aruco.getPredefinedDictionary(_DICTIONARY)
    for corner, place in enumerate(_tag_places()):
        x, y = place[0].astype(int)
        tag = cv2.aruco.generateImageMarker(dictionary, TAGS_A_SLIDE * number + corner, _px(TAG_SHARE))
        page[y : y + len(tag), x : x + len(tag)] = tag
    return Slide(page, _outline(slice_.shape))


def read_slide(frame: Picture, shapes: dict[int, tuple[int, int]]) -> Named | None:
    """Tell which slide a frame uint8 [height, width, 3] shows; `shapes` are those of the slices (h, w) by number.

    None where fewer than two tags were read, or those of two slides.
    """
    found = _detected(frame)
    numbers = {tag // TAGS_A_SLIDE for tag in found}
    if len(found) < _LEAST_TAGS or len(numbers) != 1 or not numbers <= shapes.keys():
        return None
    number = numbers.pop()
    if len(found) < TAGS_A_SLIDE:
        return Named(number, None)
    seen = np.stack([found[tag] for tag in sorted(found)])
    return Named(number, _seen_outline(seen, _outline(shapes[number])))


def _detected(frame: Picture) -> dict[int, Points]:
    """Return the four corners [4, 2] of each tag in a frame, by what the tag says."""
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    detector = cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(_DICTIONARY), parameters)
    corners, tags, _ = detector.detectMarkers(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    said = np.asarray(tags, np.int32).ravel() if len(corners) else ()
    return {int(tag): np.asarray(quad, np.float64).reshape(4, 2) for tag, quad in zip(said, corners, strict=True)}


def _zoomed(slice_: Picture) -> Picture:
    """Scale the slice as a viewer does."""
    scale = SIDE_PX / max(slice_.shape)
    height, width = (max(1, round(n * scale)) for n in slice_.shape)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(slice_, (width, height), interpolation=interpolation), np.uint8)


def _outline(shape: tuple[int, ...]) -> Points:
    """Return the outer edge of the slice of this shape in its slide, where a pixel's centre is whole."""
    scale = SIDE_PX / max(shape)
    height, width = (max(1, round(n * scale)) for n in shape[:2])
    left, top = (_page_px(beside=True) - width) // 2, (_page_px() - height) // 2
    x0, y0 = left - 0.5, top - 0.5
    return np.array([[x0, y0], [x0 + width, y0], [x0 + width, y0 + height], [x0, y0 + height]])


def _tag_places() -> Points:
    """Return the tags' corners in a slide, [4 tags, 4 corners, 2], each clockwise: top left, top right, and so on."""
    tag, gap, square = _px(TAG_SHARE), _px(GAP_SHARE), SIDE_PX
    left = (_page_px(beside=True) - square) // 2 - gap - tag
    right = (_page_px(beside=True) + square) // 2 + gap
    top = (_page_px() - square) // 2
    starts = np.array([[left, top], [right, top], [right, top + square - tag], [left, top + square - tag]])
    return np.asarray(starts[:, None] + tag * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])[None], np.float64)


def _seen_outline(seen: Points, outline: Points) -> NDArray[np.float32]:
    """Return the outline as seen, from the tags' corners as seen [4, 4, 2]."""
    views = [_view(seen, size) for size in _TAG_SIZES]
    matrix, _ = min(views, key=lambda view: view[1])
    return np.asarray(cv2.perspectiveTransform(outline[None], matrix)[0], np.float32)


def _view(seen: Points, size: float) -> tuple[Points, float]:
    """Return the homography from slide to frame for tags that look so large, and how far it is off (r.m.s., pixels)."""
    drawn = _tag_places() - 0.5
    centres = drawn.mean(1, keepdims=True)
    places = (centres + (drawn - centres) * size).reshape(-1, 2)
    matrix = np.asarray(cv2.findHomography(places, seen.reshape(-1, 2))[0], np.float64)
    apart = cv2.perspectiveTransform(places[None], matrix)[0] - seen.reshape(-1, 2)
    return matrix, float(np.sqrt(np.mean(np.square(apart))))


def _page_px(*, beside: bool = False) -> int:
    """Return the slide's height, or its width, which has room for the tags."""
    return SIDE_PX + 2 * _px(MARGIN_SHARE) + (2 * (_px(TAG_SHARE) + _px(GAP_SHARE)) if beside else 0)


def _px(share: float) -> int:
    return round(share * SIDE_PX)
