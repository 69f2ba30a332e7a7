"""Decide when to ask for a retraining, and which patients it may learn from: pure functions."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cloud_worker.settings import RetrainSettings
from protocol.labels import LABELS, Label
from training.data.slices import is_held_back


class Side(StrEnum):
    """What a labelled patient serves for, for ever."""

    TRAIN = "train"
    VAL = "val"
    HELD_BACK = "held-back"


@dataclass(frozen=True)
class RetrainFacts:
    """What the policy looks at."""

    now: datetime
    has_release: bool
    new_labels: int
    patients: dict[Side, dict[Label, int]]
    last_request_at: datetime | None
    open_requests: int


@dataclass(frozen=True)
class Decision:
    """Whether to ask for a retraining now, and why or why not."""

    fire: bool
    reason: str


def decide(facts: RetrainFacts, settings: RetrainSettings) -> Decision:
    """Say whether a retraining is due: enough new labels, enough patients, cooled down, one at a time."""
    if not facts.has_release:
        return Decision(False, "nothing released yet to start from: `sliceloop release` makes the first one")
    if facts.open_requests:
        return Decision(False, "a retraining is under way")
    if facts.new_labels < settings.min_new_labels:
        return Decision(False, f"fewer than {settings.min_new_labels} new labels")
    if facts.last_request_at is not None:
        waited_s = (facts.now - facts.last_request_at).total_seconds()
        if waited_s < settings.cooldown_s:
            return Decision(False, f"the last request is less than {settings.cooldown_s:.0f} s ago")
    thin = [
        f"{label} ({side})"
        for side in (Side.TRAIN, Side.HELD_BACK)
        for label in LABELS
        if facts.patients.get(side, {}).get(label, 0) < settings.min_patients_per_class
    ]
    if thin:
        return Decision(False, f"fewer than {settings.min_patients_per_class} labelled patients: {', '.join(thin)}")
    return Decision(True, f"{facts.new_labels} new labels, at least {settings.min_new_labels} were asked for")


def side_of(patient_key: str, settings: RetrainSettings) -> Side:
    """Return the side of a patient: it depends on the patient alone, so nobody ever changes sides."""
    if is_held_back(patient_key, settings.held_back_share, settings.seed):
        return Side.HELD_BACK
    learnt_from = not is_held_back(patient_key, settings.held_back_share + settings.val_share, settings.seed)
    return Side.TRAIN if learnt_from else Side.VAL


def count_patients(labelled: Iterable[tuple[str, Label]], settings: RetrainSettings) -> dict[Side, dict[Label, int]]:
    """Count distinct patients by side and class from pairs of patient key and label."""
    seen: dict[Side, dict[Label, set[str]]] = defaultdict(lambda: defaultdict(set))
    for patient_key, label in labelled:
        seen[side_of(patient_key, settings)][label].add(patient_key)
    return {side: {label: len(patients) for label, patients in by.items()} for side, by in seen.items()}
