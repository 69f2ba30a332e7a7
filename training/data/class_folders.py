"""A folder a class (Normal, Pneumonia, COVID-19), perhaps under train, val and test; a rule names the patient."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from protocol.labels import LABELS, Label
from training.data.labelled import LabelsError, NoLabelsError, UnknownLabelError
from training.data.patient_rule import PatientRule, PatientRuleError
from training.data.slices import LabelledSlice, hashed_place, is_held_back

CLASS_NAMES = {
    "normal": Label.NORMAL,
    "healthy": Label.NORMAL,
    "control": Label.NORMAL,
    "controls": Label.NORMAL,
    "pneumonia": Label.PNEUMONIA,
    "cp": Label.PNEUMONIA,
    "cap": Label.PNEUMONIA,
    "commonpneumonia": Label.PNEUMONIA,
    "communityacquiredpneumonia": Label.PNEUMONIA,
    "covid": Label.COVID_19,
    "covid19": Label.COVID_19,
    "covid19pneumonia": Label.COVID_19,
    "ncp": Label.COVID_19,
    "novelcoronaviruspneumonia": Label.COVID_19,
    "sarscov2": Label.COVID_19,
}
"""How a class folder may be called, without case, space, hyphen and underscore."""
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm"})
"""Files with other endings are no slices; a folder may hold notes and thumbnails beside them."""
_NAMED = 5
_NO_SHARE = 1e-9
"""Shares add up to 1 but for rounding."""


class NoPatientInNameError(LabelsError):
    """Files in whose path the patient rule finds nobody."""


@dataclass(frozen=True)
class HashedSplits:
    """Which share of the patients (0..1) to hold back where the folders do not say; the id and seed decide."""

    val: float = 0.15
    test: float = 0.15
    seed: int = 0

    def sides(self, patients: Iterable[str]) -> dict[str, str]:
        """Return the side of each patient of one class.

        The hash of the id alone decides, so that who comes later moves nobody, but where it leaves a side without a
        patient although there are enough for all: then the nearest ones stand in.
        """
        ranked = sorted(set(patients), key=lambda patient: hashed_place(patient, self.seed))
        shares = {"test": self.test, "val": self.val, "train": 1 - self.test - self.val}
        wanted = [side for side, share in shares.items() if share > _NO_SHARE]
        counts = Counter(self._by_hash(patient) for patient in ranked)
        if len(ranked) >= len(wanted):
            for side in wanted:
                if not counts[side]:
                    counts[side] += 1
                    counts[counts.most_common(1)[0][0]] -= 1
        return dict(zip(ranked, chain.from_iterable([side] * counts[side] for side in shares), strict=True))

    def _by_hash(self, patient: str) -> str:
        if is_held_back(patient, self.test, self.seed):
            return "test"
        return "val" if is_held_back(patient, self.test + self.val, self.seed) else "train"


@dataclass(frozen=True)
class _Place:
    folder: Path
    label: Label
    split: str | None


def is_class_folders(folder: Path) -> bool:
    """Tell whether the folder, or a split's folder in it, holds folders named after classes."""
    return any(
        _label(place.name)
        for side in (folder, *(path for path in _folders(folder) if _split(path.name)))
        for place in _folders(side)
    )


def list_class_folders(
    folder: Path, rule: PatientRule | None, hashed: HashedSplits
) -> tuple[list[LabelledSlice], tuple[str, ...]]:
    """Return the slices in the class folders, sorted, and what had to be decided about them, a sentence each.

    Raises `PatientRuleError` without a rule, and a `LabelsError` naming the folder or file.
    """
    if rule is None:
        raise PatientRuleError(
            f"{folder}: class folders do not tell whose a slice is; give a patient rule, for example "
            r"--patient-rule '([^/]+)_\d+\.png$' where files are called PATIENT_0007.png"
        )
    places = list(_places(folder))
    files = [(place, path) for place in places for path in _files(place.folder)]
    if not files:
        raise NoLabelsError(folder, None, f"the class folders hold no file that ends in {', '.join(sorted(SUFFIXES))}")
    patients = _patients(folder, [path for _, path in files], rule)
    source = folder.resolve().name
    has = {place.split for place in places}
    undecided = {None, "train"} if "val" not in has else {None}
    labels = {
        patient: place.label for (place, _), patient in zip(files, patients, strict=True) if place.split in undecided
    }
    sides = _sides(labels, hashed if None in has else replace(hashed, test=0.0))
    rows = [
        LabelledSlice(
            path.relative_to(folder).as_posix(),
            place.label,
            patient,
            source,
            sides[patient] if place.split in undecided else str(place.split),
        )
        for (place, path), patient in zip(files, patients, strict=True)
    ]
    return rows, _decided(has, hashed)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _label(name: str) -> Label | None:
    return CLASS_NAMES.get(_plain(name))


def _split(name: str) -> str | None:
    return SPLIT_NAMES.get(_plain(name))


def _places(folder: Path) -> Iterator[_Place]:
    sides = [path for path in _folders(folder) if _split(path.name)]
    loose = [path for path in _folders(folder) if path not in sides]
    if sides and any(_label(path.name) for path in loose):
        raise UnknownLabelError(folder, None, "class folders stand beside folders of splits; move them into one")
    for side in sides or [folder]:
        for place in _folders(side):
            label = _label(place.name)
            if label is None:
                known = ", ".join(Label)
                raise UnknownLabelError(
                    place, None, f"is no class folder; call it one of {known}, or move it out of {folder}"
                )
            yield _Place(place, label, _split(side.name) if sides else None)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _patients(folder: Path, files: list[Path], rule: PatientRule) -> list[str]:
    found = [rule.patient(path.relative_to(folder).as_posix()) for path in files]
    lost = [path for path, patient in zip(files, found, strict=True) if not patient]
    if lost:
        named = ", ".join(f"'{path.relative_to(folder)}'" for path in lost[:_NAMED])
        raise NoPatientInNameError(
            folder, None, f"the patient rule finds nobody in {len(lost)} of {len(files)} files, first {named}; widen it"
        )
    return [patient for patient in found if patient]


def _sides(labels: Mapping[str, Label], hashed: HashedSplits) -> dict[str, str]:
    """Return the side of each patient, class by class."""
    sides: dict[str, str] = {}
    for label in LABELS:
        sides |= hashed.sides(patient for patient, its in labels.items() if its == label)
    return sides


def _decided(has: set[str | None], hashed: HashedSplits) -> tuple[str, ...]:
    if None in has:
        shares = f"{hashed.val:.0%} of the patients to val and {hashed.test:.0%} to test"
        return (
            f"the folders name no split: a hash of each patient's id sends {shares} (seed {hashed.seed}), "
            "of each class at least one where it can",
        )
    if "val" not in has:
        moved = f"{hashed.val:.0%} of train's patients there, of each class at least one where it can"
        return (f"there is no val folder: a hash of the id moves {moved}",)
    return ()
