"""Slices of each label stay on the box: one a patient, unnamed, bounded; whatever the disk does harms no reading."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from edge_parts import body, image_file
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from probation_parts import Said
from structlog.testing import capture_logs

from edge_agent.kept import REWRITTEN_AFTER_S, KeptSlices, is_due, slot_of
from edge_agent.outbox.cipher import KEY_BYTES, Sealed
from protocol.labels import LABELS, Label
from training.model.preprocess import INPUT_PX

EACH = 4
COVID = Said(Label.COVID_19)


def pixels(seed: int = 0) -> NDArray[np.uint8]:
    """Draw a prepared slice."""
    return body(INPUT_PX, INPUT_PX, seed)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sharing_a_slot() -> tuple[str, str]:
    """Return two patients of one slot."""
    first = "patient 0"
    slot = slot_of(first.encode(), EACH)
    return first, next(key for key in map("patient {}".format, range(1, 100)) if slot_of(key.encode(), EACH) == slot)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "kept"


# What is kept.


def test_what_is_kept_comes_back_by_name(folder: Path) -> None:
    """To the pixel, one slice for each label here, in the order of names; from any name on."""
    kept = KeptSlices(folder, EACH)
    for seed, label in enumerate(LABELS):
        kept.offer(pixels(seed), Said(label), "a patient")
    read = dict(kept.slices())
    assert list(read) == names(folder)
    assert [name.rsplit("-", 1)[0] for name in read] == ["COVID-19", "Normal", "Pneumonia"]
    assert np.array_equal(read[names(folder)[1]], pixels(LABELS.index(Label.NORMAL)))
    assert [name for name, _ in kept.slices(after=names(folder)[0])] == names(folder)[1:]


@given(st.lists(st.text(max_size=8), max_size=60), st.integers(1, 64))
def test_a_patient_has_one_slot(keys: list[str], each: int) -> None:
    """Always the same one of so many; hence never more slots than patients, or than are allowed."""
    slots = {key: slot_of(key.encode(), each) for key in keys}
    assert all(slot_of(key.encode(), each) == slot for key, slot in slots.items())
    assert all(0 <= slot < each for slot in slots.values())


def test_one_patient_fills_one_slot_of_a_label_and_many_no_more_than_there_are(folder: Path) -> None:
    """A patient whose hundred slices come in a row does not push out the others."""
    kept = KeptSlices(folder, EACH)
    for seed in range(5):
        kept.offer(pixels(seed), COVID, "a patient")
    assert len(names(folder)) == 1
    for patient in range(50):
        kept.offer(pixels(), COVID, f"patient {patient}")
    assert len(names(folder)) == EACH


def test_of_an_unknown_patient_each_picture_counts_as_one(folder: Path) -> None:
    """A camera that nobody tells whose slices it sees would else keep one of a label."""
    kept = KeptSlices(folder, 64)
    for seed in range(6):
        kept.offer(pixels(seed), COVID, "")
    assert len(names(folder)) > 1


def test_two_patients_of_one_slot_take_turns_of_a_day(folder: Path) -> None:
    """The first one's slice stays for a day, then the next that comes takes its place."""
    first, second = sharing_a_slot()
    kept = KeptSlices(folder, EACH)
    kept.offer(pixels(0), COVID, first)
    kept.offer(pixels(1), COVID, second)
    assert np.array_equal(dict(kept.slices()).popitem()[1], pixels(0))
    tomorrow = KeptSlices(folder, EACH, clock=lambda: time.time() + REWRITTEN_AFTER_S)
    tomorrow.offer(pixels(1), COVID, second)
    assert np.array_equal(dict(kept.slices()).popitem()[1], pixels(1))
    assert len(names(folder)) == 1


@pytest.mark.parametrize(
    ("age_s", "due"),
    [(None, True), (0.0, False), (REWRITTEN_AFTER_S - 1, False), (REWRITTEN_AFTER_S, True), (-1.0, True)],
)
def test_a_slot_is_written_once_a_day(age_s: float | None, due: bool) -> None:
    """A file from the future comes from a clock that was set back: its age is not known."""
    assert is_due(age_s) is due


def test_an_uncertain_answer_keeps_nothing(folder: Path) -> None:
    """It claims no label."""
    KeptSlices(folder, EACH).offer(pixels(), Said(Label.COVID_19, uncertain=True), "a patient")
    assert not folder.exists()


# Privacy.


def test_others_may_not_look_and_nothing_is_named(folder: Path) -> None:
    """The folder is the agent's alone; in a name are a label and a number."""
    KeptSlices(folder, EACH).offer(pixels(), COVID, "Doe^John")
    assert folder.stat().st_mode & 0o777 == 0o700
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.name == f"COVID-19-{slot_of(b'Doe^John', EACH):04d}.png"


def test_with_the_key_of_the_outbox_kept_slices_are_sealed_too(folder: Path) -> None:
    """What was plain goes when there is a key; with it they come back, and with another one they are deleted."""
    KeptSlices(folder, EACH).offer(pixels(), COVID, "a patient")
    sealed = KeptSlices(folder, EACH, Sealed(bytes(KEY_BYTES)))
    sealed.tidy()
    assert names(folder) == []
    sealed.offer(pixels(), COVID, "a patient")
    (path,) = folder.iterdir()
    assert b"PNG" not in path.read_bytes()
    assert [np.array_equal(each, pixels()) for _, each in sealed.slices()] == [True]
    assert list(KeptSlices(folder, EACH, Sealed(bytes([1] * KEY_BYTES))).slices()) == []
    assert names(folder) == []


# Where it ends.


def test_with_no_slots_nothing_is_kept_and_what_was_goes(folder: Path) -> None:
    """Turned off, it leaves nothing on the box."""
    KeptSlices(folder, EACH).offer(pixels(), COVID, "a patient")
    off = KeptSlices(folder, 0)
    assert list(off.slices()) == []
    off.tidy()
    off.offer(pixels(), COVID, "a patient")
    assert names(folder) == []


def test_at_the_start_all_that_is_in_no_slot_goes(folder: Path) -> None:
    """Half written before a power cut, of a larger number of slots, or somebody else's."""
    kept = KeptSlices(folder, EACH)
    kept.offer(pixels(), COVID, "a patient")
    mine = names(folder)
    for name in ("Normal-0001.png.part", "Normal-0004.png", "Pneumonia-0001.sealed", "Doe^John.png", ".hidden"):
        (folder / name).write_bytes(image_file(pixels()))
    kept.tidy()
    assert names(folder) == mine


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        image_file(pixels())[:5000],
        image_file(pixels())[:-200],
        image_file(body(32, 256)),
        image_file(body(512, 512)),
        os.urandom(1_000_000),
    ],
)
def test_what_is_no_prepared_slice_is_deleted_and_the_next_one_is_read(folder: Path, content: bytes) -> None:
    """Damaged, cut short, of another size, or without end: said, removed, and passed over."""
    kept = KeptSlices(folder, EACH)
    kept.offer(pixels(), Said(Label.PNEUMONIA), "a patient")
    mine = names(folder)
    (folder / "COVID-19-0000.png").write_bytes(content)
    with capture_logs() as logged:
        assert [name for name, _ in kept.slices()] == mine
    assert [(entry["event"], entry["name"]) for entry in logged] == [("kept slice deleted", "COVID-19-0000.png")]
    assert names(folder) == mine


def test_slices_are_read_one_at_a_time(folder: Path) -> None:
    """A slice whose file goes before its turn is not there any more: all at once would take memory."""
    kept = KeptSlices(folder, EACH)
    for label in LABELS:
        kept.offer(pixels(), Said(label), "a patient")
    first, second, third = names(folder)
    reading = kept.slices()
    assert next(reading)[0] == first
    (folder / second).unlink()
    assert next(reading)[0] == third


def test_a_full_disk_is_said_once_and_stops_nothing(folder: Path) -> None:
    """Each slice is offered all the same, and kept again when there is space."""
    kept = KeptSlices(folder, 1)
    folder.mkdir(parents=True)
    full = folder / "COVID-19-0000.png.part"
    full.symlink_to("/dev/full")
    with capture_logs() as logged:
        for _ in range(3):
            kept.offer(pixels(), COVID, "a patient")
    assert [entry["reason"] for entry in logged] == ["No space left on device"]
    full.unlink()
    kept.offer(pixels(), COVID, "a patient")
    assert [name for name, _ in kept.slices()] == ["COVID-19-0000.png"]


def test_a_folder_that_cannot_be_used_is_as_good_as_an_empty_one(folder: Path) -> None:
    """Here a file stands in its place; offering, tidying and reading raise nothing."""
    folder.parent.mkdir(parents=True)
    folder.write_text("no folder")
    kept = KeptSlices(folder, EACH)
    kept.tidy()
    kept.offer(pixels(), COVID, "a patient")
    assert list(kept.slices()) == []
