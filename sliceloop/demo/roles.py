"""Deal the patients: who teaches the first model, who the second reader, who is streamed, who only judges."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from protocol.labels import LABELS
from training.data.slices import LabelledSlice

FIRST_TRAIN_PATIENTS, FIRST_VAL_PATIENTS = 4, 3
"""Of each class: deliberately few, so that the first model is weak."""
SECOND_TRAIN_PATIENTS, SECOND_VAL_PATIENTS = 28, 4
MAX_SLICES_A_PATIENT = 4
MAX_EVALUATION_SLICES = 300
MIN_EVALUATION_PATIENTS = 2


class TooFewPatientsError(ValueError):
    """A folder has too few patients for the roles that the demo needs; the message says of which class."""


@dataclass(frozen=True)
class Roles:
    """Disjoint patients for disjoint tasks; only `first` is part of `second` as well."""

    first: tuple[LabelledSlice, ...]
    second: tuple[LabelledSlice, ...]
    stream: tuple[LabelledSlice, ...]
    evaluation: tuple[LabelledSlice, ...]


def deal(rows: Sequence[LabelledSlice], n_stream: int, seed: int, home: str | None = None) -> Roles:
    """Deal labelled slices to the roles, patients never split; `home` is the only source of the first model.

    The test split judges. Raises `TooFewPatientsError`.
    """
    rng = random.Random(seed)  # noqa: S311  a shuffle, not a secret
    judges = _patients([row for row in rows if row.split == "test"], rng)
    others = _patients([row for row in rows if row.split != "test"], rng)
    if any(len(judges[label]) < MIN_EVALUATION_PATIENTS for label in LABELS):
        raise TooFewPatientsError("the split 'test' of labels.csv must hold two patients or more of each class")
    teachers, first = _teachers(others, home)
    taken = {row.patient_id for row in teachers}
    streamed = _round_robin(
        {label: [patient for patient in others[label] if patient[0].patient_id not in taken] for label in LABELS}
    )
    stream = [row for patient in streamed if home is None or patient[0].source != home for row in patient][:n_stream]
    if len(stream) < n_stream:
        raise TooFewPatientsError(
            f"only {len(stream)} slices are left to stream; ask for --slices {len(stream)} or fewer"
        )
    evaluation = [row for patient in _round_robin(judges) for row in patient][:MAX_EVALUATION_SLICES]
    return Roles(tuple(first), tuple(teachers), tuple(stream), tuple(evaluation))


def _teachers(
    others: dict[str, list[list[LabelledSlice]]], home: str | None
) -> tuple[list[LabelledSlice], list[LabelledSlice]]:
    second: list[LabelledSlice] = []
    first: list[LabelledSlice] = []
    for label in LABELS:
        at_home = [patient for patient in others[label] if home is None or patient[0].source == home]
        away = [patient for patient in others[label] if home is not None and patient[0].source != home]
        needed = FIRST_TRAIN_PATIENTS + FIRST_VAL_PATIENTS
        if len(at_home) < needed:
            raise TooFewPatientsError(f"{len(at_home)} patients of class {label} can teach, {needed} are needed")
        starters = at_home[:needed]
        first += _mark(starters[:FIRST_TRAIN_PATIENTS], "train") + _mark(starters[FIRST_TRAIN_PATIENTS:], "val")
        more = at_home[needed : needed + SECOND_TRAIN_PATIENTS // 2] + away[:SECOND_TRAIN_PATIENTS]
        more = more[: SECOND_TRAIN_PATIENTS + SECOND_VAL_PATIENTS - needed] if home is None else more
        second += _mark(starters[:FIRST_TRAIN_PATIENTS], "train") + _mark(starters[FIRST_TRAIN_PATIENTS:], "val")
        second += _mark(more[SECOND_VAL_PATIENTS:], "train") + _mark(more[:SECOND_VAL_PATIENTS], "val")
    return second, first


def _patients(rows: Sequence[LabelledSlice], rng: random.Random) -> dict[str, list[list[LabelledSlice]]]:
    """Group by class and patient, in a shuffled order; a patient has at most MAX_SLICES_A_PATIENT slices.

    A patient with two diagnoses stands whole in the class of the first row, so as not to be dealt twice.
    """
    grouped: dict[str, dict[str, list[LabelledSlice]]] = {label: defaultdict(list) for label in LABELS}
    classes: dict[str, str] = {}
    for row in rows:
        grouped[classes.setdefault(row.patient_id, row.label)][row.patient_id].append(row)
    return {label: _shuffled(patients, rng) for label, patients in grouped.items()}


def _shuffled(patients: dict[str, list[LabelledSlice]], rng: random.Random) -> list[list[LabelledSlice]]:
    names = sorted(patients)
    rng.shuffle(names)
    return [rng.sample(patients[name], min(MAX_SLICES_A_PATIENT, len(patients[name]))) for name in names]


def _round_robin(patients: dict[str, list[list[LabelledSlice]]]) -> Iterator[list[LabelledSlice]]:
    """Take a patient of each class in turn, the longer classes alone at the end."""
    longest = max(len(of_class) for of_class in patients.values())
    for index in range(longest):
        for label in LABELS:
            if index < len(patients[label]):
                yield patients[label][index]


def _mark(patients: Sequence[Sequence[LabelledSlice]], split: str) -> list[LabelledSlice]:
    return [replace(row, split=split) for patient in patients for row in patient]
