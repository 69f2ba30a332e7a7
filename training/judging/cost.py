"""What a network costs: parameters and multiplications from its ONNX graph, time on this machine's CPU."""

import math
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from pydantic import BaseModel, ConfigDict

from training.model.preprocess import INPUT_PX
from training.model.reader import LOGITS, OnnxReader

ROUNDS = 50
WARM_UP_ROUNDS = 5
"""The first runs allocate memory, and a clock that is saving power takes a moment."""
_WEIGHTS_OF: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "Add": (0, 1),
    "Mul": (0, 1),
    "PRelu": (1,),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
}
"""Which inputs of a node are learnt, where they are stored; running means and variances are not."""
_ELEMENTWISE = frozenset({"Add", "Mul"})
_PASSING = frozenset({"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Through these a stored weight reaches its node; what they take beside it (scales, shapes) is not learnt."""
_UNCOUNTED = ("ConvInteger", "MatMulInteger", "QLinear", "QGemm", "Einsum", "Attention", "LSTM", "GRU")
"""Beginnings of operators that multiply, and whose multiplications we do not count."""
_CPU_INFO = Path("/proc/cpuinfo")


class UncountableError(ValueError):
    """An ONNX graph whose cost cannot be told; the message names the node."""


class TimingStoppedError(RuntimeError):
    """The stop event was set before every round was run; nothing was written."""


class Cost(BaseModel):
    """Parameters and multiply-accumulates of one slice, both only of what leads to the logits; bytes of the file."""

    model_config = ConfigDict(frozen=True)
    parameters: int
    macs: int
    file_bytes: int


class Latency(BaseModel):
    """Milliseconds a slice at batch 1 on one thread, over `n` rounds in which the models took turns."""

    model_config = ConfigDict(frozen=True)
    least_ms: float
    """What the network needs when nothing else runs."""
    median_ms: float
    p90_ms: float
    n: int


def count(model: bytes) -> Cost:
    """Count from the graph; raises `UncountableError`.

    Multiply-accumulates are those of Conv, ConvTranspose, Gemm and MatMul for a batch of 1: of a convolution, its
    output's elements times the kernel's elements times the input channels of a group. Biases, activations and pooling
    are not counted, as is usual. Parameters are the learnt numbers that those nodes, additions, multiplications and
    normalisations take; batch normalisation that the export folded into a convolution is counted as that bias.
    """
    graph = _Graph(model)
    nodes = list(graph.nodes_to(LOGITS))
    for node in nodes:
        if node.op_type.startswith(_UNCOUNTED):
            raise UncountableError(f"node '{node.name}' is a {node.op_type}, whose multiplications are not counted")
    stored = {name for node in nodes for name in graph.weights_of(node)}
    return Cost(
        parameters=sum(graph.stored[name] for name in stored),
        macs=sum(_MACS[node.op_type](graph, node) for node in nodes if node.op_type in _MACS),
        file_bytes=len(model),
    )


def time_in_turns(
    readers: Mapping[str, OnnxReader],
    rounds: int = ROUNDS,
    on_round: Callable[[int, int], None] = lambda _done, _total: None,
    stop: threading.Event | None = None,
) -> dict[str, Latency]:
    """Time one slice at a time, every model once a round, so that a busy moment of the machine hits all of them.

    Raises `TimingStoppedError`.
    """
    ramp = np.arange(INPUT_PX, dtype=np.uint8)
    slices = np.ascontiguousarray(np.broadcast_to(ramp, (1, INPUT_PX, INPUT_PX)))
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for done in range(rounds + WARM_UP_ROUNDS):
        if stop is not None and stop.is_set():
            raise TimingStoppedError(f"stopped after {done} of {rounds + WARM_UP_ROUNDS} rounds: nothing was written")
        for name, reader in readers.items():
            started = time.perf_counter()
            reader.logits(slices)
            seconds[name].append(time.perf_counter() - started)
        on_round(done + 1, rounds + WARM_UP_ROUNDS)
    return {name: _latency(np.array(taken[WARM_UP_ROUNDS:]) * 1000) for name, taken in seconds.items()}


def processor() -> str:
    """Return the CPU's name, as far as the system tells it."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


class _Graph:
    """Nodes by what they produce, sizes of stored tensors, and the shape of every value for a batch of 1."""

    def __init__(self, model: bytes) -> None:
        try:
            proto = onnx.load_model_from_string(model)
        except Exception as error:  # protobuf's error, which has no types
            raise UncountableError(f"not an ONNX file ({error})") from error
        for value in proto.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = 1
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        self.stored = {tensor.name: math.prod(tensor.dims) for tensor in inferred.initializer}
        self._producer = {output: node for node in inferred.node for output in node.output}
        self._shapes = {value.name: _dimensions(value) for value in (*inferred.value_info, *inferred.output)}
        self._shapes |= {value.name: _dimensions(value) for value in inferred.input}
        self._shapes |= {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}

    def nodes_to(self, output: str) -> Iterator[onnx.NodeProto]:
        """Yield each node that the output needs, once."""
        waiting, seen = [output], set[int]()
        while waiting:
            node = self._producer.get(waiting.pop())
            if node is not None and id(node) not in seen:
                seen.add(id(node))
                waiting += node.input
                yield node

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the value's shape; raises `UncountableError` where it is not known."""
        shape = self._shapes.get(name)
        if shape is None or 0 in shape:
            raise UncountableError(f"the shape of '{name}' cannot be inferred from the graph")
        return shape

    def weights_of(self, node: onnx.NodeProto) -> Iterator[str]:
        """Yield the names of the stored tensors that the node has learnt; a lone number added or multiplied is none."""
        fewest = 2 if node.op_type in _ELEMENTWISE else 1
        for index in _WEIGHTS_OF.get(node.op_type, ()):
            if index < len(node.input):
                name = self._origin(node.input[index])
                if self.stored.get(name, 0) >= fewest:
                    yield name

    def _origin(self, name: str) -> str:
        while name not in self.stored and name in self._producer and self._producer[name].op_type in _PASSING:
            name = self._producer[name].input[0]
        return name


def _convolution(graph: _Graph, node: onnx.NodeProto) -> int:
    kernel = graph.shape(node.input[1])
    return math.prod(graph.shape(node.output[0])) * math.prod(kernel[1:])


def _transposed_convolution(graph: _Graph, node: onnx.NodeProto) -> int:
    kernel = graph.shape(node.input[1])
    return math.prod(graph.shape(node.input[0])) * math.prod(kernel[1:])


def _gemm(graph: _Graph, node: onnx.NodeProto) -> int:
    inner = graph.shape(node.input[0])[0 if _attribute(node, "transA") else 1]
    return math.prod(graph.shape(node.output[0])) * inner


def _matmul(graph: _Graph, node: onnx.NodeProto) -> int:
    return math.prod(graph.shape(node.output[0])) * graph.shape(node.input[0])[-1]


_MACS: Mapping[str, Callable[[_Graph, onnx.NodeProto], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)


def _dimensions(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    return tuple(int(d.dim_value) for d in tensor.shape.dim) if tensor.HasField("shape") else None


def _latency(milliseconds: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Latency:
    median, p90 = np.percentile(milliseconds, (50, 90))
    least = float(milliseconds.min())
    return Latency(least_ms=least, median_ms=float(median), p90_ms=float(p90), n=len(milliseconds))
