"""Where a reading comes from, and what a slice taught: reading, network, release, gate, request, data set, labels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from cloud_worker.ledger import Ledger, Release, StoredLabel, StoredRequest, StoredSlice, Teacher
from cloud_worker.object_store import ObjectMissingError, ObjectStore, dataset_key
from protocol.chunks import sha256_of
from protocol.manifest import shown_manifest
from protocol.messages import Dataset, Disagreement, NetworkReading


@dataclass(frozen=True)
class Lesson:
    """What a retraining had to learn from: the data set, and the labelled slices that it lists, by `train` or `val`."""

    request: StoredRequest
    dataset_sha256: str
    complete: bool
    """False where the data set is gone or damaged: the slices are those that were labelled by then."""
    teachers: tuple[tuple[Teacher, str], ...]


@dataclass(frozen=True)
class Origin:
    """What a release was made of; `lesson` is None where it was released by hand, without a request."""

    release: Release
    state: str
    signed_by: tuple[str, ...]
    training_data_sha256: str | None
    split_sha256: str | None
    lesson: Lesson | None


@dataclass(frozen=True)
class ReadingOrigin:
    """A reading, and the release of the network that made it; None where it is none of ours."""

    reader: str
    reading: NetworkReading
    origin: Origin | None


@dataclass(frozen=True)
class Taught:
    """A retraining that a slice was part of, and the releases that came of it."""

    lesson: Lesson
    split: str
    label: str
    versions: tuple[int, ...]


@dataclass(frozen=True)
class SliceLineage:
    """Both ways from one slice: what read it, and what it taught."""

    slice: StoredSlice
    readings: tuple[ReadingOrigin, ...]
    disagreement: Disagreement | None
    labels: tuple[StoredLabel, ...]
    taught: tuple[Taught, ...]


class Archive:
    """Looks things up in ledger and object store; data sets that were read are kept at hand."""

    def __init__(self, ledger: Ledger, store: ObjectStore) -> None:
        """Remember where to look."""
        self._ledger, self._store = ledger, store
        self._lessons: dict[str, Lesson] = {}

    def of_slice(self, slice_id: str) -> SliceLineage:
        """Follow a slice both ways; the id may be its beginning. Raises `UnknownSliceError`, `AmbiguousSliceError`."""
        stored = self._ledger.find_slice(slice_id)
        parts = self._ledger.verdict_parts(stored.slice_id)
        readings = {"edge": parts.first} | ({"second": parts.second} if parts.second else {})
        origins = tuple(ReadingOrigin(name, each, self._maker(each)) for name, each in readings.items())
        labels = tuple(self._ledger.labels_of(stored.slice_id))
        return SliceLineage(stored, origins, parts.disagreement, labels, tuple(self._taught(stored, labels)))

    def of_release(self, version: int) -> Origin:
        """Say what a release was made of; raises `UnknownReleaseError`."""
        return self._origin(self._ledger.release(version))

    def _maker(self, reading: NetworkReading) -> Origin | None:
        model = reading.model
        same = [
            each for each in self._ledger.releases() if (each.version, each.sha256) == (model.version, model.sha256)
        ]
        return self._origin(same[0]) if same else None

    def _origin(self, release: Release) -> Origin:
        states = {each.version: each.state for each in self._ledger.rollouts()}
        manifest = shown_manifest(release.envelope)
        lesson = self._lesson(self._ledger.request(release.request_id)) if release.request_id else None
        return Origin(
            release=release,
            state=states.get(release.version, "not rolled out"),
            signed_by=key_ids(release.envelope),
            training_data_sha256=manifest.training_data_sha256,
            split_sha256=manifest.split_sha256,
            lesson=lesson,
        )

    def _taught(self, stored: StoredSlice, labels: Sequence[StoredLabel]) -> list[Taught]:
        first = min((label.id for label in labels), default=None)
        found = []
        for request in self._ledger.requests() if first is not None else ():
            if first is None or request.labels_used < first:
                continue
            lesson = self._lesson(request)
            versions = tuple(each.version for each in self._ledger.releases() if each.request_id == request.request_id)
            found += [
                Taught(lesson, split, teacher.label, versions)
                for teacher, split in lesson.teachers
                if teacher.slice_id == stored.slice_id
            ]
        return found

    def _lesson(self, request: StoredRequest) -> Lesson:
        if request.request_id not in self._lessons:
            self._lessons[request.request_id] = self._read_lesson(request)
        return self._lessons[request.request_id]

    def _read_lesson(self, request: StoredRequest) -> Lesson:
        """Join the data set's list, which is what was taught, with the labels that the ledger had at that time."""
        teachers = self._ledger.teachers(request.labels_used)
        sha256 = request.message.dataset_sha256
        dataset = self._dataset(sha256)
        if dataset is None:
            return Lesson(request, sha256, False, tuple((teacher, "") for teacher in teachers))
        # by patient too: the same picture may have come as another patient's, whom no training sees
        splits = {(each.image_sha256, each.patient_key): each.split for each in dataset.slices}
        keyed = [((each.image_sha256, each.patient_key), each) for each in teachers]
        return Lesson(request, sha256, True, tuple((each, splits[key]) for key, each in keyed if key in splits))

    def _dataset(self, sha256: str) -> Dataset | None:
        try:
            data = self._store.get(dataset_key(sha256))
            return Dataset.model_validate_json(data) if sha256_of(data) == sha256 else None
        except (ObjectMissingError, ValidationError):
            return None


def key_ids(envelope: bytes) -> tuple[str, ...]:
    """Name the keys whose signatures an envelope claims to have; nothing is verified here."""
    signatures: Sequence[Mapping[str, Any]] = json.loads(envelope).get("signatures", ())
    return tuple(str(each.get("keyid", ""))[:64] for each in signatures)


def gate_words(gate: Mapping[str, Any] | None) -> str:
    """Say in a line why a release was let through."""
    said = gate or {}
    if said.get("by hand"):
        return f"by hand, past the gate: {said['by hand']}"
    return "; ".join(map(str, said.get("reasons", ()))) or "no gate"


def moment(at: datetime) -> str:
    """Write a time as people read it."""
    return f"{at:%F %T} UTC"
