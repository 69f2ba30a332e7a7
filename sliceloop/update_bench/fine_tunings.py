"""How large an exact delta of a whole network's fine-tuning is, by optimizer, rate and steps."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from rich.table import Table

from sliceloop.update_bench.bytes_moved import exact_delta
from sliceloop.update_bench.networks import data_name
from training.data.dataset import load_split, open_dataset
from training.data.slices import SliceSet
from training.export import export_onnx
from training.half import with_half_weights
from training.networks import build
from training.plan import TrainSettings
from training.provenance import machine, versions
from training.train import train

FIRST_SHARE = 0.6
"""Of the patients to learn from: the first network's; the fine-tunings learn from all."""
ADAMW_RATE, ADAMW_EPOCHS = 5e-4, 6
"""Beside SGD: each of its steps changes every weight by about the rate."""


@dataclass(frozen=True)
class Taught:
    """What the first network learns from, what follows it, and what chooses the best epoch of each."""

    data: str
    first: SliceSet
    both: SliceSet
    validation: SliceSet


@dataclass(frozen=True)
class FineTuningPlan:
    """How the networks are made; the weights of the first are random before it learns."""

    architecture: str = "resnet18"
    input_px: int = 96
    base_epochs: int = 30
    sgd_rates: tuple[float, ...] = (0.01, 0.003, 0.001)
    sgd_epochs: tuple[int, ...] = (1, 3, 8)
    batch: int = 32
    seed: int = 7
    threads: int = 1


class FineTuning(BaseModel):
    """One fine-tuning: how it learned, and the delta from the first network, both with float16 weights."""

    model_config = ConfigDict(frozen=True)
    optimizer: Literal["sgd", "adamw"]
    rate: float
    epochs: int
    steps: int
    """Up to the epoch that was kept."""
    delta_bytes: int
    share: float
    """Of the float16 file."""
    balanced_accuracy: float
    """On the validation slices, which chose the epoch."""


class FineTunings(BaseModel):
    """All of them, and on what they were measured."""

    model_config = ConfigDict(frozen=True)
    data: str
    architecture: str
    input_px: int
    slices: tuple[int, int, int]
    """That taught the first network, that taught the others, and of validation."""
    base_accuracy: float
    float16_bytes: int
    rows: tuple[FineTuning, ...]
    hardware: dict[str, JsonValue]
    versions: dict[str, str]

    @property
    def largest_of_sgd(self) -> FineTuning:
        """Return the one with SGD whose delta is the largest."""
        return max((row for row in self.rows if row.optimizer == "sgd"), key=lambda row: row.share)


def taught_by(folder: Path, exclude_sources: Sequence[str] = ()) -> Taught:
    """Load a labelled data set with the splits train and val; raises what `load_split` raises."""
    dataset = open_dataset(folder).without_sources(exclude_sources)
    both, validation = load_split(dataset, "train"), load_split(dataset, "val")
    return Taught(data_name(folder, exclude_sources), first_of(both), both, validation)


def first_of(taught: SliceSet) -> SliceSet:
    """Return the slices of the first patients: who they are depends on their ids alone."""
    return taught.of_patients({patient for patient in taught.patients if _place(patient) < FIRST_SHARE})


def measure_fine_tunings(
    taught: Taught, plan: FineTuningPlan, say: Callable[[str], None] = lambda _: None
) -> FineTunings:
    """Train the first network, then tune it in every way; with thousands of real slices take a GPU."""
    settings = TrainSettings(batch=plan.batch, seed=plan.seed, threads=plan.threads)
    torch.manual_seed(plan.seed)
    say("training the first network")
    network = build(plan.architecture, plan.input_px)
    first = train(network, taught.first, taught.validation, settings.model_copy(update={"epochs": plan.base_epochs}))
    base = with_half_weights(export_onnx(deepcopy(first.network).cpu()))
    rows = []
    for changed in _settings(settings, plan):
        say(f"{changed.optimizer} at {changed.learning_rate:g}, epochs: {changed.epochs}")
        tuned = train(deepcopy(first.network), taught.both, taught.validation, changed)
        target = with_half_weights(export_onnx(tuned.network.cpu()))
        delta = exact_delta(base, target)
        rows.append(
            FineTuning(
                optimizer=changed.optimizer,
                rate=changed.learning_rate or 0,
                epochs=changed.epochs,
                steps=tuned.best.epoch * math.ceil(len(taught.both) / plan.batch),
                delta_bytes=len(delta),
                share=len(delta) / len(target),
                balanced_accuracy=tuned.best.validation_balanced_accuracy,
            )
        )
    return FineTunings(
        data=taught.data,
        architecture=plan.architecture,
        input_px=plan.input_px,
        slices=(len(taught.first), len(taught.both), len(taught.validation)),
        base_accuracy=first.best.validation_balanced_accuracy,
        float16_bytes=len(base),
        rows=tuple(rows),
        hardware=machine(),
        versions=versions("onnx", "torch", "zstandard"),
    )


def table(result: FineTunings) -> Table:
    """Show the fine-tunings, one a line."""
    shown = Table(
        title=f"Exact deltas of whole fine-tunings, {result.architecture} at {result.input_px} px on {result.data}, "
        f"{result.float16_bytes:,} bytes as float16; first network: balanced accuracy {result.base_accuracy:.3f}"
    )
    shown.add_column("optimizer")
    for name in ("rate", "steps kept", "delta MB", "of float16", "balanced accuracy"):
        shown.add_column(name, justify="right")
    for row in result.rows:
        shown.add_row(
            row.optimizer,
            f"{row.rate:g}",
            f"{row.steps:,}",
            f"{row.delta_bytes / 1e6:.2f}",
            f"{row.share:.1%}",
            f"{row.balanced_accuracy:.3f}",
        )
    return shown


def _settings(usual: TrainSettings, plan: FineTuningPlan) -> Iterator[TrainSettings]:
    for rate in plan.sgd_rates:
        for epochs in plan.sgd_epochs:
            yield usual.model_copy(update={"optimizer": "sgd", "learning_rate": rate, "epochs": epochs})
    yield usual.model_copy(update={"learning_rate": ADAMW_RATE, "epochs": ADAMW_EPOCHS})


def _place(patient: str) -> float:
    return hashlib.sha256(patient.encode()).digest()[0] / 256
