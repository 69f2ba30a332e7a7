"""A network whose weights are stored as float16 is half the file and reads as before."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from protocol.manifest import MODEL_FILE
from training.bundle import read_bundle, write_bundle
from training.export import PARITY_TOLERANCE, ParityError, check_parity, export_onnx
from training.half import SMALLEST_VALUES, TOLERANCE, with_full_weights, with_half_weights
from training.judging.cost import count
from training.layout import stored_tensors
from training.learn import learn
from training.model.reader import Calibration, OnnxReader
from training.networks import build
from training.plan import TrainSettings
from training.quantize import quantize


@pytest.fixture(scope="module")
def learnt(toy):
    """A small network that learnt for two epochs, as a float16 bundle."""
    torch.manual_seed(0)
    slices = toy(12), toy(6, name="v", seed=1)
    settings = TrainSettings(epochs=2, batch=12, half=True)
    return learn(build("squeezenet1_1_bn", 64), *slices, settings, on_epoch=lambda _: None), slices[1]


@pytest.mark.parametrize("architecture", ["squeezenet1_1_bn", "squeezenet1_1_evened", "resnet18", "repaired_cnn"])
def test_every_kind_of_network_answers_as_torch_does(architecture, toy):
    """Within the tolerance, at half the size, with the file the same each time, and again when halved twice."""
    torch.manual_seed(0)
    network = build(architecture, 64)
    full = export_onnx(network)
    half = with_half_weights(full)
    assert check_parity(network, half, toy(3).pixels, TOLERANCE) <= TOLERANCE
    assert len(half) < 0.55 * len(full)
    assert with_half_weights(full) == half == with_half_weights(half)
    assert count(half).parameters == count(full).parameters


def test_large_tensors_are_halved_and_small_ones_stay():
    """In the file large weights lie as raw float16, and nothing else was touched."""
    full = export_onnx(build("squeezenet1_1", 64))
    before = {tensor.name: tensor for tensor in stored_tensors(full)}
    after = {tensor.name.removesuffix("/half"): tensor for tensor in stored_tensors(with_half_weights(full))}
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        large = before[name].data_type == onnx.TensorProto.FLOAT and before[name].length >= 4 * SMALLEST_VALUES
        assert (tensor.data_type == onnx.TensorProto.FLOAT16) == large
        assert tensor.length * (1 + large) == before[name].length


def test_a_tensor_that_float16_cannot_hold_stays_whole():
    """An infinite weight would be no rounding."""
    tensor = numpy_helper.from_array(np.full(2 * SMALLEST_VALUES, 1e6, np.float32), "huge")
    value = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [2 * SMALLEST_VALUES])
    graph = helper.make_graph([helper.make_node("Identity", ["huge"], ["out"])], "g", [], [value], [tensor])
    model = helper.make_model(graph).SerializeToString(deterministic=True)
    assert with_half_weights(model) == model


def test_widened_again_the_network_answers_the_same():
    """Quantization, which wants plain weights, starts from the very numbers that were read with."""
    half = with_half_weights(export_onnx(build("squeezenet1_1", 64)))
    slices = np.random.default_rng(0).integers(0, 256, (2, 256, 256), np.uint8)
    one, other = (OnnxReader(model, Calibration()).logits(slices) for model in (half, with_full_weights(half)))
    assert np.array_equal(one, other)


def test_a_training_leaves_such_a_file_where_it_is_asked_to(learnt, tmp_path):
    """The bundle is half the size, tells what it differs from torch by, and how unlike a slice is."""
    bundle, validation = learnt
    halved = [t for t in stored_tensors(bundle.model) if t.data_type == onnx.TensorProto.FLOAT16]
    assert sum(t.length for t in halved) > 0.8 * len(bundle.model)
    assert bundle.report.parity_difference <= TOLERANCE
    assert bundle.report.settings["half"] is True
    assert OnnxReader(bundle.model, Calibration()).read(validation.pixels[0]).unlikeness is not None
    write_bundle(tmp_path, bundle)
    assert read_bundle(tmp_path).model == (tmp_path / MODEL_FILE).read_bytes() == bundle.model


def test_a_float16_network_becomes_int8(learnt):
    """Quantizing it gives int8 weights, and no float16 beside them but the unlikeness's."""
    bundle, validation = learnt
    tensors = stored_tensors(quantize(bundle.model, validation.pixels))
    assert sum(t.length for t in tensors if t.data_type == onnx.TensorProto.INT8) > 0.8 * sum(t.length for t in tensors)
    assert not [t for t in tensors if t.data_type == onnx.TensorProto.FLOAT16]


def test_a_broken_half_network_is_not_released():
    """The tolerance is wider than float32's, and still one."""
    network = build("squeezenet1_1", 64)
    half = with_half_weights(export_onnx(network))
    assert TOLERANCE > PARITY_TOLERANCE
    with torch.no_grad():
        network.head.bias += 0.1
    with pytest.raises(ParityError):
        check_parity(network, half, np.zeros((1, 256, 256), np.uint8), TOLERANCE)
