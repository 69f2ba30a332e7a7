"""A checkpoint comes back as it was, or is refused by name."""

import hashlib
import json

import pytest
import torch

from training.checkpoint import (
    CheckpointError,
    Provenance,
    dumps,
    load_checkpoint,
    loads,
    save_checkpoint,
)
from training.networks import build


def test_weights_and_story_survive(tmp_path):
    """A network and where it comes from are the same after a file, and the same twice in bytes."""
    network = build("squeezenet1_1_bn", 64).to(memory_format=torch.channels_last)
    provenance = Provenance(seed=3, data_sha256="ab", commit="cd", site="a")
    save_checkpoint(tmp_path / "deep" / "net.safetensors", network, provenance)
    again, metadata = load_checkpoint(tmp_path / "deep" / "net.safetensors", architecture="squeezenet1_1_bn")
    assert (metadata.architecture, metadata.input_px, metadata.provenance) == ("squeezenet1_1_bn", 64, provenance)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in network.state_dict().items())
    assert dumps(again, provenance) == dumps(network, provenance)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["net.json", "net.safetensors"]


def test_story_lies_beside_the_weights(tmp_path):
    """The JSON file beside a checkpoint says where its weights come from, for people, and whose story it is."""
    provenance = Provenance(seed=3, data_sha256="ab", commit=None, leaked_patients=2, settings={"epochs": 5})
    save_checkpoint(tmp_path / "net.safetensors", build("baseline_cnn", 64), provenance)
    told = json.loads((tmp_path / "net.json").read_text())
    assert told["architecture"] == "baseline_cnn"
    assert told["provenance"] == provenance.model_dump(mode="json")
    assert told["sha256"] == hashlib.sha256((tmp_path / "net.safetensors").read_bytes()).hexdigest()


def test_another_architecture_is_refused():
    """Who asks for one network and gets another reads which is which."""
    with pytest.raises(CheckpointError, match="is a baseline_cnn, not a resnet18"):
        loads(dumps(build("baseline_cnn", 64)), architecture="resnet18")


def _with_header(data: bytes, **changes: object) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    story = json.loads(header["__metadata__"]["sliceloop"]) | changes
    header["__metadata__"]["sliceloop"] = json.dumps(story)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"architecture": "alexnet"}, "no architecture 'alexnet'"),
        ({"architecture": "squeezenet1_1"}, "do not fit a squeezenet1_1"),
        ({"input_px": 20}, "20 is not from 32"),
        ({"labels": ["COVID-19", "Normal", "Pneumonia"]}, "its logits would be misread"),
        ({"format": 2}, "update first"),
        ({"format": None}, "header is not ours"),
    ],
)
def test_false_header_is_refused(changes, fault):
    """A header that does not fit its weights, our labels or our format is named, with what to do."""
    with pytest.raises(CheckpointError, match=fault):
        loads(_with_header(dumps(build("baseline_cnn", 64)), **changes))


def test_garbage_and_cut_off_bytes_are_refused():
    """No bytes make the loader raise anything but its own error."""
    whole = dumps(build("baseline_cnn", 64))
    for data in (b"", b"\x80\x04pickle", bytes(64), whole[:100], whole[:-1], whole + b"x", b"\xff" * 100, whole[8:]):
        with pytest.raises(CheckpointError, match="again"):
            loads(data)


def test_broken_weights_and_missing_files_are_refused(tmp_path):
    """NaN in the weights, and a path without a file, are named."""
    network = build("baseline_cnn", 64)
    network.net.fc1.weight.data[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"NaN or infinity \(first in net.fc1.weight\)"):
        loads(dumps(network))
    with pytest.raises(CheckpointError, match="check the path"):
        load_checkpoint(tmp_path / "none.safetensors")
