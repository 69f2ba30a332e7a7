"""An edge process under full load gets one release after another: gaps, memory, and who made each reading."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import helper, numpy_helper
from pydantic import BaseModel, ConfigDict

from protocol.chunks import sha256_of
from sliceloop.update_bench.cloud import Heard
from sliceloop.update_bench.edge_ground import EDGE, PROVEN, TIMEOUT_S, edge_ground
from training.model.decode import decode_image
from training.model.reader import LOGITS, Calibration, OnnxReader
from training.model.reader import verdict as reading_of

VARIANTS = 4
BIAS_STEP = 0.05
"""In logits: answers of two variants differ by more than a hundred times what float32 sums do."""
CERTAIN = 2.0
"""Of an untrained network whose logits are about 0."""
SAME = 1e-3
"""Of a probability."""
WARM_UP = 50
KIB = 1024


class SwapsResult(BaseModel):
    """What was seen of an edge that swapped so many times while it read as fast as it can."""

    model_config = ConfigDict(frozen=True)
    swaps: int
    network_bytes: int
    readings: int
    missing: int
    """Numbers that no reading has."""
    doubled: int
    wrong: int
    """Readings whose probabilities are not those of the version that they name."""
    median_interval_ms: float
    swap_gaps_ms: tuple[float, ...]
    """Between the last reading of one version and the first of the next."""
    worst_interval_ms: float
    """Of the whole run, with trials and loading beside it."""
    memory_mb: tuple[float, ...]
    """Resident memory of the edge after each swap."""
    update_s: tuple[float, ...]
    """From the assignment to the end of the probation."""

    @property
    def worst_swap_gap(self) -> float:
        """Return the longest gap in median intervals."""
        return max(self.swap_gaps_ms, default=0.0) / self.median_interval_ms

    @property
    def memory_growth(self) -> float:
        """Return by how much the last fifth of the run has more memory than the first one after the warm-up."""
        fifth = max(1, len(self.memory_mb) // 5)
        return median(self.memory_mb[-fifth:]) / median(self.memory_mb[:fifth]) - 1


@dataclass(frozen=True)
class SwapsRequest:
    """How many swaps, and of which network."""

    network: bytes
    swaps: int
    folder: Path
    seed: int = 0
    timeout_s: float = TIMEOUT_S


def bench_swaps(request: SwapsRequest, told: Callable[[int, int], None] = lambda _a, _b: None) -> SwapsResult:
    """Run a broker and an edge, swap, and look at every reading; raises `StuckError`."""
    networks = [variant(request.network, number) for number in range(VARIANTS)]
    with edge_ground(request.folder, request.seed, request.timeout_s) as ground:
        memory, seconds = [], []
        for version in range(1, request.swaps + 2):
            ground.update(ground.cloud.release(networks[version % VARIANTS], version))
            seconds.append(ground.seconds_to(version, *PROVEN))
            memory.append(resident_mb(ground.processes.pid(EDGE)))
            ground.cloud.forget(version - 1)
            told(version - 1, request.swaps)
        ground.end()
        heard, given = list(ground.cloud.readings), ground.feed.given
    return _result(heard, networks, request, given, memory[1:], seconds[1:])


def variant(network: bytes, number: int) -> bytes:
    """Return the network with a constant added to one logit, so that each answer tells who gave it.

    The constant makes each answer certain, or probation would find that a variant is uncertain where another was not.
    """
    model = onnx.load_from_string(network)
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == LOGITS:
                node.output[place] = f"{LOGITS}_before"
    shift = np.array([CERTAIN + number * BIAS_STEP, 0, 0], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(shift, "shift"))
    model.graph.node.append(helper.make_node("Add", [f"{LOGITS}_before", "shift"], [LOGITS]))
    return bytes(model.SerializeToString(deterministic=True))


def resident_mb(pid: int) -> float:
    """Return a process's resident memory (proc(5), statm)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / KIB**2


def _result(
    heard: list[Heard],
    networks: list[bytes],
    request: SwapsRequest,
    given: int,
    memory: list[float],
    seconds: list[float],
) -> SwapsResult:
    by_number = {each.sequence: each for each in heard}
    in_order = [by_number[number] for number in sorted(by_number)]
    intervals = [
        ((later.at - earlier.at).total_seconds() * 1000, earlier.reading.model.version, later.reading.model.version)
        for earlier, later in zip(in_order[WARM_UP:], in_order[WARM_UP + 1 :], strict=False)
    ]
    return SwapsResult(
        swaps=request.swaps,
        network_bytes=len(networks[0]),
        readings=len(in_order),
        missing=given - len(in_order),
        doubled=len(heard) - len(in_order),
        wrong=_wrong(in_order, networks),
        median_interval_ms=median(ms for ms, *_ in intervals),
        swap_gaps_ms=tuple(ms for ms, before, after in intervals if before != after),
        worst_interval_ms=max(ms for ms, *_ in intervals),
        memory_mb=tuple(memory),
        update_s=tuple(seconds),
    )


def _wrong(heard: list[Heard], networks: list[bytes]) -> int:
    """Read every different slice again with every network, and count the readings that are not their version's."""
    readers = [OnnxReader(network, Calibration()) for network in networks]
    expected: dict[str, list[dict[str, float]]] = {}
    wrong = 0
    for each in heard:
        key = sha256_of(each.image)
        if key not in expected:
            pixels = decode_image(each.image)
            expected[key] = [_probabilities(reader, pixels) for reader in readers]
        promised = expected[key][each.reading.model.version % VARIANTS]
        said = {str(label): value for label, value in each.reading.probabilities.items()}
        wrong += max(abs(said[label] - value) for label, value in promised.items()) > SAME
    return wrong


def _probabilities(reader: OnnxReader, pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> dict[str, float]:
    read = reading_of(reader.logits(pixels[None])[0], reader.calibration)
    return {str(label): value for label, value in read.probabilities.items()}
