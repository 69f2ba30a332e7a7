"""Try a stored network in a process of its own before the agent loads it: a crash or a hang there harms no reading."""

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent import structure
from edge_agent.model_slot import SelfTestError
from edge_agent.trial_process import GOLDEN_FAULT, Measured, TrialRequest, peak_mb
from protocol.manifest import GOLDEN_FILE, MODEL_FILE
from training.model.reader import Calibration, NotFiniteError, UnreadableNetworkError

WATCH_S = 0.02
"""Between two looks at the process's memory."""
MAX_ANSWER_BYTES = 65_536
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


class SelfTestDifferenceError(SelfTestError):
    """The logits on the golden slices are not those that the manifest promises."""


class TooSlowError(SelfTestError):
    """The median golden slice took longer than the manifest allows."""


class TooMuchMemoryError(SelfTestError):
    """The process held more memory than the manifest allows."""


class TrialDiedError(SelfTestError):
    """The process ended without an answer."""


class TrialTimeoutError(SelfTestError):
    """The process gave no answer in time."""


class TrialStoppedError(RuntimeError):
    """The agent stops: nothing was found out about the network."""


@dataclass(frozen=True)
class TrialBounds:
    """What a network may need on this edge."""

    golden_tolerance: float
    latency_bound_ms: float
    memory_bound_mb: float
    timeout_s: float


def try_model(
    folder: Path,
    bounds: TrialBounds,
    calibration: Calibration,
    *,
    threads: int = 1,
    stopped: Callable[[], bool] = lambda: False,
) -> Measured:
    """Run the network in the folder on its golden slices, and return what was measured.

    Raises a `SelfTestError` or `StructureError` of the fault's name, `UnreadableNetworkError`, `TrialStoppedError`, or
    `OSError` where no process can be started. The process is gone when this returns.
    """
    request = TrialRequest(
        model=str(folder.absolute() / MODEL_FILE),
        golden=str(folder.absolute() / GOLDEN_FILE),
        labels=tuple(calibration.labels),
        temperature=calibration.temperature,
        uncertain_below=calibration.uncertain_below,
        threads=threads,
        cpu_s=math.ceil(bounds.timeout_s * (threads + 1)) + 1,
    )
    with _started() as child:
        try:
            _ask(child, request)
            answer = _watched(child, bounds, stopped)
        finally:
            _end(child)
    return judged(_parsed(answer, child.returncode), bounds)


def judged(measured: Measured, bounds: TrialBounds) -> Measured:
    """Return what was measured if it is within the bounds, or raise the error that names what is not."""
    if not measured.difference <= bounds.golden_tolerance:  # NaN is no promise either
        raise SelfTestDifferenceError(
            f"logits on the golden slices differ by {measured.difference:.4f}, allowed are {bounds.golden_tolerance}"
        )
    if not measured.latency_ms <= bounds.latency_bound_ms:
        raise TooSlowError(
            f"a golden slice took {measured.latency_ms:.1f} ms (median), allowed are {bounds.latency_bound_ms:g} ms"
        )
    if not measured.peak_mb <= bounds.memory_bound_mb:
        raise _too_much(measured.peak_mb, bounds)
    return measured


def _started() -> subprocess.Popen[bytes]:
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    modules = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-B", "-m", "edge_agent.trial_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**kept, "PYTHONPATH": modules},
        start_new_session=True,
    )


def _ask(child: subprocess.Popen[bytes], request: TrialRequest) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died already; its end tells
        child.stdin.write(request.to_json())
        child.stdin.flush()


def _watched(child: subprocess.Popen[bytes], bounds: TrialBounds, stopped: Callable[[], bool]) -> bytes:
    """Return what the process says until its end, looking at its time and memory."""
    assert child.stdout is not None
    status = Path(f"/proc/{child.pid}/status")
    until_s = time.monotonic() + bounds.timeout_s
    answer, said_all = b"", False
    while not (said_all and _has_ended(child)):
        if stopped():
            raise TrialStoppedError("the trial was stopped; it is done again after the next start")
        if time.monotonic() > until_s:
            raise TrialTimeoutError(f"no answer on the golden slices within {bounds.timeout_s:g} s")
        if (peak := peak_mb(status)) > bounds.memory_bound_mb:
            raise _too_much(peak, bounds)
        if select.select([] if said_all else [child.stdout], [], [], WATCH_S)[0]:
            piece = os.read(child.stdout.fileno(), MAX_ANSWER_BYTES)
            answer, said_all = answer + piece, not piece
            if len(answer) > MAX_ANSWER_BYTES:
                raise TrialDiedError(f"the trial said more than {MAX_ANSWER_BYTES:,} bytes")
    return answer


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Tell it without taking the process's number away: until `_end` nobody else may get it."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind: the process is the first of its own session, and whatever it started is in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _parsed(answer: bytes, exit_code: int) -> Measured:
    try:
        said = json.loads(answer)
    except ValueError:
        said = None
    match said:
        case {"fault": str(fault), "text": str(text)}:
            raise _FAULTS.get(fault, TrialDiedError)(text)
        case {"difference": float(difference), "latency_ms": float(latency_ms), "peak_mb": float(peak)}:
            return Measured(difference, latency_ms, peak)
    how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    raise TrialDiedError(f"the process that tried the network {how}, without an answer")


def _too_much(peak: float, bounds: TrialBounds) -> TooMuchMemoryError:
    return TooMuchMemoryError(f"the network took {peak:.0f} MB to be tried, allowed are {bounds.memory_bound_mb:g} MB")


_FAULTS: dict[str, type[ValueError]] = {
    error.__name__: error
    for error in (
        structure.AbsurdShapeError,
        structure.CustomOperatorError,
        structure.ExternalDataError,
        structure.NotOnnxError,
        structure.StructureError,
        NotFiniteError,
        UnreadableNetworkError,
    )
} | {GOLDEN_FAULT: SelfTestError}
