"""Pair upright and level lines to quads, and tell how much of each quad's sides is an edge."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_agent.locate.lines import STEP_PX, Lines

Number = TypeVar("Number", bound=np.generic)

LEAST_SIDE_PX, LEAST_AREA_SHARE = 24, 0.01
"""Of the small picture: smaller quads are icons and text."""
LEAST_SUPPORT, LEAST_MEAN_SUPPORT = 0.04, 0.5
"""Of the worst side, and of all: glare and a page of the slice's own grey may hide much of one side."""
MOST_QUADS = 160

_LEAST_TAPER = 0.6
"""Opposite sides differ by no more than this: nobody photographs a page that steeply."""
_PART, _GAP_PX = 0.12, 3
"""Of a side's length: edges reach the corners of a true outline, and do not go on beyond them."""

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True)
class Quads:
    """Quads float64 [n, 4, 2] in the small picture's pixels, clockwise from the top left.

    `support` [n, 4] is the share of each side (top, right, bottom, left) that is an edge, `ends` [n, 8] that of its
    first and last part, and `beyond` [n, 8] that of its continuations before and behind.
    """

    corners: NDArray[np.float64]
    support: NDArray[np.float64]
    ends: NDArray[np.float64]
    beyond: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.corners)

    def take(self, at: NDArray[np.intp]) -> "Quads":
        """Return the quads at the indices."""
        return Quads(self.corners[at], self.support[at], self.ends[at], self.beyond[at])


@dataclass(frozen=True)
class _Sides:
    """What each line [n] shows between each pair [p] of lines that cross it; `ends` and `beyond` are [n, p, 2]."""

    length: NDArray[np.float64]
    support: NDArray[np.float64]
    ends: NDArray[np.float64]
    beyond: NDArray[np.float64]
    real: NDArray[np.bool_]


@dataclass(frozen=True)
class _Around:
    """Quads [n] as pairs of level lines (`rows`, of which the `r`-th) and of upright ones (`columns`)."""

    rows: Pairs
    columns: Pairs
    r: NDArray[np.intp]
    c: NDArray[np.intp]

    def of(self, across: NDArray[Number], down: NDArray[Number]) -> NDArray[Number]:
        """Return [n, 4]: what level and upright lines [lines, pairs] say of top, right, bottom and left."""
        r, c = self.r, self.c
        top, bottom = across[self.rows[0][r], c], across[self.rows[1][r], c]
        left, right = down[self.columns[0][c], r], down[self.columns[1][c], r]
        return np.stack([top, right, bottom, left], axis=1)

    def corners(self, crossing: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return [n, 4, 2], clockwise from the top left."""
        top, bottom = self.rows[0][self.r], self.rows[1][self.r]
        left, right = self.columns[0][self.c], self.columns[1][self.c]
        return np.stack([crossing[way] for way in ((top, left), (top, right), (bottom, right), (bottom, left))], axis=1)


def find_quads(upright: Lines, level: Lines, shape: tuple[int, int]) -> Quads:
    """Return the best-supported quads that lie in a picture of this height and width, the best first."""
    crossing = _crossings(level, upright)
    with np.errstate(invalid="ignore"):
        inside = np.asarray((np.abs(crossing) <= np.array(shape[::-1]) / 2 + _GAP_PX).all(-1), np.bool_)
    rows, columns = (np.triu_indices(len(lines), 1) for lines in (level, upright))
    across = _sides(level, crossing, inside, columns, -1)
    down = _sides(upright, crossing.swapaxes(0, 1), inside.T, rows, 1)
    r, c = _plausible(across, down, rows, columns, LEAST_AREA_SHARE * shape[0] * shape[1])
    support = _Around(rows, columns, r, c).of(across.support, down.support)
    kept = (support.min(1) >= LEAST_SUPPORT) & (support.mean(1) >= LEAST_MEAN_SUPPORT)
    around = _Around(rows, columns, r[kept], c[kept])
    ends, beyond = (
        np.concatenate([around.of(a[..., end], d[..., end]) for end in (0, 1)], axis=1)
        for a, d in ((across.ends, down.ends), (across.beyond, down.beyond))
    )
    return _best(Quads(around.corners(crossing) + (np.array(shape[::-1]) - 1) / 2, support[kept], ends, beyond))


def _best(quads: Quads) -> Quads:
    """Return the quads whose sides are edges most of all, up to their corners and no further."""
    worth = quads.support.mean(1) + 0.5 * (quads.support.min(1) + quads.ends.mean(1) - quads.beyond.mean(1))
    return quads.take(np.argsort(-worth, kind="stable")[:MOST_QUADS])


def _crossings(level: Lines, upright: Lines) -> NDArray[np.float64]:
    """Return where level and upright lines cross, [level, upright, 2] from the centre; nan where they hardly do."""
    (ax, ay), (bx, by) = level.normals.T[:, :, None], upright.normals.T[:, None, :]
    a, b = level.offsets[:, None], upright.offsets[None, :]
    determinant = ax * by - ay * bx
    determinant = np.where(np.abs(determinant) < 0.2, np.nan, determinant)
    return np.stack([a * by - b * ay, ax * b - bx * a], axis=-1) / determinant[..., None]


def _sides(lines: Lines, crossing: NDArray[np.float64], inside: NDArray[np.bool_], pairs: Pairs, sign: int) -> _Sides:
    """Measure every line between every pair of crossings [n, m, 2]; `sign` tells which way the pairs are ordered."""
    s = sign * np.nan_to_num((crossing * lines.directions[:, None]).sum(-1))
    first, last = s[:, pairs[0]], s[:, pairs[1]]
    length = last - first
    part = _PART * length
    before, begin, end, behind = (
        _share(lines, start, start + part, sign)
        for start in (first - _GAP_PX - part, first, last - part, last + _GAP_PX)
    )
    real = inside[:, pairs[0]] & inside[:, pairs[1]] & (length >= LEAST_SIDE_PX)
    ends, beyond = np.stack([begin, end], axis=-1), np.stack([before, behind], axis=-1)
    return _Sides(length, _share(lines, first, last, sign), ends, beyond, real)


def _share(lines: Lines, first: NDArray[np.float64], last: NDArray[np.float64], sign: int) -> NDArray[np.float64]:
    """Return the share of each line that is an edge between two places [n, p] on it."""
    ends = (first, last) if sign > 0 else (-last, -first)
    steps = lines.edge_sums.shape[1] - 1
    low, high = (np.clip(np.rint((end + lines.reach_px) / STEP_PX), 0, steps - 1).astype(np.intp) for end in ends)
    high = np.maximum(high, low) + 1
    at = np.arange(len(lines))[:, None]
    return np.asarray((lines.edge_sums[at, high] - lines.edge_sums[at, low]) / (high - low), np.float64)


def _plausible(
    across: _Sides, down: _Sides, rows: Pairs, columns: Pairs, least_area: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which row pairs and column pairs make a quad that lies in the picture, is large enough and not steep."""
    real = across.real[rows[0]] & across.real[rows[1]] & (down.real[columns[0]] & down.real[columns[1]]).T
    r, c = np.nonzero(real)
    length = _Around(rows, columns, r, c).of(across.length, down.length)
    opposite = length[:, :2], length[:, 2:]
    tapers = (np.minimum(*opposite) < _LEAST_TAPER * np.maximum(*opposite)).any(1)
    area = (length[:, 0] + length[:, 2]) * (length[:, 1] + length[:, 3]) / 4
    kept = ~tapers & (area >= least_area)
    return r[kept], c[kept]
