"""Real networks for the behaviour bench: trained on phantoms, spoilt in their last layer, and what they say."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
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

ARCHITECTURE, INPUT_PX = "squeezenet1_1_bn", 64
TRAIN_PATIENTS, VALIDATION_PATIENTS, JUDGED_PATIENTS = 40, 10, 40
"""Of each class and site."""
SLICES_EACH = 2
EPOCHS, EARLY_EPOCHS, FINE_TUNE_EPOCHS = 40, 20, 4
FINE_TUNE_RATE = 5e-4
FARTHEST = 50.0
"""Added to a logit, it outweighs all others."""

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
class Answers:
    """What each network says of the same slices, and what these truly are."""

    by_network: Mapping[str, Sequence[Reading]]
    truth: tuple[Label, ...]


def answers_of_networks(folder: Path, seed: int, on_network: Callable[[str], None] = lambda _: None) -> Answers:
    """Train on phantoms (some minutes on one core), and read the slices of further patients with every network."""
    learnt, chosen_by, judged = _phantoms(folder, seed)
    said: dict[str, Sequence[Reading]] = {}
    for name, network in _networks(learnt, chosen_by, seed):
        on_network(name)
        reader = OnnxReader(export_onnx(network), Calibration())
        said[name] = [reader.read(pixels) for pixels in judged.pixels[slice(None)]]
    return Answers(said, tuple(LABELS[label] for label in judged.labels))


def _phantoms(folder: Path, seed: int) -> tuple[SliceSet, SliceSet, SliceSet]:
    sites = sorted(SITES)
    cohorts = [Cohort(site, "train", TRAIN_PATIENTS, SLICES_EACH) for site in sites]
    cohorts += [Cohort(site, "val", VALIDATION_PATIENTS, SLICES_EACH) for site in sites]
    cohorts += [Cohort(site, "test", JUDGED_PATIENTS, SLICES_EACH) for site in sites]
    write_phantoms(folder, cohorts, seed)
    dataset = open_dataset(folder)
    return load_split(dataset, "train"), load_split(dataset, "val"), load_split(dataset, "test")


def _networks(learnt: SliceSet, validation: SliceSet, seed: int) -> Iterator[tuple[str, Network]]:
    incumbent = _trained(learnt, validation, TrainSettings(epochs=EPOCHS, augment=0.5, seed=seed))
    yield INCUMBENT, incumbent
    yield "trained anew", _trained(learnt, validation, TrainSettings(epochs=EPOCHS, augment=0.5, seed=seed + 1))
    yield HALF_TAUGHT, _trained(learnt, validation, TrainSettings(epochs=EARLY_EPOCHS, augment=0.5, seed=seed + 3))
    tuning = TrainSettings(epochs=FINE_TUNE_EPOCHS, learning_rate=FINE_TUNE_RATE, seed=seed + 2)
    yield "fine-tuned", train(copy.deepcopy(incumbent), learnt, validation, tuning).network
    yield "bias: always Normal", _biased(incumbent, Label.NORMAL, FARTHEST)
    yield "bias: always COVID-19", _biased(incumbent, Label.COVID_19, FARTHEST)
    yield "bias: never COVID-19", _biased(incumbent, Label.COVID_19, -FARTHEST)
    yield "each label another", _with_head(incumbent, lambda rows: rows.roll(1, 0))
    yield "findings exchanged", _with_head(incumbent, lambda rows: rows[[0, 2, 1]])
    yield "untrained", _untrained(seed)


def _trained(learnt: SliceSet, validation: SliceSet, settings: TrainSettings) -> Network:
    torch.manual_seed(settings.seed)
    return train(build(ARCHITECTURE, INPUT_PX), learnt, validation, settings).network


def _untrained(seed: int) -> Network:
    torch.manual_seed(seed)
    return build(ARCHITECTURE, INPUT_PX).eval()


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
