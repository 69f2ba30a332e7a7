"""Look at one captured frame: where the slice was found, what was refused, what the networks read, what it took."""

import time
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from sliceloop.capture_bench.cases import Case
from sliceloop.capture_bench.paper_path import paper_crop
from sliceloop.capture_bench.path import Outcome, Paths, PicturePath
from sliceloop.capture_bench.slices import Networks, read_logits
from training.model.reader import OnnxReader

Quad = NDArray[np.float32]
Corners = tuple[tuple[float, float], ...]
Logits = tuple[float, ...]

DECODE, READ = "decode", "read"
"""Stages that the benchmark times itself: decoding the frame's JPEG, and the network."""


class Look(BaseModel):
    """What one path made of a frame; `iou` is None where the frame has no slice, 0 where none was found."""

    model_config = ConfigDict(frozen=True)
    accepted: bool
    refusals: tuple[str, ...] = ()
    quad: Corners | None = None
    score: float = 0.0
    iou: float | None = None
    logits: Logits | None = None
    """Of the served network, in the order of LABELS; None for a refused frame."""
    plain_logits: Logits | None = None
    """Of the plain network on the same picture."""


class FrameResult(BaseModel):
    """All that is kept of one frame; no pixels."""

    model_config = ConfigDict(frozen=True)
    case: Case
    page: str
    true_quad: Corners | None
    whole: Look
    without: dict[str, Look] = {}
    """The same with one stage off each."""
    paper: Look | None = None
    """The paper's crop, read by both networks."""
    milliseconds: dict[str, float] = {}


def look_at(
    case: Case, page: str, true_quad: Quad | None, jpeg: bytes, paths: Paths, networks: Networks
) -> FrameResult:
    """Decode a captured frame and take it through all paths."""
    started_s = time.perf_counter()
    frame = decoded(jpeg)
    decode_ms = _since_ms(started_s)
    outcome = paths.whole(frame)
    started_s = time.perf_counter()
    logits = _logits(networks.served, outcome.pixels)
    read_ms = {} if logits is None else {READ: _since_ms(started_s)}
    return FrameResult(
        case=case,
        page=page,
        true_quad=as_corners(true_quad),
        whole=_look(outcome, true_quad, logits, _logits(networks.plain, outcome.pixels)),
        without=_without(paths.without, frame, true_quad, networks),
        paper=_paper(frame, true_quad, networks) if case.kind == "slice" else None,
        milliseconds={DECODE: decode_ms, **outcome.milliseconds, **read_ms},
    )


def refused_look(case: Case, page: str, true_quad: Quad | None, reason: str) -> FrameResult:
    """Return the result of a frame that the camera source refused itself."""
    look = Look(accepted=False, refusals=(reason,), iou=None if true_quad is None else 0.0)
    paper = look if case.kind == "slice" else None
    return FrameResult(case=case, page=page, true_quad=as_corners(true_quad), whole=look, paper=paper)


def iou_of(one: Quad, other: Quad) -> float:
    """Return the intersection over union, 0..1, of two convex quads [4, 2]; 0 for one that is not convex."""
    areas = [abs(float(cv2.contourArea(np.asarray(quad, np.float32)))) for quad in (one, other)]
    if min(areas) <= 0 or not all(cv2.isContourConvex(np.asarray(quad, np.float32)) for quad in (one, other)):
        return 0.0
    shared, _ = cv2.intersectConvexConvex(np.asarray(one, np.float32), np.asarray(other, np.float32))
    return float(min(1.0, shared / (sum(areas) - shared)))


def decoded(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode what the camera source gave, uint8 [height, width, 3]."""
    frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert frame is not None, "the camera source encodes pictures"
    return np.asarray(frame, np.uint8)


def as_corners(quad: Quad | None) -> Corners | None:
    """Return a quad as plain numbers, to a hundredth of a pixel."""
    return None if quad is None else tuple((round(float(x), 2), round(float(y), 2)) for x, y in quad)


def _without(
    paths: Mapping[str, PicturePath], frame: NDArray[np.uint8], true_quad: Quad | None, networks: Networks
) -> dict[str, Look]:
    looks = {}
    for stage, path in paths.items():
        outcome = path(frame)
        looks[stage] = _look(outcome, true_quad, _logits(networks.served, outcome.pixels), None)
    return looks


def _paper(frame: NDArray[np.uint8], true_quad: Quad | None, networks: Networks) -> Look:
    crop = paper_crop(frame)
    ours, plain = (_logits(one, crop.pixels) for one in (networks.served, networks.plain))
    return _look(Outcome(crop.pixels, crop.quad), true_quad, ours, plain)


def _look(outcome: Outcome, true_quad: Quad | None, logits: Logits | None, plain_logits: Logits | None) -> Look:
    return Look(
        accepted=outcome.pixels is not None,
        refusals=outcome.refusals,
        quad=as_corners(outcome.quad),
        score=round(float(outcome.score), 4),
        iou=_iou(outcome.quad, true_quad),
        logits=logits,
        plain_logits=plain_logits,
    )


def _iou(quad: Quad | None, true_quad: Quad | None) -> float | None:
    if true_quad is None:
        return None
    return 0.0 if quad is None else round(iou_of(quad, true_quad), 5)


def _logits(network: OnnxReader | None, pixels: NDArray[np.uint8] | None) -> Logits | None:
    if network is None or pixels is None:
        return None
    return tuple(round(float(logit), 5) for logit in read_logits(network, pixels))


def _since_ms(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3
