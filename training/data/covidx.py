"""COVIDx CT (1, 2A, 2B, 3A) as published: lists of slices with class and body box, images, and metadata.csv.

A line of train_COVIDx_CT-2A.txt (and val_, test_) is `file class xmin ymin xmax ymax`, with the box's end outside;
metadata.csv has a row a patient (`patient id`, `source`, ...), and the file's name holds the patient's id. Source:
github.com/haydengunraj/COVIDNet-CT, docs/dataset.md, dataset.py and dataset_construction.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from protocol.labels import Label
from training.data.labelled import (
    SPLITS,
    LabelsError,
    MissingColumnError,
    NoLabelsError,
    UnknownLabelError,
    check_files,
)
from training.data.patient_rule import PatientRule
from training.data.slices import LabelledSlice
from training.model.preprocess import Box

METADATA_FILE = "metadata.csv"
CLASSES = {"0": Label.NORMAL, "1": Label.PNEUMONIA, "2": Label.COVID_19}
UNKNOWN_SOURCE = "covidx"
"""The source of a slice whose metadata does not say it."""

_LIST = re.compile(rf"({'|'.join(SPLITS)})([_-].*)?\.txt", re.IGNORECASE)
_FIELDS = (2, 6)
_PATIENT_COLUMNS = ("patientid", "patient", "pid")
_FILE_COLUMNS = ("filename", "file", "image")
_SCAN = re.compile(r"(volume-covid19-A-\d+)_\d+")
"""TCIA numbers the scans of one person: A-0256_0 and A-0256_1; metadata.csv takes them for two patients, we do not."""
_NAMED = 5


class NoPatientError(LabelsError):
    """A listed file whose patient nobody tells."""


class AmbiguousListError(LabelsError):
    """Two lists for one split: the versions of COVIDx CT share their patients, so that they must not be mixed."""


@dataclass(frozen=True)
class _Entry:
    path: Path
    line: int
    file: str
    label: Label
    split: str
    box: Box | None


@dataclass(frozen=True)
class _Patient:
    id: str
    source: str


def is_covidx(folder: Path) -> bool:
    """Tell whether the folder holds COVIDx CT's lists."""
    return any(_lists(folder))


def list_covidx(folder: Path, rule: PatientRule | None = None, *, allow_missing: bool = False) -> list[LabelledSlice]:
    """Read the lists of a COVIDx CT folder, with files that are not there only where allowed.

    The patient comes from metadata.csv, where all numbered scans of a person are one patient, or from the rule where
    one is given. Raises a `LabelsError` with file and line.
    """
    entries = [entry for split, path in _one_list_a_split(folder).items() for entry in _read_list(path, split)]
    if not entries:
        raise NoLabelsError(folder, None, "the COVIDx CT lists name no slice")
    images = _image_folder(folder, entries)
    for path in () if allow_missing else dict.fromkeys(entry.path for entry in entries):
        check_files(path, [(entry.line, entry.file) for entry in entries if entry.path == path], images)
    patients = _patients(folder, entries, rule)
    place = PurePosixPath(*images.relative_to(folder).parts)
    return [
        LabelledSlice(
            str(place / entry.file),
            entry.label,
            patient.id,
            patient.source,
            entry.split,
            entry.box,
            f"{entry.path.name}, line {entry.line}",
        )
        for entry, patient in zip(entries, patients, strict=True)
    ]


def _lists(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.glob("*.txt")):
        found = _LIST.fullmatch(path.name)
        if found:
            yield found[1].lower(), path


def _one_list_a_split(folder: Path) -> dict[str, Path]:
    lists: dict[str, Path] = {}
    for split, path in _lists(folder):
        if split in lists:
            raise AmbiguousListError(
                path, None, f"is a second list of {split} beside {lists[split].name}; leave one version's lists here"
            )
        lists[split] = path
    return {split: lists[split] for split in SPLITS if split in lists}


def _read_list(path: Path, split: str) -> Iterator[_Entry]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NoLabelsError(path, 1, f"not a readable text ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _parse_line(path, number, line.split(), split)


def _parse_line(path: Path, line: int, fields: list[str], split: str) -> _Entry:
    if len(fields) not in _FIELDS:
        raise MissingColumnError(path, line, f"has {len(fields)} fields, not 'file class xmin ymin xmax ymax'")
    file, name, *corners = fields
    if name not in CLASSES:
        known = ", ".join(f"{number} ({label})" for number, label in CLASSES.items())
        raise UnknownLabelError(path, line, f"class '{name}' is none of {known}")
    return _Entry(path, line, file, CLASSES[name], split, _box(path, line, corners) if corners else None)


def _box(path: Path, line: int, corners: list[str]) -> Box:
    try:
        left, top, right, bottom = (int(corner) for corner in corners)
    except ValueError:
        raise MissingColumnError(path, line, f"the box '{' '.join(corners)}' is not four whole numbers") from None
    if not (0 <= left < right and 0 <= top < bottom):
        raise MissingColumnError(path, line, f"the box '{' '.join(corners)}' is empty; it is xmin ymin xmax ymax")
    return Box(top, left, bottom, right)


def _image_folder(folder: Path, entries: Sequence[_Entry]) -> Path:
    """Return the folder, of this one and those in it, that holds most of the listed files."""
    listed = {entry.file for entry in entries}
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return max(candidates, key=lambda place: _held(place, listed))


def _held(place: Path, listed: set[str]) -> int:
    nested = sum((place / file).is_file() for file in listed if "/" in file)
    return nested + len(listed.intersection(path.name for path in place.iterdir()))


def _patients(folder: Path, entries: Sequence[_Entry], rule: PatientRule | None) -> list[_Patient]:
    find = _finder(folder, rule)
    found = [find(PurePosixPath(entry.file)) for entry in entries]
    lost = [entry for entry, patient in zip(entries, found, strict=True) if patient is None]
    if lost:
        where = "the patient rule matches none of" if rule else f"{METADATA_FILE} has no patient for"
        named = ", ".join(f"'{entry.file}'" for entry in lost[:_NAMED])
        raise NoPatientError(
            lost[0].path,
            lost[0].line,
            f"{where} {len(lost)} listed file(s), first {named}; complete {METADATA_FILE}, give another patient rule, "
            "or take their lines out",
        )
    return [patient for patient in found if patient is not None]


def _finder(folder: Path, rule: PatientRule | None) -> Callable[[PurePosixPath], _Patient | None]:
    by_file, by_id = _read_metadata(folder / METADATA_FILE, needed=rule is None)
    if rule is None:
        return lambda file: _person(by_file.get(file.name) or _longest(file.stem, by_id))

    def by_rule(file: PurePosixPath) -> _Patient | None:
        patient = rule.patient(str(file))
        known = by_file.get(file.name) or _longest(file.stem, by_id)
        return _Patient(patient, known.source if known else UNKNOWN_SOURCE) if patient else None

    return by_rule


def _person(patient: _Patient | None) -> _Patient | None:
    scan = patient and _SCAN.fullmatch(patient.id)
    return _Patient(scan[1], patient.source) if patient and scan else patient


def _read_metadata(path: Path, *, needed: bool) -> tuple[dict[str, _Patient], dict[str, _Patient]]:
    """Return the patients by file name, where the rows tell it, and otherwise by their id."""
    if not needed and not path.is_file():
        return {}, {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            columns = {re.sub(r"[\W_]", "", name).lower(): name for name in reader.fieldnames or ()}
            return _index(path, reader, columns)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NoLabelsError(
            path,
            1,
            f"not a readable CSV text ({error}); COVIDx CT publishes it beside its lists, or give a patient rule",
        ) from error


def _index(
    path: Path, reader: "csv.DictReader[str]", columns: dict[str, str]
) -> tuple[dict[str, _Patient], dict[str, _Patient]]:
    id_column = next((columns[name] for name in _PATIENT_COLUMNS if name in columns), None)
    file_column = next((columns[name] for name in _FILE_COLUMNS if name in columns), None)
    if id_column is None:
        raise MissingColumnError(path, 1, "no column 'patient id'; take the metadata.csv that COVIDx CT publishes")
    by_file: dict[str, _Patient] = {}
    by_id: dict[str, _Patient] = {}
    for row in reader:
        source = (row.get(columns.get("source", "")) or "").strip() or UNKNOWN_SOURCE
        patient = _Patient((row[id_column] or "").strip(), source)
        file = PurePosixPath((row[file_column] or "").strip()).name if file_column else ""
        if patient.id and file:
            by_file[file] = patient
        elif patient.id:
            by_id[patient.id] = patient
    return by_file, by_id


def _longest(stem: str, by_id: dict[str, _Patient]) -> _Patient | None:
    """Return the patient with the longest id that begins the name, or else stands in it, between - and _ or its ends.

    A part of a word is no id: patient1 is not in 137covid_patient10_SR_2.
    """
    ends = [at for at in range(len(stem), 0, -1) if at == len(stem) or stem[at] in "-_"]
    starts = [0, *(at + 1 for at in range(len(stem)) if stem[at] in "-_")]
    first = (stem[:end] for end in ends)
    inner = sorted((stem[start:end] for start in starts[1:] for end in ends if start < end), key=len, reverse=True)
    return next((by_id[part] for part in (*first, *inner) if part in by_id), None)
