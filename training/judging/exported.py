"""Weights from elsewhere as the ONNX file that would be released of them; the only part of judging that needs torch."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from protocol.labels import LABELS
from training.checkpoint import CheckpointError, Provenance, metadata_of, read_bytes, unpack
from training.export import check_parity, export_onnx
from training.judging.subject import SubjectError
from training.model.preprocess import INPUT_PX
from training.networks import ARCHITECTURES
from training.weights import load_network, papers_architecture, parse_class_order, read_weights

_PARITY_SLICES = 4


class Told(NamedTuple):
    """What a weights file tells of itself; `learnt` is None unless it is a checkpoint of ours."""

    architecture: str | None
    input_px: int = INPUT_PX
    learnt: Provenance | None = None


def told_of(path: Path) -> Told:
    """Return what a weights file tells of itself; raises `CheckpointError` for one of ours that cannot be used."""
    data = read_bytes(path)
    try:
        unpack(data)
    except CheckpointError:
        return Told(papers_architecture(path))
    told = metadata_of(data)
    return Told(told.architecture, told.input_px, told.provenance)


def export_weights(path: Path, architecture: str, input_px: int, labels: str | None) -> bytes:
    """Return the ONNX bytes of a weights file; `labels` names the classes in the order of its outputs.

    Raises `SubjectError` for weights that tell other classes, what loading raises, and `ParityError`.
    """
    order = None if labels is None else parse_class_order(labels)
    network = load_network(str(path), architecture, input_px, labels=order)
    _refuse_other_classes(path, architecture)
    model = export_onnx(network)
    check_parity(network, model, _noise())
    return model


def _refuse_other_classes(path: Path, architecture: str) -> None:
    """Refuse a head that loading would have replaced by an untrained one, whose answers are noise."""
    data = path.read_bytes()
    try:
        unpack(data)  # a checkpoint of ours tells our classes
    except CheckpointError:
        classes = read_weights(data, path.name)[f"{ARCHITECTURES[architecture].head}.weight"].shape[0]
        if classes != len(LABELS):
            raise SubjectError(
                f"{path} tells {classes} classes, not {', '.join(LABELS)}: train it first, there is nothing to judge"
            ) from None


def _noise() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    shape = (_PARITY_SLICES, INPUT_PX, INPUT_PX)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
