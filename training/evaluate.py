"""Judge logits against labels, with intervals over patients; numpy alone, so that the worker's gate can use it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from protocol.labels import LABELS, Label

Logits = NDArray[np.floating]
Labels = NDArray[np.int64]
Array = NDArray[np.float64]

CALIBRATION_BINS = 15
"""As Guo et al. 2017, On calibration of modern neural networks."""
_INTERVAL = (2.5, 97.5)
_CLASSES = len(LABELS)


class EvaluationInputError(ValueError):
    """Logits, labels, patients and sources that cannot be judged together; the message says which and why."""


class Estimate(BaseModel):
    """A figure with its 95 % interval over patients."""

    model_config = ConfigDict(frozen=True)
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class ClassFigures(BaseModel):
    """One class against the two others; None where no slice, or no other slice, was there to tell."""

    model_config = ConfigDict(frozen=True)
    n_slices: int
    n_patients: int
    sensitivity: Estimate | None
    specificity: Estimate | None
    one_vs_rest: Estimate | None
    """Mean of sensitivity and specificity."""


class SourceFigures(BaseModel):
    """The slices of one source; balanced accuracy over the classes that it has."""

    model_config = ConfigDict(frozen=True)
    n_slices: int
    n_patients: int
    balanced_accuracy: Estimate
    sensitivity: dict[Label, Estimate]


class Evaluation(BaseModel):
    """What a network is worth on slices that it did not learn from."""

    model_config = ConfigDict(frozen=True)
    n_slices: int
    n_patients: int
    balanced_accuracy: Estimate
    by_class: dict[Label, ClassFigures]
    by_source: dict[str, SourceFigures]
    confusion: tuple[tuple[int, ...], ...]
    """Slices by true label (row) and answer (column), in the order of LABELS."""
    log_loss: float
    calibration_error: float
    """Expected calibration error, 0..1."""
    temperature: float
    resamples: int
    seed: int


class PairedDifference(BaseModel):
    """Candidate minus incumbent on the same slices; above zero the candidate is better."""

    model_config = ConfigDict(frozen=True)
    n_slices: int
    n_patients: int
    balanced_accuracy: Estimate
    sensitivity: dict[Label, Estimate]


def evaluate(
    logits: Logits,
    labels: Labels,
    patients: Sequence[str],
    sources: Sequence[str],
    temperature: float = 1.0,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Judge logits [n, 3] against labels [n] (index into LABELS).

    The intervals come from drawing patients, not slices, with replacement within the patients of each class, so that
    no draw loses a class. Raises `EvaluationInputError`.
    """
    _check(logits, labels, patients, sources)
    tally = _tally(logits.argmax(1), labels, patients)
    drawn = tally.draw(resamples, seed)
    confusion = tally.by_patient.sum(0)
    return Evaluation(
        n_slices=len(labels),
        n_patients=len(tally.by_patient),
        balanced_accuracy=_required(_balanced(confusion), _balanced(drawn)),
        by_class={label: _class_figures(index, tally, drawn) for index, label in enumerate(LABELS)},
        by_source=_by_source(logits, labels, patients, sources, resamples, seed),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        log_loss=log_loss(logits, labels, temperature),
        calibration_error=calibration_error(logits, labels, temperature),
        temperature=temperature,
        resamples=resamples,
        seed=seed,
    )


def paired_difference(
    candidate: Logits,
    incumbent: Logits,
    labels: Labels,
    patients: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two networks' logits [n, 3] on the same slices: both see the same drawn patients in every resample."""
    _check(candidate, labels, patients, patients)
    _check(incumbent, labels, patients, patients)
    ours, theirs = (_tally(logits.argmax(1), labels, patients) for logits in (candidate, incumbent))
    ours_drawn, theirs_drawn = ours.draw(resamples, seed), theirs.draw(resamples, seed)
    ours_all, theirs_all = ours.by_patient.sum(0), theirs.by_patient.sum(0)
    by_class = _estimates(
        _sensitivity(ours_all) - _sensitivity(theirs_all), _sensitivity(ours_drawn) - _sensitivity(theirs_drawn)
    )
    return PairedDifference(
        n_slices=len(labels),
        n_patients=len(ours.by_patient),
        balanced_accuracy=_required(
            _balanced(ours_all) - _balanced(theirs_all), _balanced(ours_drawn) - _balanced(theirs_drawn)
        ),
        sensitivity=by_class,
    )


@dataclass(frozen=True)
class PatientDraws:
    """How often each patient comes in each resample [resamples, patients], and the patient of each slice [n]."""

    times: Array
    of_slice: NDArray[np.intp]

    def of_slices(self, resamples: slice = slice(None)) -> Array:
        """Return how often each slice comes in these resamples, [resamples, n]; large: ask for a few at a time."""
        return self.times[resamples][:, self.of_slice]


def draw_patients(labels: Labels, patients: Sequence[str], resamples: int = 1000, seed: int = 0) -> PatientDraws:
    """Draw the patients that every interval here stands on, for figures that are not made of counts alone.

    The same labels, patients and seed give the same draws as `evaluate` and `paired_difference` use.
    """
    answers = np.zeros(len(labels), dtype=np.intp)
    tally = _tally(answers, labels, patients)
    _, of_slice = np.unique(np.asarray(patients), return_inverse=True)
    return PatientDraws(tally.draw_times(resamples, seed), of_slice)


def interval(value: float, drawn: Array) -> Estimate:
    """Return the figure with the 95 % interval that its resamples [resamples] give; resamples without one are nan."""
    return _required(np.asarray(value), drawn)


def balanced_accuracy(logits: Logits, labels: Labels) -> float:
    """Return the mean sensitivity over the classes that occur, 0..1."""
    return float(_balanced(_tally(logits.argmax(1), labels, [""] * len(labels)).by_patient.sum(0)))


def log_loss(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """Return the mean negative log likelihood of the true classes, in nats."""
    return float(-_log_probabilities(logits, temperature)[np.arange(len(labels)), labels].mean())


def softmax(logits: Logits, temperature: float = 1.0) -> Array:
    """Return the probabilities float64 [n, 3], each row adding up to 1."""
    return np.asarray(np.exp(_log_probabilities(logits, temperature)))


def calibration_error(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """Return the expected calibration error, 0..1: how far confidence and accuracy lie apart, by confidence."""
    probabilities = softmax(logits, temperature)
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, correct - confidence, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


@dataclass(frozen=True)
class _Tally:
    """Confusion counts [patients, 3, 3] (true, answered), and the class that each patient belongs to [patients]."""

    by_patient: Array
    stratum: NDArray[np.intp]

    def draw(self, resamples: int, seed: int) -> Array:
        """Return the confusion counts [resamples, 3, 3] of patients drawn with replacement within their class."""
        drawn = self.draw_times(resamples, seed) @ self.by_patient.reshape(len(self.stratum), -1)
        return drawn.reshape(resamples, _CLASSES, _CLASSES)

    def draw_times(self, resamples: int, seed: int) -> Array:
        """Return how often each patient is drawn, [resamples, patients]."""
        random = np.random.default_rng(seed)
        times = np.zeros((resamples, len(self.stratum)))
        for stratum in np.unique(self.stratum):
            members = np.flatnonzero(self.stratum == stratum)
            times[:, members] = random.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
        return times


def _tally(answers: NDArray[np.intp], labels: Labels, patients: Sequence[str]) -> _Tally:
    names, of_slice = np.unique(np.asarray(patients), return_inverse=True)
    cell = (of_slice * _CLASSES + labels) * _CLASSES + answers
    counts = np.bincount(cell, minlength=len(names) * _CLASSES**2).astype(np.float64)
    by_patient = counts.reshape(len(names), _CLASSES, _CLASSES)
    return _Tally(by_patient, by_patient.sum(2).argmax(1))


def _sensitivity(confusion: Array) -> Array:
    """Return [..., 3] from counts [..., 3, 3]; nan for a class that does not occur."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1))


def _specificity(confusion: Array) -> Array:
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    others = confusion.sum((-2, -1))[..., None] - confusion.sum(-1)
    false_alarms = confusion.sum(-2) - hits
    return _ratio(others - false_alarms, others)


def _balanced(confusion: Array) -> Array:
    sensitivity = _sensitivity(confusion)
    return np.asarray(np.nansum(sensitivity, -1) / np.maximum((~np.isnan(sensitivity)).sum(-1), 1))


def _ratio(part: Array, whole: Array) -> Array:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


def _required(value: Array, drawn: Array) -> Estimate:
    low, high = np.nanpercentile(drawn, _INTERVAL)
    return Estimate(value=float(value), low=float(low), high=float(high))


def _optional(value: Array, drawn: Array) -> Estimate | None:
    return None if np.isnan(value) else _required(value, drawn)


def _estimates(values: Array, drawn: Array) -> dict[Label, Estimate]:
    return {
        label: _required(values[index], drawn[:, index])
        for index, label in enumerate(LABELS)
        if not np.isnan(values[index])
    }


def _class_figures(index: int, tally: _Tally, drawn: Array) -> ClassFigures:
    confusion = tally.by_patient.sum(0)
    sensitivity, specificity = _sensitivity(confusion)[index], _specificity(confusion)[index]
    sensitivities, specificities = _sensitivity(drawn)[:, index], _specificity(drawn)[:, index]
    return ClassFigures(
        n_slices=int(confusion[index].sum()),
        n_patients=int((tally.by_patient[:, index].sum(1) > 0).sum()),
        sensitivity=_optional(sensitivity, sensitivities),
        specificity=_optional(specificity, specificities),
        one_vs_rest=_optional((sensitivity + specificity) / 2, (sensitivities + specificities) / 2),
    )


def _by_source(
    logits: Logits, labels: Labels, patients: Sequence[str], sources: Sequence[str], resamples: int, seed: int
) -> dict[str, SourceFigures]:
    names, of_slice = np.unique(np.asarray(sources), return_inverse=True)
    figures: dict[str, SourceFigures] = {}
    for index, name in enumerate(names):
        at = of_slice == index
        tally = _tally(logits[at].argmax(1), labels[at], np.asarray(patients)[at].tolist())
        drawn, confusion = tally.draw(resamples, seed), tally.by_patient.sum(0)
        figures[str(name)] = SourceFigures(
            n_slices=int(at.sum()),
            n_patients=len(tally.by_patient),
            balanced_accuracy=_required(_balanced(confusion), _balanced(drawn)),
            sensitivity=_estimates(_sensitivity(confusion), _sensitivity(drawn)),
        )
    return figures


def _log_probabilities(logits: Logits, temperature: float) -> Array:
    scaled = logits.astype(np.float64) / temperature
    shifted = scaled - scaled.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _check(logits: Logits, labels: Labels, patients: Sequence[str], sources: Sequence[str]) -> None:
    if logits.ndim != 2 or logits.shape[1] != _CLASSES or not len(logits):
        raise EvaluationInputError(f"logits are {logits.shape}, not [n, {_CLASSES}] with at least one slice")
    if not len(logits) == len(labels) == len(patients) == len(sources):
        raise EvaluationInputError(
            f"{len(logits)} logits, {len(labels)} labels, {len(patients)} patients and {len(sources)} sources: "
            "each slice needs one of each"
        )
    if not np.isfinite(logits).all():
        raise EvaluationInputError("logits hold NaN or infinity: the network is broken, do not release it")
    if labels.min() < 0 or labels.max() >= _CLASSES:
        raise EvaluationInputError(f"labels reach from {labels.min()} to {labels.max()}, not 0 to {_CLASSES - 1}")
