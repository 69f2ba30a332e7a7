"""`sliceloop data` finds what makes a data set's figures unbelievable, and decodes it once."""

import csv
import io
import json

import cv2
import numpy as np
import pytest
from full_disk import full_disk
from PIL import Image
from typer.testing import CliRunner

from sliceloop.cli import app
from training.data.cache import PIXELS_FILE, SLICE_BYTES
from training.data.check import check_dataset
from training.data.dataset import open_dataset
from training.data.labelled import TwoLabelsWarning
from training.data.phantom import Cohort, write_phantoms
from training.model.decode import decode_image

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Two patients a class and split, two slices each."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, [Cohort("site-a", split, 2, 2) for split in SPLITS], seed=3)
    return folder


@pytest.fixture
def folder(phantoms, tmp_path):
    """A copy of the phantoms to spoil."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(phantoms / "images")
    (data / "labels.csv").write_bytes((phantoms / "labels.csv").read_bytes())
    return data


def table(folder):
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(folder, rows):
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def first(rows, split, label="Normal"):
    return next(row for row in rows if (row["split"], row["label"]) == (split, label))


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)], env={"COLUMNS": "200"})


def test_a_sound_data_set_is_clean(folder, tmp_path):
    """Different phantoms are no near-duplicates; the counts are told, and the exit code is 0."""
    result = run("check", folder, "--json", tmp_path / "found.json", "--cache", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(c["label"], c["split"], c["source"], c["slices"], c["patients"]) for c in found["counts"]][:2] == [
        ("Normal", "train", "phantom-site-a", 4, 2),
        ("Normal", "val", "phantom-site-a", 4, 2),
    ]
    assert len(found["counts"]) == 9
    assert not any(found[name] for name in ("leaked", "two_labels", "copies", "unreadable", "missing", "one_class"))
    assert "4 / 2" in result.output
    assert (tmp_path / "cache" / PIXELS_FILE).stat().st_size == 36 * SLICE_BYTES


def test_all_faults_are_found_at_once(folder, tmp_path):
    """A leak, two labels, a copy, a damaged, a lost file, and a missing class are each named; the exit code is 1."""
    rows = [row for row in table(folder) if (row["split"], row["label"]) != ("val", "Pneumonia")]
    leaked, torn = first(rows, "test"), first(rows, "train", "COVID-19")
    leaked["patient_id"] = first(rows, "train")["patient_id"]
    torn["label"] = "Pneumonia"
    copy = dict(first(rows, "train", "Pneumonia"), patient_id="twin", split="test", file="copy.png")
    Image.open(folder / first(rows, "train", "Pneumonia")["file"]).save(folder / "copy.png", compress_level=9)
    (folder / "bad.png").write_bytes((folder / "copy.png").read_bytes()[:300])
    write(folder, [*rows, copy, dict(copy, file="bad.png"), dict(copy, file="lost.png")])
    result = run("check", folder, "--json", tmp_path / "found.json")
    assert result.exit_code == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["leaked"] == [{"patient": leaked["patient_id"], "values": ["test", "train"]}]
    assert found["two_labels"] == [{"patient": torn["patient_id"], "values": ["COVID-19", "Pneumonia"]}]
    assert [(twins["first"]["file"], twins["second"]["file"]) for twins in found["copies"]] == [
        (first(rows, "train", "Pneumonia")["file"], "copy.png")
    ]
    assert found["copies"][0]["identical"]
    assert {one["file"]: one["fault"][:12] for one in found["unreadable"]} == {
        "bad.png": "the image is",
        "lost.png": "cannot be re",
    }
    assert found["missing"] == [{"split": "val", "label": "Pneumonia"}]
    for told in (leaked["patient_id"], "copy.png", "lost.png", "no slice of Pneumonia in val", "not clean"):
        assert told in result.output


def lossy(frame):
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=75)
    return decode_image(file.getvalue())


@pytest.mark.parametrize(
    "change",
    [
        lossy,
        lambda frame: cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda frame: np.pad(frame, 20),
        lambda frame: (255 * (frame / 255) ** 0.85).astype(np.uint8),
    ],
    ids=["jpeg", "half size", "margin", "gamma"],
)
def test_a_changed_copy_in_another_split_is_found(folder, tmp_path, change):
    """A copy that was encoded anew, shrunk, padded or brightened is a near-duplicate; inside one split it is not."""
    rows = table(folder)
    original = first(rows, "train")
    Image.fromarray(change(decode_image((folder / original["file"]).read_bytes()))).save(folder / "copy.png")
    write(folder, [*rows, dict(original, file="copy.png", patient_id="twin", split="val")])
    (copy,) = check_dataset(open_dataset(folder), tmp_path / "cache").copies
    assert {copy.first.file, copy.second.file} == {original["file"], "copy.png"}
    assert copy.bits <= 32 and copy.correlation >= 0.98
    write(folder, [*rows, dict(original, file="copy.png", patient_id="twin")])
    assert check_dataset(open_dataset(folder), tmp_path / "cache").copies == ()


def test_one_class_is_said(folder):
    """From a data set of one class nothing can be learnt: that is said, and it is not clean."""
    write(folder, [row for row in table(folder) if row["label"] == "Normal"])
    result = run("check", folder)
    assert result.exit_code == 1
    assert "all slices are Normal" in result.output and "not clean" in result.output


def test_findings_that_do_not_fit_on_the_disk_are_named(folder, tmp_path):
    """A full disk leaves no half JSON, and the file is named."""
    found = tmp_path / "found.json"
    run("check", folder, "--cache", tmp_path / "cache")
    with full_disk(200):
        result = run("check", folder, "--cache", tmp_path / "cache", "--json", found)
    assert isinstance(result.exception, OSError) and result.exception.filename == str(found)
    assert not found.exists()


def test_caching_is_told_and_done_once(folder, tmp_path):
    """`data cache` fills the cache, names what cannot be read with exit code 1, and does the rest."""
    result = run("cache", folder, "--cache", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    assert "36 slices in" in result.output
    (folder / "bad.png").write_bytes(b"x")
    write(folder, [*table(folder), dict(table(folder)[0], file="bad.png")])
    result = run("cache", folder, "--cache", tmp_path / "cache")
    assert result.exit_code == 1
    assert "bad.png" in result.output
    assert "36 slices in" in result.output


def test_class_folders_are_checked_by_a_rule(folder, tmp_path):
    """With a rule, folders of classes are checked too."""
    rows = table(folder)
    for number, row in enumerate(rows[:6]):
        place = tmp_path / "classes" / row["label"] / f"p{number}_1.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((folder / row["file"]).read_bytes())
    result = run("check", tmp_path / "classes", "--patient-rule", r"([^/]+)_\d+\.png$")
    assert result.exit_code == 0, result.output
    assert "hash of each patient's id" in result.output


def test_two_labels_still_warn_who_trains(folder):
    """Whoever opens the data set to train on it is warned of a patient with two labels."""
    rows = table(folder)
    first(rows, "train")["label"] = "COVID-19"
    write(folder, rows)
    with pytest.warns(TwoLabelsWarning):
        open_dataset(folder)
