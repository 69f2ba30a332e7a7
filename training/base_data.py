"""What a trainer always learns from besides the data set, held against it: no patient, no picture on two sides."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from protocol.messages import Dataset
from protocol.patients import patient_key
from training.data.slices import LabelledSlice, SliceSet, is_held_back

MIN_SECRET_BYTES = 16
_NAMED_FILES = 5
"""As many files does a message name."""


class PatientSecretError(ValueError):
    """The site's secret cannot be used; the message names no file, since it leaves the trainer."""


class SamePixelsError(ValueError):
    """`files` of base_data show what the data set shows on the other side: their patients are the same."""

    def __init__(self, files: Sequence[str]) -> None:
        named = ", ".join(files[:_NAMED_FILES])
        super().__init__(f"{len(files)} slices of base_data stand on the other side in the data set: {named}")
        self.files = tuple(files)


def keyed(rows: Iterable[LabelledSlice], secret: bytes) -> list[LabelledSlice]:
    """Name the rows' patients as the site's edges name them; raises `PatientSecretError`."""
    if len(secret) < MIN_SECRET_BYTES:
        raise PatientSecretError(
            f"trainer.patient_secret_file holds {len(secret)} bytes; a secret has at least {MIN_SECRET_BYTES}"
        )
    return [replace(row, patient_id=patient_key(secret, row.patient_id)) for row in rows]


def on_the_same_side(rows: Iterable[LabelledSlice], dataset: Dataset) -> list[LabelledSlice]:
    """Leave out the keyed rows of patients whom the worker holds back, or who stand on the data set's other side."""
    side = {entry.patient_key: entry.split for entry in dataset.slices}
    return [row for row in rows if side.get(row.patient_id, row.split) == row.split and not _held_back(row, dataset)]


def refuse_same_pixels(base: SliceSet, rows: Sequence[LabelledSlice], other_side: SliceSet) -> None:
    """Raise `SamePixelsError` when a prepared slice of base_data, one a row, is also on the data set's other side."""
    known = set(_digests(other_side))
    same = [row.file for row, digest in zip(rows, _digests(base), strict=True) if digest in known]
    if same:
        raise SamePixelsError(same)


def _held_back(row: LabelledSlice, dataset: Dataset) -> bool:
    rule = dataset.held_back  # None: the worker's software is older, and does not say
    return rule is not None and is_held_back(row.patient_id, rule.share, rule.seed)


def _digests(slices: SliceSet) -> list[bytes]:
    return [hashlib.sha256(slices.pixels[at : at + 1].tobytes()).digest() for at in range(len(slices))]
