"""The benchmark from end to end: phantoms before a simulated camera, through the real source and an honest stand-in."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from bench_parts import STAND_IN, stand_in
from network_parts import tiny_bundle

from sliceloop.capture_bench.cases import CasePlan
from sliceloop.capture_bench.origin import CaptureRecord
from sliceloop.capture_bench.path import Outcome, Paths
from sliceloop.capture_bench.run import CaptureRequest, NothingToShowError, bench_capture

PLAN = CasePlan(severities=(0.0, 1.0), factor_slices=1, empty_scenes=1)
FRAMES = 6 * 2 + 5 * 2 + 16
"""Slices and scenes at two severities, and factors at one."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[CaptureRequest, CaptureRecord]:
    """Run the whole benchmark once, on six phantoms."""
    folder = tmp_path_factory.mktemp("bench")
    asked = replace(
        request(folder),
        model=tiny_bundle(folder / "model", seed=1),
        plain_model=tiny_bundle(folder / "plain", seed=2),
        json=folder / "copy.json",
    )
    return asked, bench_capture(asked, STAND_IN, threading.Event())


def request(folder: Path, plan: CasePlan = PLAN) -> CaptureRequest:
    return CaptureRequest(
        data=None,
        phantoms=6,
        out=folder / "out",
        model=None,
        plain_model=None,
        split="test",
        slices=None,
        plan=plan,
        feed="file",
        json=None,
        sheet=None,
        allow_leak=False,
    )


def test_every_slice_is_measured_at_every_severity(ran):
    """The figures have all frames: six slices at two severities, five scenes, each factor."""
    _, record = ran
    figures = record.figures
    assert [(one.severity, one.n_frames, one.n_patients) for one in figures.severities] == [(0.0, 6, 6), (1.0, 6, 6)]
    assert sum(one.accepted.of for one in figures.empty) == 10
    assert len({one.factor for one in figures.factors}) == 16
    assert figures.times.geometry is not None
    assert figures.times.ratio_median is not None
    assert {"decode", "locate", "rectify", "photometry", "read"} <= figures.times.stages.keys()


def test_each_stage_is_switched_off_at_the_careful_severity_alone(ran):
    """The ablation stands beside the whole path on the same frames."""
    _, record = ran
    clean, careful = record.figures.severities
    assert not clean.without
    assert careful.without["intake"].abstention.refused.value == 1
    assert careful.without["refine"].localisation == careful.localisation


def test_the_papers_path_is_read_by_the_network_without_the_simulator(ran):
    """It never refuses, and both halves of it are also judged with a half of ours."""
    _, record = ran
    for one in record.figures.severities:
        assert one.paper is not None
        assert one.paper.localisation.accepted_wrong.of == 6
        assert one.paper.reading.captured is not None
        assert len(one.crossed) == 2


def test_every_output_says_that_it_is_simulated(ran, capsys):
    """Terminal, JSON, its copy, and the page; the plots' names stand in the page."""
    asked, _ = ran
    bench_capture(asked, STAND_IN, threading.Event())
    printed = capsys.readouterr().out
    page = (asked.out / "capture.md").read_text()
    assert printed.split("\n\n")[-1].strip().startswith("SIMULATED")
    assert page.startswith("**SIMULATED")
    for file in (asked.out / "capture.json", asked.json):
        told = json.loads(file.read_text())
        assert told["what"].startswith("SIMULATED")
        assert told["figures"]["simulated"] is True
    pictures = {path.name for path in asked.out.iterdir() if path.suffix in (".png", ".jpg")}
    assert pictures == {
        "outline.png",
        "accuracy.png",
        "abstention.png",
        "factors.png",
        "stages.png",
        "worst.jpg",
    }
    assert all(f"]({name})" in page for name in pictures)


def test_a_second_run_takes_no_frame_again(ran):
    """With the same recipe everything is kept: the path is not called once, and the figures are the same."""
    asked, record = ran
    again = bench_capture(asked, Paths(never, dict.fromkeys(STAND_IN.without, never)), threading.Event())
    assert again.figures == record.figures


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    """What was kept before the stop is not taken again, a line that a kill cut short is, and nothing is missing."""
    plan = CasePlan(severities=(0.0, 1.0), factor_slices=0, empty_scenes=2)
    stop, calls = threading.Event(), []

    def stopping(frame: np.ndarray) -> Outcome:
        calls.append(1)
        if len(calls) == 20:
            stop.set()
        return stand_in(frame)

    with pytest.raises(typer.Exit) as ended:
        bench_capture(request(tmp_path, plan), Paths(stopping, {}), stop)
    (kept,) = (tmp_path / "out").glob("frames-*.jsonl")
    assert ended.value.exit_code == 130
    assert len(kept.read_text().splitlines()) == 16
    kept.write_text(kept.read_text()[:-40])

    calls.clear()
    record = bench_capture(request(tmp_path, plan), Paths(stopping, {}), threading.Event())

    assert len(calls) == 6 * 2 + 5 * 2 * 2 - 15
    assert [one.n_frames for one in record.figures.severities] == [6, 6]
    assert sum(one.accepted.of for one in record.figures.empty) == 20


def test_another_recipe_does_not_take_over_what_was_kept(tmp_path):
    """A run with another plan measures afresh, into a file of its own."""
    for seed in (0, 1):
        plan = CasePlan(severities=(0.0,), factor_slices=0, empty_scenes=0, seed=seed)
        bench_capture(request(tmp_path, plan), Paths(stand_in, {}), threading.Event())
    assert len(list((tmp_path / "out").glob("frames-*.jsonl"))) == 2


def test_without_a_network_the_outline_is_measured_alone(tmp_path):
    """There is no accuracy, and no picture of one."""
    plan = CasePlan(severities=(0.0,), factor_slices=0, empty_scenes=0)
    record = bench_capture(request(tmp_path, plan), Paths(stand_in, {}), threading.Event())
    (clean,) = record.figures.severities
    assert clean.reading is None
    assert clean.localisation.n == 6
    assert not (tmp_path / "out" / "accuracy.png").exists()


def test_data_or_phantoms_must_be_named(tmp_path):
    """Neither, and both, are refused with what to do."""
    for wrong in (
        replace(request(tmp_path), phantoms=0),
        replace(request(tmp_path), data=tmp_path),
    ):
        with pytest.raises(NothingToShowError, match="--phantoms"):
            bench_capture(wrong, STAND_IN, threading.Event())


def never(frame: np.ndarray) -> Outcome:
    raise AssertionError("a frame was taken again")
