"""Our own data sets: a folder with a labels.csv (file, label, patient_id, source, split)."""

import csv
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from os.path import normpath
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
_NAMED_FILES = 5
"""As many missing files does a message name."""


class LabelsError(ValueError):
    """A data set that cannot be used; `path` and `line` (1 is the first; None where there are no lines) say where."""

    def __init__(self, path: Path, line: int | None, fault: str) -> None:
        super().__init__(f"{path}: {fault}" if line is None else f"{path}, line {line}: {fault}")
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
    """Listed files are not in the folder; `files` names them all, the message and `line` the first of them."""

    def __init__(self, path: Path, missing: Sequence[tuple[int, str]], folder: Path) -> None:
        line, first = missing[0]
        self.files = tuple(file for _, file in missing)
        fault = f"file '{first}' is not in {folder}; add it or take the line out"
        if len(missing) > 1:
            named = ", ".join(f"'{file}'" for file in self.files[:_NAMED_FILES])
            fault = f"{len(missing)} listed files are not in {folder}, first {named}; add them or take their lines out"
        super().__init__(path, line, fault)


class UnreadableSliceError(ValueError):
    """A listed file holds no slice that can be read; `file` names it."""

    def __init__(self, file: str, fault: str) -> None:
        super().__init__(f"{file}: {fault}; repair it or take it out of the data set")
        self.file = file
        self.fault = fault


class TwoLabelsWarning(UserWarning):
    """A patient has slices of two classes: possible, but often a mistake in the labels."""


def read_labels(folder: Path) -> list[LabelledSlice]:
    """Read the folder's labels.csv and check its patients; see `list_labels` and `check_patients`."""
    rows = list_labels(folder)
    check_patients(folder / LABELS_FILE, rows)
    return rows


def list_labels(folder: Path, *, allow_missing: bool = False) -> list[LabelledSlice]:
    """Read the folder's labels.csv as it stands, with files that are not there only where allowed.

    Columns beyond ours are ignored. Raises a `LabelsError` with file and line.
    """
    path = folder / LABELS_FILE
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            rows = _parse(path, csv.DictReader(text), allow_missing)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NoLabelsError(
            path, 1, f"not a readable CSV text ({error}); columns {', '.join(COLUMNS)} are needed"
        ) from error
    if not rows:
        raise NoLabelsError(path, 1, "lists no slice")
    return rows


def check_patients(where: Path, rows: Sequence[LabelledSlice], *, allow_leak: bool = False) -> tuple[str, ...]:
    """Return the patients on two sides of the split, or with a file that is; none unless a leak is allowed.

    Raises `LeakError` unless it is; warns with `TwoLabelsWarning`. `where` is the list that is to blame.
    """
    twice = {row.patient_id for row in files_on_two_sides(rows)}
    leaked = tuple(sorted(twice.union(on_two_sides(rows))))
    if leaked and not allow_leak:
        raise LeakError(leaked, f"{where}; the same file is there under several of them" if twice else str(where))
    torn = with_two_labels(rows)
    if torn:
        named = ", ".join(torn[:_NAMED_PATIENTS])
        warnings.warn(
            f"{where}: {len(torn)} patient(s) have two labels: {named}; mend what is wrong "
            "(`sliceloop data check --json FILE` lists them all), or go on if both are meant",
            TwoLabelsWarning,
            stacklevel=3,
        )
    return leaked


def on_two_sides(rows: Sequence[LabelledSlice]) -> tuple[str, ...]:
    """Return the patients who stand in more than one split, sorted."""
    return _with_several((row.patient_id, row.split) for row in rows)


def files_on_two_sides(rows: Sequence[LabelledSlice]) -> tuple[LabelledSlice, ...]:
    """Return the rows whose file stands in more than one split, under whatever patient."""
    names = [normpath(row.file) for row in rows]
    twice = set(_with_several((name, row.split) for name, row in zip(names, rows, strict=True)))
    return tuple(row for name, row in zip(names, rows, strict=True) if name in twice)


def with_two_labels(rows: Sequence[LabelledSlice]) -> tuple[str, ...]:
    """Return the patients who have slices of more than one class, sorted."""
    return _with_several((row.patient_id, row.label) for row in rows)


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


def read_file(folder: Path, row: LabelledSlice) -> bytes:
    """Return the bytes of the row's file; raises `UnreadableSliceError`."""
    try:
        return (folder / row.file).read_bytes()
    except OSError as error:
        raise UnreadableSliceError(row.file, f"cannot be read ({error.strerror})") from error


def prepared(data: bytes, row: LabelledSlice) -> NDArray[np.uint8]:
    """Decode a file's bytes and prepare them inside the row's box, as uint8 [256, 256].

    Raises `UnreadableSliceError`, also for a box that does not lie inside the image.
    """
    try:
        frame = decode_image(data)
        if row.box is not None:
            _check_box(row, frame)
        return prepare(frame, row.box)
    except (ImageError, BlankFrameError) as error:
        raise UnreadableSliceError(row.file, str(error)) from error


def _check_box(row: LabelledSlice, frame: NDArray[np.uint8]) -> None:
    box = row.box
    height, width = frame.shape
    if box is not None and (box.bottom > height or box.right > width):
        raise UnreadableSliceError(
            row.file,
            f"its box{f' ({row.listed})' if row.listed else ''} ends at {box.right}, {box.bottom}, outside the image "
            f"of {width}x{height} px",
        )


def _parse(path: Path, reader: "csv.DictReader[str]", allow_missing: bool) -> list[LabelledSlice]:
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise MissingColumnError(path, 1, f"no column {', '.join(missing)}; needed are {', '.join(COLUMNS)}")
    rows = [(reader.line_num, _parse_row(path, reader.line_num, row)) for row in reader]
    if not allow_missing:
        check_files(path, [(line, row.file) for line, row in rows], path.parent)
    return [row for _, row in rows]


def check_files(path: Path, listed: Iterable[tuple[int, str]], folder: Path) -> None:
    """Raise `MissingFileError` when a listed file (its line in `path`, its name) is not in the folder."""
    missing = [(line, file) for line, file in listed if not (folder / file).is_file()]
    if missing:
        raise MissingFileError(path, missing, folder)


def _parse_row(path: Path, line: int, row: dict[str, str | None]) -> LabelledSlice:
    file, label, patient, source, split = ((row[column] or "").strip() for column in COLUMNS)
    if not (file and patient and source):
        raise MissingColumnError(path, line, "file, patient_id or source is empty")
    if label not in LABELS:
        raise UnknownLabelError(path, line, f"label '{label}' is none of {', '.join(LABELS)}")
    if split not in SPLITS:
        raise UnknownSplitError(path, line, f"split '{split}' is none of {', '.join(SPLITS)}")
    return LabelledSlice(file, Label(label), patient, source, split)


def _with_several(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    found = defaultdict(set)
    for patient, value in pairs:
        found[patient].add(value)
    return tuple(sorted(patient for patient, values in found.items() if len(values) > 1))


def _load(folder: Path, row: LabelledSlice) -> NDArray[np.uint8]:
    return prepared(read_file(folder, row), row)
