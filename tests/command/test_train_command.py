"""`sliceloop train`: a folder of labelled slices becomes a bundle, also in two goes; then it can be released."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from command_parts import DEADLINE_S, Ended, sliceloop

from training.bundle import CHECKPOINT_FILE, MODEL_FILE, BundleError, read_bundle, write_bundle
from training.data.phantom import Cohort, write_phantoms
from training.model.preprocess import prepare

TRAINING = ("--architecture", "baseline_cnn", "--input-px", "64", "--epochs", "6", "--batch", "2", "--seed", "5")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six phantom patients to learn from and three to judge by, a slice each."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, [Cohort("site-a", "train", 2, 1), Cohort("site-a", "val", 1, 1)], seed=1)
    return folder


@pytest.fixture(scope="module")
def trained(phantoms: Path) -> Path:
    """The bundle of an uninterrupted training."""
    ended = train(phantoms, "whole")
    assert ended.code == 0, ended.err
    assert ended.out.count("epoch ") == 6
    assert "balanced accuracy" in ended.out.splitlines()[-1]
    return phantoms / "whole"


def train(phantoms: Path, out: str, *more: str) -> Ended:
    return sliceloop("train", ".", "--out", out, *TRAINING, *more, cwd=phantoms)


def test_a_training_leaves_a_bundle(trained: Path) -> None:
    """Network, checkpoint and report are there and fit together: the network reads a slice."""
    bundle = read_bundle(trained)
    assert (bundle.report.architecture, bundle.report.input_px, bundle.report.seed) == ("baseline_cnn", 64, 5)
    assert (bundle.report.n_train_slices, bundle.report.n_train_patients) == (6, 6)
    assert bundle.report.train_sources == ("phantom-site-a",)
    assert bundle.report.validation.n_patients == 3
    picture = next(iter(sorted((trained.parent / "images").rglob("*.png"))))
    pixels = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
    assert sum(bundle.reader().read(prepare(pixels)).probabilities.values()) == pytest.approx(1)


def test_a_training_in_two_goes_ends_in_the_same_bytes(phantoms: Path, trained: Path) -> None:
    """Stopped after an epoch and started again, a training goes on there and ends as if nothing had been."""
    command = [sys.executable, "-m", "sliceloop", "train", ".", "--out", "stopped", *TRAINING]
    with subprocess.Popen(command, cwd=phantoms, stdout=subprocess.PIPE, text=True, env=unbuffered()) as first:
        assert first.stdout is not None
        line = next(line for line in first.stdout if line.startswith("epoch "))
        assert line.startswith("epoch 1/6")
        first.send_signal(signal.SIGTERM)
        rest = first.stdout.read()
        assert first.wait(DEADLINE_S) == 130
    assert "the same call with the same resume folder goes on" in rest
    assert not (phantoms / "stopped" / MODEL_FILE).exists()
    second = train(phantoms, "stopped")
    assert second.code == 0, second.err
    assert "epoch 1/6" not in second.out
    assert "epoch 6/6" in second.out
    for name in (MODEL_FILE, CHECKPOINT_FILE):
        assert (phantoms / "stopped" / name).read_bytes() == (trained / name).read_bytes()


def unbuffered() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def test_a_folder_that_cannot_teach_is_named(tmp_path: Path) -> None:
    """What is wrong with the folder is told with file and line, without a traceback."""
    (tmp_path / "labels.csv").write_text("file,label,patient_id,source,split\nx.png,Normal,p1,s,train\n")
    ended = train(tmp_path, "out")
    assert ended.code == 2
    assert "line 2: file 'x.png' is not in" in ended.err
    assert "Traceback" not in ended.err


def test_a_bundle_without_a_key_is_not_released(trained: Path, tmp_path: Path) -> None:
    """A release needs a signing key: without one, or with none that is one, it says what to do."""
    ended = sliceloop("release", trained, "--why", "first", cwd=tmp_path)
    assert ended.code == 2
    assert "release.signing_key_files is not set; make a key with `sliceloop keys new FOLDER`" in ended.err
    (tmp_path / "signing.pem").write_text("no key")
    env = {"SLICELOOP_RELEASE__SIGNING_KEY_FILES": f'["{tmp_path / "signing.pem"}"]'}
    ended = sliceloop("release", trained, "--why", "first", cwd=tmp_path, env=env)
    assert ended.code == 2
    assert "signing.pem is no usable signing key" in ended.err
    assert "no key" not in ended.err.replace("no usable", "")
    assert not list(tmp_path.glob("*.sqlite"))


def test_a_leaked_bundle_is_not_released(trained: Path, tmp_path: Path) -> None:
    """What was judged on patients that it learnt from never reaches an edge, whoever wants it to."""
    bundle = read_bundle(trained)
    leaked = bundle.report.model_copy(update={"leaked_patients": 2})
    write_bundle(tmp_path / "leaked", replace(bundle, report=leaked))
    ended = sliceloop("release", tmp_path / "leaked", "--why", "first", cwd=tmp_path)
    assert ended.code == 2
    assert "2 patients stood on two sides" in ended.err
    assert not list(tmp_path.glob("*.sqlite"))


def test_a_bundle_is_written_whole(trained: Path, tmp_path: Path) -> None:
    """What is written is what is read; a folder without its report, or with a damaged one, is no bundle."""
    bundle = read_bundle(trained)
    write_bundle(tmp_path / "copy", bundle)
    assert read_bundle(tmp_path / "copy") == bundle
    (tmp_path / "copy" / "report.json").write_text('{"architecture": 5}')
    with pytest.raises(BundleError, match=r"report\.json is no report of a training"):
        read_bundle(tmp_path / "copy")
    (tmp_path / "copy" / "report.json").unlink()
    with pytest.raises(BundleError, match=r"report\.json cannot be read; train one with `sliceloop train`"):
        read_bundle(tmp_path / "copy")
