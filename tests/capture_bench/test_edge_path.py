"""The edge's own path in the benchmark, whole and with a stage off each."""

import threading
from pathlib import Path

import numpy as np
from bench_parts import STAND_IN, stand_in
from network_parts import tiny_bundle

from protocol.labels import Label
from sliceloop.capture_bench.cases import CasePlan
from sliceloop.capture_bench.development import STAGES, UNLIKENESS, development_paths, with_unlikeness
from sliceloop.capture_bench.run import CaptureRequest, bench_capture
from training.bundle import read_bundle
from training.data.phantom import SITES, render_slice
from training.likeness import Likeness
from training.likeness import with_unlikeness as telling
from training.model.reader import Calibration, OnnxReader
from training.screen_camera import Family, shoot


def test_the_edges_path_is_measured_whole_and_with_each_stage_off(tmp_path: Path):
    """Clean phantoms come through, every stage says what it took, and each switch gives a path of its own."""
    asked = CaptureRequest(
        data=None,
        phantoms=6,
        out=tmp_path,
        model=None,
        plain_model=None,
        split="test",
        slices=None,
        plan=CasePlan(severities=(0.0,), factor_slices=0, empty_scenes=0),
        feed="file",
        json=None,
        sheet=False,
        allow_leak=False,
    )

    record = bench_capture(asked, development_paths(), threading.Event())

    (clean,) = record.figures.severities
    assert clean.localisation.mean is not None
    assert clean.localisation.mean > 0.95
    assert set(clean.without) == set(STAGES)
    assert record.figures.times.ratio_median is not None


def test_the_networks_own_refusal_is_part_of_the_path(tmp_path: Path):
    """What is unlike what the served network learnt from is refused as at the edge; with the stage off it is not."""
    model = read_bundle(tiny_bundle(tmp_path)).model
    zeros, eye = np.zeros(16, np.float32), np.eye(16, dtype=np.float32)
    near, far = (
        OnnxReader(telling(model, Likeness(zeros, eye, np.full(16, unit, np.float32), 1.0, 1.0)), Calibration())
        for unit in (1.0, 1e-3)
    )
    slice_ = render_slice(seed=3, site=SITES["site-a"], label=Label.NORMAL, patient=1, z=0.5)
    frame = shoot(slice_, severity=0.0, seed=1, family=Family.TRAINING).frame
    assert with_unlikeness(STAND_IN, near).whole(frame).pixels is not None
    refusing = with_unlikeness(STAND_IN, far)
    assert refusing.whole(frame).pixels is None
    assert refusing.whole(frame).refusals == ("unlike-learnt",)
    assert set(refusing.without) == {*STAND_IN.without, UNLIKENESS}
    assert refusing.without[UNLIKENESS] is stand_in
    assert with_unlikeness(STAND_IN, OnnxReader(model, Calibration())) is STAND_IN
    assert with_unlikeness(STAND_IN, None) is STAND_IN
