"""The contact sheet: the worst frames, with the true and the found outline in them."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sliceloop.capture_bench.look import Corners, FrameResult
from sliceloop.capture_bench.measures import WRONG_IOU

SHEET_FILE = "worst.jpg"
WORST = 24
"""Frames on the sheet."""
_COLUMNS = 4
_TILE_PX = (360, 640)
_HEAD_PX, _LEGEND_PX = 40, 42
_TRUE, _FOUND, _WHITE = (80, 220, 80), (60, 60, 240), (255, 255, 255)
"""Green and red, in BGR."""
_QUALITY = 85


def worst(results: Sequence[FrameResult], count: int = WORST) -> list[FrameResult]:
    """Return the worst frames first: accepted with a wrong outline or without a slice, then by outline."""
    ranked = sorted(results, key=lambda result: (not _is_wrong(result), _outline_of(result)))
    return [result for result in ranked[:count] if _is_wrong(result) or _outline_of(result) < 1]


def draw_sheet(results: Sequence[FrameResult], render: Callable[[FrameResult], NDArray[np.uint8]]) -> bytes:
    """Return a JPEG with a tile for each frame; `render` gives its frame uint8 [height, width, 3] again."""
    rows = -(-max(len(results), 1) // _COLUMNS)
    sheet = np.full((_HEAD_PX + rows * _TILE_PX[0], _COLUMNS * _TILE_PX[1], 3), 32, np.uint8)
    head = f"SIMULATED. The {len(results)} worst frames: true outline green, found outline red."
    cv2.putText(sheet, head, (12, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.8, _WHITE, 1, cv2.LINE_AA)
    for number, result in enumerate(results):
        row, column = divmod(number, _COLUMNS)
        top, left = _HEAD_PX + row * _TILE_PX[0], column * _TILE_PX[1]
        sheet[top : top + _TILE_PX[0], left : left + _TILE_PX[1]] = _tile(result, render(result))
    return bytes(cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])


def _is_wrong(result: FrameResult) -> bool:
    look = result.whole
    return look.accepted and (look.iou is None or look.iou < WRONG_IOU)


def _outline_of(result: FrameResult) -> float:
    return 1.0 if result.whole.iou is None else result.whole.iou


def _tile(result: FrameResult, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    drawn = frame.copy()
    for quad, colour in ((result.true_quad, _TRUE), (result.whole.quad, _FOUND)):
        if quad is not None:
            cv2.polylines(drawn, [_points(quad)], True, colour, 2, cv2.LINE_AA)
    tile = np.asarray(cv2.resize(drawn, _TILE_PX[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    tile[:_LEGEND_PX] //= 3
    for line, text in enumerate(_words(result)):
        cv2.putText(tile, text, (8, 16 + 18 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _WHITE, 1, cv2.LINE_AA)
    return tile


def _points(quad: Corners) -> NDArray[np.int32]:
    return np.asarray(np.rint(quad), np.int32)


def _words(result: FrameResult) -> tuple[str, str]:
    look, case = result.whole, result.case
    iou = "no slice there" if look.iou is None else f"IoU {look.iou:.3f}"
    verdict = "accepted" if look.accepted else f"refused: {', '.join(look.refusals)}"
    alone = f", {case.only} alone" if case.only is not None else ""
    return f"{iou}, {verdict}", f"severity {case.severity:g}{alone}, {result.page}, simulated"
