"""Balanced accuracy of any part of the frames, with intervals that all stand on the same drawn patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.labels import LABELS
from training.evaluate import Estimate, Labels, PatientDraws, draw_patients, interval

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RESAMPLES = 1000


@dataclass(frozen=True)
class Drawn:
    """A figure and its values [resamples] in every resample of the patients; nan where it has none."""

    value: float
    resampled: Array

    def __sub__(self, other: "Drawn") -> "Drawn":
        return Drawn(self.value - other.value, self.resampled - other.resampled)

    def estimate(self) -> Estimate | None:
        """Return it with its 95 % interval, None where there is nothing to tell."""
        if np.isnan(self.value) or np.isnan(self.resampled).all():
            return None
        return interval(self.value, self.resampled)


@dataclass(frozen=True)
class Judge:
    """Judges answers [n] to frames by their labels [n] (index into LABELS) and the patients that they are of."""

    labels: Labels
    draws: PatientDraws

    @classmethod
    def of(cls, labels: Labels, patients: Sequence[str], seed: int = 0) -> "Judge":
        """Draw the patients once, for all figures."""
        return cls(labels, draw_patients(labels, patients, RESAMPLES, seed))

    def balanced(self, answers: NDArray[np.int64], among: Mask) -> Drawn:
        """Return the mean sensitivity over the classes that occur `among` the frames; an answer of -1 is wrong."""
        hits = self._by_patient(among & (answers == self.labels))
        totals = self._by_patient(among)
        resampled = _mean_ratio(self.draws.times @ hits, self.draws.times @ totals)
        return Drawn(float(_mean_ratio(hits.sum(0), totals.sum(0))), resampled)

    def _by_patient(self, chosen: Mask) -> Array:
        """Count the chosen frames, [patients, classes]."""
        n_patients, n_classes = self.draws.times.shape[1], len(LABELS)
        cell = self.draws.of_slice[chosen] * n_classes + self.labels[chosen]
        return np.bincount(cell, minlength=n_patients * n_classes).reshape(n_patients, n_classes).astype(np.float64)


def recovered(digital: Drawn, captured: Drawn, digital_plain: Drawn, paper: Drawn) -> Drawn:
    """Return the share of the paper's loss that our path does not lose; each loss is against its own digital figure.

    Nan where the paper's path loses nothing.
    """
    ours, theirs = digital - captured, digital_plain - paper
    return Drawn(float(_saved(ours.value, theirs.value)), _saved(ours.resampled, theirs.resampled))


def _saved(ours: Array | float, theirs: Array | float) -> Array:
    lost = np.asarray(theirs, np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(lost > 0, 1 - np.asarray(ours) / np.where(lost > 0, lost, 1), np.nan)


def _mean_ratio(hits: Array, totals: Array) -> Array:
    """Return the mean over the last axis of hits by totals, leaving out classes without frames; nan without any."""
    ratio = np.divide(hits, totals, out=np.zeros_like(totals), where=totals > 0)
    classes = (totals > 0).sum(-1)
    return np.where(classes > 0, ratio.sum(-1) / np.maximum(classes, 1), np.nan)
