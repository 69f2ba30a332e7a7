"""Judge a candidate against the incumbent on held-back patients: not worse in any class, better on the whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cloud_worker.settings import GateSettings
from protocol.labels import LABELS, Label
from training.evaluate import Estimate, Evaluation, evaluate, paired_difference


class ClassVerdict(BaseModel):
    """One class, as one-vs-rest balanced accuracy 0..1 (see docs/adr/0003)."""

    model_config = ConfigDict(frozen=True)
    n_patients: int
    incumbent: float
    candidate: float
    incumbent_sensitivity: float
    candidate_sensitivity: float


class GateVerdict(BaseModel):
    """Whether the candidate may be released, with every figure that the decision rests on."""

    model_config = ConfigDict(frozen=True)
    accepted: bool
    reasons: tuple[str, ...]
    n_slices: int
    n_patients: int
    incumbent: Estimate | None = None
    candidate: Estimate | None = None
    difference: Estimate | None = None
    by_class: dict[Label, ClassVerdict] = {}


@dataclass(frozen=True)
class HeldBack:
    """Labelled slices of patients that no training ever sees: pixels uint8 [n, 256, 256], labels index into LABELS."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    patients: Sequence[str]
    sources: Sequence[str]


def judge(
    incumbent: NDArray[np.float32], candidate: NDArray[np.float32], held_back: HeldBack, settings: GateSettings
) -> GateVerdict:
    """Compare the logits float32 [n, 3] of both networks on the same held-back slices."""
    n_patients = len(set(held_back.patients))
    refusal = _too_little(held_back, n_patients, settings)
    if refusal:
        return GateVerdict(accepted=False, reasons=refusal, n_slices=len(held_back.labels), n_patients=n_patients)
    broken = _broken(incumbent, candidate)
    if broken:
        return GateVerdict(accepted=False, reasons=broken, n_slices=len(held_back.labels), n_patients=n_patients)
    ours = evaluate(candidate, held_back.labels, held_back.patients, held_back.sources)
    theirs = evaluate(incumbent, held_back.labels, held_back.patients, held_back.sources)
    by_class = _by_class(theirs, ours)
    reasons = _worse(by_class, settings)
    if ours.balanced_accuracy.value <= theirs.balanced_accuracy.value:
        reasons += (
            f"balanced accuracy {ours.balanced_accuracy.value:.3f} is not above "
            f"the incumbent's {theirs.balanced_accuracy.value:.3f}",
        )
    return GateVerdict(
        accepted=not reasons,
        reasons=reasons or _praise(settings),
        n_slices=ours.n_slices,
        n_patients=ours.n_patients,
        incumbent=theirs.balanced_accuracy,
        candidate=ours.balanced_accuracy,
        difference=paired_difference(candidate, incumbent, held_back.labels, held_back.patients).balanced_accuracy,
        by_class=by_class,
    )


def _praise(settings: GateSettings) -> tuple[str, ...]:
    return (
        "better on the whole, and no class's one-vs-rest balanced accuracy falls by more than "
        f"{settings.max_class_drop:g}",
    )


def _too_little(held_back: HeldBack, n_patients: int, settings: GateSettings) -> tuple[str, ...]:
    missing = [label for index, label in enumerate(LABELS) if not (held_back.labels == index).any()]
    if missing:
        return (f"no held-back patient of class {', '.join(missing)}: label some first",)
    if n_patients < settings.min_held_back_patients:
        return (f"{n_patients} held-back patients, {settings.min_held_back_patients} are needed: label some more",)
    return ()


def _broken(incumbent: NDArray[np.float32], candidate: NDArray[np.float32]) -> tuple[str, ...]:
    if not np.isfinite(candidate).all():
        return ("the candidate gives values that are not finite",)
    if not np.isfinite(incumbent).all():
        return ("the incumbent gives values that are not finite: replace it by hand with `sliceloop release`",)
    return ()


def _by_class(incumbent: Evaluation, candidate: Evaluation) -> dict[Label, ClassVerdict]:
    verdicts = {}
    for label in LABELS:
        theirs, ours = incumbent.by_class[label], candidate.by_class[label]
        verdicts[label] = ClassVerdict(
            n_patients=ours.n_patients,
            incumbent=_value(theirs.one_vs_rest),
            candidate=_value(ours.one_vs_rest),
            incumbent_sensitivity=_value(theirs.sensitivity),
            candidate_sensitivity=_value(ours.sensitivity),
        )
    return verdicts


def _value(estimate: Estimate | None) -> float:
    assert estimate is not None, "every class occurs"
    return estimate.value


def _worse(by_class: dict[Label, ClassVerdict], settings: GateSettings) -> tuple[str, ...]:
    return tuple(
        f"{label}: one-vs-rest balanced accuracy falls from {verdict.incumbent:.3f} to {verdict.candidate:.3f}"
        for label, verdict in by_class.items()
        if verdict.candidate < verdict.incumbent - settings.max_class_drop
    )
