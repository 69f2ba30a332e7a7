"""`bench update`, the part on behaviour: how soon probation finds bad candidates, and whether it spares good ones."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.probation import Bounds, Comparison
from sliceloop.update_bench.behaviour_result import BehaviourResult, Course
from sliceloop.update_bench.kinds import MIXES, Kind, made_up, read_by_networks
from sliceloop.update_bench.networks import (
    MATCHES,
    Answers,
    NetworksPlan,
    answers_of_networks,
    phantom_splits,
    splits_of,
)
from training.durable import write_atomically
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
    data: Path | None = None
    """Labelled slices to train and to read; none takes phantoms."""
    plan: NetworksPlan = NetworksPlan()  # noqa: RUF009  frozen
    answers: Path | None = None
    """File for what the networks said: where it is, they are not trained again."""


def measure_behaviour(request: BehaviourRequest, say: Callable[[str], None] = lambda _: None) -> BehaviourResult:
    """Run every kind on every mix."""
    courses = list(_courses(made_up(), request, say, real=False))
    if request.networks:
        courses += _courses(_kinds_of_networks(request, say), request, say, real=True)
    return BehaviourResult(
        bounds=request.bounds,
        seed=request.seed,
        runs=request.runs,
        courses=tuple(courses),
        machine=machine(),
        commit=code_commit(),
        versions=versions("torch", "onnxruntime"),
    )


def _kinds_of_networks(request: BehaviourRequest, say: Callable[[str], None]) -> Sequence[Kind]:
    answers = _answers(request, say)
    return list(read_by_networks(MATCHES, answers.by_network, answers.truth))


def _answers(request: BehaviourRequest, say: Callable[[str], None]) -> Answers:
    """Return what an earlier run wrote of the same networks, or train them."""
    if request.answers is not None and request.answers.exists():
        found = Answers.model_validate_json(request.answers.read_bytes())
        if found.plan == request.plan and found.data == _name(request):
            return found
    with tempfile.TemporaryDirectory(prefix="sliceloop-bench-") as folder:
        phantoms = Path(folder) / "phantoms"
        splits = phantom_splits(phantoms, request.plan.seed) if request.data is None else splits_of(request.data)
        answers = answers_of_networks(_name(request), splits, request.plan, say)
    if request.answers is not None:
        request.answers.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(request.answers, answers.model_dump_json().encode())
    return answers


def _name(request: BehaviourRequest) -> str:
    return "phantoms" if request.data is None else request.data.name


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
