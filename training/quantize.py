"""Turn a float ONNX network of ours into int8, calibrated on training slices, and prove that it still reads as well."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from pydantic import BaseModel, ConfigDict

from protocol.labels import LABELS
from training.data.slices import LabelledSlice, Pixels
from training.evaluate import balanced_accuracy
from training.export import without_traces
from training.half import with_full_weights
from training.model.reader import INPUT_NAME

CALIBRATION_SLICES = 192
MAX_FALL = 0.01
"""Of balanced accuracy, 0..1: one point (issue 3)."""
_BATCH = 16
_QUANTIZED = ("Conv", "MaxPool", "Concat", "Add", "Clip", "Relu")
"""Convolutions, and what hands their int8 on."""
_WITH_BIAS = 3
"""Inputs of such a convolution: slices, weights, bias."""
_ROUNDING = 1e-9
"""A fall of exactly MAX_FALL is allowed, however its two figures were rounded."""


class AlreadyQuantizedError(ValueError):
    """The network is int8 as it is."""


class AccuracyFallError(ValueError):
    """The int8 network reads worse than the float one: `before` and `after` are balanced accuracies, 0..1."""

    def __init__(self, before: float, after: float) -> None:
        super().__init__(
            f"int8 has balanced accuracy {after:.3f} on validation, float32 {before:.3f}: it falls by "
            f"{100 * (before - after):.1f} points (allowed {100 * MAX_FALL:.0f}); nothing written. "
            "Release the float32 network, or make another one int8: some stand it better"
        )
        self.before = before
        self.after = after


class Agreement(BaseModel):
    """How alike two networks answer the same slices."""

    model_config = ConfigDict(frozen=True)
    n_slices: int
    largest_difference: float
    """In logits."""
    mean_difference: float
    """In logits."""
    same_answer: float
    """Share of the slices, 0..1."""

    def __str__(self) -> str:
        return (
            f"logits differ by up to {self.largest_difference:.3g} (mean {self.mean_difference:.2g}), "
            f"same answer on {100 * self.same_answer:.1f} % of {self.n_slices} slices"
        )


def quantize(model: bytes, calibration: Pixels) -> bytes:
    """Return the network with int8 convolutions; its input and its outputs stay as they are.

    `model` is what `export_onnx` gives; the ranges come from slices uint8 [n, 256, 256] of the training split.
    Weights have 7 bits, by channel: with 8, two products together exceed the 16 bits in which CPUs without VNNI add
    them, and the answers go wrong there alone. The preparation and the last layers, a thousandth of the work, stay
    float. Raises `AlreadyQuantizedError`.
    """
    refuse_quantized(model)
    model = with_full_weights(model)
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / name for name in ("source.onnx", "float.onnx", "int8.onnx"))
        source.write_bytes(model)
        quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_kept_float(onnx.load(prepared).graph),
        )
        float_model, int8_model = onnx.load(prepared), onnx.load(target)
    _correct_biases(float_model, int8_model, calibration)
    _store_weights_once(int8_model.graph)
    onnx.checker.check_model(int8_model)
    return without_traces(int8_model)


def calibration_rows(
    rows: Sequence[LabelledSlice], n: int = CALIBRATION_SLICES, seed: int = 0
) -> tuple[LabelledSlice, ...]:
    """Draw up to n of the rows, one of each class and source in turn, so that rare ones widen the ranges too."""
    random = np.random.default_rng(seed)
    strata: dict[tuple[str, str], list[LabelledSlice]] = defaultdict(list)
    for at in random.permutation(len(rows)):
        strata[rows[at].label, rows[at].source].append(rows[at])
    turns = chain.from_iterable(zip_longest(*(strata[key] for key in sorted(strata))))
    return tuple(row for row in turns if row is not None)[:n]


def refuse_quantized(model: bytes) -> None:
    """Raise `AlreadyQuantizedError` for a network that is int8."""
    if any(node.op_type == "QuantizeLinear" for node in onnx.load_from_string(model).graph.node):
        raise AlreadyQuantizedError("the network is int8 already: give the bundle that it was made of")


def agreement(first: NDArray[np.floating], second: NDArray[np.floating]) -> Agreement:
    """Compare two networks' logits [n, 3] on the same slices."""
    difference = np.abs(first - second)
    return Agreement(
        n_slices=len(first),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        same_answer=float((first.argmax(1) == second.argmax(1)).mean()),
    )


def refuse_fall(before: NDArray[np.floating], after: NDArray[np.floating], labels: NDArray[np.int64]) -> None:
    """Raise `AccuracyFallError` where logits [n, 3] `after` are worse than `before` by more than MAX_FALL."""
    was, is_now = balanced_accuracy(before, labels), balanced_accuracy(after, labels)
    if was - is_now > MAX_FALL + _ROUNDING:
        raise AccuracyFallError(was, is_now)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Gives the calibrator the slices in batches."""

    def __init__(self, slices: Pixels) -> None:
        self._batches = _batches(slices)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)


def _batches(slices: Pixels) -> Iterator[dict[str, NDArray[np.uint8]]]:
    for start in range(0, len(slices), _BATCH):
        yield {INPUT_NAME: slices[start : start + _BATCH][:, None]}


def _kept_float(graph: onnx.GraphProto) -> list[str]:
    """Name the nodes before the first convolution, and the convolutions that give the classes' maps."""
    first = next(at for at, node in enumerate(graph.node) if node.op_type == "Conv")
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    last = [node for node in _convolutions(graph) if weights[node.input[1]][0] == len(LABELS)]
    return [node.name for node in (*graph.node[:first], *last)]


def _correct_biases(float_model: onnx.ModelProto, int8_model: onnx.ModelProto, slices: Pixels) -> None:
    """Take out of each bias what rounding the weights adds to a convolution's mean output.

    That is the error of the weights times the mean input (Nagel et al. 2019, Data-free quantization through weight
    equalization and bias correction, 4.2): it costs nothing at the edge, and it is most of the loss of networks with
    depthwise convolutions.
    """
    means = _mean_inputs(float_model, slices)
    exact = {tensor.name: tensor for tensor in float_model.graph.initializer}
    before = {node.name: node for node in _convolutions(float_model.graph)}
    stored = {tensor.name: tensor for tensor in int8_model.graph.initializer}
    dequantized = _dequantized(int8_model.graph)
    for node in _convolutions(int8_model.graph):
        if node.input[1] not in dequantized or len(node.input) < _WITH_BIAS:
            continue
        weights, scales = (numpy_helper.to_array(stored[name]) for name in dequantized[node.input[1]].input[:2])
        error = weights * scales.reshape(-1, 1, 1, 1) - numpy_helper.to_array(exact[before[node.name].input[1]])
        bias, bias_scales = (stored[name] for name in dequantized[node.input[2]].input[:2])
        shift = _mean_output(error, means[before[node.name].input[0]]) / numpy_helper.to_array(bias_scales)
        corrected = (numpy_helper.to_array(bias) - shift.round()).astype(np.int32)
        bias.CopyFrom(numpy_helper.from_array(corrected, bias.name))


def _mean_inputs(model: onnx.ModelProto, slices: Pixels) -> dict[str, NDArray[np.float64]]:
    """Return the mean over slices and positions of each channel [c] that a convolution is given, by tensor name."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    inputs = sorted({node.input[0] for node in _convolutions(watched.graph)})
    axes = numpy_helper.from_array(np.array([2, 3]), "mean_input_axes")
    watched.graph.initializer.append(axes)
    for name in inputs:
        mean = onnx.helper.make_node("ReduceMean", [name, axes.name], [f"{name}/mean_input"], keepdims=0)
        watched.graph.node.append(mean)
        watched.graph.output.append(onnx.helper.make_tensor_value_info(mean.output[0], onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [session.run([f"{name}/mean_input" for name in inputs], batch) for batch in _batches(slices)]
    return {name: np.concatenate([run[at] for run in runs]).mean(0) for at, name in enumerate(inputs)}


def _mean_output(kernels: NDArray[np.floating], channels: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return what kernels [out, in / groups, h, w] make of a constant picture of these channels [in]: [out]."""
    by_channel = kernels.sum((2, 3))
    groups = len(channels) // by_channel.shape[1]
    seen = channels.reshape(groups, -1).repeat(len(kernels) // groups, axis=0)
    return np.asarray((by_channel * seen).sum(1))


def _store_weights_once(graph: onnx.GraphProto) -> None:
    """Let float nodes that share a convolution's weights read its int8 ones; the float copy falls away."""
    by_float_name = {name.removesuffix("_DequantizeLinear_Output"): name for name in _dequantized(graph)}
    shared = {tensor.name for tensor in graph.initializer} & by_float_name.keys()
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in shared and node.op_type != "QuantizeLinear":
                node.input[at] = by_float_name[name]
    for tensor in [tensor for tensor in graph.initializer if tensor.name in shared]:
        graph.initializer.remove(tensor)


def _convolutions(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == "Conv"]


def _dequantized(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Return the nodes that turn stored integers into floats, by their output's name."""
    stored = {tensor.name for tensor in graph.initializer}
    return {
        node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }
