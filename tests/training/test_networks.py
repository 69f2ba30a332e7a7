"""Every architecture reads the same slices and gives the same three outputs, in torch and in ONNX."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from training.evaluate import log_loss
from training.export import ParityError, check_parity, export_onnx, fit_temperature
from training.networks import ARCHITECTURES, UnknownArchitectureError, build

SLICES = np.random.default_rng(0).integers(0, 256, (3, 256, 256), dtype=np.uint8)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_exports_with_parity_and_three_outputs_for_any_batch(name):
    """What the edge runs answers as what was trained, for any number of slices, with features and a map a class."""
    torch.manual_seed(0)
    network = build(name, 64)
    data = export_onnx(network)
    assert check_parity(network, data, SLICES) < 1e-3
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()] == [
        ("slice", "tensor(uint8)", [1, 256, 256])
    ]
    logits, features, activation_map = session.run(None, {"slice": SLICES[:1, None]})
    assert [node.name for node in session.get_outputs()] == ["logits", "features", "activation_map"]
    assert logits.shape == (1, 3) and features.ndim == 2 and activation_map.shape[:2] == (1, 3)
    assert {output.dtype for output in (logits, features, activation_map)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_linear_in_the_features(name):
    """A new head can be fitted on the features alone, so that only the head need travel."""
    torch.manual_seed(0)
    network = build(name, 64).eval()
    with torch.inference_mode():
        logits, features, _ = network(torch.from_numpy(SLICES[:, None]))
        weight, bias = list(network.parameters())[-2:]
        torch.testing.assert_close(features @ weight.flatten(1).T + bias, logits)


@pytest.mark.parametrize("px", [64, 128, 256])
def test_reduction_is_the_area_average(px):
    """A network of a smaller side sees the mean of the pixels, as an image library would reduce them."""
    network = build("baseline_cnn", px)
    step = 256 // px
    expected = SLICES.reshape(3, px, step, px, step).mean((2, 4)) / 255
    reduced = network.reduce(torch.from_numpy(SLICES[:, None]))[:, 0].numpy()
    np.testing.assert_allclose(reduced, expected, atol=1e-6)


def test_activation_map_points_at_the_class():
    """The mean of a class's activation map is its logit, so that the map shows what the answer was made of."""
    torch.manual_seed(0)
    with torch.inference_mode():
        logits, _, activation_map = build("resnet18", 64).eval()(torch.from_numpy(SLICES[:, None]))
    torch.testing.assert_close(activation_map.mean((2, 3)), logits)


def test_exported_file_tells_nothing_of_the_machine_and_is_the_same_twice():
    """The same weights make the same file, without a path of the machine that trained."""
    network = build("baseline_cnn", 64)
    data = export_onnx(network)
    assert data == export_onnx(network)
    assert not any(node.metadata_props or node.doc_string for node in onnx.load_from_string(data).graph.node)
    assert b".py" not in data


def test_other_weights_break_parity():
    """A file that answers otherwise than the network is refused with the difference."""
    data = export_onnx(build("baseline_cnn", 64))
    with pytest.raises(ParityError, match="do not release") as caught:
        check_parity(build("baseline_cnn", 64), data, SLICES)
    assert caught.value.difference > caught.value.tolerance


def test_unknown_architecture_names_the_known_ones():
    """Who misspells an architecture reads which there are."""
    with pytest.raises(UnknownArchitectureError, match="squeezenet1_1"):
        build("squeezenet")
    with pytest.raises(ValueError, match="100 is not one of"):
        build("resnet18", 100)


def test_temperature_calibrates_and_stays_in_bounds():
    """The fitted temperature is better than its neighbours, and perfect answers do not drive it to zero."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 400)
    logits = 6 * (np.eye(3)[labels] + random.normal(0, 0.8, (400, 3)))
    temperature = fit_temperature(logits, labels)
    assert temperature > 1.5
    assert log_loss(logits, labels, temperature) <= min(log_loss(logits, labels, t) for t in (1.0, 1.5, 3.0, 5.0, 8.0))
    assert fit_temperature(np.eye(3)[labels] * 20, labels) >= 0.25
