"""One door to every data set: its listed slices, and the splits of them in the common form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.labelled import load_slices, read_labels
from training.data.slices import LabelledSlice, SliceSet


@dataclass(frozen=True)
class DataSet:
    """The slices that a folder lists; `leaked` names the patients on two sides, where a leak was allowed."""

    folder: Path
    rows: tuple[LabelledSlice, ...]
    leaked: tuple[str, ...] = ()

    def without_sources(self, sources: Sequence[str]) -> "DataSet":
        """Return the data set without the slices of these sources."""
        return DataSet(self.folder, tuple(row for row in self.rows if row.source not in sources), self.leaked)


def open_dataset(folder: Path, *, allow_leak: bool = False) -> DataSet:
    """Read what the folder lists, in whichever form; raises a `LabelsError`, or a `LeakError` unless allowed."""
    return DataSet(folder, tuple(read_labels(folder)))


def load_split(
    dataset: DataSet,
    split: str,
    *,
    cache: Path | None = None,
    on_slice: Callable[[int, int], None] | None = None,
) -> SliceSet:
    """Return a split's slices, decoded once into the cache's folder and mapped from there afterwards."""
    return load_slices(dataset.folder, [row for row in dataset.rows if row.split == split], on_slice)
