"""Find the straight lines of a picture: a Hough transform in which each edge point votes by its own direction."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.locate.edges import Edges, Floats

STEP_PX = 3
"""A line is looked at every so many pixels."""
MOST_OF_A_KIND = 16
"""As many upright, and as many level lines are kept."""

_ANGLES = 180
_SPREAD_DEG = 4
"""A point votes for lines up to so many degrees off its gradient's direction: noise turns weak gradients."""
_LEAST_VOTES = 8
_NEIGHBOUR_DEG, _NEIGHBOUR_PX = 7, 5
"""Of lines so near to each other the one with the most votes counts."""
_MOST_PEAKS = 48
_REACH_PX = 3
"""So far from a line an edge point may lie that the line is fitted to."""
_FITTED_PX = 1.5
_RUN_PX, _LEAST_OF_RUN = 48, 0.6
"""A line counts where a piece of this length is an edge for this share of it."""
_LONG_PX = 160
"""Lines are ordered by the edge points of their best piece of this length: that of a slice's side, not of a table."""
_SAME_PX = 1.6
_UPRIGHT_COS = 0.8
"""An edge point is an upright line's when its gradient is within 37 degrees of the picture's axis."""
_COS = np.cos(np.arange(_ANGLES) * np.pi / _ANGLES).astype(np.float32)
_SIN = np.sin(np.arange(_ANGLES) * np.pi / _ANGLES).astype(np.float32)


@dataclass(frozen=True)
class Lines:
    """Lines n . p = offset, p from the picture's centre, of one kind, ordered by offset.

    `normals` are float64 [n, 2] of length 1; `edge_sums` int32 [n, steps + 1] holds, for each step along the line
    (direction (-ny, nx), from -`reach_px` on), how many steps before it lie on an edge.
    """

    normals: NDArray[np.float64]
    offsets: NDArray[np.float64]
    edge_sums: NDArray[np.int32]
    reach_px: int

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def directions(self) -> NDArray[np.float64]:
        """Return the unit vectors [n, 2] along the lines."""
        return np.stack([-self.normals[:, 1], self.normals[:, 0]], axis=1)


@dataclass(frozen=True)
class _Track:
    """Lines float64 [n, 2] and [n], and whether each is upright."""

    normals: NDArray[np.float64]
    offsets: NDArray[np.float64]
    upright: NDArray[np.bool_]

    def take(self, at: NDArray[np.intp] | list[int]) -> "_Track":
        return _Track(self.normals[at], self.offsets[at], self.upright[at])


def find_lines(edges: Edges) -> tuple[Lines, Lines, float]:
    """Return the upright and the level lines, and the angle (radians, within 45 degrees) by which both are turned.

    Upright lines have their normals to the right, level ones downwards.
    """
    reach = int(np.hypot(*edges.shape) / 2) + 2
    normals, offsets, votes = _peaks(_votes(edges, reach), reach)
    axis = float(np.angle((votes**2 * np.exp(4j * np.arctan2(normals[:, 1], normals[:, 0]))).sum())) / 4
    planes = _planes(edges, axis)
    track = _strongest(_turned_to(axis, normals, offsets), planes, reach)
    thick = np.asarray([cv2.dilate(plane, np.ones((3, 3), np.uint8)) for plane in planes])
    sums = _running_sums(_seen_beside(track, thick, reach, 0)[0])
    upright, level = (_kind(track, sums, reach, track.upright == kind) for kind in (True, False))
    return upright, level, axis


def _votes(edges: Edges, reach: int) -> Floats:
    """Count the votes float32 [angles, offsets] for each line."""
    own = np.rint(np.arctan2(edges.normals[:, 1], edges.normals[:, 0]) * (_ANGLES / np.pi)).astype(np.int32)
    angle = (own[:, None] + np.arange(-_SPREAD_DEG, _SPREAD_DEG + 1, dtype=np.int32)) % _ANGLES
    offset = np.rint(edges.points[:, :1] * _COS[angle] + edges.points[:, 1:] * _SIN[angle]).astype(np.int32) + reach
    n_offsets = 2 * reach + 1
    cells = np.bincount((angle * n_offsets + offset).ravel(), minlength=_ANGLES * n_offsets)
    return cells.reshape(_ANGLES, n_offsets).astype(np.float32)


def _peaks(votes: Floats, reach: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return normals, offsets and votes of the lines that have more votes than their neighbours, the most first."""
    beyond = _NEIGHBOUR_DEG
    turned = np.vstack([votes[-beyond:, ::-1], votes, votes[:beyond, ::-1]])  # at 180 degrees offsets change sign
    smooth = cv2.GaussianBlur(turned, (3, 3), 0.8)
    most = cv2.dilate(smooth, np.ones((_NEIGHBOUR_DEG, _NEIGHBOUR_PX), np.uint8))
    smooth, most = smooth[beyond:-beyond].ravel(), most[beyond:-beyond].ravel()
    at = np.flatnonzero((smooth >= most) & (smooth >= _LEAST_VOTES))
    at = at[np.argsort(-smooth[at], kind="stable")][:_MOST_PEAKS]
    angle, offset = np.divmod(at, 2 * reach + 1)
    normals = np.stack([_COS[angle], _SIN[angle]], axis=1).astype(np.float64)
    return normals, offset - float(reach), smooth[at].astype(np.float64)


def _turned_to(axis: float, normals: NDArray[np.float64], offsets: NDArray[np.float64]) -> _Track:
    """Tell upright from level lines, and let their normals point to the right and downwards."""
    right = normals @ [np.cos(axis), np.sin(axis)]
    down = normals @ [-np.sin(axis), np.cos(axis)]
    upright = np.abs(right) >= np.abs(down)
    sign = np.where(np.where(upright, right, down) < 0, -1.0, 1.0)
    return _Track(normals * sign[:, None], offsets * sign, upright)


def _planes(edges: Edges, axis: float) -> NDArray[np.uint8]:
    """Return uint8 [2, height, width]: where edge points of level and of upright lines are."""
    height, width = edges.shape
    cos = np.abs(edges.normals @ np.array([np.cos(axis), np.sin(axis)], np.float32))
    x = np.rint(edges.points[:, 0] + (width - 1) / 2).astype(np.intp)
    y = np.rint(edges.points[:, 1] + (height - 1) / 2).astype(np.intp)
    planes = np.zeros((2, height, width), np.uint8)
    for plane, belongs in zip(planes, (cos < np.sqrt(1 - _UPRIGHT_COS**2), cos > _UPRIGHT_COS), strict=True):
        plane[y[belongs], x[belongs]] = 1
    return planes


def _strongest(track: _Track, planes: NDArray[np.uint8], reach: int) -> _Track:
    """Fit the lines to their edge points, and keep the longest of each kind."""
    if not len(track.offsets):
        return track
    count, moment = _seen_beside(track, planes, reach, _REACH_PX)
    on_edge = np.asarray(cv2.dilate((count > 0).astype(np.uint8), np.ones((1, 3), np.uint8)), np.uint8)
    sums = _running_sums(on_edge)
    run, long = (_best_piece(sums, px // STEP_PX) for px in (_RUN_PX, _LONG_PX))
    order = np.argsort(-long, kind="stable")
    order = order[run[order] >= _LEAST_OF_RUN * (_RUN_PX // STEP_PX)]
    if not len(order):
        return track.take(order)
    fitted = _fitted(track.take(order), count[order], moment[order], on_edge[order], reach)
    return fitted.take(_first_of_each(fitted))


def _first_of_each(track: _Track) -> list[int]:
    """Return the indices without lines that an earlier one already is, and at most so many of a kind."""
    foot = track.normals * track.offsets[:, None]
    along = np.stack([-track.normals[:, 1], track.normals[:, 0]], axis=1) * (_LONG_PX - 10)
    apart = [np.abs((foot + s * along) @ track.normals.T - track.offsets) for s in (-1, 1)]
    alike = track.upright[:, None] == track.upright
    same = (np.maximum(*apart) < _SAME_PX) & alike
    kept = np.zeros(len(same), np.bool_)
    for i in range(len(same)):
        kept[i] = not same[i, kept].any() and int(alike[i, kept].sum()) < MOST_OF_A_KIND
    return [int(i) for i in np.flatnonzero(kept)]


def _fitted(track: _Track, count: Floats, moment: Floats, on_edge: NDArray[np.uint8], reach: int) -> _Track:
    """Move and turn each line by least squares over the edge points near it, where these are dense."""
    s = np.arange(-reach, reach + 1, STEP_PX, dtype=np.float32)
    dense = cv2.blur(on_edge.astype(np.float32), (_RUN_PX // STEP_PX, 1)) >= 0.5
    place = moment / np.maximum(count, 1)
    usable = np.asarray(dense & (count > 0), np.float32)
    weight = usable
    for _ in range(2):
        n, ns, nss = weight.sum(1), weight @ s, weight @ (s * s)
        o, os = (weight * place).sum(1), (weight * place) @ s
        slope = (n * os - ns * o) / np.maximum(n * nss - ns**2, 1)
        shift = (o - slope * ns) / np.maximum(n, 1)
        away = np.abs(place - (shift[:, None] + slope[:, None] * s))
        weight = usable * (away <= _FITTED_PX)
    direction = np.stack([-track.normals[:, 1], track.normals[:, 0]], axis=1)
    length = np.sqrt(1 + slope.astype(np.float64) ** 2)
    normals = (track.normals - slope[:, None] * direction) / length[:, None]
    return _Track(normals, (track.offsets + shift) / length, track.upright)


def _seen_beside(track: _Track, planes: NDArray[np.uint8], reach: int, aside_px: int) -> tuple[Floats, Floats]:
    """Return, for each step along each line [n, steps], how many edge points its plane has beside it, up to so far.

    Second, the sum of their distances from the line.
    """
    _, height, width = planes.shape
    s = np.arange(-reach, reach + 1, STEP_PX, dtype=np.float32)
    normal_x, normal_y = (track.normals[:, axis, None].astype(np.float32) for axis in (0, 1))
    x = normal_x * track.offsets[:, None].astype(np.float32) - normal_y * s + np.float32(width / 2)
    y = normal_y * track.offsets[:, None].astype(np.float32) + normal_x * s + np.float32(height / 2)
    plane = track.upright[:, None].astype(np.int32) * np.int32(height * width)
    points = planes.ravel()
    count, moment = np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32)
    for aside in range(-aside_px, aside_px + 1):
        at_x, at_y = x + aside * normal_x, y + aside * normal_y
        inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
        at = np.where(inside, at_y.astype(np.int32) * np.int32(width) + at_x.astype(np.int32), 0)
        seen = points[at + plane] * inside
        count += seen
        moment += np.float32(aside) * seen
    return count, moment


def _running_sums(values: NDArray[np.generic]) -> NDArray[np.int32]:
    return np.pad(np.cumsum(values, axis=1, dtype=np.int32), ((0, 0), (1, 0)))


def _best_piece(sums: NDArray[np.int32], steps: int) -> NDArray[np.int32]:
    """Return the most edge on so many steps in a row; of a line that is shorter, on all of it."""
    steps = min(steps, sums.shape[1] - 1)
    return np.asarray((sums[:, steps:] - sums[:, :-steps]).max(axis=1), np.int32)


def _kind(track: _Track, sums: NDArray[np.int32], reach: int, chosen: NDArray[np.bool_]) -> Lines:
    at = np.flatnonzero(chosen)
    at = at[np.argsort(track.offsets[at], kind="stable")]
    return Lines(track.normals[at], track.offsets[at], sums[at], reach)
