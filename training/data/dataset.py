"""One door to every data set: its listed slices, and the splits of them in the common form."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.data.cache import CachingStoppedError, OnSlice, SliceCache
from training.data.class_folders import HashedSplits, is_class_folders, list_class_folders
from training.data.covidx import is_covidx, list_covidx
from training.data.labelled import (
    LABELS_FILE,
    NoLabelsError,
    UnreadableSliceError,
    check_patients,
    list_labels,
    load_slices,
)
from training.data.patient_rule import PatientRule
from training.data.slices import LabelledSlice, SliceSet


class UnknownSourceError(ValueError):
    """A source to leave out that the data set does not have."""


class NothingLeftError(ValueError):
    """Every source of the data set was left out."""


@dataclass(frozen=True)
class DataSet:
    """The slices that a folder lists; `leaked` names the patients on two sides, where a leak was allowed.

    `notes` says, a sentence each, what the reader had to decide, and what is doubtful about the patients.
    """

    folder: Path
    rows: tuple[LabelledSlice, ...]
    leaked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def without_sources(self, sources: Sequence[str]) -> "DataSet":
        """Return the data set without the slices of these sources; raises `UnknownSourceError`, `NothingLeftError`."""
        known = sorted({row.source for row in self.rows})
        unknown = [source for source in sources if source not in known]
        if unknown:
            raise UnknownSourceError(f"no source {', '.join(unknown)} to leave out; there are {', '.join(known)}")
        rows = tuple(row for row in self.rows if row.source not in sources)
        if not rows:
            raise NothingLeftError(f"{self.folder} has no source but {', '.join(known)}: leave one of them in")
        return replace(self, rows=rows)


def open_dataset(
    folder: Path,
    *,
    allow_leak: bool = False,
    allow_missing: bool = False,
    patient_rule: str | None = None,
    hashed: HashedSplits = HashedSplits(),  # noqa: B008  frozen
) -> DataSet:
    """Read what the folder lists: a labels.csv, COVIDx CT's lists, or a folder for each class.

    `patient_rule` is a regular expression whose one group is the patient's id, searched in each file's path; COVIDx CT
    needs none, a labels.csv ignores it. `hashed` splits the patients of class folders that name no split. A leak and
    listed files that are not there are for those who look for them: `load_split` then names the files one by one.
    Raises a `LabelsError` or `PatientRuleError` saying what to do, and a `LeakError` unless a leak is allowed; warns
    with `TwoLabelsWarning`.
    """
    rule = None if patient_rule is None else PatientRule(patient_rule)
    rows, notes = _list(folder, rule, hashed, allow_missing)
    return DataSet(folder, tuple(rows), check_patients(folder, rows, allow_leak=allow_leak), notes)


def load_split(
    dataset: DataSet,
    split: str,
    *,
    cache: Path | None = None,
    on_slice: Callable[[int, int], None] | None = None,
    on_unreadable: Callable[[LabelledSlice, UnreadableSliceError], None] | None = None,
    stop: threading.Event | None = None,
) -> SliceSet:
    """Return a split's slices, decoded once into the cache's folder and mapped from there afterwards.

    Without a cache all of them are decoded into memory. `on_slice` hears how many of how many are done; a file that
    cannot be read goes to `on_unreadable` and is left out. Raises `UnreadableSliceError` where there is none,
    `CachingStoppedError` when `stop` is set (what is cached stays), and with a cache a `CacheError`.
    """
    rows = [row for row in dataset.rows if row.split == split]
    if cache is None:
        return load_slices(dataset.folder, rows, _stoppable(on_slice, stop), on_unreadable)
    return SliceCache(cache).load(dataset.folder, rows, on_slice=on_slice, on_unreadable=on_unreadable, stop=stop)


def _stoppable(on_slice: OnSlice | None, stop: threading.Event | None) -> OnSlice:
    def heard(done: int, total: int) -> None:
        if stop is not None and stop.is_set():
            raise CachingStoppedError(done, total, kept=False)
        if on_slice is not None:
            on_slice(done, total)

    return heard


def _list(
    folder: Path, rule: PatientRule | None, hashed: HashedSplits, allow_missing: bool
) -> tuple[list[LabelledSlice], tuple[str, ...]]:
    if (folder / LABELS_FILE).exists():
        return list_labels(folder, allow_missing=allow_missing), ()
    if not folder.is_dir():
        raise NoLabelsError(folder, None, "is not a folder; give the folder of a data set")
    if is_covidx(folder):
        return list_covidx(folder, rule, allow_missing=allow_missing), ()
    if is_class_folders(folder):
        return list_class_folders(folder, rule, hashed)
    raise NoLabelsError(
        folder,
        None,
        f"holds neither a {LABELS_FILE}, nor COVIDx CT's lists (train_COVIDx_CT-2A.txt), nor a folder for each class "
        "(Normal, Pneumonia, COVID-19)",
    )
