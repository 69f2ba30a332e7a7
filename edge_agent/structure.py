"""Refuse a network by what its file says, before anything runs it: files elsewhere, operators of others, absurd sizes.

`onnx` is imported where it is used: the agent itself never loads it, only the process in which a network is tried.
What a file does not say, a size that is computed while it runs, is for that process's bounds on memory and time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

OUR_DOMAINS = ("", "ai.onnx")
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16}
"""Of a value by TensorProto.DataType: what training gives and quantizing makes."""
_SHAPE_INPUTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Resize": (2, 3),
    "Tile": (1,),
}
"""Inputs by operator that say how large its output is."""
_SIZE_ATTRIBUTES = frozenset(
    {"shape", "kernel_shape", "pads", "strides", "dilations", "output_shape", "output_padding", "value_ints", "group"}
)
_DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


class StructureError(ValueError):
    """A network's file says something that no network of ours says."""


class NotOnnxError(StructureError):
    """The bytes are no ONNX model with a graph."""


class ExternalDataError(StructureError):
    """A tensor's values are to be read from another file."""


class CustomOperatorError(StructureError):
    """An operator, a function or an operator set that is not ONNX's own."""


class AbsurdShapeError(StructureError):
    """A size that no network of ours has, or that the file's own bytes cannot fill."""


@dataclass(frozen=True)
class StructureLimits:
    """How large a network may say that things are."""

    max_dimension: int = 2**20
    max_values: int = 2**26
    """Of one tensor; a ResNet's largest, of a 256x256 slice, has 2**20."""
    max_depth: int = 4
    """Of graphs inside graphs."""


def check_structure(model: bytes, limits: StructureLimits | None = None) -> None:
    """Raise the `StructureError` that tells why this network is not even loaded."""
    _Check(limits or StructureLimits()).model(_parsed(model))


def _parsed(model: bytes) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        parsed = onnx.load_from_string(model)
    except (DecodeError, ValueError) as error:
        raise NotOnnxError(f"the file is no ONNX model ({str(error)[:100]})") from error
    if not parsed.graph.node:
        raise NotOnnxError("the file has no graph")
    return parsed


class _Check:
    """The walk through all graphs, with what they hold constant by name."""

    def __init__(self, limits: StructureLimits) -> None:
        self._limits = limits
        self._constants: dict[str, list[onnx.TensorProto]] = {}

    def model(self, model: onnx.ModelProto) -> None:
        for opset in model.opset_import:
            _refuse_domain(opset.domain, "operator set")
        if model.functions or model.training_info:
            raise CustomOperatorError("the file brings functions, or a training of its own")
        graphs = list(self._graphs(model.graph, 0))
        for graph in graphs:
            self._graph(graph)
        for node in (node for graph in graphs for node in graph.node):
            self._sizes(node)

    def _graphs(self, graph: onnx.GraphProto, depth: int) -> Iterator[onnx.GraphProto]:
        if depth > self._limits.max_depth:
            raise AbsurdShapeError(f"graphs lie more than {self._limits.max_depth} deep in each other")
        yield graph
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from self._graphs(inner, depth + 1)

    def _graph(self, graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output, *graph.value_info):
            self._type(value.type, value.name)
        for tensor in graph.initializer:
            self._tensor(tensor)
            self._constants.setdefault(tensor.name, []).append(tensor)
        self._sparse(graph.sparse_initializer)
        for node in graph.node:
            self._node(node)

    def _node(self, node: onnx.NodeProto) -> None:
        _refuse_domain(node.domain, f"operator {node.op_type}")
        for attribute in node.attribute:
            tensors = [*((attribute.t,) if attribute.HasField("t") else ()), *attribute.tensors]
            for tensor in tensors:
                self._tensor(tensor)
            if node.op_type == "Constant" and tensors and node.output:
                self._constants.setdefault(node.output[0], []).append(tensors[0])
            sparse = [*((attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ())]
            self._sparse([*sparse, *attribute.sparse_tensors])
            if attribute.name in _SIZE_ATTRIBUTES:
                self._dimensions([*attribute.ints, attribute.i], f"{attribute.name} of {node.op_type}")
            for type_ in (*((attribute.tp,) if attribute.HasField("tp") else ()), *attribute.type_protos):
                self._type(type_, attribute.name)

    def _type(self, type_: onnx.TypeProto, name: str) -> None:
        kind = type_.WhichOneof("value")
        if kind in ("tensor_type", "sparse_tensor_type"):
            dimensions = [dim.dim_value for dim in getattr(type_, kind).shape.dim if dim.HasField("dim_value")]
            self._dimensions(dimensions, name)
            self._values(dimensions, name)
        elif kind in ("sequence_type", "optional_type"):
            self._type(getattr(type_, kind).elem_type, name)
        elif kind == "map_type":
            self._type(type_.map_type.value_type, name)

    def _tensor(self, tensor: onnx.TensorProto) -> None:
        """Check where a tensor's values are, and that they are as many as its shape says."""
        if tensor.data_location != 0 or tensor.external_data:
            raise ExternalDataError(f"the values of '{tensor.name[:80]}' are to be read from another file")
        self._dimensions(tensor.dims, tensor.name)
        self._values(tensor.dims, tensor.name)
        values = math.prod(tensor.dims)
        if tensor.raw_data:
            bits = _BITS.get(tensor.data_type)
            if bits is None or values * bits != 8 * len(tensor.raw_data):
                raise AbsurdShapeError(
                    f"'{tensor.name[:80]}' of {list(tensor.dims)[:8]} and type {tensor.data_type} has "
                    f"{len(tensor.raw_data)} bytes"
                )
        elif values > (stored := sum(len(getattr(tensor, field)) for field in _DATA_FIELDS)):
            raise AbsurdShapeError(f"'{tensor.name[:80]}' of {list(tensor.dims)[:8]} has {stored} values")

    def _sparse(self, tensors: Iterable[onnx.SparseTensorProto]) -> None:
        for tensor in tensors:
            self._tensor(tensor.values)
            self._tensor(tensor.indices)
            self._dimensions(tensor.dims, tensor.values.name)
            self._values(tensor.dims, tensor.values.name)

    def _sizes(self, node: onnx.NodeProto) -> None:
        """Check what a node that makes a tensor is told of its size, where that is constant."""
        for at in _SHAPE_INPUTS.get(node.op_type, ()):
            for tensor in self._constants.get(node.input[at], ()) if at < len(node.input) else ():
                sizes = _numbers(tensor)
                if not all(abs(size) <= self._limits.max_dimension for size in sizes):
                    raise AbsurdShapeError(f"{node.op_type} is to make {sizes[:8]}")
                if node.op_type in ("ConstantOfShape", "Expand"):
                    self._values([int(size) for size in sizes], node.op_type)

    def _dimensions(self, dimensions: Sequence[int], name: str) -> None:
        if any(not 0 <= dimension <= self._limits.max_dimension for dimension in dimensions):
            raise AbsurdShapeError(
                f"'{name[:80]}' is {list(dimensions)[:8]}; a size is from 0 to {self._limits.max_dimension:,}"
            )

    def _values(self, dimensions: Iterable[int], name: str) -> None:
        values = math.prod(dimensions)
        if values > self._limits.max_values:
            raise AbsurdShapeError(
                f"'{name[:80]}' has {values:,} values; up to {self._limits.max_values:,} are allowed"
            )


def _numbers(tensor: onnx.TensorProto) -> list[float]:
    from onnx import numpy_helper

    try:
        return [float(value) for value in numpy_helper.to_array(tensor).reshape(-1)]
    except (TypeError, ValueError) as error:
        raise AbsurdShapeError(f"'{tensor.name[:80]}' is no size ({str(error)[:100]})") from error


def _refuse_domain(domain: str, what: str) -> None:
    if domain not in OUR_DOMAINS:
        raise CustomOperatorError(f"{what} of '{domain[:80]}': only ONNX's own are allowed")
