"""`sliceloop evaluate` and `sliceloop compare` as a user meets them."""

import csv
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from judging_parts import MACS, tiny_bundle, tiny_data, tiny_onnx, tiny_report
from typer.testing import CliRunner

from protocol.labels import LABELS
from sliceloop.cli import app
from training.bundle import patient_keys
from training.checkpoint import Provenance, dumps
from training.data.dataset import load_split, open_dataset
from training.data.slices import LeakError, split_sha256
from training.judging.comparison import ComparisonError, DifferentSlicesError, open_evaluations
from training.judging.comparison_page import source_table
from training.judging.cost import count
from training.judging.predictions import (
    EvaluationStoppedError,
    PredictionsError,
    predict,
    read_predictions,
    write_predictions,
)
from training.judging.record import RecordError, read_record
from training.judging.subject import SubjectError, open_subject
from training.judging.unseen import NoSlicesError, check_unseen
from training.networks import build

PLOTS = ("precision_recall", "roc", "confusion", "calibration", "risk_coverage", "by_source")
PNG = b"\x89PNG"
PAPER_CNN_PARAMETERS = 26_203


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, Path]:
    """Return two evaluations of two networks on the same slices."""
    folder = tmp_path_factory.mktemp("evaluated")
    for seed in (1, 2):
        bundle = tiny_bundle(folder / f"net-{seed}", seed)
        succeed("evaluate", bundle, data, "--out", folder / f"out-{seed}")
    return folder / "out-1", folder / "out-2"


def test_evaluate_writes_every_output(evaluated):
    """Predictions, figures, page and plots are there, agree in n, and nothing is marked as leaked."""
    out = evaluated[0]
    record = read_record(out)
    assert (record.data.n_slices, record.data.n_patients) == (24, 12)
    assert record.by_patient.evaluation.n_slices == 12
    assert record.model.cost.macs == MACS
    assert record.model.temperature == 1.5
    assert not record.leaked
    assert "checked against 6 training patients" in record.leak.checked
    assert all((out / f"{name}.png").read_bytes().startswith(PNG) for name in PLOTS)
    page = (out / "report.md").read_text()
    assert page.startswith("# net-1 on the test split")
    assert "24 slices of 12 patients" in page
    assert len(read_predictions(out / "predictions.csv")) == 24


def test_predictions_name_no_patient(evaluated):
    """No output holds a patient's id or a file's name."""
    for path in evaluated[0].iterdir():
        assert b"test-1" not in path.read_bytes()


def test_predictions_are_those_of_the_network_and_survive_the_file(evaluated, tmp_path):
    """Reading and writing predictions.csv gives the same bytes, and the figures can be made from it."""
    path = evaluated[0] / "predictions.csv"
    predictions = read_predictions(path)
    write_predictions(tmp_path / "again.csv", predictions)
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()
    right = (predictions.logits.argmax(1) == predictions.labels).mean()
    assert read_record(evaluated[0]).by_slice.report.accuracy.value == pytest.approx(right)


def test_evaluating_a_bundle_needs_no_torch(data, tmp_path):
    """A released network is judged where torch is not installed."""
    bundle = tiny_bundle(tmp_path / "net")
    code = (
        "import sys; from sliceloop.cli import app; "
        f"app({['evaluate', str(bundle), str(data), '--out', str(tmp_path / 'out')]!r}, standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"COLUMNS": "200"})
    assert read_record(tmp_path / "out").data.n_slices == 24


def test_patients_of_the_training_are_refused(data, tmp_path):
    """A network that learnt from a judged patient is refused, and the patient is named."""
    keys = tiny_bundle(tmp_path / "net")
    result = run("evaluate", keys, data, "--split", "train", "--out", tmp_path / "out")
    assert isinstance(result.exception, LeakError)
    assert result.exception.patients == ("train-0", "train-1", "train-2")
    assert not (tmp_path / "out").exists()


def test_training_patients_are_known_by_the_hash_of_the_split(data):
    """A report without keys, but with the hash of this very data set's split, tells its training patients too."""
    dataset = open_dataset(data)
    sides = [load_split(dataset, split) for split in ("train", "val")]
    report = tiny_report(train_patient_keys=(), split_sha256=split_sha256(*sides))
    with pytest.raises(LeakError):
        check_unseen(dataset, "train", report)
    assert "by its hash" in check_unseen(dataset, "test", report).checked
    assert "unknown" in check_unseen(dataset, "test", tiny_report(train_patient_keys=())).checked


def test_allowed_leak_marks_every_output(data, tmp_path, evaluated):
    """JSON, the page's first line, each plot and the comparison say that the run is leaked."""
    bundle = tiny_bundle(tmp_path / "net-1", 1, leaked_patients=4)
    output = succeed("evaluate", bundle, data, "--out", tmp_path / "out")
    assert "LEAKED" in output
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["leaked"] is True
    assert (tmp_path / "out" / "report.md").read_text().startswith("**LEAKED: the model was trained with 4 patient(s)")
    assert {row["leaked"] for row in rows_of(tmp_path / "out")} == {"yes"}
    assert {row["leaked"] for row in rows_of(evaluated[0])} == {"no"}
    for name in PLOTS:
        marked, clean = ((folder / f"{name}.png").read_bytes() for folder in (tmp_path / "out", evaluated[0]))
        assert marked != clean
    assert "LEAKED" in succeed("compare", tmp_path / "out", evaluated[1], "--out", tmp_path / "both")
    assert (tmp_path / "both" / "comparison.md").read_text().startswith("**LEAKED: net-1")


def test_compare_tells_the_models_apart(evaluated, tmp_path):
    """Table, paired differences, tests and latency of both, against the first."""
    succeed("compare", *evaluated, "--out", tmp_path)
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["reference"] == "net-1"
    assert [row["name"] for row in comparison["models"]] == ["net-1", "net-2"]
    assert all(row["latency"]["median_ms"] > 0 for row in comparison["models"])
    (pair,) = comparison["pairs"]
    values = [read_record(folder).by_slice.evaluation.balanced_accuracy.value for folder in evaluated]
    assert pair["by_slice"]["balanced_accuracy"]["value"] == pytest.approx(values[1] - values[0])
    right = [
        (p.logits.argmax(1) == p.labels) for p in (read_predictions(each / "predictions.csv") for each in evaluated)
    ]
    assert pair["mcnemar_by_slice"]["only_first_right"] == int((right[1] & ~right[0]).sum())
    assert pair["mcnemar_by_patient"]["n"] == 12
    assert all(
        (tmp_path / name).read_bytes().startswith(PNG) for name in ("balanced_accuracy.png", "cost.png", "sources.png")
    )
    assert "p by patient" in (tmp_path / "comparison.md").read_text()


def test_compare_against_the_best(evaluated, tmp_path):
    """The reference is the model of the highest balanced accuracy, and the page says that its lead is partly luck."""
    succeed("compare", *evaluated, "--out", tmp_path, "--against", "best")
    values = {read_record(folder).model.name: read_record(folder).by_slice.evaluation for folder in evaluated}
    best = max(values, key=lambda name: values[name].balanced_accuracy.value)
    assert json.loads((tmp_path / "comparison.json").read_text())["reference"] == best
    assert "partly luck" in (tmp_path / "comparison.md").read_text()
    assert isinstance(run("compare", *evaluated, "--out", tmp_path, "--against", "worst").exception, ComparisonError)


def test_model_that_is_gone_is_compared_without_latency(tmp_path, evaluated):
    """The figures stand without the file; only its time is not measured."""
    other = altered(evaluated[1], tmp_path / "other", lambda rows: rows)
    succeed("compare", evaluated[0], other, "--out", tmp_path / "both")
    rows = json.loads((tmp_path / "both" / "comparison.json").read_text())["models"]
    assert [row["latency"] is None for row in rows] == [False, True]
    assert "not measured" in (tmp_path / "both" / "comparison.md").read_text()


def test_model_that_is_another_by_now_is_not_timed(tmp_path, evaluated):
    """A file whose hash is not the judged one's is taken for gone."""
    other = altered(evaluated[1], tmp_path / "other", lambda rows: rows)
    exchanged = other / read_record(other).model.file
    exchanged.parent.mkdir()
    exchanged.write_bytes(tiny_onnx(7))
    assert open_evaluations([evaluated[0], other])[1].reader() is None


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").open()))


def altered(folder: Path, out: Path, change) -> Path:
    """Copy an evaluation with another predictions.csv, and the hash that belongs to it."""
    out.mkdir()
    lines = list(csv.reader((folder / "predictions.csv").read_text().splitlines()))
    text = "\n".join(",".join(line) for line in [lines[0], *change(lines[1:])]) + "\n"
    (out / "predictions.csv").write_text(text)
    record = json.loads((folder / "evaluation.json").read_text())
    record["data"]["slices_sha256"] = read_predictions(out / "predictions.csv").slices_sha256()
    (out / "evaluation.json").write_text(json.dumps(record))
    return out


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda rows: rows[1:], "1 of 24 slices are only in the first"),
        (lambda rows: rows[::-1], "another order"),
        (lambda rows: [[*row[:4], "val", *row[5:]] for row in rows], "split test against val"),
        (lambda rows: [[rows[0][0], "Pneumonia", *rows[0][2:]], *rows[1:]], "1 of 24 slices have other labels"),
    ],
)
def test_compare_refuses_other_slices(evaluated, tmp_path, change, fault):
    """Models that were not judged on the same slices, labels and split are refused, with what differs."""
    other = altered(evaluated[1], tmp_path / "other", change)
    error = run("compare", evaluated[0], other, "--out", tmp_path / "both").exception
    assert isinstance(error, DifferentSlicesError)
    assert error.folder == other
    assert fault in str(error)
    assert not (tmp_path / "both").exists()


def test_compare_refuses_predictions_that_are_not_the_evaluations(evaluated, tmp_path):
    """A predictions.csv that was changed after the evaluation is noticed."""
    other = altered(evaluated[1], tmp_path / "other", lambda rows: rows[1:])
    record = json.loads((other / "evaluation.json").read_text())
    record["data"]["slices_sha256"] = "0" * 64
    (other / "evaluation.json").write_text(json.dumps(record))
    error = run("compare", evaluated[0], other, "--out", tmp_path / "both").exception
    assert isinstance(error, ComparisonError)
    assert "not what evaluation.json was made of" in str(error)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("0,Normal,a,k,test,1,2", "line 3: not a value for each column"),
        ("0,Flu,a,k,test,1,2,3,no", "line 3: label 'Flu' is none of"),
        ("0,Normal,a,k,test,1,2,x,no", "line 3: a logit is no number"),
        ("0,Normal,a,k,test,1,2,3,perhaps", "line 3: leaked is 'perhaps', neither yes nor no"),
    ],
)
def test_broken_line_of_predictions_is_named(evaluated, tmp_path, line, fault):
    """A line that cannot be read is named with its number."""
    head = (evaluated[0] / "predictions.csv").read_text().splitlines()[:2]
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join([*head, line]) + "\n")
    with pytest.raises(PredictionsError, match=fault):
        read_predictions(path)


def test_what_cannot_be_judged_is_named(data, tmp_path):
    """No model, weights without an architecture, a split without slices, no evaluation: each has its error."""
    bundle, out = tiny_bundle(tmp_path / "net"), ("--out", tmp_path / "out")
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    assert isinstance(run("evaluate", tmp_path / "none", data, *out).exception, SubjectError)
    assert isinstance(run("evaluate", weights, data, *out).exception, SubjectError)
    assert isinstance(run("evaluate", bundle, data, "--split", "tset", *out).exception, NoSlicesError)
    assert "no source c" in str(run("evaluate", bundle, data, "--exclude-source", "c", *out).exception)
    assert isinstance(run("compare", bundle, data, *out).exception, RecordError)
    assert isinstance(run("compare", bundle, *out).exception, ComparisonError)


def test_int8_file_of_a_bundle_is_judged_as_itself(tmp_path):
    """An .onnx file beside the bundle's own is what is read, with the bundle's report."""
    bundle = tiny_bundle(tmp_path / "net")
    (bundle / "model.int8.onnx").write_bytes(tiny_onnx(quantised=True))
    subject = open_subject(bundle / "model.int8.onnx", tmp_path / "out")
    assert (subject.name, subject.calibration.temperature) == ("net/model.int8", 1.5)
    assert subject.model == tiny_onnx(quantised=True)


def test_logits_in_another_order_of_classes_are_brought_into_ours(data, tmp_path, evaluated):
    """A network whose report names the classes in another order is judged by name."""
    order = (LABELS[2], LABELS[0], LABELS[1])
    subject = open_subject(tiny_bundle(tmp_path / "net", 1, labels=order), tmp_path / "out")
    theirs = predict(subject.reader(), load_split(open_dataset(data), "test"), "test").logits
    ours = read_predictions(evaluated[0] / "predictions.csv").logits
    assert np.array_equal(theirs, ours[:, [1, 2, 0]])


def test_stopped_evaluation_says_how_far_it_came(data, tmp_path):
    """A set stop event ends the reading, and nothing is written."""
    stop = threading.Event()
    stop.set()
    reader = open_subject(tiny_bundle(tmp_path / "net"), tmp_path).reader()
    with pytest.raises(EvaluationStoppedError, match="0 of 24"):
        predict(reader, load_split(open_dataset(data), "test"), "test", stop=stop)


def test_excluded_source_leaves_a_class_out_and_the_page_says_so(data, tmp_path):
    """Without source a there is no Normal slice: figures are over the other two, and the page says it."""
    bundle = tiny_bundle(tmp_path / "net")
    succeed("evaluate", bundle, data, "--out", tmp_path / "out", "--exclude-source", "a")
    record = read_record(tmp_path / "out")
    assert record.data.excluded_sources == ("a",)
    assert record.by_slice.report.by_class.keys() == set(LABELS[1:])
    assert "no slice of Normal" in (tmp_path / "out" / "report.md").read_text()


def test_table_of_left_out_sources(evaluated):
    """Each source has a row with n, balanced accuracy and the sensitivity of each class."""
    text = source_table({"a": read_record(evaluated[0]).by_slice.evaluation})
    assert text.splitlines()[2].startswith("| a | 24 | 12 | ")


def test_weights_file_is_exported_and_judged_in_our_order_of_classes(data, tmp_path):
    """What the file's outputs stand for, as told, is what the exported network's answers are called."""
    torch.manual_seed(0)
    network = build("baseline_cnn", 64)
    weights = tmp_path / "net.pth"
    torch.save(network.net.state_dict(), weights)
    slices = load_split(open_dataset(data), "test")
    subject = open_subject(weights, tmp_path / "out", "baseline_cnn", 64, "COVID-19,Normal,Pneumonia")
    said = predict(subject.reader(), slices, "test").logits
    with torch.inference_mode():
        theirs = network.eval()(torch.from_numpy(slices.pixels[:])[:, None])[0].numpy()
    assert said == pytest.approx(theirs[:, [1, 2, 0]], abs=1e-4)
    assert subject.learnt is None
    assert count(subject.model).parameters == PAPER_CNN_PARAMETERS
    assert (tmp_path / "out" / "model.onnx").read_bytes() == subject.model


def test_weights_of_other_classes_are_refused(tmp_path):
    """A head of a thousand classes has nothing to say about ours."""
    net = build("baseline_cnn", 64).net
    net.fc3 = torch.nn.Linear(50, 1000)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with pytest.raises(SubjectError, match="tells 1000 classes"):
        open_subject(tmp_path / "net.pth", tmp_path, "baseline_cnn", 64)


def checkpoint(path: Path, **told: object) -> Path:
    """Write a checkpoint of a baseline at 64 px that learnt from train-0 and train-1."""
    torch.manual_seed(0)
    keys = patient_keys(["train-0", "train-1"])
    provenance = Provenance(**{"train_patient_keys": keys, "n_train_patients": 2, "n_train_slices": 2, **told})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dumps(build("baseline_cnn", 64), provenance))
    return path


def test_checkpoint_of_ours_tells_side_architecture_patients_and_leak(data, tmp_path):
    """It is judged as it learnt, refused on its own patients, and marked where its training leaked."""
    said = succeed("evaluate", checkpoint(tmp_path / "net.safetensors"), data, "--out", tmp_path / "out")
    record = read_record(tmp_path / "out")
    assert (record.model.architecture, record.model.input_px, record.model.n_train_patients) == ("baseline_cnn", 64, 2)
    assert "checked against 2 training patients" in record.leak.checked
    assert "LEAKED" not in said
    refused = run("evaluate", tmp_path / "net.safetensors", data, "--split", "train", "--out", tmp_path / "no")
    assert isinstance(refused.exception, LeakError)
    assert refused.exception.patients == ("train-0", "train-1")
    assert "--allow-leak" in str(refused.exception)
    leaked = checkpoint(tmp_path / "leaked.safetensors", leaked_patients=3)
    assert "LEAKED: the model was trained with 3" in succeed("evaluate", leaked, data, "--out", tmp_path / "marked")


def test_start_weights_of_unknown_patients_are_said(data, tmp_path):
    """Who started from a stranger's file cannot claim that all training patients are known."""
    net = checkpoint(tmp_path / "net.safetensors", start_weights="a.pth (1a2b)", start_patients_known=False)
    succeed("evaluate", net, data, "--out", tmp_path / "out")
    assert "whom its start weights a.pth (1a2b) learnt from is not known" in (tmp_path / "out/report.md").read_text()
