"""Explore a data set: measure every slice, audit a part of them, and put all that was found into one object."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import DataSet
from training.data.slices import SliceSet
from training.explore.counts import count
from training.explore.differences import find_differences
from training.explore.findings import FORMAT, Findings, Story, count_lungs, library_versions
from training.explore.intensities import PatientValues, by_patient, measure
from training.explore.shortcuts import audit
from training.explore.views import Views, look
from training.provenance import code_commit

MOST_AUDITED = 12_000
"""The audit takes whole patients, drawn by the seed, until it has so many slices: minutes of fitting."""

Heard = Callable[[str, int, int], None]
"""Hears what is being done, and how much of how much is done; an error that it raises stops the exploration."""


class NothingToExploreError(ValueError):
    """No slice of the data set could be read."""


class UnknownSourcesError(ValueError):
    """Sources to take together that the data set does not have."""

    def __init__(self, unknown: Sequence[str], known: Sequence[str]) -> None:
        super().__init__(f"no source {', '.join(unknown)} in this data set; it has {', '.join(known)}")
        self.unknown = tuple(unknown)


@dataclass(frozen=True)
class Question:
    """What to explore; `together` names sources that are one origin, `unreadable` says how many files were left out."""

    seed: int
    together: Mapping[str, tuple[str, ...]]
    unreadable: int = 0


def explore(
    dataset: DataSet, splits: Sequence[SliceSet], question: Question, heard: Heard
) -> tuple[Findings, PatientValues]:
    """Explore the data set's slices, as read split by split; return what was found, and the patients' values to plot.

    The counts are of what is listed, all else of what was read. Raises `NothingToExploreError` and
    `UnknownSourcesError`.
    """
    slices = [_renamed(part, question.together) for part in splits if len(part)]
    if not slices:
        raise NothingToExploreError(f"no slice of {dataset.folder} could be read; look with `sliceloop data check`")
    patients = _measured(slices, heard)
    views = _looked_at(slices, question.seed, heard)
    findings = Findings(
        format=FORMAT,
        story=_story(dataset, slices, views, patients, question),
        counts=count(dataset.rows),
        differences=find_differences(patients, question.seed),
        lungs=count_lungs(views),
        audit=audit(views, question.seed, lambda done, total: heard("fitting", done, total)),
    )
    return findings, patients


def check_sources(dataset: DataSet, together: Mapping[str, tuple[str, ...]]) -> None:
    """Raise `UnknownSourcesError` when a source to take together is not in the data set."""
    known = sorted({row.source for row in dataset.rows})
    unknown = [source for sources in together.values() for source in sources if source not in known]
    if unknown:
        raise UnknownSourcesError(unknown, known)


def choose_patients(patients: Sequence[str], most_slices: int, seed: int) -> frozenset[str]:
    """Draw patients until they have more than `most_slices` slices; all of them where there are no more."""
    names, n = np.unique(np.asarray(patients), return_counts=True)
    if n.sum() <= most_slices:
        return frozenset(names.tolist())
    order = np.random.default_rng(seed).permutation(len(names))
    return frozenset(names[order[: int(np.searchsorted(n[order].cumsum(), most_slices)) + 1]].tolist())


def _renamed(slices: SliceSet, together: Mapping[str, tuple[str, ...]]) -> SliceSet:
    names = {source: name for name, sources in together.items() for source in sources}
    return replace(slices, sources=tuple(names.get(source, source) for source in slices.sources))


def _measured(slices: Sequence[SliceSet], heard: Heard) -> PatientValues:
    total = sum(len(part) for part in slices)
    values, before = [], 0
    for part in slices:
        values.append(measure(part, _onward(heard, "measuring", before, total)))
        before += len(part)
    labels = np.concatenate([part.labels for part in slices])
    return by_patient(np.concatenate(values), labels, _joined(slices, "patients"), _joined(slices, "sources"))


def _looked_at(slices: Sequence[SliceSet], seed: int, heard: Heard) -> Views:
    audited = choose_patients(_joined(slices, "patients"), MOST_AUDITED, seed)
    chosen = [_indices(part, audited) for part in slices]
    total = sum(len(at) for at in chosen)
    views: Views | None = None
    for part, at in zip(slices, chosen, strict=True):
        if len(at):
            before = len(views.labels) if views else 0
            looked = look(part, at, _onward(heard, "looking for lungs", before, total))
            views = views.concat(looked) if views else looked
    if views is None:
        raise NothingToExploreError("no slice to audit")
    return views


def _indices(slices: SliceSet, patients: frozenset[str]) -> NDArray[np.intp]:
    return np.flatnonzero(np.array([patient in patients for patient in slices.patients]))


def _onward(heard: Heard, what: str, before: int, total: int) -> Callable[[int], None]:
    return lambda done: heard(what, before + done, total)


def _joined(slices: Sequence[SliceSet], what: str) -> tuple[str, ...]:
    return tuple(name for part in slices for name in getattr(part, what))


def _story(
    dataset: DataSet, slices: Sequence[SliceSet], views: Views, patients: PatientValues, question: Question
) -> Story:
    return Story(
        data=dataset.folder.resolve().name,
        list_sha256=_list_sha256(dataset),
        seed=question.seed,
        n_slices=sum(len(part) for part in slices),
        n_patients=len(set(_joined(slices, "patients"))),
        unreadable=question.unreadable,
        leaked_patients=len(dataset.leaked),
        two_label_patients=patients.two_labels,
        together=dict(question.together),
        audited_slices=len(views.labels),
        audited_patients=len(set(views.patients)),
        versions=library_versions(),
        commit=code_commit(),
    )


def _list_sha256(dataset: DataSet) -> str:
    digest = hashlib.sha256()
    for row in dataset.rows:
        digest.update("\0".join((row.file, row.label, row.patient_id, row.source, row.split, "")).encode())
    return digest.hexdigest()
