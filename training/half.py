"""Weights stored as float16 in a released network: half the file, the same arithmetic.

The graph widens them to float32 by a Cast, which ONNX Runtime does once, as it loads: the CPU multiplies in float32.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

SMALLEST_VALUES = 1024
"""Tensors of fewer values stay float32: biases and norms are a thousandth of the file."""
TOLERANCE = 0.02
"""In logits, between such a file and torch: trained ResNets, SqueezeNets and baselines differ by 0.001 to 0.013."""
_HALF, _WIDEN = "/half", "/widen"


def with_half_weights(model: bytes) -> bytes:
    """Return the network with its large float32 initializers as float16; one that float16 cannot hold stays."""
    proto = onnx.load_from_string(model)
    graph = proto.graph
    given = {value.name for value in (*graph.input, *graph.output)}
    casts = []
    for tensor in graph.initializer:
        if tensor.name in given or (halved := _halved(tensor)) is None:
            continue
        name = tensor.name
        casts.append(widening(name))
        tensor.CopyFrom(numpy_helper.from_array(halved, name + _HALF))
    _put_first(graph, casts)
    return bytes(proto.SerializeToString(deterministic=True))


def with_full_weights(model: bytes) -> bytes:
    """Return the network with such weights as float32 again, rounded as they are."""
    proto = onnx.load_from_string(model)
    graph = proto.graph
    halves = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in halves]:
        tensor = halves[node.input[0]]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
        graph.node.remove(node)
    return bytes(proto.SerializeToString(deterministic=True))


def widening(name: str) -> onnx.NodeProto:
    """Return the node that gives a float16 initializer the name and type that other nodes know it by."""
    return helper.make_node("Cast", [name + _HALF], [name], name=name + _WIDEN, to=onnx.TensorProto.FLOAT)


def _halved(tensor: onnx.TensorProto) -> NDArray[np.float16] | None:
    if tensor.data_type != onnx.TensorProto.FLOAT or int(np.prod(tensor.dims)) < SMALLEST_VALUES:
        return None
    with np.errstate(over="ignore"):
        halved = numpy_helper.to_array(tensor).astype(np.float16)
    return halved if np.isfinite(halved).all() else None


def _put_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])
