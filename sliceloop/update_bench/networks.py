"""Real networks for the behaviour bench: trained, spoilt in their last layer, and what they say of slices."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from protocol.labels import LABELS, Label
from sliceloop.update_bench.kinds import Match
from training.data.dataset import load_split, open_dataset
from training.data.phantom import SITES, Cohort, write_phantoms
from training.data.slices import SliceSet
from training.export import export_onnx
from training.model.reader import Calibration, OnnxReader, Reading
from training.networks import Network, build
from training.plan import TrainSettings
from training.train import train

TRAIN_PATIENTS, VALIDATION_PATIENTS, JUDGED_PATIENTS = 40, 10, 40
"""Of each class and site."""
SLICES_EACH = 2
FINE_TUNE_RATE = 5e-4
FARTHEST = 50.0
"""Added to a logit, it outweighs all others."""

Splits = tuple[SliceSet, SliceSet, SliceSet]
"""To learn from, to choose the epoch by, and to be read."""

INCUMBENT, HALF_TAUGHT = "incumbent", "half-taught"
MATCHES = (
    Match("bias: always Normal", False, "bias: always Normal", INCUMBENT),
    Match("bias: always COVID-19", False, "bias: always COVID-19", INCUMBENT),
    Match("bias: never COVID-19", False, "bias: never COVID-19", INCUMBENT),
    Match("each label another", False, "each label another", INCUMBENT),
    Match("findings exchanged", False, "findings exchanged", INCUMBENT),
    Match("untrained", False, "untrained", INCUMBENT),
    Match("trained anew", True, "trained anew", INCUMBENT),
    Match("fine-tuned", True, "fine-tuned", INCUMBENT),
    Match("beside one taught half as long", True, INCUMBENT, HALF_TAUGHT),
)


@dataclass(frozen=True)
class NetworksPlan:
    """How the networks are made; the defaults take some minutes on one core."""

    architecture: str = "squeezenet1_1_bn"
    input_px: int = 64
    epochs: int = 40
    early_epochs: int = 20
    """Of the one that is taught half as long."""
    fine_tune_epochs: int = 4
    seed: int = 0


class Answers(BaseModel):
    """What each network says of the same slices, what these truly are, and whose."""

    model_config = ConfigDict(frozen=True)
    data: str
    plan: NetworksPlan
    by_network: dict[str, tuple[Reading, ...]]
    truth: tuple[Label, ...]
    patients: tuple[str, ...]


def answers_of_networks(
    data: str, splits: Splits, plan: NetworksPlan, on_network: Callable[[str], None] = lambda _: None
) -> Answers:
    """Train, and read the slices of further patients with every network."""
    learnt, chosen_by, judged = splits
    said: dict[str, tuple[Reading, ...]] = {}
    for name, network in _networks(learnt, chosen_by, plan):
        on_network(name)
        reader = OnnxReader(export_onnx(network.cpu()), Calibration())
        said[name] = tuple(reader.read(pixels) for pixels in judged.pixels[slice(None)])
    truth = tuple(LABELS[label] for label in judged.labels)
    return Answers(data=data, plan=plan, by_network=said, truth=truth, patients=judged.patients)


def data_name(folder: Path, exclude_sources: Sequence[str] = ()) -> str:
    """Name a data set, and what is left out of it."""
    return f"{folder.name} without {', '.join(exclude_sources)}" if exclude_sources else folder.name


def splits_of(folder: Path, exclude_sources: Sequence[str] = ()) -> Splits:
    """Load a labelled data set with the splits train, val and test; raises what `load_split` raises."""
    dataset = open_dataset(folder).without_sources(exclude_sources)
    return load_split(dataset, "train"), load_split(dataset, "val"), load_split(dataset, "test")


def phantom_splits(folder: Path, seed: int) -> Splits:
    """Draw phantoms of every site."""
    sites = sorted(SITES)
    cohorts = [Cohort(site, "train", TRAIN_PATIENTS, SLICES_EACH) for site in sites]
    cohorts += [Cohort(site, "val", VALIDATION_PATIENTS, SLICES_EACH) for site in sites]
    cohorts += [Cohort(site, "test", JUDGED_PATIENTS, SLICES_EACH) for site in sites]
    write_phantoms(folder, cohorts, seed)
    return splits_of(folder)


def _networks(learnt: SliceSet, validation: SliceSet, plan: NetworksPlan) -> Iterator[tuple[str, Network]]:
    usual = TrainSettings(epochs=plan.epochs, augment=0.5, seed=plan.seed)
    incumbent = _trained(learnt, validation, usual, plan)
    yield INCUMBENT, incumbent
    yield "trained anew", _trained(learnt, validation, usual.model_copy(update={"seed": plan.seed + 1}), plan)
    early = usual.model_copy(update={"epochs": plan.early_epochs, "seed": plan.seed + 3})
    yield HALF_TAUGHT, _trained(learnt, validation, early, plan)
    tuning = TrainSettings(epochs=plan.fine_tune_epochs, learning_rate=FINE_TUNE_RATE, seed=plan.seed + 2)
    yield "fine-tuned", train(copy.deepcopy(incumbent), learnt, validation, tuning).network
    yield "bias: always Normal", _biased(incumbent, Label.NORMAL, FARTHEST)
    yield "bias: always COVID-19", _biased(incumbent, Label.COVID_19, FARTHEST)
    yield "bias: never COVID-19", _biased(incumbent, Label.COVID_19, -FARTHEST)
    yield "each label another", _with_head(incumbent, lambda rows: rows.roll(1, 0))
    yield "findings exchanged", _with_head(incumbent, lambda rows: rows[[0, 2, 1]])
    yield "untrained", _untrained(plan)


def _trained(learnt: SliceSet, validation: SliceSet, settings: TrainSettings, plan: NetworksPlan) -> Network:
    torch.manual_seed(settings.seed)
    return train(build(plan.architecture, plan.input_px), learnt, validation, settings).network


def _untrained(plan: NetworksPlan) -> Network:
    torch.manual_seed(plan.seed)
    return build(plan.architecture, plan.input_px).eval()


def _biased(network: Network, label: Label, by: float) -> Network:
    spoilt = copy.deepcopy(network)
    with torch.no_grad():
        spoilt.head.get_parameter("bias")[LABELS.index(label)] += by
    return spoilt


def _with_head(network: Network, change: Callable[[Tensor], Tensor]) -> Network:
    spoilt = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in spoilt.head.parameters():
            parameter.copy_(change(parameter.clone()))
    return spoilt
