"""Several evaluations of the same slices beside each other: figures, costs, paired differences, exact tests."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from training.evaluate import PairedDifference, paired_difference
from training.judging.agreement import McNemar, corrected, mcnemar
from training.judging.cost import Latency
from training.judging.predictions import PREDICTIONS_FILE, Predictions, by_patient, difference, read_predictions
from training.judging.record import Origin, Record, read_record
from training.judging.unseen import LeakMark
from training.model.reader import Calibration, OnnxReader

COMPARISON_FILE = "comparison.json"
FIRST, BEST = "first", "best"
FEWEST = 2


class ComparisonError(ValueError):
    """Evaluations that cannot be compared; the message says which and why."""


class DifferentSlicesError(ComparisonError):
    """`folder` was not judged on what the first one was judged on; `fault` says how they differ."""

    def __init__(self, folder: Path, first: Path, fault: str) -> None:
        super().__init__(
            f"{folder} was not judged on the same slices as {first}: {fault}; evaluate both on the same data and split"
        )
        self.folder = folder
        self.fault = fault


@dataclass(frozen=True)
class Opened:
    """One evaluation's folder in memory."""

    folder: Path
    name: str
    record: Record
    predictions: Predictions

    def reader(self) -> OnnxReader | None:
        """Load the judged network on one thread, or None where its file is gone or another one by now."""
        try:
            model = (self.folder / self.record.model.file).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(model).hexdigest() != self.record.model.sha256:
            return None
        return OnnxReader(model, Calibration(), threads=1)

    def of_patients(self) -> Predictions:
        """Return one answer a patient."""
        return by_patient(self.predictions, self.record.model.temperature)


class ModelRow(BaseModel):
    """One model of the comparison; no latency where its file was not found unchanged."""

    model_config = ConfigDict(frozen=True)
    name: str
    record: Record
    latency: Latency | None


class Pair(BaseModel):
    """A model against the reference, on the same slices and the same drawn patients."""

    model_config = ConfigDict(frozen=True)
    model: str
    reference: str
    by_slice: PairedDifference
    by_patient: PairedDifference
    mcnemar_by_slice: McNemar
    """Takes slices for independent, which those of a patient are not: p is too small."""
    mcnemar_by_patient: McNemar


class Comparison(BaseModel):
    """comparison.json."""

    model_config = ConfigDict(frozen=True)
    leaked: bool
    leak: LeakMark
    split: str
    slices_sha256: str
    n_slices: int
    n_patients: int
    reference: str
    reference_chosen: str
    models: tuple[ModelRow, ...]
    pairs: tuple[Pair, ...]
    origin: Origin


def open_evaluations(folders: Sequence[Path]) -> list[Opened]:
    """Read two or more evaluations of the same slices, labels and split.

    Raises `ComparisonError`, `DifferentSlicesError`, `RecordError` and `PredictionsError`.
    """
    if len(folders) < FEWEST:
        raise ComparisonError(f"{len(folders)} evaluation is nothing to compare: name two or more folders")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ComparisonError("the same folder is named twice")
    opened = [_open(folder) for folder in folders]
    first = opened[0]
    for other in opened[1:]:
        if other.predictions.slices_sha256() != first.predictions.slices_sha256():
            fault = difference(first.predictions, other.predictions) or "other slices"
            raise DifferentSlicesError(other.folder, first.folder, fault)
    return _with_names_apart(opened)


def reference_of(judged: Sequence[Opened], against: str) -> Opened:
    """Return the first one named, or the one of the highest balanced accuracy by slice."""
    if against not in (FIRST, BEST):
        raise ComparisonError(f"'{against}' is neither {FIRST} nor {BEST}")
    if against == FIRST:
        return judged[0]
    return max(judged, key=lambda one: one.record.by_slice.evaluation.balanced_accuracy.value)


def compare(judged: Sequence[Opened], against: str, latencies: Mapping[str, Latency], made: Origin) -> Comparison:
    """Compare each with the reference; `latencies` by name, of those that could be timed."""
    reference = reference_of(judged, against)
    pairs = [_pair(one, reference, made) for one in judged if one is not reference]
    data = reference.record.data
    leak = _leak(judged)
    return Comparison(
        leaked=leak.leaked,
        leak=leak,
        split=data.split,
        slices_sha256=reference.predictions.slices_sha256(),
        n_slices=data.n_slices,
        n_patients=data.n_patients,
        reference=reference.name,
        reference_chosen=against,
        models=tuple(ModelRow(name=one.name, record=one.record, latency=latencies.get(one.name)) for one in judged),
        pairs=tuple(_corrected(pairs)),
        origin=made,
    )


def _open(folder: Path) -> Opened:
    record, predictions = read_record(folder), read_predictions(folder / PREDICTIONS_FILE)
    if record.data.slices_sha256 != predictions.slices_sha256():
        raise ComparisonError(f"{folder}: predictions.csv is not what evaluation.json was made of; evaluate again")
    return Opened(folder, record.model.name, record, predictions)


def _with_names_apart(judged: list[Opened]) -> list[Opened]:
    """Call those of the same name by their folders too."""
    names = [one.name for one in judged]
    return [
        one if names.count(one.name) == 1 else replace(one, name=f"{one.name} ({one.folder.resolve().name})")
        for one in judged
    ]


def _pair(one: Opened, reference: Opened, made: Origin) -> Pair:
    ours, theirs = one.predictions, reference.predictions
    our_patients, their_patients = one.of_patients(), reference.of_patients()
    return Pair(
        model=one.name,
        reference=reference.name,
        by_slice=_difference(ours, theirs, made),
        by_patient=_difference(our_patients, their_patients, made),
        mcnemar_by_slice=mcnemar(_right(ours), _right(theirs)),
        mcnemar_by_patient=mcnemar(_right(our_patients), _right(their_patients)),
    )


def _difference(ours: Predictions, theirs: Predictions, made: Origin) -> PairedDifference:
    return paired_difference(ours.logits, theirs.logits, ours.labels, ours.patients, made.resamples, made.seed)


def _right(predictions: Predictions) -> NDArray[np.bool_]:
    return np.asarray(predictions.logits.argmax(1) == predictions.labels)


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Correct the tests by slice among themselves, and those by patient."""
    by_slice = corrected([pair.mcnemar_by_slice for pair in pairs])
    of_patients = corrected([pair.mcnemar_by_patient for pair in pairs])
    return [
        pair.model_copy(update={"mcnemar_by_slice": one, "mcnemar_by_patient": other})
        for pair, one, other in zip(pairs, by_slice, of_patients, strict=True)
    ]


def _leak(judged: Sequence[Opened]) -> LeakMark:
    """Mark the whole table where one of its models is marked: a reader takes the best of it."""
    reasons = [f"{one.name}: {'; '.join(one.record.leak.reasons)}" for one in judged if one.record.leaked]
    checked = "; ".join(f"{one.name}: {one.record.leak.checked}" for one in judged)
    return LeakMark(reasons=tuple(reasons), checked=checked)
