"""An int8 network reads as its float one does, is smaller, and is refused where it is not as good."""

import csv
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from protocol.labels import LABELS, Label
from sliceloop.quantize_run import MissingSplitError, quantize_bundle
from training.bundle import Bundle, BundleError, Report, patient_keys, read_bundle, write_bundle
from training.checkpoint import dumps
from training.data.dataset import load_split, open_dataset
from training.data.slices import LabelledSlice, LeakError
from training.evaluate import evaluate
from training.export import ParityError, export_onnx
from training.model.reader import Calibration, OnnxReader
from training.networks import build
from training.quantize import (
    AccuracyFallError,
    AlreadyQuantizedError,
    agreement,
    calibration_rows,
    quantize,
    refuse_fall,
)
from training.weights import load_network

GREYS = (80, 140, 200)
"""Of the disc; its brightness is the class, so that even an untrained network's features tell it."""


def disc(random, label):
    rows, columns = np.mgrid[:256, :256]
    inside = (rows - 128) ** 2 + (columns - 128) ** 2 < random.integers(90, 120) ** 2
    return np.clip(GREYS[label] * inside + random.normal(0, 6, inside.shape) * inside, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def slices():
    random = np.random.default_rng(0)
    return np.stack([disc(random, at % 3) for at in range(12)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of 9 training and 9 validation patients, a slice each."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(1)
    with (folder / "labels.csv").open("w", newline="") as text:
        table = csv.writer(text)
        table.writerow(("file", "label", "patient_id", "source", "split"))
        for at in range(18):
            cv2.imwrite(str(folder / f"{at}.png"), disc(random, at % 3))
            table.writerow((f"{at}.png", LABELS[at % 3], f"p{at}", "toy", "train" if at < 9 else "val"))
    return folder


def fitted_bundle(data: Path, spoil: bool = False) -> Bundle:
    """An untrained network with a head fitted on its features; spoilt, one map drowns the others in int8."""
    torch.manual_seed(0)
    network = build("repaired_cnn", 64).eval()
    train, validation = (load_split(open_dataset(data), split) for split in ("train", "val"))
    if spoil:
        loud = network.net.stages[-1].scales[0][1]
        with torch.no_grad():
            loud.bias[0] = 1e4
    with torch.inference_mode():
        features = network(torch.from_numpy(train.pixels[:][:, None]))[1].clone()
        features[:, [0, 96]] = 0
        fit = torch.linalg.lstsq(
            torch.cat([features, torch.ones(len(features), 1)], 1).double(),
            8 * torch.eye(3).double()[torch.from_numpy(train.labels)],
            driver="gelsd",
        ).solution.float()
    with torch.no_grad():
        network.net.fc.weight.copy_(fit[:-1].T)
        network.net.fc.weight[:, [0, 96]] = 0
        network.net.fc.bias.copy_(fit[-1])
    model = export_onnx(network)
    judged = evaluate(
        OnnxReader(model, Calibration()).logits(validation.pixels[:]),
        validation.labels,
        validation.patients,
        validation.sources,
    )
    report = Report(
        architecture="repaired_cnn",
        input_px=64,
        temperature=1.0,
        training_data_sha256=train.sha256(),
        split_sha256="0" * 64,
        seed=0,
        n_train_slices=len(train),
        n_train_patients=len(train),
        train_sources=("toy",),
        validation=judged,
        seconds=0.0,
    )
    return Bundle(model, dumps(network), report)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenetv4_conv_small", "baseline_cnn"])
def test_int8_answers_alike_under_the_same_signature(name, slices):
    """Whoever runs the float network runs the int8 one: same input, same three outputs, any batch, near answers."""
    torch.manual_seed(0)
    model = export_onnx(build(name, 64))
    small = quantize(model, slices)
    outputs = []
    for one in (model, small):
        OnnxReader(one, Calibration())  # refuses another signature
        session = ort.InferenceSession(one, providers=["CPUExecutionProvider"])
        outputs.append(session.run(["logits", "features", "activation_map"], {"slice": slices[:, None]}))
    for ours, theirs in zip(*outputs, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).mean() < 0.25 * np.abs(ours).mean()
    if name != "baseline_cnn":  # 100 kB, of which convolutions are 3
        assert len(small) < 0.4 * len(model)


def test_int8_is_the_same_twice_and_is_not_quantized_again(slices):
    """The same network and slices give the same file, without a path of this machine; int8 of int8 is a mistake."""
    model = export_onnx(build("repaired_cnn", 64))
    small = quantize(model, slices)
    assert small == quantize(model, slices)
    assert b"/tmp" not in small
    assert not onnx.load_from_string(small).metadata_props
    with pytest.raises(AlreadyQuantizedError, match="int8 already"):
        quantize(small, slices)


def test_biases_make_up_for_rounded_weights(slices):
    """EfficientNet-Lite0, whose kernels round badly, keeps its features: without the correction it is 0.89."""
    model = export_onnx(load_network("imagenet", "efficientnet_lite0", 64))
    features = [
        ort.InferenceSession(one, providers=["CPUExecutionProvider"]).run(["features"], {"slice": slices[:, None]})[0]
        for one in (model, quantize(model, slices))
    ]
    alike = [np.corrcoef(ours, theirs)[0, 1] for ours, theirs in zip(*features, strict=True)]
    assert min(alike) > 0.95


def test_a_fall_of_more_than_a_point_is_refused_with_both_figures():
    """One point may go, more may not."""
    labels = np.repeat(np.arange(3), 100)
    right = np.eye(3)[labels]
    one_point, two_points = right.copy(), right.copy()
    one_point[[0, 100, 200]] = one_point[[0, 100, 200]][:, [1, 2, 0]]
    two_points[:6] = [0, 1, 0]
    refuse_fall(right, one_point, labels)
    refuse_fall(one_point, right, labels)
    with pytest.raises(AccuracyFallError, match=r"0\.980.*float32 1\.000.*2\.0 points") as caught:
        refuse_fall(right, two_points, labels)
    assert (caught.value.before, caught.value.after) == (1.0, pytest.approx(0.98))


def test_agreement_counts_answers_and_differences():
    """Its figures are those of the logits."""
    alike = agreement(np.array([[1.0, 0, 0], [0, 2, 0]]), np.array([[1.0, 0, 0], [0, 2, 3]]))
    assert (alike.largest_difference, alike.mean_difference, alike.same_answer) == (3, 0.5, 0.5)


def test_calibration_takes_classes_and_sources_in_turn():
    """A source of three slices widens the ranges as one of a hundred does, and the same seed draws the same."""
    rows = [LabelledSlice(f"{at}", Label.NORMAL, f"{at}", "large", "train") for at in range(100)]
    rows += [LabelledSlice(f"s{at}", Label.COVID_19, f"s{at}", "small", "train") for at in range(3)]
    drawn = calibration_rows(rows, 10)
    assert [row.source for row in drawn].count("small") == 3
    assert len(set(drawn)) == 10
    assert drawn == calibration_rows(rows, 10) != calibration_rows(rows, 10, seed=1)
    assert len(calibration_rows(rows, 500)) == 103


def test_the_command_writes_a_bundle_of_int8(data, tmp_path, capsys):
    """A user gives a bundle and its data set, and gets a bundle that reads as well, with what it was made of."""
    write_bundle(tmp_path / "float", fitted_bundle(data))
    quantize_bundle(tmp_path / "float", data, tmp_path / "int8", cache=None)
    was, is_now = read_bundle(tmp_path / "float"), read_bundle(tmp_path / "int8")
    assert len(is_now.model) < len(was.model) / 2
    assert is_now.report.validation.balanced_accuracy.value == was.report.validation.balanced_accuracy.value > 0.9
    assert is_now.report.model_extra["quantization"]["n_calibration_slices"] == 9
    assert all(is_now.reader().read(one).unlikeness < 1.1 for one in load_split(open_dataset(data), "val").pixels)
    said = capsys.readouterr().out
    assert "same answer on 100.0 % of 9 slices" in said and "ms a slice" in said
    with pytest.raises(AlreadyQuantizedError, match="int8 already"):
        quantize_bundle(tmp_path / "int8", data, tmp_path / "again", cache=None)
    with pytest.raises(BundleError, match="give --out another folder"):
        quantize_bundle(tmp_path / "float", data, tmp_path / "float", cache=None)


def test_a_network_that_int8_spoils_is_refused_and_nothing_written(data, tmp_path):
    """Where one loud map leaves the others no steps, the refusal says both figures, and the folder stays away."""
    write_bundle(tmp_path / "float", fitted_bundle(data, spoil=True))
    with pytest.raises(AccuracyFallError, match="nothing written") as caught:
        quantize_bundle(tmp_path / "float", data, tmp_path / "int8", cache=None)
    assert caught.value.before > 0.9 > caught.value.after + 0.01
    assert not (tmp_path / "int8").exists()


def test_a_checkpoint_that_is_not_the_networks_and_a_missing_split_are_refused(data, tmp_path):
    """Both halves of a bundle must be one network, and there must be slices to judge by."""
    bundle = fitted_bundle(data)
    torch.manual_seed(5)
    write_bundle(tmp_path / "torn", Bundle(bundle.model, dumps(build("repaired_cnn", 64)), bundle.report))
    with pytest.raises(ParityError, match="do not release"):
        quantize_bundle(tmp_path / "torn", data, tmp_path / "int8", cache=None)
    without_val = tmp_path / "data"
    without_val.mkdir()
    lines = (data / "labels.csv").read_text().splitlines()
    (without_val / "labels.csv").write_text("\n".join(line for line in lines if not line.endswith("val")))
    for file in data.glob("*.png"):
        (without_val / file.name).symlink_to(file)
    with pytest.raises(MissingSplitError, match="no val slice"):
        quantize_bundle(tmp_path / "torn", without_val, tmp_path / "int8", cache=None)


def test_a_leak_of_the_training_or_of_the_data_marks_the_int8_network(data, tmp_path, capsys):
    """What the float network leaked, int8 leaks too; patients that taught it may not judge it."""
    bundle = fitted_bundle(data)
    leaked = bundle.report.model_copy(update={"leaked_patients": 2})
    write_bundle(tmp_path / "leaked", Bundle(bundle.model, bundle.checkpoint, leaked))
    quantize_bundle(tmp_path / "leaked", data, tmp_path / "int8", cache=None)
    assert capsys.readouterr().out.startswith("LEAKED: 2 patients")
    assert read_bundle(tmp_path / "int8").report.leaked_patients == 2
    judged = {row.patient_id for row in open_dataset(data).rows if row.split == "val"}
    taught = bundle.report.model_copy(update={"train_patient_keys": patient_keys(judged)})
    write_bundle(tmp_path / "taught", Bundle(bundle.model, bundle.checkpoint, taught))
    with pytest.raises(LeakError, match="--allow-leak"):
        quantize_bundle(tmp_path / "taught", data, tmp_path / "no", cache=None)
    quantize_bundle(tmp_path / "taught", data, tmp_path / "marked", cache=None, allow_leak=True)
    assert read_bundle(tmp_path / "marked").report.leaked_patients == len(judged)
