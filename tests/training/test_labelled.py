"""A labels.csv becomes slices, or an error that names file and line."""

import csv

import cv2
import numpy as np
import pytest

from protocol.labels import Label
from training.data.dataset import open_dataset
from training.data.labelled import (
    LabelsError,
    MissingColumnError,
    MissingFileError,
    NoLabelsError,
    TwoLabelsWarning,
    UnknownLabelError,
    UnknownSplitError,
    UnreadableSliceError,
    load_slices,
    read_labels,
)
from training.data.slices import LeakError, split_patients, split_sha256

HEADER = ["file", "label", "patient_id", "source", "split"]
ROWS = [
    ["a.png", "Normal", "p1", "here", "train"],
    ["b.png", "Pneumonia", "p2", "here", "train"],
    ["c.png", "COVID-19", "p3", "there", "val"],
]


@pytest.fixture
def folder(tmp_path):
    """Three slices, and a function's worth of labels.csv."""
    for index, (file, *_) in enumerate(ROWS):
        frame = np.zeros((160, 200), np.uint8)
        cv2.ellipse(frame, (100, 80), (80, 60), 0, 0, 360, 100 + 40 * index, thickness=-1)
        cv2.imwrite(str(tmp_path / file), frame)
    write(tmp_path)
    return tmp_path


def write(folder, rows=None, header=HEADER):
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *(ROWS if rows is None else rows)])


def changed(line, column, value):
    rows = [list(row) for row in ROWS]
    rows[line - 2][HEADER.index(column)] = value
    return rows


def test_rows_and_slices_are_read_in_order(folder):
    """Slices come in the order of the rows, with label, patient and source, and progress is told."""
    write(folder, [[*row, "512"] for row in ROWS], [*HEADER, "width"])
    told = []
    slices = load_slices(folder, read_labels(folder), on_slice=lambda done, of: told.append((done, of)))
    assert slices.pixels.shape == (3, 256, 256)
    assert slices.labels.tolist() == [0, 1, 2]
    assert slices.patients == ("p1", "p2", "p3")
    assert slices.sources == ("here", "here", "there")
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [int(pixels[128, 128]) for pixels in slices.pixels] == [100, 140, 180]


def test_chosen_and_joined_slices_keep_what_belongs_to_them(folder):
    """Selecting by mask, index or patient and joining again gives back the same set."""
    slices = load_slices(folder, read_labels(folder))
    first, rest = slices.select([0]), slices.select(slices.labels > 0)
    assert first.concat(rest).sha256() == slices.sha256()
    assert rest.of_patients(["p3"]).count(Label.COVID_19) == 1
    assert len(slices.select([])) == 0
    assert slices.select([1, 0, 2]).sha256() != slices.sha256()


@pytest.mark.parametrize(
    ("rows", "error", "line", "fault"),
    [
        (changed(3, "label", "covid"), UnknownLabelError, 3, "'covid' is none of Normal"),
        (changed(4, "split", "holdout"), UnknownSplitError, 4, "'holdout' is none of train"),
        (changed(2, "file", "x.png"), MissingFileError, 2, "'x.png' is not in"),
        (changed(4, "patient_id", " "), MissingColumnError, 4, "patient_id"),
        ([*ROWS, ["a.png", "Normal"]], MissingColumnError, 5, "patient_id"),
        ([], NoLabelsError, 1, "lists no slice"),
    ],
)
def test_bad_row_is_named_with_file_and_line(folder, rows, error, line, fault):
    """Whatever is wrong with a row, the message says where it stands."""
    write(folder, rows)
    with pytest.raises(error, match=fault) as caught:
        read_labels(folder)
    assert (caught.value.path, caught.value.line) == (folder / "labels.csv", line)


def test_bad_file_is_named(folder):
    """A header without our columns, binary rubbish, and no file at all are told apart from a bad row."""
    write(folder, header=["file", "class", "patient_id", "source", "split"])
    with pytest.raises(MissingColumnError, match="line 1: no column label"):
        read_labels(folder)
    (folder / "labels.csv").write_bytes(b"\xff\xfe\x00rubbish\x00\n\x00")
    with pytest.raises(LabelsError, match=r"labels\.csv"):
        read_labels(folder)
    (folder / "labels.csv").unlink()
    with pytest.raises(NoLabelsError, match="columns file, label"):
        read_labels(folder)


def test_patient_on_two_splits_is_refused_by_name(folder):
    """A labels.csv that leaks is not read, and says which patient leaks."""
    write(folder, changed(4, "patient_id", "p1"))
    with pytest.raises(LeakError, match="p1") as caught:
        read_labels(folder)
    assert caught.value.patients == ("p1",)


def test_patient_with_two_labels_is_allowed_with_a_warning(folder):
    """Two diagnoses of one patient can be true, so they are read, and said."""
    write(folder, changed(3, "patient_id", "p1"))
    with pytest.warns(TwoLabelsWarning, match="p1"):
        assert len(read_labels(folder)) == 3


def test_unreadable_file_is_named_or_left_out(folder):
    """A damaged image stops the loading by its name, or is reported and left out when asked."""
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:60])
    rows = read_labels(folder)
    with pytest.raises(UnreadableSliceError, match=r"b\.png"):
        load_slices(folder, rows)
    reported = []
    slices = load_slices(folder, rows, on_unreadable=lambda row, error: reported.append((row.file, str(error))))
    assert slices.patients == ("p1", "p3")
    assert [file for file, _ in reported] == ["b.png"]


def test_patients_are_split_by_their_id_alone(folder):
    """About the asked share is held back, nobody twice, and who comes later moves nobody."""
    patients = [f"p{index}" for index in range(1000)]
    learn, held_back = split_patients(patients * 2, 0.2, seed=1)
    assert sorted(learn + held_back) == sorted(patients)
    assert 150 < len(held_back) < 250
    assert set(split_patients(patients[:100], 0.2, seed=1)[1]) == set(held_back) & set(patients[:100])
    assert split_patients(patients, 0.2, seed=2)[1] != held_back
    slices = load_slices(folder, read_labels(folder))
    one, other = slices.select([0, 1]), slices.select([2])
    assert split_sha256(one, other) == split_sha256(one.select([1, 0]), other) != split_sha256(other, one)


def test_one_file_in_two_splits_is_a_leak_whatever_patient_it_is_said_to_be_of(folder):
    """Who listed a slice twice under two ids judges a network on what it learnt."""
    write(folder, [*ROWS, ["./a.png", "Normal", "p9", "here", "val"]])
    with pytest.raises(LeakError, match="the same file") as caught:
        read_labels(folder)
    assert caught.value.patients == ("p1", "p9")
    assert open_dataset(folder, allow_leak=True).leaked == ("p1", "p9")
    write(folder, [*ROWS, ["a.png", "Normal", "p9", "here", "train"]])
    assert len(read_labels(folder)) == len(ROWS) + 1
