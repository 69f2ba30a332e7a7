"""`bench update`, the part on behaviour: how soon probation finds bad candidates, and whether it spares good ones."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.probation import Bounds, Comparison
from sliceloop.update_bench.behaviour_result import BehaviourResult, Course
from sliceloop.update_bench.kinds import MIXES, Kind, made_up, read_by_networks
from sliceloop.update_bench.networks import MATCHES, answers_of_networks
from training.provenance import code_commit, machine, versions

SLICES_OF_BAD = 300
"""Read in a run of a bad candidate, to see how late the late ones are found."""
SLICES_OF_GOOD = 500


@dataclass(frozen=True)
class BehaviourRequest:
    """How many runs of each kind."""

    runs: int = 100
    seed: int = 0
    bounds: Bounds = Bounds()  # noqa: RUF009  frozen
    networks: bool = True
    """Train some and read with them too."""


def measure_behaviour(request: BehaviourRequest, say: Callable[[str], None] = lambda _: None) -> BehaviourResult:
    """Run every kind on every mix."""
    courses = list(_courses(made_up(), request, say, real=False))
    if request.networks:
        courses += _courses(_kinds_of_networks(request.seed, say), request, say, real=True)
    return BehaviourResult(
        bounds=request.bounds,
        seed=request.seed,
        runs=request.runs,
        courses=tuple(courses),
        machine=machine(),
        commit=code_commit(),
        versions=versions("torch", "onnxruntime"),
    )


def _kinds_of_networks(seed: int, say: Callable[[str], None]) -> Sequence[Kind]:
    with tempfile.TemporaryDirectory(prefix="sliceloop-bench-") as folder:
        answers = answers_of_networks(Path(folder) / "phantoms", seed, say)
    return list(read_by_networks(MATCHES, answers.by_network, answers.truth))


def _courses(
    kinds: Sequence[Kind], request: BehaviourRequest, say: Callable[[str], None], *, real: bool
) -> Iterator[Course]:
    for kind in kinds:
        say(kind.name)
        for mix in MIXES:
            yield _course(kind, mix, request, real=real)


def _course(kind: Kind, mix: str, request: BehaviourRequest, *, real: bool) -> Course:
    slices = SLICES_OF_GOOD if kind.good else SLICES_OF_BAD
    ends = [_end(kind, mix, request.seed + run, slices, request.bounds) for run in range(request.runs)]
    return Course(
        kind=kind.name,
        good=kind.good,
        real=real,
        mix=mix,
        slices=slices,
        caught_at=tuple(end.pairs if end.verdict() else None for end in ends),
        verdict=next((end.verdict() for end in ends if end.verdict()), ""),
    )


def _end(kind: Kind, mix: str, seed: int, slices: int, bounds: Bounds) -> Comparison:
    """Return the comparison as it stands at the verdict, or after all slices."""
    comparison = Comparison.begin(bounds)
    for _, pair in zip(range(slices), kind.pairs(MIXES[mix], seed), strict=False):
        comparison = comparison.with_pair(pair)
        if comparison.verdict():
            break
    return comparison
