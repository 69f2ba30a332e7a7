"""Parameters and multiplications of a network equal those counted by hand."""

import threading

import numpy as np
import pytest
from judging_parts import MACS, PARAMETERS, graph_bytes, tiny_onnx
from onnx import TensorProto, helper

from training.judging.cost import TimingStoppedError, UncountableError, count, time_in_turns
from training.model.reader import Calibration, OnnxReader


@pytest.mark.parametrize("quantised", [False, True])
def test_counts_of_a_network_counted_by_hand(quantised):
    """29 parameters and 294 multiply-accumulates; the map beside the logits, scales and constants do not count."""
    model = tiny_onnx(quantised=quantised)
    cost = count(model)
    assert (cost.parameters, cost.macs, cost.file_bytes) == (PARAMETERS, MACS, len(model))


def one_node(nodes, stored, shape):
    cast = helper.make_node("Cast", ["slice"], ["x"], to=TensorProto.FLOAT)
    rank = [None] * 2
    return graph_bytes([cast, *nodes], stored, {"logits": rank}, shape)


def test_grouped_convolution_multiplies_only_inside_its_groups():
    """A depthwise 3x3 over 4 channels of 8x8, stride 2: 4 x 4 x 4 outputs of 9 products."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4, strides=[2, 2], pads=[1, 1, 1, 1])
    flat = helper.make_node("Flatten", ["y"], ["logits"])
    cost = count(one_node([node, flat], {"w": np.zeros((4, 1, 3, 3), np.float32)}, ("n", 4, 8, 8)))
    assert (cost.parameters, cost.macs) == (36, 4 * 4 * 4 * 9)


def test_matmul_with_its_added_bias_is_a_linear_layer():
    """5 features to 3 classes: 15 products; 18 parameters, and a weight stored the other way round still counts."""
    turned = helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0])
    nodes = [turned, helper.make_node("MatMul", ["x", "wt"], ["y"]), helper.make_node("Add", ["y", "b"], ["logits"])]
    stored = {"w": np.zeros((3, 5), np.float32), "b": np.zeros(3, np.float32)}
    cost = count(one_node(nodes, stored, ("n", 5)))
    assert (cost.parameters, cost.macs) == (18, 15)


def test_transposed_convolution_multiplies_each_input_by_its_kernel():
    """2x2 inputs of 3 channels through 3x2x4x4 kernels: 12 inputs of 32 products."""
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    flat = helper.make_node("Flatten", ["y"], ["logits"])
    cost = count(one_node([node, flat], {"w": np.zeros((3, 2, 4, 4), np.float32)}, ("n", 3, 2, 2)))
    assert (cost.parameters, cost.macs) == (96, 12 * 32)


def test_what_cannot_be_counted_is_named():
    """An operator whose multiplications are not counted is named, and so are bytes that are no graph."""
    node = helper.make_node("MatMulInteger", ["slice", "w"], ["logits"], name="odd")
    with pytest.raises(UncountableError, match="'odd' is a MatMulInteger"):
        count(graph_bytes([node], {"w": np.zeros((5, 3), np.uint8)}, {"logits": ["n", 3]}, ("n", 5)))
    with pytest.raises(UncountableError, match="not an ONNX file"):
        count(b"\xff\xff no graph")


def test_models_are_timed_in_turns():
    """Every model has as many times as there were rounds, the least is not above the median, nor that above p90."""
    readers = {name: OnnxReader(tiny_onnx(seed), Calibration()) for seed, name in enumerate("ab")}
    heard = []
    timed = time_in_turns(readers, rounds=7, on_round=lambda done, total: heard.append((done, total)))
    assert timed.keys() == {"a", "b"}
    for latency in timed.values():
        assert latency.n == 7
        assert 0 < latency.least_ms <= latency.median_ms <= latency.p90_ms
    assert heard[-1] == (12, 12)


def test_timing_stops_when_asked():
    """A set stop event ends the timing with an error that says so."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(TimingStoppedError, match="nothing was written"):
        time_in_turns({"a": OnnxReader(tiny_onnx(), Calibration())}, stop=stop)
