"""Which slices an epoch shows, and which patients a small budget buys."""

import hashlib
import math
from collections import Counter, defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocol.labels import LABELS
from training.data.slices import SliceSet
from training.plan import Balance


class BudgetError(ValueError):
    """A budget of patients that the slices cannot meet; the message says how many there are."""


def draw(slices: SliceSet, balanced: Balance) -> Tensor:
    """Return the order of an epoch as int64 [n]: as many indices as slices, by torch's global random generator.

    "class" shows as many slices of each class, "class-source" of each class as many of each of its sources; then a
    scarce slice comes more often, but never again before all of its kind have come.
    """
    n = len(slices)
    if balanced == "none":
        return torch.randperm(n)
    each = math.ceil(n / len(LABELS))
    drawn = torch.cat([_class_draw(slices, label, each, balanced) for label in range(len(LABELS))])
    return drawn[torch.randperm(len(drawn))[:n]]


def budget(slices: SliceSet, patients: int, seed: int) -> SliceSet:
    """Return the slices of so many patients, drawn by the seed, of each class in proportion and at least one.

    A larger budget with the same seed holds every smaller one, so that a learning curve compares like with like.
    Raises `BudgetError` for a class without patients, for fewer patients than classes, and for more than there are.
    """
    missing = [label for label in LABELS if slices.count(label) == 0]
    if missing:
        raise BudgetError(f"there is no patient with {', '.join(missing)} to learn from: add some")
    ranked = _ranked(slices, seed)
    if not len(LABELS) <= patients <= len(ranked):
        raise BudgetError(
            f"{patients} patients: choose from {len(LABELS)} (one a class) to {len(ranked)}, all there are"
        )
    return slices.of_patients(ranked[:patients])


def _class_draw(slices: SliceSet, label: int, times: int, balanced: Balance) -> Tensor:
    members = np.flatnonzero(slices.labels == label)
    if balanced == "class":
        return _repeated(members, times)
    sources = np.array(slices.sources)[members]
    names = np.unique(sources)
    each = math.ceil(times / len(names))
    drawn = torch.cat([_repeated(members[sources == name], each) for name in names])
    return drawn[torch.randperm(len(drawn))[:times]]


def _repeated(members: NDArray[np.intp], times: int) -> Tensor:
    """Return so many members in random order; each comes before any comes again."""
    rounds = math.ceil(times / len(members))
    at = torch.from_numpy(members)
    return torch.cat([at[torch.randperm(len(at))] for _ in range(rounds)])[:times]


def _ranked(slices: SliceSet, seed: int) -> list[str]:
    """Return the patients such that every beginning of the list has each class in proportion, one of each first."""
    by_class: dict[int, list[str]] = defaultdict(list)
    for patient, label in _class_of_patients(slices).items():
        by_class[label].append(patient)
    places: list[tuple[bool, float, str]] = []
    for members in by_class.values():
        members.sort(key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
        places += [(rank > 0, (rank + 0.5) / len(members), patient) for rank, patient in enumerate(members)]
    return [patient for _, _, patient in sorted(places)]


def _class_of_patients(slices: SliceSet) -> dict[str, int]:
    """Return the class of most of a patient's slices, the first among equals."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for patient, label in zip(slices.patients, slices.labels.tolist(), strict=True):
        counts[patient][label] += 1
    return {patient: min(count, key=lambda label: (-count[label], label)) for patient, count in counts.items()}
