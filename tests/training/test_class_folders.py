"""A folder for each class becomes slices, once a rule says whose they are."""

import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from protocol.labels import LABELS
from sliceloop.cli import app
from training.data.class_folders import HashedSplits, NoPatientInNameError
from training.data.dataset import load_split, open_dataset
from training.data.labelled import NoLabelsError, UnknownLabelError
from training.data.patient_rule import PatientRuleError
from training.data.phantom import Cohort, write_phantoms
from training.data.slices import LeakError

RULE = r"([^/]+)_\d+\.\w+$"


def put(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        image = np.zeros((60, 80), np.uint8)
        cv2.ellipse(image, (40, 30), (30, 25), 0, 0, 360, 180, thickness=-1)
        assert cv2.imwrite(str(folder / file), image)


def test_classes_are_known_by_many_names(tmp_path):
    """Usual spellings become our labels, deeper folders and .jpg are read, and notes beside them are not slices."""
    put(tmp_path, "Normal/n1_1.png", "CP/deep/c1_1.jpg", "covid-19/v1_1.png", "COVID_19 pneumonia/v2_1.JPEG")
    (tmp_path / "Normal" / "readme.txt").write_text("x")
    (tmp_path / ".hidden").mkdir()
    rows = open_dataset(tmp_path, patient_rule=RULE).rows
    assert [(row.file, row.label.value, row.patient_id, row.source) for row in rows] == [
        ("COVID_19 pneumonia/v2_1.JPEG", "COVID-19", "v2", tmp_path.name),
        ("CP/deep/c1_1.jpg", "Pneumonia", "c1", tmp_path.name),
        ("Normal/n1_1.png", "Normal", "n1", tmp_path.name),
        ("covid-19/v1_1.png", "COVID-19", "v1", tmp_path.name),
    ]


def test_patients_are_split_by_a_hash_where_the_folders_do_not(tmp_path):
    """All slices of a patient go to one side, who comes later moves nobody, and the reader says what it did."""
    put(tmp_path, *(f"Normal/p{patient}_{i}.png" for patient in range(60) for i in range(2)))
    dataset = open_dataset(tmp_path, patient_rule=RULE)
    sides = {row.patient_id: row.split for row in dataset.rows}
    assert {split: list(sides.values()).count(split) > 3 for split in ("train", "val", "test")} == {
        "train": True,
        "val": True,
        "test": True,
    }
    assert dataset.leaked == ()
    assert "15% of the patients to val and 15% to test" in dataset.notes[0]
    put(tmp_path, "Normal/q1_1.png")
    later = {row.patient_id: row.split for row in open_dataset(tmp_path, patient_rule=RULE).rows}
    assert {patient: later[patient] for patient in sides} == sides
    every = open_dataset(tmp_path, patient_rule=RULE, hashed=HashedSplits(val=0.0, test=1.0))
    assert {row.split for row in every.rows} == {"test"}
    assert len(load_split(every, "test")) == 121


def test_every_class_is_on_every_side_where_it_has_the_patients(tmp_path):
    """Ten patients a class are enough for each split to have each class, in folders without splits and without val."""
    classes = ("Normal", "CP", "covid-19")
    put(tmp_path / "flat", *(f"{name}/{name}{patient}_1.png" for name in classes for patient in range(10)))
    put(tmp_path / "sides", *(f"train/{name}/{name}{patient}_1.png" for name in classes for patient in range(4)))
    rows = open_dataset(tmp_path / "flat", patient_rule=RULE).rows
    assert {(row.split, row.label) for row in rows} == set(product(("train", "val", "test"), LABELS))
    rows = open_dataset(tmp_path / "sides", patient_rule=RULE).rows
    assert {(row.split, row.label) for row in rows} == set(product(("train", "val"), LABELS))


@pytest.mark.parametrize("seed", range(30))
def test_few_patients_of_a_class_are_shared_out(seed):
    """Three patients are one a side, whatever the hash says; two stay where it puts them."""
    hashed = HashedSplits(seed=seed)
    assert sorted(hashed.sides(["a", "b", "c"]).values()) == ["test", "train", "val"]
    assert set(hashed.sides(["a", "b"])) == {"a", "b"}


@pytest.mark.parametrize("command", ["curve", "sources", "tune"])
def test_searches_read_class_folders_by_a_rule(tmp_path, command):
    """With the rule they get as far as finding that a class has no slice."""
    put(tmp_path / "data", *(f"{name}/{name}{patient}_1.png" for name in ("Normal", "CP") for patient in range(4)))
    options = ["--out", str(tmp_path / "out"), "--patient-rule", RULE, "--input-px", "32"]
    options += [] if command == "tune" else ["--mode", "finetune", "--architecture", "baseline_cnn"]
    said = CliRunner().invoke(app, [command, str(tmp_path / "data"), *options])
    assert not isinstance(said.exception, PatientRuleError | LeakError)
    assert {"curve": "COVID-19", "sources": "no source but data", "tune": "COVID-19"}[command] in str(said.exception)


def test_folders_of_splits_are_kept(tmp_path):
    """train, validation and test folders say the side; without val a share of train's patients is moved there."""
    files = [f"{side}/Normal/{side}{i}_1.png" for side in ("Training", "test") for i in range(40)]
    put(tmp_path, *files)
    dataset = open_dataset(tmp_path, patient_rule=RULE)
    sides = {row.file.split("/")[0]: set() for row in dataset.rows}
    for row in dataset.rows:
        sides[row.file.split("/")[0]].add(row.split)
    assert sides == {"Training": {"train", "val"}, "test": {"test"}}
    assert "no val folder" in dataset.notes[0]
    put(tmp_path, "validation/Normal/v1_1.png")
    dataset = open_dataset(tmp_path, patient_rule=RULE)
    assert [row.file for row in dataset.rows if row.split == "val"] == ["validation/Normal/v1_1.png"]
    assert dataset.notes == ()


def test_a_patient_in_two_folders_of_splits_is_a_leak(tmp_path):
    """The rule shows who stands on two sides; that is refused, or allowed and said."""
    put(tmp_path, "train/Normal/a_1.png", "test/Normal/a_2.png", "val/Normal/b_1.png")
    with pytest.raises(LeakError, match=r"1 patient.*: a;"):
        open_dataset(tmp_path, patient_rule=RULE)
    assert open_dataset(tmp_path, patient_rule=RULE, allow_leak=True).leaked == ("a",)


def test_what_cannot_be_read_is_named(tmp_path):
    """No rule, a rule that misses files, a folder of no class, empty folders, and no form at all say what to do."""
    put(tmp_path, "Normal/n1_1.png", "Normal/other.png")
    with pytest.raises(PatientRuleError, match="give a patient rule, for example"):
        open_dataset(tmp_path)
    with pytest.raises(NoPatientInNameError, match=r"nobody in 1 of 2 files, first 'Normal/other\.png'"):
        open_dataset(tmp_path, patient_rule=RULE)
    (tmp_path / "Lungs").mkdir()
    with pytest.raises(UnknownLabelError, match="Lungs: is no class folder; call it one of Normal"):
        open_dataset(tmp_path, patient_rule=RULE)
    put(tmp_path, "train/Normal/n1_1.png")
    with pytest.raises(UnknownLabelError, match="beside folders of splits"):
        open_dataset(tmp_path, patient_rule=RULE)
    (tmp_path / "empty" / "covid").mkdir(parents=True)
    with pytest.raises(NoLabelsError, match="hold no file"):
        open_dataset(tmp_path / "empty", patient_rule=RULE)
    with pytest.raises(NoLabelsError, match=r"neither a labels\.csv, nor COVIDx"):
        open_dataset(tmp_path / "Lungs")
    with pytest.raises(NoLabelsError, match="is not a folder"):
        open_dataset(tmp_path / "nowhere")


def test_bench_reads_class_folders_by_a_rule(tmp_path):
    """Training's speed is measured on class folders, too."""
    write_phantoms(tmp_path / "phantoms", [Cohort("site-a", "train", 4, 1)], seed=0)
    for row in open_dataset(tmp_path / "phantoms").rows:
        place = tmp_path / "data" / row.label / f"{row.patient_id}_1.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "phantoms" / row.file, place)
    options = ["--architecture", "baseline_cnn", "--input-px", "32", "--batch", "2", "--steps", "1", "--rounds", "1"]
    command = [sys.executable, "-m", "sliceloop", "bench", "training", "data", "--patient-rule", RULE, *options]
    root = str(Path(__file__).parents[2])
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert ended.returncode == 0, ended.stderr
    assert "times the plain way" in ended.stdout
