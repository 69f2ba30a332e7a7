"""Every figure of one network on one split, by slice or by patient, each with its interval over patients."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from protocol.labels import LABELS, Label
from training.evaluate import (
    CALIBRATION_BINS,
    Array,
    Estimate,
    Evaluation,
    PatientDraws,
    draw_patients,
    evaluate,
    interval,
    softmax,
)
from training.judging.curves import BinaryCurves, binary_curves
from training.judging.predictions import Predictions
from training.judging.risk import RiskCoverage, RiskCurve, risk_curve

RESAMPLES = 1000
SAME_ORIGIN: Mapping[str, tuple[str, ...]] = MappingProxyType({"mosmed": ("mosmed-ct0", "mosmed-ct2")})
"""Sources that differ in class alone: one city's scanners, cut into one source a class when they were published."""
_TWO = 2


class Averages(BaseModel):
    """Precision, recall and F1, 0..1."""

    model_config = ConfigDict(frozen=True)
    precision: Estimate
    recall: Estimate
    f1: Estimate


class ClassReport(Averages):
    """One class; `support` is how many slices (or patients) truly are of it."""

    support: int


class ClassificationReport(BaseModel):
    """What scikit-learn's classification_report says, with intervals; a class that does not occur is left out.

    A class that is never answered has a precision of 0, as there.
    """

    model_config = ConfigDict(frozen=True)
    by_class: dict[Label, ClassReport]
    accuracy: Estimate
    macro: Averages
    weighted: Averages
    n: int


class Ranking(BaseModel):
    """How well a class's probability ranks its slices above the others."""

    model_config = ConfigDict(frozen=True)
    n_positive: int
    n_negative: int
    average_precision: Estimate
    auroc: Estimate


class ConfidenceBin(BaseModel):
    """The answers whose confidence lies in a fifteenth of 0..1: how sure they were, and how often right."""

    model_config = ConfigDict(frozen=True)
    n: int
    confidence: float
    accuracy: float


class CalibrationFigures(BaseModel):
    """Expected calibration error, 0..1, at the fitted temperature and without it (None where that is 1 anyway).

    Few slices make it too large, and resampling them larger still: an interval may lie above its value.
    """

    model_config = ConfigDict(frozen=True)
    temperature: float
    error: Estimate
    bins: tuple[ConfidenceBin, ...]
    error_without: Estimate | None
    bins_without: tuple[ConfidenceBin, ...]


class FairComparison(BaseModel):
    """Classes of one origin told apart, where the style of a source gives nothing away."""

    model_config = ConfigDict(frozen=True)
    sources: tuple[str, ...]
    labels: tuple[Label, ...]
    n: int
    n_patients: int
    fewest_patients: int
    """In one of the classes; with 1 the interval is none, as nothing can be drawn."""
    balanced_accuracy: Estimate
    """An answer that is none of the classes counts as wrong."""
    among_its_classes: Estimate
    """Balanced accuracy of the likeliest of the classes that occur here; chance is one over their number."""
    auroc: Estimate | None
    """Of two classes, by the difference of their logits."""


class Judgement(BaseModel):
    """All figures; `unit` says whether an answer is a slice's or a patient's (the mean of its slices)."""

    model_config = ConfigDict(frozen=True)
    unit: str
    evaluation: Evaluation
    report: ClassificationReport
    ranking: dict[Label, Ranking]
    calibration: CalibrationFigures
    risk_coverage: RiskCoverage
    fair: dict[str, FairComparison]


@dataclass(frozen=True)
class Judged:
    """The figures, and the curves behind them for the plots."""

    figures: Judgement
    curves: dict[Label, BinaryCurves]
    risk: RiskCurve


def judge(
    predictions: Predictions,
    unit: str,
    temperature: float = 1.0,
    uncertain_below: float = 0.5,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Judged:
    """Compute every figure of the predictions; raises `EvaluationInputError`."""
    p = predictions
    evaluation = evaluate(p.logits, p.labels, p.patients, p.sources, temperature, resamples, seed)
    draws = draw_patients(p.labels, p.patients, resamples, seed)
    probabilities = softmax(p.logits, temperature)
    all_curves = {label: binary_curves(p.labels == i, probabilities[:, i], draws) for i, label in enumerate(LABELS)}
    curves = {label: curve for label, curve in all_curves.items() if curve is not None}
    risk, risk_figures = risk_curve(probabilities, p.labels, draws, uncertain_below)
    figures = Judgement(
        unit=unit,
        evaluation=evaluation,
        report=classification_report(p.logits.argmax(1), p.labels, draws),
        ranking={label: _ranking(curve) for label, curve in curves.items()},
        calibration=_calibration(p, temperature, draws),
        risk_coverage=risk_figures,
        fair=fair_comparisons(p, resamples=resamples, seed=seed),
    )
    return Judged(figures, curves, risk)


def classification_report(
    answers: NDArray[np.intp], labels: NDArray[np.int64], draws: PatientDraws
) -> ClassificationReport:
    """Return the paper's table for answers and labels [n] (index into LABELS)."""
    here = np.zeros((1, len(LABELS) * len(LABELS)))
    np.add.at(here[0], labels * len(LABELS) + answers, 1)
    cells = np.zeros((draws.times.shape[1], here.shape[1]))
    np.add.at(cells, (draws.of_slice, labels * len(LABELS) + answers), 1)
    shape = (-1, len(LABELS), len(LABELS))
    value, drawn = _Table(here.reshape(shape)), _Table((draws.times @ cells).reshape(shape))
    return ClassificationReport(
        by_class={
            label: ClassReport(
                precision=interval(value.precision[0, i], drawn.precision[:, i]),
                recall=interval(value.recall[0, i], drawn.recall[:, i]),
                f1=interval(value.f1[0, i], drawn.f1[:, i]),
                support=int(value.support[0, i]),
            )
            for i, label in enumerate(LABELS)
            if value.support[0, i]
        },
        accuracy=interval(value.accuracy[0], drawn.accuracy),
        macro=_averages(value, drawn, value.present, drawn.present),
        weighted=_averages(value, drawn, value.support, drawn.support),
        n=len(labels),
    )


def fair_comparisons(
    predictions: Predictions,
    together: Mapping[str, tuple[str, ...]] = SAME_ORIGIN,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, FairComparison]:
    """Compare the classes inside each source that has two or more, and inside sources of the same origin."""
    groups = {source: (source,) for source in sorted(set(predictions.sources))} | dict(together)
    figures: dict[str, FairComparison] = {}
    for name, sources in groups.items():
        inside = predictions.select(np.isin(predictions.sources, sources))
        if len(set(inside.labels.tolist())) >= _TWO:
            figures[name] = _fair(inside, resamples, seed)
    return figures


class _Table:
    """Precision, recall and F1 [r, 3] of confusion counts [r, 3, 3] (true, answered); nan for an absent class."""

    def __init__(self, confusion: Array) -> None:
        hits = np.diagonal(confusion, axis1=1, axis2=2)
        answered = confusion.sum(1)
        self.support = confusion.sum(2)
        self.present = (self.support > 0).astype(np.float64)
        self.precision = self._of_present(np.divide(hits, answered, out=np.zeros_like(hits), where=answered > 0))
        self.recall = self._of_present(hits / np.maximum(self.support, 1))
        self.f1 = self._of_present(2 * hits / np.maximum(self.support + answered, 1))
        self.accuracy = hits.sum(1) / self.support.sum(1)

    def _of_present(self, values: Array) -> Array:
        return np.where(self.support > 0, values, np.nan)


def _averages(value: _Table, drawn: _Table, weight: Array, drawn_weight: Array) -> Averages:
    def average(values: Array, drawn_values: Array) -> Estimate:
        return interval(float(_mean(values, weight)[0]), _mean(drawn_values, drawn_weight))

    return Averages(
        precision=average(value.precision, drawn.precision),
        recall=average(value.recall, drawn.recall),
        f1=average(value.f1, drawn.f1),
    )


def _mean(values: Array, weights: Array) -> Array:
    return np.asarray(np.nansum(values * weights, axis=1) / weights.sum(1))


def _ranking(curve: BinaryCurves) -> Ranking:
    return Ranking(
        n_positive=curve.n_positive,
        n_negative=curve.n_negative,
        average_precision=curve.average_precision,
        auroc=curve.auroc,
    )


def _calibration(p: Predictions, temperature: float, draws: PatientDraws) -> CalibrationFigures:
    error, bins = _reliability(softmax(p.logits, temperature), p.labels, draws)
    without = _reliability(softmax(p.logits), p.labels, draws) if temperature != 1 else (None, ())
    return CalibrationFigures(
        temperature=temperature, error=error, bins=bins, error_without=without[0], bins_without=without[1]
    )


def _reliability(
    probabilities: Array, labels: NDArray[np.int64], draws: PatientDraws
) -> tuple[Estimate, tuple[ConfidenceBin, ...]]:
    """Return the error as `training.evaluate.calibration_error`, with its interval, and the bins that have slices."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bin_of = np.minimum((confidence * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    gaps = np.zeros((draws.times.shape[1], CALIBRATION_BINS))
    np.add.at(gaps, (draws.of_slice, bin_of), correct - confidence)
    n_slices = np.bincount(draws.of_slice, minlength=len(gaps))
    drawn = np.abs(draws.times @ gaps).sum(1) / (draws.times @ n_slices)
    bins = tuple(
        ConfidenceBin(
            n=int(inside.sum()), confidence=float(confidence[inside].mean()), accuracy=float(correct[inside].mean())
        )
        for inside in (bin_of == index for index in range(CALIBRATION_BINS))
        if inside.any()
    )
    return interval(float(np.abs(gaps.sum(0)).sum() / len(labels)), drawn), bins


def _fair(inside: Predictions, resamples: int, seed: int) -> FairComparison:
    p, classes = inside, np.unique(inside.labels)
    absent = [index for index in range(len(LABELS)) if index not in classes]
    among = p.logits.astype(np.float64)
    among[:, absent] = among.min() - 1
    figures, restricted = (
        evaluate(logits, p.labels, p.patients, p.sources, 1.0, resamples, seed) for logits in (p.logits, among)
    )
    return FairComparison(
        sources=tuple(sorted(set(p.sources))),
        labels=tuple(LABELS[index] for index in classes),
        n=len(p),
        n_patients=figures.n_patients,
        fewest_patients=min(figures.by_class[LABELS[index]].n_patients for index in classes),
        balanced_accuracy=figures.balanced_accuracy,
        among_its_classes=restricted.balanced_accuracy,
        auroc=_auroc_of_two(p, classes, resamples, seed) if len(classes) == _TWO else None,
    )


def _auroc_of_two(p: Predictions, classes: NDArray[np.int64], resamples: int, seed: int) -> Estimate | None:
    first, second = classes
    logits = p.logits.astype(np.float64)
    draws = draw_patients(p.labels, p.patients, resamples, seed)
    curves = binary_curves(p.labels == second, logits[:, second] - logits[:, first], draws)
    return None if curves is None else curves.auroc
