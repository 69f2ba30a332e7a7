"""Every architecture reads the same slices and gives the same three outputs, in torch and in ONNX."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from training import vision
from training.evaluate import log_loss
from training.export import ParityError, check_parity, export_onnx, fit_temperature, is_at_bound
from training.grey_stem import with_grey_stem
from training.networks import ARCHITECTURES, UnknownArchitectureError, build, paper_variant

SLICES = np.random.default_rng(0).integers(0, 256, (3, 256, 256), dtype=np.uint8)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_exports_with_parity_and_three_outputs_for_any_batch(name):
    """What the edge runs answers as what was trained, for any number of slices, with features and a map a class."""
    torch.manual_seed(0)
    network = build(name, 72)
    data = export_onnx(network)
    assert check_parity(network, data, SLICES) < 1e-3
    assert "Resize" not in {node.op_type for node in onnx.load_from_string(data).graph.node}
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()] == [
        ("slice", "tensor(uint8)", [1, 256, 256])
    ]
    logits, features, activation_map = session.run(None, {"slice": SLICES[:1, None]})
    assert [node.name for node in session.get_outputs()] == ["logits", "features", "activation_map"]
    assert logits.shape == (1, 3) and features.ndim == 2 and activation_map.shape[:2] == (1, 3)
    assert {output.dtype for output in (logits, features, activation_map)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", [name for name, one in ARCHITECTURES.items() if one.linear_in_features])
def test_logits_are_linear_in_the_features(name):
    """A new head can be fitted on the features alone, so that only the head need travel."""
    torch.manual_seed(0)
    network = build(name, 64).eval()
    with torch.inference_mode():
        logits, features, _ = network(torch.from_numpy(SLICES[:, None]))
        head = network.head
        torch.testing.assert_close(features @ head.weight.flatten(1).T + head.bias, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("px", [64, 128, 256])
def test_reduction_is_the_area_average(px):
    """A network of a smaller side sees the mean of the pixels, as an image library would reduce them."""
    network = build("baseline_cnn", px)
    step = 256 // px
    expected = SLICES.reshape(3, px, step, px, step).mean((2, 4)) / 255
    reduced = network.reduce(torch.from_numpy(SLICES[:, None]))[:, 0].numpy()
    np.testing.assert_allclose(reduced, expected, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "resnet18", "efficientnet_lite0", "mobilenetv4_conv_small", "seed_squeezenet1_0"]
)
def test_activation_map_points_at_the_class(name):
    """The mean of a class's activation map is its logit, so that the map shows what the answer was made of."""
    torch.manual_seed(0)
    network = _with_used_normalisation(build(name, 64))
    with torch.inference_mode():
        logits, _, activation_map = network(torch.from_numpy(SLICES[:, None]))
    torch.testing.assert_close(activation_map.mean((2, 3)), logits, rtol=1e-4, atol=1e-4)


def _with_used_normalisation(network):
    """Give each batch normalisation figures that a training would leave; fresh ones hide what is done wrong."""
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.running_mean, std=0.1)
            torch.nn.init.uniform_(part.running_var, 0.5, 2)
            torch.nn.init.uniform_(part.weight, 0.5, 1)
            torch.nn.init.normal_(part.bias, std=0.1)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("squeezenet1_0", lambda: vision.models().squeezenet1_0(num_classes=3)),
        ("resnet18", lambda: vision.models().resnet18(num_classes=3)),
        ("efficientnet_lite0", lambda: vision.timm().create_model("tf_efficientnet_lite0", num_classes=3)),
        ("mobilenetv4_conv_small", lambda: vision.timm().create_model("mobilenetv4_conv_small", num_classes=3)),
    ],
)
def test_answers_as_the_library_does(name, theirs):
    """Weights made elsewhere mean here what they meant there, SqueezeNet's last ReLU aside."""
    torch.manual_seed(0)
    network = _with_used_normalisation(build(name, 64))
    plain = theirs().eval()
    plain.load_state_dict(network.net.state_dict())
    if name == "squeezenet1_0":
        plain.classifier[2] = torch.nn.Identity()
    with torch.inference_mode():
        grey = network.reduce(torch.from_numpy(SLICES[:, None]))
        torch.testing.assert_close(network.read(grey)[0], plain((grey - network.mean) / network.std))


@pytest.mark.parametrize(
    ("name", "padding"),
    [("squeezenet1_1", "none"), ("resnet18", "around"), ("efficientnet_lite0", "as TensorFlow"), ("repaired_cnn", "-")],
)
def test_grey_stem_answers_the_same(name, padding):
    """The release reads one grey channel, and answers as the network of three did, also at the slice's edge."""
    torch.manual_seed(0)
    network = _with_used_normalisation(build(name, 64))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with torch.inference_mode():
        slices = torch.from_numpy(SLICES[:, None])
        for ours, grey in zip(network(slices), with_grey_stem(network)(slices), strict=True):
            torch.testing.assert_close(ours, grey, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


def test_the_papers_baseline_has_the_papers_parameters():
    """26,203, as in the paper; the search varies kernels, maps and hidden layers."""
    assert sum(parameter.numel() for parameter in build("baseline_cnn").parameters()) == 26_203
    variant = paper_variant((2, 5), 10, (64, 32), 64)
    with torch.inference_mode():
        logits, features, activation_map = variant(torch.from_numpy(SLICES[:, None]))
    assert logits.shape == (3, 3) and features.shape == (3, 32) and activation_map.shape == (3, 3, 4, 4)


def test_the_repaired_baseline_sees_the_slice_and_its_gradient_lives():
    """One pixel of its last maps hears of more than 200 pixels across, and every weight is moved by a loss."""
    torch.manual_seed(0)
    network = build("repaired_cnn")
    grey = torch.rand(2, 1, 256, 256, requires_grad=True)
    maps = network.net.stages(grey)
    maps[:, :, 4, 4].sum().backward()
    seen = (grey.grad.abs().sum((0, 1, 2)) > 0).nonzero()
    assert seen.max() - seen.min() > 200
    torch.nn.functional.cross_entropy(network.read(torch.rand(8, 1, 256, 256))[0], torch.arange(8) % 3).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_the_seeds_squeezenet_sees_the_middle_of_the_slice():
    """The paper cut 224 of 256 pixels out of the middle: what lies outside changes nothing."""
    torch.manual_seed(0)
    network = build("seed_squeezenet1_0").eval()
    framed = SLICES[:1].copy()
    framed[:, :16] = framed[:, -16:] = 0
    framed[:, :, :16] = framed[:, :, -16:] = 255
    with torch.inference_mode():
        first, second = (network(torch.from_numpy(one[:, None]))[0] for one in (SLICES[:1], framed))
    torch.testing.assert_close(first, second)


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


def test_temperature_calibrates_and_stays_in_bounds():
    """The fitted temperature is better than its neighbours, and perfect answers do not drive it to zero."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 400)
    logits = 6 * (np.eye(3)[labels] + random.normal(0, 0.8, (400, 3)))
    temperature = fit_temperature(logits, labels)
    assert temperature > 1.5
    assert log_loss(logits, labels, temperature) <= min(log_loss(logits, labels, t) for t in (1.0, 1.5, 3.0, 5.0, 8.0))
    assert fit_temperature(np.eye(3)[labels] * 20, labels) >= 0.25


def test_a_few_slices_do_not_make_the_temperature_run_away():
    """Where every temperature is too low for log loss, 24 slices end inside the bounds; broken logits are told."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 8)
    said = np.where(random.random(24) < 0.55, labels, (labels + 1) % 3)
    logits = np.eye(3)[said] * 4 + np.array([0, 6, 0])  # sure of itself, and fond of one class
    assert log_loss(logits, labels, 50) < log_loss(logits, labels, 10)
    temperature = fit_temperature(logits, labels)
    assert 2 < temperature < 8
    assert not is_at_bound(temperature)
    assert is_at_bound(fit_temperature(np.eye(3)[(labels + 1) % 3] * 1e5, labels))


@pytest.mark.parametrize("architecture", ["efficientnet_lite0", "mobilenetv4_conv_small"])
def test_a_new_head_begins_undecided(architecture: str) -> None:
    """Before training a network gives the classes about even chances, so that its first steps are not lost."""
    torch.manual_seed(0)
    network = build(architecture, 64).train()
    logits, _, _ = network(torch.randint(0, 256, (8, 1, 256, 256), dtype=torch.uint8))
    assert logits.softmax(1).max() < 0.6
