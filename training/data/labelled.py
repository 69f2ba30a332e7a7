"""Our own data sets: a folder with a labels.csv (file, label, patient_id, source, split)."""

import csv
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.labels import LABELS, Label
from training.data.slices import LabelledSlice, LeakError, SliceSet, slice_set
from training.model.decode import ImageError, decode_image
from training.model.preprocess import INPUT_PX, BlankFrameError, prepare

LABELS_FILE = "labels.csv"
COLUMNS = ("file", "label", "patient_id", "source", "split")
SPLITS = ("train", "val", "test")
_NAMED_PATIENTS = 5
"""As many patients does a message name."""


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


class TwoLabelsWarning(UserWarning):
    """A patient has slices of two classes: possible, but often a mistake in the labels."""


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
