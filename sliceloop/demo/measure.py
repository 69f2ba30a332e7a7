"""Measure a demo from what the ledger holds and from the released networks: losses, doubles, gaps, accuracy."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from cloud_worker.ledger import Ledger
from cloud_worker.ledger.tables import disagreements, readings, slices
from sliceloop.demo.result import Accuracy, AccuracyPair, SourcePair, Swap
from training.data.slices import SliceSet
from training.evaluate import Evaluation, SourceFigures, evaluate, paired_difference, softmax
from training.model.reader import Calibration, OnnxReader

NEIGHBOURS = 10
"""Intervals on each side of the swap among which the longest and the median are taken."""
READ_BATCH = 64


@dataclass(frozen=True)
class Diagnosed:
    """One slice on an edge: when its diagnosis was there, and by which release."""

    at: datetime
    version: int


def stored_frames(ledger: Ledger) -> Counter[str]:
    """Count the stored slices by the SHA-256 of their captured file."""
    return Counter(str(row["frame_sha256"]) for row in ledger.rows(select(slices.c.frame_sha256)))


def reviews_asked(ledger: Ledger) -> Counter[str]:
    """Count the slices that needed a person, by kind; `audit` is where both readers agree."""
    return Counter(str(row["kind"]) for row in ledger.rows(select(disagreements.c.kind)))


def timeline(ledger: Ledger, edge: str) -> list[Diagnosed]:
    """Return the diagnoses of one edge in the order in which they were made."""
    query = (
        select(slices.c.captured_at, readings.c.latency_ms, readings.c.model_version)
        .join(readings, (readings.c.slice_id == slices.c.slice_id) & (readings.c.reader == "edge"))
        .where(slices.c.edge == edge)
        .order_by(slices.c.sequence)
    )
    return [
        Diagnosed(row["captured_at"] + timedelta(milliseconds=row["latency_ms"]), row["model_version"])
        for row in ledger.rows(query)
    ]


def swap_gap(diagnoses: Sequence[Diagnosed]) -> Swap | None:
    """Return the longest and the median interval around the last change of version; None without a change."""
    changes = [i for i in range(1, len(diagnoses)) if diagnoses[i].version != diagnoses[i - 1].version]
    if not changes:
        return None
    around = diagnoses[max(changes[-1] - NEIGHBOURS - 1, 0) : changes[-1] + NEIGHBOURS + 1]
    intervals_ms = [(later.at - earlier.at).total_seconds() * 1000 for earlier, later in pairwise(around)]
    return Swap(max_gap_ms=max(intervals_ms), median_interval_ms=median(intervals_ms))


def worst_swap(ledger: Ledger, edges: Sequence[str]) -> Swap | None:
    """Return the swap with the longest gap in units of its median interval, over the edges."""
    swaps = [swap for edge in edges if (swap := swap_gap(timeline(ledger, edge))) is not None]
    return max(swaps, key=lambda swap: swap.max_gap_ms / swap.median_interval_ms, default=None)


def compare_releases(before: OnnxReader, after: OnnxReader, evaluation: SliceSet, data: str) -> AccuracyPair:
    """Read the evaluation slices with both networks and compare them on the same patients."""
    logits = [_logits(reader, evaluation) for reader in (before, after)]
    difference = paired_difference(logits[1], logits[0], evaluation.labels, evaluation.patients).balanced_accuracy
    sides = [
        _by_source(each, reader.calibration, evaluation) for each, reader in zip(logits, (before, after), strict=True)
    ]
    (before_all, before_sources), (after_all, after_sources) = sides
    return AccuracyPair(
        before=before_all,
        after=after_all,
        difference=(difference.value, difference.low, difference.high),
        data=data,
        by_source={
            source: SourcePair(before=before_sources[source], after=after_sources[source]) for source in before_sources
        },
    )


def _by_source(
    logits: NDArray[np.float32], calibration: Calibration, evaluation: SliceSet
) -> tuple[Accuracy, dict[str, Accuracy]]:
    """Judge one network on all slices, and on those of each source."""
    figures = evaluate(logits, evaluation.labels, evaluation.patients, evaluation.sources)
    uncertain = softmax(logits, calibration.temperature).max(axis=1) < calibration.uncertain_below
    sources = np.array(evaluation.sources)
    by_source = {
        source: _accuracy(its_figures, uncertain[sources == source])
        for source, its_figures in figures.by_source.items()
    }
    return _accuracy(figures, uncertain), by_source


def _accuracy(figures: Evaluation | SourceFigures, uncertain: NDArray[np.bool_]) -> Accuracy:
    estimate = figures.balanced_accuracy
    return Accuracy(
        balanced_accuracy=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n_patients=figures.n_patients,
        n_slices=figures.n_slices,
        uncertain_share=float(uncertain.mean()),
    )


def _logits(reader: OnnxReader, evaluation: SliceSet) -> NDArray[np.float32]:
    batches = [
        reader.logits(evaluation.pixels[start : start + READ_BATCH]) for start in range(0, len(evaluation), READ_BATCH)
    ]
    return np.concatenate(batches)
