"""The networks whose updates are measured: one, and what a new head, a fine-tuning and int8 make of it, on phantoms."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch

from training.data.labelled import load_slices, read_labels
from training.data.phantom import Cohort, write_phantoms
from training.data.slices import SliceSet
from training.export import export_onnx
from training.head import train_head
from training.likeness import likeness_of, with_unlikeness
from training.networks import Network, build
from training.plan import TrainSettings
from training.quantize import quantize
from training.train import train

BASE, HEAD, SGD, ADAMW = "base", "head", "sgd", "adamw"
INT8_BASE, INT8 = "int8 base", "int8 sgd"
"""The first network, and the one that SGD fine-tuned, quantized."""
_SITES = ("site-a", "site-b")
_VALIDATION = Cohort(_SITES[0], "val", 6, 1)
CALIBRATION_SLICES = 12


@dataclass(frozen=True)
class UpdatePlan:
    """How the networks are made; the weights of the first are random before it learns."""

    architecture: str = "resnet18"
    input_px: int = 96
    patients_per_class: int = 8
    """Of each of two sites: the first network learns from one, what follows it from both."""
    slices_per_patient: int = 2
    base_epochs: int = 6
    epochs: int = 2
    batch: int = 16
    sgd_rate: float | None = None
    """None is the rate of `sliceloop train --optimizer sgd`."""
    adamw_rate: float | None = None
    seed: int = 7
    threads: int = 1


def make_networks(folder: Path, plan: UpdatePlan, told: Callable[[str], None] = lambda _: None) -> dict[str, bytes]:
    """Return the ONNX networks by name, as they would be released with float32 weights; `told` hears what is next."""
    first, both, validation = phantoms(folder, plan)
    settings = TrainSettings(epochs=plan.epochs, batch=plan.batch, seed=plan.seed, threads=plan.threads)
    torch.manual_seed(plan.seed)
    network = build(plan.architecture, plan.input_px)
    told("training the first network")
    base = train(network, first, validation, settings.model_copy(update={"epochs": plan.base_epochs})).network
    told("training its head, and the whole of it with SGD and AdamW")
    sgd = settings.model_copy(update={"optimizer": "sgd", "learning_rate": plan.sgd_rate})
    adamw = settings.model_copy(update={"learning_rate": plan.adamw_rate})
    released = {
        BASE: _released(base, first, validation),
        HEAD: _released(train_head(deepcopy(base), both, validation, settings).network, both, validation),
        SGD: _released(train(deepcopy(base), both, validation, sgd).network, both, validation),
        ADAMW: _released(train(deepcopy(base), both, validation, adamw).network, both, validation),
    }
    told("quantizing")
    calibration = both.pixels[:CALIBRATION_SLICES]
    return {
        **released,
        INT8_BASE: _telling(quantize(released[BASE], calibration), first, validation),
        INT8: _telling(quantize(released[SGD], calibration), both, validation),
    }


def phantoms(folder: Path, plan: UpdatePlan) -> tuple[SliceSet, SliceSet, SliceSet]:
    """Draw the phantoms: those of the first site, those of both, and those that judge."""
    cohorts = [Cohort(site, "train", plan.patients_per_class, plan.slices_per_patient) for site in _SITES]
    write_phantoms(folder, [*cohorts, _VALIDATION], seed=plan.seed)
    rows = read_labels(folder)
    taught = [row for row in rows if row.split == "train"]
    first = [row for row in taught if row.source == f"phantom-{_SITES[0]}"]
    judged = [row for row in rows if row.split == "val"]
    return load_slices(folder, first), load_slices(folder, taught), load_slices(folder, judged)


def _released(network: Network, learnt: SliceSet, validation: SliceSet) -> bytes:
    return _telling(export_onnx(network), learnt, validation)


def _telling(model: bytes, learnt: SliceSet, validation: SliceSet) -> bytes:
    return with_unlikeness(model, likeness_of(model, learnt, validation))
