"""Measure how a quad looks: whether it is an outline, what lies along its sides, and what it holds.

All of it is measured on the small picture, for all quads at once; `judge` weighs it.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.locate.edges import Edges, Floats, Grey
from edge_agent.locate.quads import Quads

OUTLINE = (
    "support 1", "support 2", "support 3", "support 4",  # of the sides, the worst first
    "ends worst", "ends third", "ends mean",  # of the sides' first and last parts
    "beyond mean", "beyond sixth", "beyond fourth",  # of their continuations
    "outside rough", "outside roughest", "outside differs", "outside differs thrice",  # just outside, side by side
    "inside rough", "inside differs",  # just inside
    "step 1", "step 2", "step mean", "outside brighter",  # from outside to inside, the weakest first
    "margin rough", "margin roughest", "margin differs", "margin level", "margin step",  # 6 % inside
    "deep rough", "deep differs",  # 10 % inside
    "area", "aspect", "off centre",
)  # fmt: skip
"""What `outline_looks` returns; brightness in shares of the quad's own range."""
CONTENT = (
    "outline", "contains better", "lies in better",  # the outline's score, and that of the best inside or around
    "contrast", "symmetry", "colour", "most colour", "edges", "edges aligned", "edges spread",
    "middle grey", "like margin", "darkest", "texture", "centre brighter",
)  # fmt: skip
"""What `content_looks` returns."""

_PLACES = 10
"""Places along a side."""
_ASIDE = np.array([-4.5, -3.0, 3.0, 4.5], np.float32)
"""Pixels outwards (negative) and inwards; nearer than that, the edge itself is blurred in."""
_MARGIN, _DEEP = 0.06, 0.10
"""Of the quad's width and height."""
_LEAST_RANGE = 12.0
"""Grey levels; keeps the noise of an empty quad from looking like a picture."""
_GRID = 20
"""The content is looked at in so many columns and rows."""
_NO_QUAD = -8.0
"""The score of a quad that is not there."""
_ALONG = ((np.arange(_PLACES) + 0.5) / _PLACES).astype(np.float32)


def outline_looks(grey: Grey, quads: Quads) -> Floats:
    """Return what `OUTLINE` names, [n, 30], of quads in a smoothed grey picture uint8."""
    height, width = grey.shape
    corners = quads.corners
    outside, inside, margin, deep = _rings(grey, corners)
    values = np.concatenate([outside, inside, margin, deep], axis=2).reshape(len(corners), -1)
    n = values.shape[1]
    tails = np.partition(values, (n // 20, n - 1 - n // 20), axis=1)
    low = tails[:, n // 20, None]
    scale = tails[:, n - 1 - n // 20, None] - low + _LEAST_RANGE
    rings = np.stack([outside, inside, margin, deep, np.abs(outside - inside)])
    level = _median(rings)
    rough = np.sort(_median(np.abs(rings[:4] - level[:4, ..., None])) / scale, axis=2)
    ordered = np.sort(level / scale, axis=2)
    support, ends, beyond = (np.sort(each, axis=1) for each in (quads.support, quads.ends, quads.beyond))
    side_px = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
    across, down = side_px[:, 0] + side_px[:, 2], side_px[:, 1] + side_px[:, 3]
    off_centre = np.linalg.norm(corners.mean(1) - [width / 2, height / 2], axis=1) / min(height, width)
    scale = scale[:, 0]
    return np.stack(
        [
            *support.T,
            ends[:, 0],
            ends[:, 2],
            ends.mean(1),
            beyond.mean(1),
            beyond[:, 5],
            beyond[:, 3],
            rough[0].mean(1),
            rough[0, :, 3],
            ordered[0, :, 3] - ordered[0, :, 0],
            np.minimum(ordered[0, :, 2] - ordered[0, :, 0], ordered[0, :, 3] - ordered[0, :, 1]),
            rough[1].mean(1),
            ordered[1, :, 3] - ordered[1, :, 0],
            ordered[4, :, 0],
            ordered[4, :, 1],
            ordered[4].mean(1),
            (level[0].mean(1) - level[1].mean(1)) / scale,
            rough[2].mean(1),
            rough[2, :, 3],
            ordered[2, :, 3] - ordered[2, :, 0],
            (level[2].mean(1) - low[:, 0]) / scale,
            np.abs(level[2] - level[1]).mean(1) / scale,
            rough[3].mean(1),
            ordered[3, :, 3] - ordered[3, :, 0],
            np.log(across * down / (4 * height * width)),
            np.abs(np.log(across / down)),
            off_centre,
        ],
        axis=1,
    ).astype(np.float32)


def content_looks(
    bgr: NDArray[np.uint8], edges: Edges, axis: float, corners: NDArray[np.float64], outline: Floats
) -> Floats:
    """Return what `CONTENT` names, [n, 15], of quads [n, 4, 2] whose outlines have these scores [n]."""
    colours = _inside(bgr, corners).astype(np.float32)
    grey = colours @ np.array([0.114, 0.587, 0.299], np.float32)
    n, cells = len(corners), _GRID * _GRID
    ordered = np.sort(grey.reshape(n, cells), axis=1)
    low, high = ordered[:, cells * 3 // 100], ordered[:, -cells * 3 // 100]
    scale = high - low + _LEAST_RANGE
    departure = grey - grey.mean((1, 2), keepdims=True)
    contrast = departure.std((1, 2))
    mirrored = [(departure * departure[:, :, ::-1]).mean((1, 2)), (departure * departure[:, ::-1]).mean((1, 2))]
    rim = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    rim_level = _median(rim)[:, None, None]
    colour = _colour(colours)
    seen, aligned = _edge_shares(edges, axis, corners)
    middle = slice(_GRID * 3 // 10, -_GRID * 3 // 10)
    curvature = (
        4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    )
    contains, within = _nested(corners, outline)
    return np.stack(
        [
            outline,
            contains,
            within,
            contrast / scale,
            np.maximum(*mirrored) / (contrast**2 + 9),
            colour.mean(1),
            np.partition(colour, -cells // 20, axis=1)[:, -cells // 20],
            np.log(seen.mean((1, 2)) * np.sqrt(_area(corners)) / 100 + 0.003),
            (aligned.mean((1, 2)) + 0.001) / (seen.mean((1, 2)) + 0.003),
            (seen > 0.02).mean((1, 2)),
            (ordered[:, cells // 2] - low) / scale,
            (np.abs(grey - rim_level) < 0.08 * scale[:, None, None]).mean((1, 2)),
            low / 255,
            np.abs(curvature).mean((1, 2)) / scale,
            (grey[:, middle, middle].mean((1, 2)) - grey.mean((1, 2))) / scale,
        ],
        axis=1,
    ).astype(np.float32)


def _rings(grey: Grey, corners: NDArray[np.float64]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the brightness [n, side, place] just outside, just inside, at the margin and deep inside."""
    at_corner = corners.astype(np.float32)
    side = np.roll(at_corner, -1, axis=1) - at_corner
    inward = side[..., ::-1] * np.array([-1, 1], np.float32) / np.sqrt((side * side).sum(2, keepdims=True))
    places = (at_corner[:, :, None] + _ALONG[:, None] * side[:, :, None])[:, :, None]
    near = places + _ASIDE[:, None, None] * inward[:, :, None, None]
    at = np.concatenate([near.reshape(len(corners), -1, 2), _WEIGHTS_WITHIN @ at_corner], axis=1)
    values = _sampled(grey, at).astype(np.float32)
    n_near = 4 * len(_ASIDE) * _PLACES
    pairs = values[:, :n_near].reshape(len(corners), 4, 2, 2, _PLACES).mean(3)
    within = values[:, n_near:].reshape(len(corners), 2, 4, _PLACES)
    return pairs[:, :, 0], pairs[:, :, 1], within[:, 0], within[:, 1]


def _inside(picture: NDArray[np.uint8], corners: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the picture [n, rows, columns, ...] inside the quads."""
    values = _sampled(picture, _WEIGHTS_OF_GRID @ corners.astype(np.float32))
    return values.reshape(len(corners), _GRID, _GRID, *values.shape[2:])


def _sampled(picture: NDArray[np.uint8], at: Floats) -> NDArray[np.uint8]:
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _colour(colours: Floats) -> Floats:
    """Return how far each cell's hue is from the quad's mean, [n, cells]: a camera tints a grey slice evenly."""
    flat = colours.reshape(len(colours), -1, 3)
    share = flat[..., ::2] / (flat.sum(-1, keepdims=True) + 30)
    return np.asarray(np.abs(share - share.mean(1, keepdims=True)).sum(-1) * 10, np.float32)


def _edge_shares(edges: Edges, axis: float, corners: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Return [n, cells, cells] inside the quads: the share of edge points, and of those along the axis or across it."""
    height, width = edges.shape
    cos = np.abs(edges.normals @ np.array([np.cos(axis), np.sin(axis)], np.float32))
    is_aligned = (cos > 0.98) | (cos < 0.2)
    x = (edges.points[:, 0] + np.float32(width / 2)).astype(np.int32)
    at: NDArray[np.int32] = (edges.points[:, 1] + np.float32(height / 2)).astype(np.int32) * np.int32(width) + x
    return _share_of(at, edges.shape, corners), _share_of(at[is_aligned], edges.shape, corners)


def _share_of(marked: NDArray[np.int32], shape: tuple[int, int], corners: NDArray[np.float64]) -> Floats:
    marks = np.zeros(shape[0] * shape[1], np.uint8)
    marks[marked] = 255
    near = _inside(np.asarray(cv2.blur(marks.reshape(shape), (9, 9)), np.uint8), corners)
    return np.asarray(near[:, 2:-2, 2:-2] / np.float32(255), np.float32)


def _nested(corners: NDArray[np.float64], outline: Floats) -> tuple[Floats, Floats]:
    """Return how much better the best quad inside, and the best one around, is than each quad."""
    side = np.roll(corners, -1, axis=1) - corners
    to_corner = corners[None, :, None] - corners[:, None, :, None]
    cross = side[:, None, :, None, 0] * to_corner[..., 1] - side[:, None, :, None, 1] * to_corner[..., 0]
    distance = cross / np.linalg.norm(side, axis=2)[:, None, :, None]
    area = _area(corners)
    contains = (distance.min((2, 3)) > -0.01 * np.sqrt(area)[:, None]) & (area < 0.92 * area[:, None])
    inside = np.where(contains, outline, _NO_QUAD).max(1) - outline
    around = np.where(contains, outline[:, None], _NO_QUAD).max(0) - outline
    return inside.astype(np.float32), around.astype(np.float32)


def _area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = corners[..., 0], corners[..., 1]
    return np.asarray((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1) / 2, np.float64)


def _median(values: Floats) -> Floats:
    middle = values.shape[-1] // 2
    return np.asarray(np.partition(values, middle, axis=-1)[..., middle], np.float32)


def _corner_weights(u: Floats, v: Floats) -> Floats:
    """Return the weights [n, 4] of a quad's corners at shares u, v (0..1) of its width and height."""
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], axis=-1)
    return weights.reshape(-1, 4).astype(np.float32)


def _weights_within() -> Floats:
    """Return the weights of the places on both rings inside a quad, by ring, side and place."""
    along = np.float32(0.12) + np.float32(0.76) * _ALONG
    rings = []
    for depth in (_MARGIN, _DEEP):
        fixed = np.full(_PLACES, depth, np.float32)
        u = np.concatenate([along, 1 - fixed, along, fixed])
        v = np.concatenate([fixed, along, 1 - fixed, along])
        rings.append(_corner_weights(u, v))
    return np.concatenate(rings)


_WEIGHTS_WITHIN = _weights_within()
_CELLS = ((np.arange(_GRID) + 0.5) / _GRID).astype(np.float32)
_WEIGHTS_OF_GRID = _corner_weights(*np.meshgrid(_CELLS, _CELLS))
