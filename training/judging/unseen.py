"""Whether the patients that a network is judged on are new to it, and what marks an output where they are not."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from training.data.dataset import DataSet
from training.data.slices import LabelledSlice, LeakError
from training.judging.predictions import patient_key

TRAINED_ON = "training patients of the model among the judged"


class NoSlicesError(ValueError):
    """The split has no slice to judge on."""


class Learnt(Protocol):
    """What a network's report, or its checkpoint, tells of whom it learnt from; see `training.bundle.Report`."""

    @property
    def n_train_slices(self) -> int | None: ...

    @property
    def n_train_patients(self) -> int | None: ...

    @property
    def train_sources(self) -> tuple[str, ...]: ...

    @property
    def train_patient_keys(self) -> tuple[str, ...]: ...

    @property
    def split_sha256(self) -> str | None: ...

    @property
    def leaked_patients(self) -> int: ...

    @property
    def start_weights(self) -> str: ...

    @property
    def start_patients_known(self) -> bool: ...


class LeakMark(BaseModel):
    """Why a figure says nothing about new patients (empty: nothing known against it), and how that was checked."""

    model_config = ConfigDict(frozen=True)
    reasons: tuple[str, ...] = ()
    checked: str

    @property
    def leaked(self) -> bool:
        """Tell whether the outputs must be marked."""
        return bool(self.reasons)

    def sentence(self) -> str:
        """Return the first line of every output of a leaked run."""
        return f"LEAKED: {'; '.join(self.reasons)}. These figures say nothing about new patients."


@dataclass(frozen=True)
class _Known:
    """The keys of the patients that a model learnt from, and how we know them."""

    keys: frozenset[str]
    how: str


def check_unseen(dataset: DataSet, split: str, learnt: Learnt | None, *, allow_leak: bool = False) -> LeakMark:
    """Compare the split's patients with those the model learnt from; `learnt` is None for weights from elsewhere.

    Raises `LeakError` naming the patients, unless allowed, and `NoSlicesError`.
    """
    judged = {row.patient_id for row in dataset.rows if row.split == split}
    if not judged:
        splits = ", ".join(sorted({row.split for row in dataset.rows})) or "none"
        raise NoSlicesError(f"{dataset.folder} has no slice in split '{split}' (splits with slices: {splits})")
    known = None if learnt is None else _known_patients(learnt, dataset)
    seen = {patient for patient in judged if known is not None and patient_key(patient) in known.keys}
    if seen and not allow_leak:
        raise LeakError(seen, TRAINED_ON)
    return LeakMark(reasons=tuple(_reasons(dataset, learnt, seen, len(judged))), checked=_checked(known, learnt))


def _reasons(dataset: DataSet, learnt: Learnt | None, seen: set[str], judged: int) -> list[str]:
    at_training = 0 if learnt is None else learnt.leaked_patients
    reasons = []
    if at_training:
        reasons.append(f"the model was trained with {at_training} patient(s) on two sides of its split")
    if dataset.leaked:
        reasons.append(f"{len(dataset.leaked)} patient(s) of the data set are in more than one split")
    if seen:
        reasons.append(f"{len(seen)} of {judged} judged patients were learnt from")
    return reasons


def _checked(known: _Known | None, learnt: Learnt | None) -> str:
    if known is None or learnt is None:
        return "unknown, because the patients that it learnt from are"
    checked = f"checked against {len(known.keys)} training patients ({known.how})"
    if learnt.start_patients_known:
        return checked
    return f"{checked}, but whom its start weights {learnt.start_weights} learnt from is not known"


def _known_patients(learnt: Learnt, dataset: DataSet) -> _Known | None:
    if learnt.train_patient_keys:
        return _Known(frozenset(learnt.train_patient_keys), "listed with the model")
    for rows in _possible_trainings(learnt, dataset):
        train, validation = _patients(rows, "train"), _patients(rows, "val")
        if _split_sha256(train, validation) == learnt.split_sha256:
            return _Known(frozenset(map(patient_key, train)), "this data set's train split, by its hash")
    return None


def _possible_trainings(learnt: Learnt, dataset: DataSet) -> list[Sequence[LabelledSlice]]:
    """Return what the model may have learnt from: all sources, its own alone, or its own judged on all."""

    def of_its_sources(row: LabelledSlice) -> bool:
        return row.source in learnt.train_sources

    kept: list[Callable[[LabelledSlice], bool]] = [
        lambda _: True,
        of_its_sources,
        lambda row: row.split != "train" or of_its_sources(row),
    ]
    return [[row for row in dataset.rows if keep(row)] for keep in kept]


def _patients(rows: Iterable[LabelledSlice], split: str) -> set[str]:
    return {row.patient_id for row in rows if row.split == split}


def _split_sha256(train: set[str], validation: set[str]) -> str:
    """Return what `training.data.slices.split_sha256` says of slices of these patients."""
    return hashlib.sha256("\0".join(",".join(sorted(side)) for side in (train, validation)).encode()).hexdigest()
