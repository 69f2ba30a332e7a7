"""A network is tried in a process of its own: what is wrong with it has a name, and nothing stays behind."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from edge_parts import (
    DEADLINE_S,
    body,
    golden,
    golden_slices,
    network,
    wait_until,
)

from edge_agent.model_slot import SelfTestError
from edge_agent.structure import AbsurdShapeError, CustomOperatorError, ExternalDataError, NotOnnxError
from edge_agent.trial import (
    SelfTestDifferenceError,
    TooMuchMemoryError,
    TooSlowError,
    TrialBounds,
    TrialDiedError,
    TrialStoppedError,
    TrialTimeoutError,
    judged,
    try_model,
)
from edge_agent.trial_process import Measured
from protocol.labels import LABELS
from protocol.manifest import GOLDEN_FILE, MODEL_FILE
from training.model.preprocess import INPUT_PX
from training.model.reader import Calibration, OnnxReader, UnreadableNetworkError

BARE_PROCESS_MB = 80.0
"""What the process holds before it opens a network: Python, numpy, ONNX Runtime, onnx."""
BOUNDS = TrialBounds(golden_tolerance=0.05, latency_bound_ms=1000, memory_bound_mb=500, timeout_s=DEADLINE_S)
SHORT = TrialBounds(golden_tolerance=0.05, latency_bound_ms=1000, memory_bound_mb=500, timeout_s=2)
DARK = np.stack([(body(INPUT_PX, INPUT_PX) // 3).astype(np.uint8)])


def stored(folder: Path, model: bytes | None = None, golden_file: bytes | None = None) -> Path:
    """Write a network and what is expected of it; by default both are right."""
    slices = golden_slices()
    expected = golden(OnnxReader(network(), Calibration()).logits(slices), slices)
    (folder / MODEL_FILE).write_bytes(network() if model is None else model)
    (folder / GOLDEN_FILE).write_bytes(expected if golden_file is None else golden_file)
    return folder


def children() -> list[int]:
    """Return the trials that this process has running, or has not buried."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if int(lines["PPid"]) == os.getpid() and "trial_process" in commandline(status.parent):
            found.append(int(status.parent.name))
    return found


def commandline(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    """Whatever happened, no process of a trial is left."""
    yield
    assert children() == []


def test_a_good_network_passes_and_is_measured(tmp_path):
    """Its difference, latency and memory come back, memory above the bare process's."""
    measured = try_model(stored(tmp_path), BOUNDS, Calibration())
    assert measured.difference < 1e-4
    assert 0 < measured.latency_ms < 1000
    assert BARE_PROCESS_MB / 2 < measured.peak_mb < BOUNDS.memory_bound_mb


def with_other_outputs(model: bytes) -> bytes:
    proto = onnx.load_from_string(model)
    proto.graph.output[0].name = "classes"
    return bytes(proto.SerializeToString())


def of_domain(model: bytes) -> bytes:
    proto = onnx.load_from_string(model)
    proto.graph.node[0].domain = "com.evil"
    return bytes(proto.SerializeToString())


def with_external_data(model: bytes) -> bytes:
    proto = onnx.load_from_string(model)
    proto.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    return bytes(proto.SerializeToString())


def absurd(model: bytes) -> bytes:
    proto = onnx.load_from_string(model)
    proto.graph.initializer[0].dims.append(2**40)
    return bytes(proto.SerializeToString())


BAD_NETWORKS = {
    "noise": (b"no network", NotOnnxError),
    "external data": (with_external_data(network()), ExternalDataError),
    "operators of others": (of_domain(network()), CustomOperatorError),
    "absurd shapes": (absurd(network()), AbsurdShapeError),
    "other outputs": (with_other_outputs(network()), UnreadableNetworkError),
    "other answers": (network((5.0, 0.0, 0.0)), SelfTestDifferenceError),
    "a fault on every slice": (network(fault="index"), SelfTestError),
}


@pytest.mark.parametrize(("model", "error"), BAD_NETWORKS.values(), ids=BAD_NETWORKS.keys())
def test_what_is_wrong_with_a_network_has_a_name(model, error, tmp_path):
    """The process's finding comes back as the very error."""
    with pytest.raises(error) as raised:
        try_model(stored(tmp_path, model), BOUNDS, Calibration())
    assert raised.type is error


def test_a_network_that_answers_nan_is_refused(tmp_path):
    """NaN is no logit that was promised."""
    with pytest.raises(SelfTestDifferenceError):
        try_model(stored(tmp_path, network(fault="dark"), golden([[0, 0, 0]], DARK)), BOUNDS, Calibration())


@pytest.mark.parametrize("golden_file", [b"", b"\xff", golden([], DARK[:0]), golden([[0, 0]], DARK), b"\xa0"])
def test_golden_slices_that_cannot_be_read_are_refused(golden_file, tmp_path):
    """Noise, no slices, logits of another number of classes."""
    with pytest.raises(SelfTestError):
        try_model(stored(tmp_path, golden_file=golden_file), BOUNDS, Calibration())


def test_a_network_that_hangs_is_ended(tmp_path):
    """A loop without an end on a golden slice costs the time limit, and no more."""
    with pytest.raises(TrialTimeoutError):
        try_model(stored(tmp_path, network(fault="hang"), golden([[0, 0, 0]], DARK)), SHORT, Calibration())


def test_a_network_that_eats_memory_is_ended(tmp_path):
    """Two gigabytes of which its file says nothing are noticed while they are taken."""
    with pytest.raises(TooMuchMemoryError):
        try_model(stored(tmp_path, network(fault="hunger")), BOUNDS, Calibration())


def test_a_network_that_is_slow_or_large_by_the_manifests_bounds_is_refused(tmp_path):
    """Right answers are not enough."""
    stored(tmp_path)
    with pytest.raises(TooSlowError):
        try_model(tmp_path, TrialBounds(0.05, 1e-6, 500, DEADLINE_S), Calibration())
    with pytest.raises(TooMuchMemoryError):
        try_model(tmp_path, TrialBounds(0.05, 1000, 10, DEADLINE_S), Calibration())


def test_the_bounds_decide_each_by_itself():
    """What is measured is judged by a pure function; on the bound is within."""
    bounds = TrialBounds(golden_tolerance=0.1, latency_bound_ms=5, memory_bound_mb=100, timeout_s=1)
    within = Measured(difference=0.1, latency_ms=5, peak_mb=100)
    assert judged(within, bounds) == within
    for measured, error in (
        (Measured(0.11, 5, 100), SelfTestDifferenceError),
        (Measured(float("nan"), 5, 100), SelfTestDifferenceError),
        (Measured(0.1, 5.1, 100), TooSlowError),
        (Measured(0.1, 5, 101), TooMuchMemoryError),
    ):
        with pytest.raises(error):
            judged(measured, bounds)


def hanging(tmp_path: Path) -> Path:
    return stored(tmp_path, network(fault="hang"), golden([[0, 0, 0]], DARK))


def test_a_process_that_is_killed_from_outside_has_died(tmp_path):
    """A crash of the runtime, or the machine's want of memory, is a verdict on the network, with the signal named."""

    def kill() -> None:
        wait_until(lambda: children() != [], "no trial was started")
        os.kill(children()[0], signal.SIGSEGV)

    killer = threading.Thread(target=kill, name="killer")
    killer.start()
    with pytest.raises(TrialDiedError, match="signal 11"):
        try_model(hanging(tmp_path), BOUNDS, Calibration())
    killer.join(DEADLINE_S)


def test_a_trial_can_be_stopped(tmp_path):
    """An agent that ends does not wait for the time limit, and learns nothing of the network."""
    with pytest.raises(TrialStoppedError):
        try_model(hanging(tmp_path), BOUNDS, Calibration(), stopped=lambda: children() != [])


def test_a_process_without_an_answer_has_died(tmp_path):
    """Files that are gone end it, with its exit code."""
    with pytest.raises(TrialDiedError, match="exit code 1"):
        try_model(tmp_path, BOUNDS, Calibration())


TRYING = """
import sys
from pathlib import Path
from edge_agent.trial import TrialBounds, try_model
from training.model.reader import Calibration
try_model(Path(sys.argv[1]), TrialBounds(1, 1, 500, 1000), Calibration())
"""


def test_an_agent_that_is_killed_takes_its_trial_along(tmp_path):
    """Power and kill -9 leave no process behind that turns for ever."""
    with subprocess.Popen([sys.executable, "-c", TRYING, str(hanging(tmp_path))]) as agent:
        wait_until(lambda: trial_of(agent.pid) != 0, "no trial was started")
        trial = trial_of(agent.pid)
        agent.kill()
    wait_until(lambda: not commandline(Path(f"/proc/{trial}")), "the trial outlived its agent")


def trial_of(agent: int) -> int:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == agent and "trial_process" in commandline(stat.parent):
            return int(stat.parent.name)
    return 0


def test_the_process_gets_no_secret_of_the_agents(tmp_path, monkeypatch):
    """Of the environment only what it needs is handed on."""
    monkeypatch.setenv("SLICELOOP_SECRET", "s3cret")
    seen = []

    def look() -> bool:
        if children():
            seen.append(Path(f"/proc/{children()[0]}/environ").read_bytes())
        return bool(seen)

    with pytest.raises(TrialStoppedError):
        try_model(hanging(tmp_path), BOUNDS, Calibration(), stopped=look)
    assert b"PYTHONPATH" in seen[0]
    assert b"s3cret" not in seen[0]


def test_the_manifests_labels_count(tmp_path):
    """A manifest of two classes does not fit a network of three."""
    with pytest.raises(UnreadableNetworkError):
        try_model(stored(tmp_path), BOUNDS, Calibration(labels=LABELS[:2]))
