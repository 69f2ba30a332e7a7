"""Slices that may be patients' leave no picture and no name in what the benchmark writes."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from bench_parts import stand_in
from network_parts import tiny_bundle

from protocol.labels import LABELS
from sliceloop.capture_bench.cases import CasePlan
from sliceloop.capture_bench.path import Paths
from sliceloop.capture_bench.run import CaptureRequest, bench_capture
from training.data.labelled import COLUMNS
from training.data.phantom import Cohort, write_phantoms
from training.data.slices import LeakError

PATIENT = "Doe-Jane-1950"


@pytest.fixture
def asked(tmp_path) -> CaptureRequest:
    """Ask for three slices of a hospital."""
    return CaptureRequest(
        data=hospital(tmp_path / "data"),
        phantoms=0,
        out=tmp_path / "out",
        model=tiny_bundle(tmp_path / "model"),
        plain_model=None,
        split="test",
        slices=None,
        plan=CasePlan(severities=(0.0,), factor_slices=0, empty_scenes=0),
        feed="file",
        json=None,
        sheet=None,
        allow_leak=False,
    )


def hospital(folder: Path) -> Path:
    """Write phantoms under the names of a hospital's patients."""
    write_phantoms(folder, [Cohort("site-a", "test", 1, 1)], 1)
    files = [line.split(",")[0] for line in (folder / "labels.csv").read_text().splitlines()[1:]]
    rows = [f"{file},{label},{PATIENT}-{label},hospital,test" for file, label in zip(files, LABELS, strict=True)]
    (folder / "labels.csv").write_text("\n".join((",".join(COLUMNS), *rows)) + "\n")
    return folder


def test_no_picture_and_no_patient_is_written(asked):
    """No contact sheet, no id, no file name; what is kept of a frame has numbers alone."""
    bench_capture(asked, Paths(stand_in, {}), threading.Event())
    written = {path.name: path.read_bytes() for path in asked.out.iterdir()}
    assert "worst.jpg" not in written
    assert all(PATIENT.encode() not in data and b"site-a-0" not in data for data in written.values())


def test_so_many_slices_of_a_data_set_are_drawn_over_the_classes(asked):
    """Two of three slices are of two classes."""
    record = bench_capture(replace(asked, slices=2), Paths(stand_in, {}), threading.Event())
    assert record.data.n_slices == record.data.n_patients == 2


def test_a_contact_sheet_is_drawn_where_it_is_asked_for(asked):
    """The person who runs it may look at the worst frames."""
    bench_capture(replace(asked, sheet=True), Paths(stand_in, {}), threading.Event())
    assert (asked.out / "worst.jpg").exists()


def test_a_network_that_knows_the_patients_is_refused(asked, tmp_path):
    """A figure on patients of the training says nothing; allowed, it is marked on every output."""
    known = (*(f"{PATIENT}-{label}" for label in LABELS), "another")
    leaking = replace(asked, model=tiny_bundle(tmp_path / "leaking", trained_on=known))
    with pytest.raises(LeakError):
        bench_capture(leaking, Paths(stand_in, {}), threading.Event())

    bench_capture(replace(leaking, allow_leak=True), Paths(stand_in, {}), threading.Event())
    assert "LEAKED" in (asked.out / "capture.md").read_text().splitlines()[2]
