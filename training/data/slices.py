"""Slices in one common form: pixels, labels, patients and sources, whatever reader they came from."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from protocol.labels import LABELS, Label
from training.model.preprocess import INPUT_PX, Box

_NAMED_PATIENTS = 5
"""As many patients does a message name; the error carries them all."""
_HASHED_SLICES = 256
"""As many slices are read at once while a set is hashed, so that a mapped one does not fill the memory."""


class LeakError(ValueError):
    """`patients` stand on two sides of a split, so that a figure would say nothing about new ones."""

    def __init__(self, patients: Iterable[str], where: str) -> None:
        self.patients = tuple(sorted(patients))
        more = len(self.patients) - _NAMED_PATIENTS
        named = ", ".join(self.patients[:_NAMED_PATIENTS]) + (f" and {more} more" if more > 0 else "")
        super().__init__(
            f"{len(self.patients)} patient(s) on two sides of the split ({where}): {named}; split by patient, or "
            "reproduce a leaked result with --allow-leak, which marks all outputs"
        )


class Pixels(Protocol):
    """Prepared slices uint8 [n, 256, 256]: an array in memory, or one mapped from the cache's file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[np.uint8]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, at: NDArray[np.intp] | slice) -> NDArray[np.uint8]:
        """Return the slices at the indices, in memory."""
        ...


@runtime_checkable
class LazyPixels(Pixels, Protocol):
    """Slices that lie in a file; choosing and joining them reads none of them."""

    def take(self, at: NDArray[np.intp]) -> "LazyPixels":
        """Return the slices at the indices, still in the file."""
        ...

    def join(self, other: Pixels) -> "LazyPixels | None":
        """Return these slices and the other's, still in the file, or None where the other's lie elsewhere."""
        ...


@dataclass(frozen=True)
class LabelledSlice:
    """One listed slice; `file` is relative to its data set's folder, `split` is train, val or test."""

    file: str
    label: Label
    patient_id: str
    source: str
    split: str
    box: Box | None = None
    """Where the body is, for data sets that say so; otherwise it is found."""
    listed: str = ""
    """File and line of the list that says so, where a person may have to mend it."""


@dataclass(frozen=True)
class SliceSet:
    """Prepared slices: pixels uint8 [n, 256, 256], labels int64 [n] (index into LABELS), patient and source of each."""

    pixels: Pixels
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
        """Return the slices under a mask or at the indices; mapped pixels stay in their file."""
        at = np.arange(len(self))[np.asarray(chosen, dtype=None if len(chosen) else np.intp)]
        return SliceSet(
            self.pixels.take(at) if isinstance(self.pixels, LazyPixels) else self.pixels[at],
            self.labels[at],
            tuple(self.patients[i] for i in at),
            tuple(self.sources[i] for i in at),
        )

    def of_patients(self, patients: Iterable[str]) -> "SliceSet":
        """Return the slices of these patients."""
        wanted = frozenset(patients)
        return self.select(np.array([patient in wanted for patient in self.patients], dtype=np.bool_))

    def concat(self, other: "SliceSet") -> "SliceSet":
        """Return the slices of both; pixels that are mapped from one file stay there."""
        joined = self.pixels.join(other.pixels) if isinstance(self.pixels, LazyPixels) else None
        return SliceSet(
            np.concatenate([self.pixels[:], other.pixels[:]]) if joined is None else joined,
            np.concatenate([self.labels, other.labels]),
            self.patients + other.patients,
            self.sources + other.sources,
        )

    def count(self, label: Label) -> int:
        """Count the slices of a class."""
        return int((self.labels == LABELS.index(label)).sum())

    def sha256(self) -> str:
        """Return the hash of all that a training can see of it, in this order."""
        digest = hashlib.sha256()
        for start in range(0, len(self), _HASHED_SLICES):
            digest.update(np.ascontiguousarray(self.pixels[start : start + _HASHED_SLICES]).tobytes())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        digest.update("\0".join(self.patients + self.sources).encode())
        return digest.hexdigest()


def slice_set(pixels: Pixels, rows: Sequence[LabelledSlice]) -> SliceSet:
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
    return hashed_place(patient, seed) < fraction * 2**64


def hashed_place(patient: str, seed: int) -> int:
    """Return where the hash puts a patient, 0 to 2**64; those nearest to 0 are held back first."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8])


def split_sha256(train: SliceSet, held_back: SliceSet) -> str:
    """Return the hash of who stands on which side; two models are comparable only where it is the same."""
    sides = (",".join(sorted(set(side.patients))) for side in (train, held_back))
    return hashlib.sha256("\0".join(sides).encode()).hexdigest()


def refuse_leak(train: SliceSet, held_back: SliceSet) -> None:
    """Raise `LeakError` when a patient stands on both sides."""
    shared = set(train.patients) & set(held_back.patients)
    if shared:
        raise LeakError(shared, "training and validation")
