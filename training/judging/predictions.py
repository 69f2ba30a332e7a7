"""What one network answered to each slice of a split, as arrays and as a CSV file that names no patient."""

import csv
import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.labels import LABELS, Label
from training.data.slices import SliceSet
from training.durable import write_atomically
from training.evaluate import Labels, softmax
from training.model.reader import OnnxReader

PREDICTIONS_FILE = "predictions.csv"
COLUMNS = ("slice_id", "label", "source", "patient_key", "split", *(f"logit_{label}" for label in LABELS), "leaked")
_LEAKED = {True: "yes", False: "no"}
SLICE_ID_DIGITS = 16
"""Hexadecimal, of a sha256: two of a million slices share an id with a chance of 1 in 37 million."""
PATIENT_KEY_DIGITS = 12
READ_BATCH = 16
"""Slices read at once: more are not faster on one thread, and take more memory."""
SMALLEST_PROBABILITY = 1e-12
"""A mean probability below is taken as this, so that its logarithm is finite."""


class PredictionsError(ValueError):
    """A predictions.csv that cannot be used; `path` and `line` (1 is the header) say where."""

    def __init__(self, path: Path, line: int, fault: str) -> None:
        super().__init__(f"{path}, line {line}: {fault}; write it anew with `sliceloop evaluate`")
        self.path = path
        self.line = line


class EvaluationStoppedError(RuntimeError):
    """The stop event was set before every slice was read; nothing was written."""


@dataclass(frozen=True)
class Predictions:
    """Logits float32 [n, 3] in the order of LABELS, and of each slice its id, label, source and patient's key."""

    slice_ids: tuple[str, ...]
    logits: NDArray[np.floating]
    labels: Labels
    sources: tuple[str, ...]
    patients: tuple[str, ...]
    split: str
    leaked: bool = False
    """Figures from these answers say nothing about new patients."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: NDArray[np.bool_]) -> "Predictions":
        """Return those under a mask."""
        at = np.flatnonzero(chosen)
        return Predictions(
            tuple(self.slice_ids[i] for i in at),
            self.logits[at],
            self.labels[at],
            tuple(self.sources[i] for i in at),
            tuple(self.patients[i] for i in at),
            self.split,
            self.leaked,
        )

    def slices_sha256(self) -> str:
        """Return the hash of what was judged: split, and in this order each slice's id, label and patient."""
        lines = (
            f"{slice_id},{LABELS[label]},{patient}"
            for slice_id, label, patient in zip(self.slice_ids, self.labels, self.patients, strict=True)
        )
        return hashlib.sha256("\n".join((self.split, *lines)).encode()).hexdigest()


def predict(
    reader: OnnxReader,
    slices: SliceSet,
    split: str,
    on_slice: Callable[[int, int], None] = lambda _done, _total: None,
    stop: threading.Event | None = None,
) -> Predictions:
    """Read every slice with a network whose classes may stand in another order than ours.

    Raises `EvaluationStoppedError`; `on_slice` hears how many of how many are done.
    """
    order = [reader.calibration.labels.index(label) for label in LABELS]
    logits = np.empty((len(slices), len(LABELS)), np.float32)
    ids: list[str] = []
    for start in range(0, len(slices), READ_BATCH):
        if stop is not None and stop.is_set():
            raise EvaluationStoppedError(f"stopped after {start} of {len(slices)} slices: nothing was written")
        pixels = np.ascontiguousarray(slices.pixels[start : start + READ_BATCH])
        logits[start : start + len(pixels)] = reader.logits(pixels)[:, order]
        ids += [slice_id(prepared) for prepared in pixels]
        on_slice(len(ids), len(slices))
    keys = tuple(patient_key(patient) for patient in slices.patients)
    return Predictions(tuple(ids), logits, slices.labels, slices.sources, keys, split)


def by_patient(predictions: Predictions, temperature: float) -> Predictions:
    """Return one answer a patient: the mean of the probabilities of its slices, as logits for a temperature of 1.

    A patient with slices of two labels counts once under each. The id is that of the patient's first slice, and so is
    the source.
    """
    pairs = [f"{patient} {label}" for patient, label in zip(predictions.patients, predictions.labels, strict=True)]
    _, first, of_slice, n_slices = np.unique(pairs, return_index=True, return_inverse=True, return_counts=True)
    total = np.zeros((len(first), len(LABELS)))
    np.add.at(total, of_slice, softmax(predictions.logits, temperature))
    mean = np.maximum(total / n_slices[:, None], SMALLEST_PROBABILITY)
    return Predictions(
        tuple(predictions.slice_ids[i] for i in first),
        np.log(mean),
        predictions.labels[first],
        tuple(predictions.sources[i] for i in first),
        tuple(predictions.patients[i] for i in first),
        predictions.split,
        predictions.leaked,
    )


def slice_id(prepared: NDArray[np.uint8]) -> str:
    """Return the id of a prepared slice uint8 [256, 256]: the same pixels, the same id."""
    return hashlib.sha256(np.ascontiguousarray(prepared).tobytes()).hexdigest()[:SLICE_ID_DIGITS]


def patient_key(patient_id: str) -> str:
    """Return what stands for a patient in our files; who knows the id can find the key, so it is no anonymisation."""
    return hashlib.sha256(patient_id.encode()).hexdigest()[:PATIENT_KEY_DIGITS]


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write one line a slice; logits so that reading them gives the same float32."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, logits in enumerate(predictions.logits):
        writer.writerow(
            (
                predictions.slice_ids[i],
                LABELS[predictions.labels[i]],
                predictions.sources[i],
                predictions.patients[i],
                predictions.split,
                *(f"{logit:.9g}" for logit in logits),
                _LEAKED[predictions.leaked],
            )
        )
    write_atomically(path, text.getvalue().encode())


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote; raises `PredictionsError` with the line."""
    try:
        with path.open(encoding="utf-8", newline="") as text:
            reader = csv.DictReader(text)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise PredictionsError(path, 1, f"the columns are not {', '.join(COLUMNS)}")
            rows = [_parse(path, reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PredictionsError(path, 1, f"not a readable CSV text ({error})") from error
    return _joined(path, rows)


def difference(ours: Predictions, theirs: Predictions) -> str | None:
    """Say in words how what was judged differs, or None where it is the same."""
    if ours.split != theirs.split:
        return f"split {ours.split} against {theirs.split}"
    if ours.slice_ids != theirs.slice_ids:
        return _differing_slices(ours, theirs)
    labels = int((ours.labels != theirs.labels).sum())
    if labels:
        return f"{labels} of {len(ours)} slices have other labels"
    patients = sum(a != b for a, b in zip(ours.patients, theirs.patients, strict=True))
    return f"{patients} of {len(ours)} slices belong to other patients" if patients else None


_Row = tuple[str, int, str, str, str, list[float], bool]


def _parse(path: Path, line: int, row: dict[str, str | None]) -> _Row:
    values = [row[column] for column in COLUMNS]
    if any(not value for value in values) or None in row:
        raise PredictionsError(path, line, "not a value for each column")
    slice_name, label, source, patient, split, *logits, leaked = (value or "" for value in values)
    if label not in LABELS:
        raise PredictionsError(path, line, f"label '{label}' is none of {', '.join(LABELS)}")
    try:
        numbers = [float(logit) for logit in logits]
    except ValueError as error:
        raise PredictionsError(path, line, f"a logit is no number ({error})") from error
    if leaked not in _LEAKED.values():
        raise PredictionsError(path, line, f"leaked is '{leaked}', neither yes nor no")
    return slice_name, LABELS.index(Label(label)), source, patient, split, numbers, leaked == _LEAKED[True]


def _joined(path: Path, rows: Sequence[_Row]) -> Predictions:
    if not rows:
        raise PredictionsError(path, 1, "lists no slice")
    ids, labels, sources, patients, splits, logits, leaked = zip(*rows, strict=True)
    if len(set(splits)) > 1:
        raise PredictionsError(path, 2, f"slices of several splits ({', '.join(sorted(set(splits)))})")
    numbers, indices = np.array(logits, np.float32), np.array(labels, np.int64)
    return Predictions(ids, numbers, indices, sources, patients, str(splits[0]), any(leaked))


def _differing_slices(ours: Predictions, theirs: Predictions) -> str:
    only_ours, only_theirs = set(ours.slice_ids) - set(theirs.slice_ids), set(theirs.slice_ids) - set(ours.slice_ids)
    if only_ours or only_theirs:
        return (
            f"{len(only_ours)} of {len(ours)} slices are only in the first, "
            f"{len(only_theirs)} of {len(theirs)} only in the other"
        )
    return f"the same slices in another order or number ({len(ours)} against {len(theirs)})"
