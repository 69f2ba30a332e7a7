"""`sliceloop bench update`: what updates move, how long they take, and what they do to the readings."""

import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch

from sliceloop.update_bench.behaviour import BehaviourRequest, measure_behaviour
from sliceloop.update_bench.bytes_moved import count_bytes
from sliceloop.update_bench.cut_line import CutLineRequest, bench_cut_line
from sliceloop.update_bench.fifty import FiftyRequest, bench_fifty
from sliceloop.update_bench.fine_tunings import FineTuningPlan, Taught, measure_fine_tunings, taught_by
from sliceloop.update_bench.networks import NetworksPlan
from sliceloop.update_bench.result import UpdateResult
from sliceloop.update_bench.swaps import SwapsRequest, SwapsResult, bench_swaps
from sliceloop.update_bench.timed import time_updates
from sliceloop.update_bench.update_pairs import UpdatePlan, make_networks, phantoms
from training.export import export_onnx
from training.networks import build
from training.provenance import code_commit, machine, versions

INPUT_PX = 96
"""Of the networks that are moved and swapped; what they say is of no concern here."""
SWAPS_ARCHITECTURE = "squeezenet1_1_bn"
"""Small, so that many swaps take minutes."""
REAL_EPOCHS = 30
"""Of the networks that learn from real slices to be compared by their behaviour."""
GAP_SWAPS = 10
LINE_BYTES_PER_S, LINE_S = 2e6, 8.0
"""A small network gets a slower line, so that it is cut at least a few times."""
PACKAGES = ("paho-mqtt", "onnx", "onnxruntime", "torch", "zstandard", "sliceloop")


class Part(StrEnum):
    """The parts of the bench."""

    BYTES = "bytes"
    FINE_TUNINGS = "fine-tunings"
    BEHAVIOUR = "behaviour"
    SWAPS = "swaps"
    LINE = "line"
    FLEET = "fleet"


@dataclass(frozen=True)
class BenchRequest:
    """What is measured, how often, and where its passing files lie."""

    parts: Collection[Part]
    folder: Path
    architecture: str
    swaps: int
    edges: int
    runs: int
    networks: bool
    """Train some for the part on behaviour, which takes minutes."""
    seed: int
    data: Path | None = None
    """Labelled slices for the networks that learn something; none takes phantoms."""
    exclude_sources: tuple[str, ...] = ()
    input_px: int = INPUT_PX
    """Of the networks that are fine-tuned, and of those that learn from these slices."""


Say = Callable[[str], None]


def measure(request: BenchRequest, say: Say) -> Iterator[UpdateResult]:
    """Yield the result as it grows, a part more each time."""
    result = UpdateResult(
        architecture=request.architecture,
        seed=request.seed,
        machine=machine(),
        versions=versions(*PACKAGES),
        commit=code_commit(),
    )
    for part in Part:
        if part in request.parts:
            say(part)
            result = _MEASURES[part](request, result, say)
            yield result


def _bytes(request: BenchRequest, result: UpdateResult, say: Say) -> UpdateResult:
    plan = UpdatePlan(request.architecture, INPUT_PX, seed=request.seed)
    networks = make_networks(_empty(request, "bytes") / "phantoms", plan, say)
    say("counting what updates move")
    moved = count_bytes(networks, plan)
    timed = time_updates(networks, _empty(request, "timed"), request.seed, say)
    return result.model_copy(update={"bytes": moved, "timed": timed})


def _fine_tunings(request: BenchRequest, result: UpdateResult, say: Say) -> UpdateResult:
    plan = FineTuningPlan(request.architecture, request.input_px, seed=request.seed)
    if request.data is None:
        taught = Taught("phantoms", *phantoms(_empty(request, "fine-tunings"), UpdatePlan(seed=request.seed)))
    else:
        taught = taught_by(request.data, request.exclude_sources)
    return result.model_copy(update={"fine_tunings": measure_fine_tunings(taught, plan, say)})


def _behaviour(request: BenchRequest, result: UpdateResult, say: Say) -> UpdateResult:
    plan = NetworksPlan(seed=request.seed)
    if request.data is not None:
        plan = NetworksPlan(request.architecture, request.input_px, REAL_EPOCHS, REAL_EPOCHS // 2, seed=request.seed)
    asked = BehaviourRequest(
        runs=request.runs,
        seed=request.seed,
        networks=request.networks,
        data=request.data,
        exclude_sources=request.exclude_sources,
        plan=plan,
        answers=request.folder / "answers.json",
    )
    return result.model_copy(update={"behaviour": measure_behaviour(asked, lambda kind: say(f"behaviour: {kind}"))})


def _swaps(request: BenchRequest, result: UpdateResult, say: Say) -> UpdateResult:
    small = request.architecture == SWAPS_ARCHITECTURE
    gap = None if small else _swap(request, "gap", request.architecture, min(GAP_SWAPS, request.swaps), say)
    swaps = _swap(request, "swaps", SWAPS_ARCHITECTURE, request.swaps, say)
    return result.model_copy(update={"gap": gap, "swaps": swaps, "swaps_architecture": SWAPS_ARCHITECTURE})


def _swap(request: BenchRequest, name: str, architecture: str, swaps: int, say: Say) -> SwapsResult:
    asked = SwapsRequest(_network(architecture, request.seed), swaps, _empty(request, name), request.seed)
    return bench_swaps(asked, lambda done, of: say(f"{architecture}: {done} of {of} swaps"))


def _line(request: BenchRequest, result: UpdateResult, say: Say) -> UpdateResult:
    network = _network(request.architecture, request.seed)
    bytes_per_s = min(LINE_BYTES_PER_S, len(network) / LINE_S)
    line = bench_cut_line(CutLineRequest(network, _empty(request, "line"), bytes_per_s), say)
    return result.model_copy(update={"line": line})


def _fleet(request: BenchRequest, result: UpdateResult, say: Say) -> UpdateResult:
    network = _network(request.architecture, request.seed)
    fleet = bench_fifty(FiftyRequest(network, request.edges, _empty(request, "fleet")), say)
    return result.model_copy(update={"fleet": fleet})


_MEASURES: dict[Part, Callable[[BenchRequest, UpdateResult, Say], UpdateResult]] = {
    Part.BYTES: _bytes,
    Part.FINE_TUNINGS: _fine_tunings,
    Part.BEHAVIOUR: _behaviour,
    Part.SWAPS: _swaps,
    Part.LINE: _line,
    Part.FLEET: _fleet,
}


def _network(architecture: str, seed: int) -> bytes:
    """Draw a network's weights: what is moved and swapped need not have learned."""
    torch.manual_seed(seed)
    return export_onnx(build(architecture, INPUT_PX).eval())


def _empty(request: BenchRequest, name: str) -> Path:
    folder = request.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
