"""Curves over every threshold, for one class against the others, with bands from drawn patients."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluate import Array, Estimate, PatientDraws, interval

GRID = np.linspace(0, 1, 101)
"""Where the bands are drawn along the horizontal axis."""
_BAND = (2.5, 97.5)
_CELLS_AT_ONCE = 4_000_000
"""Numbers held at once for a block of resamples: 32 MB each array."""


@dataclass(frozen=True)
class BinaryCurves:
    """One class against the others: points from the highest score down, figures, and bands [2, 101] over GRID."""

    n_positive: int
    n_negative: int
    recall: Array
    precision: Array
    false_positive_rate: Array
    average_precision: Estimate
    auroc: Estimate
    precision_band: Array
    recall_band: Array
    """Of the true positive rate, over GRID as the false positive rate."""


def binary_curves(truth: NDArray[np.bool_], scores: Array, draws: PatientDraws) -> BinaryCurves | None:
    """Follow the threshold over the scores [n]; None where one side has no slice, so that there is no curve.

    Average precision is the step sum and ties count as one threshold, both as in scikit-learn.
    """
    if truth.all() or not truth.any():
        return None
    hits, alarms = _counts(truth, scores, np.ones((1, len(truth))))
    precisions, areas, by_recall, by_alarms = [], [], [], []
    for weights in _blocks(draws):
        drawn_hits, drawn_alarms = _counts(truth, scores, weights)
        precisions.append(average_precision(drawn_hits, drawn_alarms))
        areas.append(auroc(drawn_hits, drawn_alarms))
        for row_hits, row_alarms in zip(drawn_hits, drawn_alarms, strict=True):
            by_recall.append(_precision_at_recall(row_hits, row_alarms))
            by_alarms.append(_recall_at_alarms(row_hits, row_alarms))
    return BinaryCurves(
        n_positive=int(truth.sum()),
        n_negative=int((~truth).sum()),
        recall=hits[0] / hits[0, -1],
        precision=hits[0] / (hits[0] + alarms[0]),
        false_positive_rate=alarms[0] / alarms[0, -1],
        average_precision=interval(float(average_precision(hits, alarms)[0]), np.concatenate(precisions)),
        auroc=interval(float(auroc(hits, alarms)[0]), np.concatenate(areas)),
        precision_band=np.nanpercentile(np.stack(by_recall), _BAND, axis=0),
        recall_band=np.nanpercentile(np.stack(by_alarms), _BAND, axis=0),
    )


def average_precision(hits: Array, alarms: Array) -> Array:
    """Return [r] from cumulated true and false positives [r, k]; nan where a resample has no positive."""
    answered = hits + alarms
    precision = np.divide(hits, answered, out=np.zeros_like(hits), where=answered > 0)
    steps = np.diff(hits, axis=1, prepend=0)
    return _shares((steps * precision).sum(1), hits[:, -1])


def auroc(hits: Array, alarms: Array) -> Array:
    """Return [r] from cumulated true and false positives [r, k]; nan where a resample lacks one side."""
    before = np.concatenate([np.zeros((len(hits), 1)), hits[:, :-1]], axis=1)
    area = (np.diff(alarms, axis=1, prepend=0) * (hits + before) / 2).sum(1)
    return _shares(area, hits[:, -1] * alarms[:, -1])


def blocks_of(n_slices: int, resamples: int) -> Iterator[slice]:
    """Cut the resamples so that [resamples, n_slices] numbers fit the memory."""
    size = max(1, _CELLS_AT_ONCE // max(1, n_slices))
    return (slice(start, start + size) for start in range(0, resamples, size))


def _blocks(draws: PatientDraws) -> Iterator[Array]:
    for block in blocks_of(len(draws.of_slice), len(draws.times)):
        yield draws.of_slices(block)


def _counts(truth: NDArray[np.bool_], scores: Array, weights: Array) -> tuple[Array, Array]:
    """Return cumulated true and false positives [r, k] at each distinct score, the highest first."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    ordered, positive = weights[:, order], truth[order]
    hits = np.cumsum(ordered * positive, axis=1)[:, last_of_tie]
    return hits, np.cumsum(ordered * ~positive, axis=1)[:, last_of_tie]


def _precision_at_recall(hits: Array, alarms: Array) -> Array:
    """Return the precision [101] at the highest threshold that reaches each recall of GRID."""
    if not hits[-1]:
        return np.full(len(GRID), np.nan)
    at = np.minimum(np.searchsorted(hits, GRID * hits[-1]), len(hits) - 1)
    answered = hits[at] + alarms[at]
    return _shares(np.asarray(hits[at]), np.asarray(answered))


def _recall_at_alarms(hits: Array, alarms: Array) -> Array:
    if not hits[-1] or not alarms[-1]:
        return np.full(len(GRID), np.nan)
    return np.asarray(np.interp(GRID, np.append(0, alarms / alarms[-1]), np.append(0, hits / hits[-1])))


def _shares(part: Array, whole: Array) -> Array:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))
