"""What a network's file says is checked before anything runs it, and each fault has a name of its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from edge_parts import network
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_agent.structure import (
    AbsurdShapeError,
    CustomOperatorError,
    ExternalDataError,
    NotOnnxError,
    StructureError,
    StructureLimits,
    check_structure,
)

Change = Callable[[onnx.ModelProto], None]
FEW = StructureLimits(max_dimension=1000, max_values=100_000)


def changed(*changes: Change) -> bytes:
    """Return the tiny network with these changes."""
    model = onnx.load_from_string(network(fault="hang"))
    for change in changes:
        change(model)
    return bytes(model.SerializeToString())


def loop_body(model: onnx.ModelProto) -> onnx.GraphProto:
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    return next(attribute.g for attribute in loop.attribute if attribute.name == "body")


def elsewhere(tensor: onnx.TensorProto) -> onnx.TensorProto:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def some(name: str = "x") -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(3, np.float32), name)


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["made"], value=tensor)


def sparse(values: onnx.TensorProto, dims: list[int]) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.arange(3), "at"), dims)


def making(operator: str, inputs: int, at: int, sizes: list[int]) -> Change:
    """Add a node that makes a tensor of a constant size."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(sizes), "size"))
        given = ["size" if place == at else "features" for place in range(inputs)]
        model.graph.node.append(helper.make_node(operator, given, ["large"]))

    return change


def first(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.initializer[0]


EXTERNAL: dict[str, Change] = {
    "of an initializer": lambda m: m.graph.initializer.append(elsewhere(some())),
    "of an attribute": lambda m: m.graph.node.append(constant(elsewhere(some()))),
    "in a loop's body": lambda m: loop_body(m).initializer.append(elsewhere(some())),
    "of an attribute in a loop's body": lambda m: loop_body(m).node.append(constant(elsewhere(some()))),
    "of a sparse initializer": lambda m: m.graph.sparse_initializer.append(sparse(elsewhere(some()), [9])),
    "only named": lambda m: first(m).external_data.add(key="location", value="weights.bin"),
    "only marked": lambda m: setattr(first(m), "data_location", TensorProto.EXTERNAL),
}
CUSTOM: dict[str, Change] = {
    "operator": lambda m: m.graph.node.append(helper.make_node("Evil", ["slice"], ["x"], domain="com.evil")),
    "operator of another runtime": lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"),
    "operator in a loop's body": lambda m: setattr(loop_body(m).node[0], "domain", "com.evil"),
    "operator set": lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3)),
    "function": lambda m: m.functions.append(helper.make_function("", "f", [], [], [], m.opset_import)),
    "training": lambda m: m.training_info.add(),
}
ABSURD: dict[str, Change] = {
    "input": lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 10**9),
    "output": lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 2**62),
    "negative": lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", -3),
    "all dimensions": lambda m: m.graph.value_info.append(
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1000, 1000, 1000])
    ),
    "a sequence's element": lambda m: m.graph.value_info.append(
        helper.make_value_info("x", helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2**40])))
    ),
    "loop's body": lambda m: setattr(loop_body(m).input[2].type.tensor_type.shape.dim[1], "dim_value", 2**40),
    "more values than bytes": lambda m: first(m).dims.append(1000),
    "no values": lambda m: first(m).ClearField("raw_data") or first(m).dims.append(1000),
    "of no known type": lambda m: setattr(first(m), "data_type", 99),
    "negative tensor": lambda m: first(m).dims.extend([-1, -1]),
    "sparse": lambda m: m.graph.sparse_initializer.append(sparse(some(), [2**40])),
    "constant of shape": making("ConstantOfShape", 1, 0, [2**40]),
    "constant of many dimensions": making("ConstantOfShape", 1, 0, [999, 999, 999]),
    "expand": making("Expand", 2, 1, [1, 2**31]),
    "tile": making("Tile", 2, 1, [1, 2**40]),
    "range": making("Range", 3, 1, [2**40]),
    "resize": making("Resize", 4, 3, [1, 1, 2**20, 2**20]),
    "size from a constant node": lambda m: m.graph.node.extend(
        [
            constant(numpy_helper.from_array(np.array([2**40]))),
            helper.make_node("ConstantOfShape", ["made"], ["large"]),
        ]
    ),
    "size that is a word": lambda m: m.graph.node.extend(
        [
            constant(helper.make_tensor("w", TensorProto.STRING, [1], [b"much"])),
            helper.make_node("ConstantOfShape", ["made"], ["large"]),
        ]
    ),
    "random": lambda m: m.graph.node.append(helper.make_node("RandomNormal", [], ["x"], shape=[2**40])),
    "kernel": lambda m: m.graph.node.append(helper.make_node("MaxPool", ["grey"], ["x"], kernel_shape=[2**40, 1])),
}


@pytest.mark.parametrize(
    ("error", "change"),
    [
        pytest.param(error, change, id=f"{error.__name__}: {name}")
        for error, changes in ((ExternalDataError, EXTERNAL), (CustomOperatorError, CUSTOM), (AbsurdShapeError, ABSURD))
        for name, change in changes.items()
    ],
)
def test_each_fault_is_refused_by_its_name(error, change):
    """Wherever it stands: in the graph, in an attribute, in a graph inside it."""
    with pytest.raises(error):
        check_structure(changed(change), FEW)


@pytest.mark.parametrize("data", [b"", b"\x00", b"no network", b"\x08\x09", bytes(1000), network()[:-7]])
def test_what_is_no_onnx_is_refused_by_its_name(data):
    """Nothing, noise, and a file that was cut short."""
    with pytest.raises(NotOnnxError):
        check_structure(data)


@pytest.mark.parametrize("fault", ["", "dark", "hang", "index"])
def test_a_small_network_passes(fault):
    """What it says is ordinary; what it does, the trial finds."""
    check_structure(network(fault=fault))


def test_the_network_that_looks_first_passes():
    """A real network of ours, trained and exported, says nothing that is refused."""
    check_structure((Path(__file__).parents[2] / "edge_agent" / "intake" / "intake.onnx").read_bytes())


def test_graphs_that_lie_too_deep_in_each_other_are_refused():
    """The walk ends, however deep a file nests."""
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(9):
        inner = helper.make_graph(
            [helper.make_node("If", ["c"], [], then_branch=inner, else_branch=inner)], "g", [], []
        )
    with pytest.raises(AbsurdShapeError):
        check_structure(helper.make_model(inner).SerializeToString())


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6), st.integers(0, 60))
def test_whatever_the_bytes_the_answer_is_a_name(places, cut):
    """A damaged file passes, or is refused by a `StructureError`: nothing else is raised."""
    data = bytearray(network(fault="hang"))
    for place, value in places:
        data[place % len(data)] = value
    try:
        check_structure(bytes(data[: len(data) - cut]))
    except StructureError:
        return
