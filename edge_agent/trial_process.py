"""The process in which a network is tried: `python -m edge_agent.trial_process` measures it, and judges nothing.

The request comes as one line of JSON on standard input, the answer goes as JSON to standard output; when the agent
dies, standard input ends, and so does this. It knows neither keys nor outbox nor broker.
"""

import contextlib
import json
import os
import resource
import statistics
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.golden import GoldenError, difference, read_golden
from edge_agent.structure import StructureError, check_structure
from protocol.labels import Label
from training.model.reader import Calibration, NotFiniteError, OnnxReader, UnreadableNetworkError

FAULT, FAULT_TEXT = "fault", "text"
GOLDEN_FAULT = "golden"
_STDIN, _STDOUT = 0, 1
_MAX_REQUEST_BYTES = 65_536
_STATUS = Path("/proc/self/status")
_OOM_SCORE = Path("/proc/self/oom_score_adj")


@dataclass(frozen=True)
class TrialRequest:
    """Two files, how to read the network's answers, with how many threads, and after how much CPU time to die."""

    model: str
    golden: str
    labels: tuple[str, ...]
    temperature: float
    uncertain_below: float
    threads: int
    cpu_s: int

    def to_json(self) -> bytes:
        """Write it as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @property
    def calibration(self) -> Calibration:
        """Return how logits become a verdict."""
        return Calibration(tuple(Label(label) for label in self.labels), self.temperature, self.uncertain_below)


@dataclass(frozen=True)
class Measured:
    """Largest difference in logits, median milliseconds of one slice, most memory; infinite where no number is."""

    difference: float
    latency_ms: float
    peak_mb: float


def main() -> None:
    """Answer the one request, and end without ceremony: a native library may hang at its own end."""
    request = TrialRequest(**json.loads(_line()))
    answers = os.dup(_STDOUT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)  # whatever a library prints is no answer
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    _die_first(request.cpu_s)
    os.write(answers, json.dumps(_answer(request)).encode())
    os._exit(0)


def measure(model: bytes, golden: bytes, calibration: Calibration, *, threads: int) -> Measured:
    """Load a network and read the golden slices one at a time; raises what is wrong with either."""
    check_structure(model)
    reader = OnnxReader(model, calibration, threads=threads)
    expected = read_golden(golden)
    differs = difference(reader, expected)
    latency_ms = 1000 * statistics.median(_seconds(reader, one) for one in expected.slices)
    return Measured(differs, latency_ms, peak_mb(_STATUS))


def peak_mb(status: Path) -> float:
    """Return the most memory that a process held so far, by its /proc/PID/status; 0 where that is not told."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _answer(request: TrialRequest) -> dict[str, object]:
    try:
        model, golden = (Path(name).read_bytes() for name in (request.model, request.golden))
        return asdict(measure(model, golden, request.calibration, threads=request.threads))
    except (StructureError, UnreadableNetworkError) as error:
        return {FAULT: type(error).__name__, FAULT_TEXT: str(error)}
    except GoldenError as error:
        return {FAULT: GOLDEN_FAULT, FAULT_TEXT: str(error)}


def _seconds(reader: OnnxReader, prepared: NDArray[np.uint8]) -> float:
    """Time one reading with all that belongs to it; the network was warmed up by the comparison."""
    started = time.perf_counter()
    with contextlib.suppress(NotFiniteError):  # the difference tells it
        reader.read(prepared)
    return time.perf_counter() - started


def _die_first(cpu_s: int) -> None:
    """Leave no core, end when the time is up even without the agent, and be what a full memory costs first."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_REQUEST_BYTES:
        piece = os.read(_STDIN, 4096)
        if not piece:
            break
        line += piece
    return line


def _end_with_parent() -> None:
    while os.read(_STDIN, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
