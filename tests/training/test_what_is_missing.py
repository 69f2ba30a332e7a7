"""Data sets that lack something, and who asks for too little: each command says so in a line."""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from judging_parts import tiny_bundle, tiny_data
from typer.testing import CliRunner

from sliceloop.cli import app
from sliceloop.quantize_run import MissingSplitError
from sliceloop.training_run import TrainRequest, train_folder, train_settings
from training.bundle import read_bundle
from training.data.cache import CacheFullError, CachingStoppedError
from training.data.dataset import NothingLeftError, load_split, open_dataset
from training.networks import ARCHITECTURES, build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path):
    return tiny_data(tmp_path / "data", patients=6, slices_each=1)


def without(folder, split, *labels):
    """Take classes out of a split."""
    path = folder / "labels.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row for row in rows if row["split"] != split or row["label"] not in labels)
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_evaluation_without_a_class_says_so_on_the_terminal(data, tmp_path):
    """Two classes right are not three: the figure does not stand alone."""
    without(data, "test", "Pneumonia")
    said = run("evaluate", tiny_bundle(tmp_path / "net"), data, "--out", tmp_path / "out")
    assert said.exit_code == 0 and "no slice of Pneumonia in test: all figures are over the other" in said.output


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_leaving_every_source_out_is_refused(data, tmp_path, command):
    """With no source left there is nothing to read, and the message says whose fault that is."""
    first = (tiny_bundle(tmp_path / "net"),) if command == "evaluate" else ()
    out = ("--out", tmp_path / "out", "--exclude-source", "a", "--exclude-source", "b")
    error = run(command, *first, data, *out).exception
    assert isinstance(error, NothingLeftError) and "no source but a, b" in str(error)


def test_training_says_what_the_test_split_lacks(data, tmp_path, capsys):
    """Who trains hears at once that the test split cannot judge every class."""
    without(data, "test", "Pneumonia", "COVID-19")
    request = TrainRequest(data, tmp_path / "out", "baseline_cnn", 32)
    train_folder(request, train_settings(epochs=1, batch=2), threading.Event())
    assert "test has no slice of Pneumonia, COVID-19" in capsys.readouterr().out


def test_int8_is_not_judged_without_a_class(data, tmp_path):
    """Whether int8 still finds a class cannot be told where validation has none of it: nothing is written."""
    without(data, "val", "Normal", "COVID-19")
    error = run("quantize", tiny_bundle(tmp_path / "net"), data, "--out", tmp_path / "int8").exception
    assert isinstance(error, MissingSplitError) and "no val slice of Normal, COVID-19" in str(error)
    assert not (tmp_path / "int8").exists()


def test_two_labels_are_told_in_one_plain_line(data):
    """A patient of two classes is told without a path of the code, and with what to do."""
    table = (data / "labels.csv").read_text().replace("Pneumonia,test-1,", "Pneumonia,test-0,")
    (data / "labels.csv").write_text(table)
    command = [sys.executable, "-m", "sliceloop", "train", ".", "--out", "out", "--exclude-source", "c"]
    ended = subprocess.run(
        command, cwd=data, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == 2
    first, refusal = ended.stderr.splitlines()
    assert first.startswith("sliceloop: .: 1 patient(s) have two labels: test-0; mend")
    assert "no source c" in refusal


def test_reading_without_a_cache_hears_a_stop(data):
    """A stop ends the decoding after the slice in hand."""
    stop, heard = threading.Event(), []

    def hear(done, _total):
        heard.append(done)
        stop.set()

    with pytest.raises(CachingStoppedError, match="stopped after 2 of 6 slices; nothing is kept"):
        load_split(open_dataset(data), "test", on_slice=hear, stop=stop)
    assert heard == [1]


def test_a_small_disk_is_told_in_megabytes(data, tmp_path, monkeypatch):
    """Half a megabyte is not 0.0 GB."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 100_000))
    with pytest.raises(CacheFullError, match=r"0\.4 MB are needed, 0\.1 MB are free"):
        load_split(open_dataset(data), "test", cache=tmp_path / "cache")


def test_architectures_are_listed(tmp_path):
    """`--architecture help` says what each is."""
    said = run("train", tmp_path, "--out", tmp_path / "out", "--architecture", "help")
    assert said.exit_code == 0
    assert [line.split()[0] for line in said.output.splitlines()] == list(ARCHITECTURES)
    assert "219,243 parameters" in said.output


def test_a_head_tells_no_settings_that_it_did_not_use(data, tmp_path):
    """Checkpoint and report of a head name its views and strengths, and neither epochs nor an optimizer."""
    weights = tmp_path / "start.pth"
    torch.save(
        build("resnet18", 32).net.state_dict() | {"fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)}, weights
    )
    request = TrainRequest(data, tmp_path / "out", "resnet18", 32, str(weights), "head")
    train_folder(request, train_settings(epochs=7, ema_decay=0.9, augment=0.5), threading.Event())
    told = json.loads((tmp_path / "out" / "checkpoint.json").read_text())["provenance"]["settings"]
    assert told == read_bundle(tmp_path / "out").report.settings
    assert told["views"] == ["original", "mirrored"]
    assert not told.keys() & {"epochs", "optimizer", "ema_decay", "augment", "learning_rate"}
