"""How unlike a slice is to what a network learnt from: a distance in its features, written into the released graph.

The features of the training slices span a few directions; a slice is measured by how far it lies along them (in
deviations) and by how much of it they do not hold. Both are divided by what validation slices, of patients that taught
nothing, stay below, so that 1 is the border. After Lee et al. 2018 (Mahalanobis distance) and Ndiour et al. 2020
(reconstruction error of a subspace). It is measured on the file's own features: those of an int8 network are others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from training.data.slices import SliceSet
from training.model.reader import FEATURES, UNLIKENESS, Calibration, OnnxReader

DIRECTIONS = 48
"""At most; with fewer, slices leave more behind, with many more, the last ones hold noise."""
BORDER_QUANTILE = 0.99
LEARNT_SLICES = 4096
"""As many training slices, evenly spread, describe what was learnt; more take time and change nothing."""
_LEAST_SHARE = 1e-3
"""Of the features' size: of what varies less, rounding is too much."""
_LEAST_SIZE = 1e-6
"""Of features that are dead."""
_BATCH = 32

Features = NDArray[np.float32]
"""float32 [n, f]."""


@dataclass(frozen=True)
class Likeness:
    """The training features [n, f] in a few numbers: mean [f], directions [f, k], deviations [k], and two borders."""

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    deviations: NDArray[np.float32]
    border_along: float
    border_aside: float

    def parts(self, features: Features) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return for features [n, f] the way along the directions, in deviations, and the length that they leave."""
        centred = features - self.mean
        places = centred @ self.directions
        left = centred - places @ self.directions.T
        return _length(places / self.deviations), _length(left)

    def unlikeness(self, features: Features) -> NDArray[np.float32]:
        """Return for features [n, f] how unlike each slice is, from 0; above 1 it lies beyond the border."""
        along, aside = self.parts(features)
        return np.asarray(np.maximum(along / self.border_along, aside / self.border_aside), np.float32)


def likeness_of(model: bytes, learnt: SliceSet, judged: SliceSet, *, threads: int = 1) -> Likeness:
    """Describe what an ONNX network learnt from by its features of training slices; validation's set the borders."""
    spread = np.linspace(0, len(learnt) - 1, min(len(learnt), LEARNT_SLICES)).round().astype(np.intp)
    reader = OnnxReader(model, Calibration(), threads=threads)
    with threadpool_limits(threads):  # the same threads, the same bits
        return fit_likeness(*(_features(reader, slices) for slices in (learnt.select(spread), judged)))


def fit_likeness(learnt: Features, judged: Features) -> Likeness:
    """Describe the features [n, f] of training slices; the borders are set by those of validation slices."""
    mean = learnt.mean(0)
    least = max(_LEAST_SHARE * float(np.sqrt(np.square(learnt).mean())), _LEAST_SIZE)
    _, singular, directions = np.linalg.svd(learnt - mean, full_matrices=False)
    deviations = singular / max(len(learnt) - 1, 1) ** 0.5
    kept = max(1, min(DIRECTIONS, int((deviations > least).sum())))
    halved = directions[:kept].T.astype(np.float16).astype(np.float32)  # as the file stores them
    unscaled = Likeness(mean, halved, np.maximum(deviations[:kept], least), 1.0, 1.0)
    along, aside = (float(np.quantile(part, BORDER_QUANTILE)) for part in unscaled.parts(judged))
    return Likeness(mean, unscaled.directions, unscaled.deviations, max(along, _LEAST_SHARE), max(aside, least))


def with_unlikeness(model: bytes, likeness: Likeness) -> bytes:
    """Return the ONNX network with the output "unlikeness" float32 [n], in place of one that it may have."""
    proto = onnx.load_from_string(model)
    graph = proto.graph
    for parts in (graph.node, graph.initializer, graph.output, graph.value_info):
        for part in [part for part in parts if _is_of_unlikeness(part)]:
            parts.remove(part)
    graph.node.extend(_nodes())
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in _constants(likeness).items())
    graph.output.append(helper.make_tensor_value_info(UNLIKENESS, onnx.TensorProto.FLOAT, [_batch_of(graph)]))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _nodes() -> list[onnx.NodeProto]:
    """Return the distance in operators that every runtime has; the roots of the means are in the constants."""
    steps: tuple[tuple[str, tuple[str, ...], str, dict[str, Any]], ...] = (
        ("Cast", ("~directions/half",), "~directions", {"to": onnx.TensorProto.FLOAT}),
        ("Sub", (FEATURES, "~mean"), "~centred", {}),
        ("MatMul", ("~centred", "~directions"), "~places", {}),
        ("Gemm", ("~places", "~directions"), "~held", {"transB": 1}),
        ("Sub", ("~centred", "~held"), "~left", {}),
        ("Div", ("~places", "~along_border"), "~along_shares", {}),
        ("Div", ("~left", "~aside_border"), "~aside_shares", {}),
        ("ReduceL2", ("~along_shares", "~axes"), "~along", {"keepdims": 0}),
        ("ReduceL2", ("~aside_shares", "~axes"), "~aside", {"keepdims": 0}),
        ("Max", ("~along", "~aside"), UNLIKENESS, {}),
    )
    return [
        helper.make_node(kind, [_named(name) for name in given], [_named(made)], name=_named(made), **how)
        for kind, given, made, how in steps
    ]


def _constants(likeness: Likeness) -> dict[str, NDArray[np.generic]]:
    """Return the formula's tensors; the directions, new with every retraining, are most of what a new head moves."""
    features, directions = likeness.directions.shape
    named = {
        "~mean": likeness.mean,
        "~along_border": likeness.deviations * directions**0.5 * likeness.border_along,
        "~aside_border": np.array(features**0.5 * likeness.border_aside),
    }
    stored = {_named(name): np.ascontiguousarray(value, np.float32) for name, value in named.items()}
    halved = np.ascontiguousarray(likeness.directions, np.float16)
    return {**stored, _named("~directions/half"): halved, _named("~axes"): np.array([1])}


def _named(name: str) -> str:
    return name.replace("~", f"{UNLIKENESS}/")


def _is_of_unlikeness(part: onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto) -> bool:
    names = part.output if isinstance(part, onnx.NodeProto) else [part.name]
    return any(name.split("/")[0] == UNLIKENESS for name in names)


def _batch_of(graph: onnx.GraphProto) -> str:
    return str(graph.input[0].type.tensor_type.shape.dim[0].dim_param)


def _features(reader: OnnxReader, slices: SliceSet) -> Features:
    starts = range(0, len(slices), _BATCH)
    return np.concatenate([reader.features(slices.pixels[start : start + _BATCH]) for start in starts])


def _length(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the root of the mean square of each row."""
    return np.asarray(np.sqrt(np.square(vectors).mean(1)), np.float32)
