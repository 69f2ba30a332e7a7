"""Search a small picture for slices: edges, lines, quads, and what speaks for each."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.locate.bgr import brightness
from edge_agent.locate.edges import find_edges
from edge_agent.locate.judge import judge, outline_scores
from edge_agent.locate.lines import find_lines
from edge_agent.locate.looks import content_looks, outline_looks
from edge_agent.locate.quads import find_quads

MOST_JUDGED = 10
"""As many of the best outlines are looked into."""
NEAR_SHARE = 0.02
"""Of a quad's diagonal: of two quads whose corners are all this near, the better one is judged."""
SAME_PX = 8.0
"""Quads this near to each other are one answer: their chances add up."""

_SMOOTH_PX = 3


@dataclass(frozen=True)
class Found:
    """A quad float64 [4, 2] in the small picture's pixels, and its chance, 0..1, to be a slice's outline."""

    corners: NDArray[np.float64]
    chance: float


def search(small: NDArray[np.uint8]) -> list[Found]:
    """Return the quads that may be slices, none over another, the likeliest first; `small` is BGR, some 640 px."""
    grey = brightness(small)
    edges = find_edges(grey)
    upright, level, axis = find_lines(edges)
    quads = find_quads(upright, level, edges.shape)
    if not len(quads):
        return []
    smooth = np.asarray(cv2.blur(grey, (_SMOOTH_PX, _SMOOTH_PX)), np.uint8)
    looks = outline_looks(smooth, quads)
    scores = outline_scores(looks)
    best = distinct(quads.corners, scores)
    corners = quads.corners[best]
    smooth_bgr = np.asarray(cv2.blur(small, (_SMOOTH_PX, _SMOOTH_PX)), np.uint8)
    content = content_looks(smooth_bgr, edges, axis, corners, scores[best])
    return _apart(corners, judge(np.hstack([content, looks[best]])))


def distinct(corners: NDArray[np.float64], scores: NDArray[np.float32]) -> list[int]:
    """Return the indices of the best quads, without those that nearly are a better one."""
    near_px = NEAR_SHARE * np.linalg.norm(corners[:, 2] - corners[:, 0], axis=1)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        apart = np.abs(corners[kept] - corners[i]).max(axis=(1, 2)) if kept else np.zeros(0)
        if (apart > near_px[kept]).all():
            kept.append(int(i))
        if len(kept) == MOST_JUDGED:
            break
    return kept


def _apart(corners: NDArray[np.float64], logits: NDArray[np.float32]) -> list[Found]:
    """Return the best quad, the best that does not overlap it, and so on, each with its chance among its rivals."""
    found: list[Found] = []
    left = list(np.argsort(-logits, kind="stable"))
    weight = np.exp(logits.astype(np.float64))
    overlaps = _overlaps(corners)
    while left:
        first = int(left[0])
        rivals = np.flatnonzero(overlaps[first])
        same = np.abs(corners - corners[first]).max(axis=(1, 2)) < SAME_PX
        found.append(Found(corners[first], float(weight[same].sum() / (1 + weight[rivals].sum()))))
        left = [i for i in left if not overlaps[first, i]]
    return found


def _overlaps(corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each two quads [n, n] whether the boxes around them overlap."""
    low, high = corners.min(1), corners.max(1)
    return np.asarray(((low[:, None] < high[None]) & (low[None] < high[:, None])).all(-1), np.bool_)
