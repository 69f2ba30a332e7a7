"""Labelled slices: a folder with a labels.csv becomes one set of pixels, labels and patients in memory."""

import csv
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.labels import LABELS, Label
from training.model.decode import ImageError, decode_image
from training.model.preprocess import INPUT_PX, BlankFrameError, prepare

LABELS_FILE = "labels.csv"
COLUMNS = ("file", "label", "patient_id", "source", "split")
SPLITS = ("train", "val", "test")
_NAMED_PATIENTS = 5
"""As many patients does a message name; the error carries them all."""


class LabelsError(ValueError):
    """A labels.csv that cannot be used; `path` and `line` (1 is the header) say where."""

    def __init__(self, path: Path, line: int, fault: str) -> None:
        super().__init__(f"{path}, line {line}: {fault}")
        self.path = path
        self.line = line


class NoLabelsError(LabelsError):
    """There is no labels.csv, it is not a CSV text, or it lists nothing."""


class MissingColumnError(LabelsError):
    """The header, or a row, lacks a column that we need."""


class UnknownLabelError(LabelsError):
    """A label that is none of ours."""


class UnknownSplitError(LabelsError):
    """A split that is neither train, val nor test."""


class MissingFileError(LabelsError):
    """A listed file is not in the folder."""


class UnreadableSliceError(ValueError):
    """A listed file holds no slice that can be read; `file` names it."""

    def __init__(self, file: str, fault: str) -> None:
        super().__init__(f"{file}: {fault}; repair it or take its line out of {LABELS_FILE}")
        self.file = file


class LeakError(ValueError):
    """`patients` stand on two sides of a split, so that a figure would say nothing about new ones."""

    def __init__(self, patients: Iterable[str], where: str) -> None:
        self.patients = tuple(sorted(patients))
        more = len(self.patients) - _NAMED_PATIENTS
        named = ", ".join(self.patients[:_NAMED_PATIENTS]) + (f" and {more} more" if more > 0 else "")
        super().__init__(
            f"{len(self.patients)} patient(s) on two sides of the split ({where}): {named}; split by patient"
        )


class TwoLabelsWarning(UserWarning):
    """A patient has slices of two classes: possible, but often a mistake in the labels."""


@dataclass(frozen=True)
class LabelledSlice:
    """One row of a labels.csv; `file` is relative to its folder, `split` is train, val or test."""

    file: str
    label: Label
    patient_id: str
    source: str
    split: str


@dataclass(frozen=True)
class SliceSet:
    """Prepared slices: pixels uint8 [n, 256, 256], labels int64 [n] (index into LABELS), patient and source of each."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    patients: tuple[str, ...]
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        if not len(self.pixels) == len(self.labels) == len(self.patients) == len(self.sources):
            raise ValueError("pixels, labels, patients and sources of a SliceSet differ in length")
        if self.pixels.shape[1:] != (INPUT_PX, INPUT_PX) or self.pixels.dtype != np.uint8:
            raise ValueError(
                f"pixels are {self.pixels.dtype} {self.pixels.shape}, not uint8 [n, {INPUT_PX}, {INPUT_PX}]"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.intp] | Sequence[int]) -> "SliceSet":
        """Return the slices under a mask or at the indices."""
        at = np.arange(len(self))[np.asarray(chosen, dtype=None if len(chosen) else np.intp)]
        return SliceSet(
            self.pixels[at],
            self.labels[at],
            tuple(self.patients[i] for i in at),
            tuple(self.sources[i] for i in at),
        )

    def of_patients(self, patients: Iterable[str]) -> "SliceSet":
        """Return the slices of these patients."""
        wanted = frozenset(patients)
        return self.select(np.array([patient in wanted for patient in self.patients], dtype=np.bool_))

    def concat(self, other: "SliceSet") -> "SliceSet":
        """Return the slices of both."""
        return SliceSet(
            np.concatenate([self.pixels, other.pixels]),
            np.concatenate([self.labels, other.labels]),
            self.patients + other.patients,
            self.sources + other.sources,
        )

    def count(self, label: Label) -> int:
        """Count the slices of a class."""
        return int((self.labels == LABELS.index(label)).sum())

    def sha256(self) -> str:
        """Return the hash of all that a training can see of it, in this order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        digest.update("\0".join(self.patients + self.sources).encode())
        return digest.hexdigest()


def read_labels(folder: Path) -> list[LabelledSlice]:
    """Read the folder's labels.csv; columns beyond ours are ignored.

    Raises a `LabelsError` with file and line, or a `LeakError`; warns with `TwoLabelsWarning`.
    """
    path = folder / LABELS_FILE
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            rows = _parse(path, csv.DictReader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NoLabelsError(
            path, 1, f"not a readable CSV text ({error}); columns {', '.join(COLUMNS)} are needed"
        ) from error
    if not rows:
        raise NoLabelsError(path, 1, "lists no slice")
    _check_patients(path, rows)
    return rows


def load_slices(
    folder: Path,
    rows: Sequence[LabelledSlice],
    on_slice: Callable[[int, int], None] | None = None,
    on_unreadable: Callable[[LabelledSlice, UnreadableSliceError], None] | None = None,
) -> SliceSet:
    """Decode and prepare the rows' files; `on_slice` hears how many of how many are done.

    Raises `UnreadableSliceError` at the first file that cannot be read; with `on_unreadable`, reports and skips it.
    """
    pixels = np.empty((len(rows), INPUT_PX, INPUT_PX), np.uint8)
    kept: list[LabelledSlice] = []
    for done, row in enumerate(rows, start=1):
        try:
            pixels[len(kept)] = _load(folder, row)
            kept.append(row)
        except UnreadableSliceError as error:
            if on_unreadable is None:
                raise
            on_unreadable(row, error)
        if on_slice is not None:
            on_slice(done, len(rows))
    return slice_set(pixels[: len(kept)], kept)


def slice_set(pixels: NDArray[np.uint8], rows: Sequence[LabelledSlice]) -> SliceSet:
    """Join prepared pixels uint8 [n, 256, 256] with their rows."""
    return SliceSet(
        pixels,
        np.array([LABELS.index(row.label) for row in rows], dtype=np.int64),
        tuple(row.patient_id for row in rows),
        tuple(row.source for row in rows),
    )


def split_patients(patients: Iterable[str], fraction: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split into patients to learn from and about `fraction` (0..1) of them to hold back, each sorted.

    A patient's side depends on the id and the seed alone: who comes later moves nobody, so that no retraining ever
    learns from a patient that an earlier one was judged on.
    """
    sides: dict[bool, list[str]] = {False: [], True: []}
    for patient in sorted(set(patients)):
        sides[is_held_back(patient, fraction, seed)].append(patient)
    return tuple(sides[False]), tuple(sides[True])


def is_held_back(patient: str, fraction: float, seed: int) -> bool:
    """Tell the side of one patient; see `split_patients`."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8]) < fraction * 2**64


def split_sha256(train: SliceSet, held_back: SliceSet) -> str:
    """Return the hash of who stands on which side; two models are comparable only where it is the same."""
    sides = (",".join(sorted(set(side.patients))) for side in (train, held_back))
    return hashlib.sha256("\0".join(sides).encode()).hexdigest()


def refuse_leak(train: SliceSet, held_back: SliceSet) -> None:
    """Raise `LeakError` when a patient stands on both sides."""
    shared = set(train.patients) & set(held_back.patients)
    if shared:
        raise LeakError(shared, "training and validation")


def _parse(path: Path, reader: "csv.DictReader[str]") -> list[LabelledSlice]:
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise MissingColumnError(path, 1, f"no column {', '.join(missing)}; needed are {', '.join(COLUMNS)}")
    return [_parse_row(path, reader.line_num, row) for row in reader]


def _parse_row(path: Path, line: int, row: dict[str, str | None]) -> LabelledSlice:
    file, label, patient, source, split = ((row[column] or "").strip() for column in COLUMNS)
    if not (file and patient and source):
        raise MissingColumnError(path, line, "file, patient_id or source is empty")
    if label not in LABELS:
        raise UnknownLabelError(path, line, f"label '{label}' is none of {', '.join(LABELS)}")
    if split not in SPLITS:
        raise UnknownSplitError(path, line, f"split '{split}' is none of {', '.join(SPLITS)}")
    if not (path.parent / file).is_file():
        raise MissingFileError(path, line, f"file '{file}' is not in {path.parent}; add it or take the line out")
    return LabelledSlice(file, Label(label), patient, source, split)


def _check_patients(path: Path, rows: Sequence[LabelledSlice]) -> None:
    splits, labels = defaultdict(set), defaultdict(set)
    for row in rows:
        splits[row.patient_id].add(row.split)
        labels[row.patient_id].add(row.label)
    leaked = [patient for patient, sides in splits.items() if len(sides) > 1]
    if leaked:
        raise LeakError(leaked, str(path))
    torn = sorted(patient for patient, classes in labels.items() if len(classes) > 1)
    if torn:
        named = ", ".join(torn[:_NAMED_PATIENTS])
        warnings.warn(f"{path}: {len(torn)} patient(s) have two labels: {named}", TwoLabelsWarning, stacklevel=3)


def _load(folder: Path, row: LabelledSlice) -> NDArray[np.uint8]:
    try:
        return prepare(decode_image((folder / row.file).read_bytes()))
    except (OSError, ImageError, BlankFrameError) as error:
        raise UnreadableSliceError(row.file, str(error)) from error
