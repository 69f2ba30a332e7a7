"""What one call of `sliceloop train` leaves in its folder, and which data sets it refuses."""

import csv
import hashlib
import json
import threading
from pathlib import Path

import pytest

from sliceloop.training_run import BadSettingError, TrainRequest, train_folder, train_settings
from training.bundle import read_bundle
from training.data.dataset import UnknownSourceError
from training.data.labelled import COLUMNS
from training.data.phantom import Cohort, write_phantoms
from training.data.slices import LeakError
from training.provenance import code_commit
from training.sampling import BudgetError
from training.throughput import Course, Race, ours, plain
from training.weights import TaughtBeforeError, UntrainedBodyError

SETTINGS = train_settings(epochs=2, batch=4, seed=5)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six phantom patients of each of two sources to learn from, and three of one to judge by."""
    folder = tmp_path_factory.mktemp("phantoms")
    cohorts = [Cohort("site-a", "train", 2, 1), Cohort("site-b", "train", 2, 1), Cohort("site-a", "val", 1, 1)]
    write_phantoms(folder, cohorts, seed=1)
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def run(data: Path, out: Path, **wanted: object) -> Path:
    train_folder(TrainRequest(data, out, "baseline_cnn", 32, **wanted), SETTINGS, threading.Event())
    return out


def test_a_training_tells_its_story(phantoms, tmp_path):
    """Report and checkpoint.json agree on data, split, seed, settings and n, and name patients only by their keys."""
    out = run(phantoms, tmp_path / "out", cache=tmp_path / "cache")
    report = read_bundle(out).report
    story = json.loads((out / "checkpoint.json").read_text())
    told = story["provenance"]
    assert (told["data_sha256"], told["split_sha256"]) == (report.training_data_sha256, report.split_sha256)
    assert (told["seed"], told["n_train_patients"], told["leaked_patients"]) == (5, 12, 0)
    assert told["settings"] == SETTINGS.model_dump(mode="json")
    assert told["hardware"]["threads"] == 1
    assert story["sha256"] == hashlib.sha256((out / "checkpoint.safetensors").read_bytes()).hexdigest()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert report.n_train_by_source == {"phantom-site-a": 6, "phantom-site-b": 6}
    assert [progress.epoch for progress in report.history] == [1, 2]
    patients = {row["patient_id"] for row in rows_of(phantoms) if row["split"] == "train"}
    keys = sorted(hashlib.sha256(patient.encode()).hexdigest()[:12] for patient in patients)
    assert report.train_patient_keys == tuple(keys)
    assert not [patient for patient in patients if patient in (out / "report.json").read_text()]


def test_cached_and_budgeted_training_reads_what_was_asked_for(phantoms, tmp_path):
    """A budget leaves so many patients, a source can be left out, and a second run decodes nothing."""
    cache = tmp_path / "cache"
    report = read_bundle(run(phantoms, tmp_path / "few", cache=cache, patients=4)).report
    assert (report.n_train_patients, report.validation.n_patients) == (4, 3)
    report = read_bundle(run(phantoms, tmp_path / "one", cache=cache, exclude_sources=("phantom-site-b",))).report
    assert report.train_sources == ("phantom-site-a",)
    with pytest.raises(BudgetError, match="to 12"):
        run(phantoms, tmp_path / "many", cache=cache, patients=13)
    with pytest.raises(UnknownSourceError, match="there are phantom-site-a, phantom-site-b"):
        run(phantoms, tmp_path / "none", exclude_sources=("elsewhere",))


def leaking(phantoms: Path, folder: Path) -> str:
    """Write a labels.csv whose first patient to learn from is judged on, too; return that patient."""
    folder.mkdir()
    rows = rows_of(phantoms)
    patient = rows[0]["patient_id"]
    judged = next(row for row in rows if row["split"] == "val" and row["label"] == rows[0]["label"])
    judged["patient_id"] = patient
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, "file": str(phantoms / row["file"])} for row in rows)
    return patient


def test_a_leak_is_refused_by_name_or_marks_every_output(phantoms, tmp_path):
    """A patient on two sides stops training, by name; allowed, the report and the checkpoint's story say so."""
    patient = leaking(phantoms, tmp_path / "leaking")
    with pytest.raises(LeakError, match=patient) as caught:
        run(tmp_path / "leaking", tmp_path / "refused")
    assert "--allow-leak" in str(caught.value)
    assert not (tmp_path / "refused").exists()
    out = run(tmp_path / "leaking", tmp_path / "allowed", allow_leak=True)
    assert read_bundle(out).report.leaked_patients == 1
    assert json.loads((out / "checkpoint.json").read_text())["provenance"]["leaked_patients"] == 1


def test_a_setting_outside_its_range_is_named():
    """A bad value is told by its option's name."""
    with pytest.raises(BadSettingError, match="--label-smoothing"):
        train_settings(label_smoothing=2)


def test_commit_is_of_our_repository_alone(tmp_path):
    """Installed code, wherever it lies, does not claim another repository's commit."""
    assert code_commit(tmp_path) is None


def test_both_ways_are_measured(phantoms, tmp_path):
    """Our loop and the plain way both read the given images, and say how many a second."""
    for number, row in enumerate(rows_of(phantoms)):
        link = tmp_path / "by-class" / row["label"] / f"{number}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(phantoms / row["file"])
    course = Course(phantoms, tmp_path / "cache", tmp_path / "by-class")
    plan = Race("baseline_cnn", 32, batch=2, threads=1, steps=1, warmup_steps=1, rounds=1)
    assert ours(course, plan) > 0
    assert plain(course, plan) > 0


@pytest.fixture(scope="module")
def first(phantoms, tmp_path_factory) -> Path:
    """A bundle that learnt from the phantoms' train split."""
    return run(phantoms, tmp_path_factory.mktemp("first") / "out")


def swapped(phantoms: Path, folder: Path, sides: dict[str, str]) -> Path:
    """Write a labels.csv of the same slices on other sides."""
    folder.mkdir()
    rows = [
        {**row, "file": str(phantoms / row["file"]), "split": sides.get(row["split"], row["split"])}
        for row in rows_of(phantoms)
    ]
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_patients_of_the_start_weights_are_remembered_and_not_judged(phantoms, first, tmp_path):
    """Who taught the weights that a training starts from may not choose its epoch, and is listed in its bundle."""
    weights = str(first / "checkpoint.safetensors")
    turned = swapped(phantoms, tmp_path / "turned", {"train": "val", "val": "train"})
    with pytest.raises(TaughtBeforeError, match=r"start weights checkpoint\.safetensors \([0-9a-f]{8}\)") as caught:
        run(turned, tmp_path / "refused", weights=weights)
    assert len(caught.value.patients) == 12
    assert read_bundle(run(turned, tmp_path / "marked", weights=weights, allow_leak=True)).report.leaked_patients == 12
    few = read_bundle(run(phantoms, tmp_path / "few", weights=weights, patients=3)).report
    assert (few.n_train_patients, few.leaked_patients, few.start_patients_known) == (3, 0, True)
    assert few.train_patient_keys == read_bundle(first).report.train_patient_keys
    told = json.loads((tmp_path / "few" / "checkpoint.json").read_text())["provenance"]
    assert told["train_patient_keys"] == list(few.train_patient_keys)
    assert told["start_weights"].startswith("checkpoint.safetensors (")


@pytest.mark.parametrize("mode", ["finetune", "head"])
def test_a_leak_in_the_start_weights_marks_what_starts_from_them(phantoms, tmp_path, capsys, mode):
    """The mark goes from checkpoint to checkpoint, for it is in the weights."""
    leaking(phantoms, tmp_path / "leaking")
    leaked = run(tmp_path / "leaking", tmp_path / "leaked", allow_leak=True)
    weights = str(leaked / "checkpoint.safetensors")
    sound = swapped(phantoms, tmp_path / "sound", {})
    capsys.readouterr()
    out = run(sound, tmp_path / "out", weights=weights, mode=mode)
    assert read_bundle(out).report.leaked_patients == 1
    assert json.loads((out / "checkpoint.json").read_text())["provenance"]["leaked_patients"] == 1
    assert "LEAKED: 1 patients" in capsys.readouterr().out


def test_a_last_layer_over_random_weights_is_refused(phantoms, tmp_path):
    """Head mode without weights learns from noise; the message says what to give."""
    with pytest.raises(UntrainedBodyError, match=r"--weights imagenet or a file's path.*--mode finetune"):
        run(phantoms, tmp_path / "out", mode="head")


def test_parity_is_printed_and_kept(phantoms, tmp_path, capsys):
    """How far ONNX and torch are apart stands in the report and on the terminal."""
    report = read_bundle(run(phantoms, tmp_path / "out")).report
    assert 0 <= report.parity_difference < 1e-3
    said = capsys.readouterr().out
    assert f"ONNX and torch differ by up to {report.parity_difference:.2g} in logits on 3 of them" in said
