"""What is wrong with a data set: leaks, copies across its splits, files that cannot be read, classes that lack."""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protocol.labels import LABELS, Label
from training.data.cache import CachingStoppedError, OnSlice, SliceCache
from training.data.dataset import DataSet
from training.data.duplicates import fingerprints, near_duplicates
from training.data.labelled import SPLITS, on_two_sides, with_two_labels
from training.data.slices import LabelledSlice, SliceSet


@dataclass(frozen=True)
class Count:
    """How many slices, of how many patients, a class has in a split and source."""

    label: Label
    split: str
    source: str
    slices: int
    patients: int


@dataclass(frozen=True)
class Several:
    """A patient with more than one split, or more than one label."""

    patient: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Twin:
    """One slice of a near-duplicate."""

    file: str
    patient: str
    split: str


@dataclass(frozen=True)
class Copy:
    """Two slices of different splits that show the same; see training.data.duplicates for the measure."""

    first: Twin
    second: Twin
    bits: int
    correlation: float
    identical: bool


@dataclass(frozen=True)
class Unreadable:
    """A file that holds no slice, and why."""

    file: str
    fault: str


@dataclass(frozen=True)
class Missing:
    """A class that has no slice in a split."""

    split: str
    label: Label


@dataclass(frozen=True)
class Findings:
    """All that a check found, good or bad."""

    folder: str
    counts: tuple[Count, ...]
    leaked: tuple[Several, ...]
    two_labels: tuple[Several, ...]
    copies: tuple[Copy, ...]
    unreadable: tuple[Unreadable, ...]
    missing: tuple[Missing, ...]
    one_class: bool
    notes: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Tell whether something can be learnt, figures from it be believed, and all files be read."""
        return not (self.leaked or self.copies or self.unreadable or self.one_class)


def check_dataset(
    dataset: DataSet,
    cache: Path,
    *,
    on_decoded: OnSlice | None = None,
    on_hashed: OnSlice | None = None,
    stop: threading.Event | None = None,
) -> Findings:
    """Look through the data set, which may leak; its slices are decoded into the cache on the way.

    Raises a `CacheError`, and `CachingStoppedError` when `stop` is set.
    """
    unreadable: dict[LabelledSlice, str] = {}
    slices = SliceCache(cache).load(
        dataset.folder,
        dataset.rows,
        on_slice=on_decoded,
        on_unreadable=lambda row, error: unreadable.update({row: error.fault}),
        stop=stop,
    )
    readable = [row for row in dataset.rows if row not in unreadable]
    return Findings(
        folder=str(dataset.folder),
        counts=count(dataset.rows),
        leaked=_several(dataset, on_two_sides(dataset.rows), lambda row: row.split),
        two_labels=_several(dataset, with_two_labels(dataset.rows), lambda row: row.label),
        copies=_copies(slices, readable, on_hashed, stop),
        unreadable=tuple(Unreadable(row.file, fault) for row, fault in unreadable.items()),
        missing=missing_classes(dataset.rows),
        one_class=len({row.label for row in dataset.rows}) == 1,
        notes=dataset.notes,
    )


def count(rows: tuple[LabelledSlice, ...]) -> tuple[Count, ...]:
    """Count slices and patients by class, split and source, in this order."""
    groups: dict[tuple[int, int, str], list[str]] = defaultdict(list)
    for row in rows:
        groups[LABELS.index(row.label), SPLITS.index(row.split), row.source].append(row.patient_id)
    return tuple(
        Count(LABELS[label], SPLITS[split], source, len(patients), len(set(patients)))
        for (label, split, source), patients in sorted(groups.items())
    )


def missing_classes(rows: tuple[LabelledSlice, ...]) -> tuple[Missing, ...]:
    """Name the classes that a split lacks; a split without any slice lacks them all."""
    there = {(row.split, row.label) for row in rows}
    return tuple(Missing(split, label) for split in SPLITS for label in LABELS if (split, label) not in there)


def _several(dataset: DataSet, patients: tuple[str, ...], value: Callable[[LabelledSlice], str]) -> tuple[Several, ...]:
    found: dict[str, set[str]] = {patient: set() for patient in patients}
    for row in dataset.rows:
        if row.patient_id in found:
            found[row.patient_id].add(str(value(row)))
    return tuple(Several(patient, tuple(sorted(values))) for patient, values in found.items())


def _copies(
    slices: SliceSet, rows: list[LabelledSlice], on_hashed: OnSlice | None, stop: threading.Event | None
) -> tuple[Copy, ...]:
    hashes = fingerprints(slices.pixels, on_hashed, stop)
    if len(hashes) < len(slices):
        raise CachingStoppedError(len(hashes), len(slices))
    twins = [Twin(row.file, row.patient_id, row.split) for row in rows]
    return tuple(
        Copy(twins[pair.first], twins[pair.second], pair.bits, pair.correlation, pair.identical)
        for pair in near_duplicates(slices.pixels, hashes, [row.split for row in rows])
    )
