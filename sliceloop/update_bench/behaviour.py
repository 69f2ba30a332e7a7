"""`bench update`, the part on behaviour: how soon probation finds bad candidates, and whether it spares good ones."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path

from edge_agent.probation import Bounds, Comparison
from sliceloop.update_bench.behaviour_result import DEFAULT, SIGNED, WIDEST, BehaviourResult, Course
from sliceloop.update_bench.kinds import MIXES, Kind, made_up, read_by_networks
from sliceloop.update_bench.networks import (
    MATCHES,
    Answers,
    NetworksPlan,
    answers_of_networks,
    data_name,
    phantom_splits,
    splits_of,
)
from sliceloop.update_bench.signed import signed, widest
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
    exclude_sources: tuple[str, ...] = ()
    plan: NetworksPlan = NetworksPlan()  # noqa: RUF009  frozen
    answers: Path | None = None
    """File for what the networks said: where it is, they are not trained again."""


def measure_behaviour(request: BehaviourRequest, say: Callable[[str], None] = lambda _: None) -> BehaviourResult:
    """Run every kind on every mix, by an edge that has kept slices, and by a new one."""
    kinds = made_up() + (_kinds_of_networks(request, say) if request.networks else ())
    seeds = range(request.seed, request.seed + request.runs)
    by_gate = {kind.name: [signed(kind, seed) for seed in seeds] for kind in kinds if kind.good}
    most = widest(each for kind in kinds if kind.good and kind.real is request.networks for each in by_gate[kind.name])
    courses: list[Course] = []
    for kind in kinds:
        say(kind.name)
        held_to = {SIGNED: by_gate[kind.name]} if kind.good else {DEFAULT: [request.bounds], WIDEST: [most]}
        courses += [_course(kind, ground, seeds) for ground in _grounds(held_to)]
    return BehaviourResult(
        bounds=request.bounds,
        widest=most,
        data=_name(request) if request.networks else "",
        seed=request.seed,
        runs=request.runs,
        courses=tuple(courses),
        machine=machine(),
        commit=code_commit(),
        versions=versions("torch", "onnxruntime"),
    )


def _kinds_of_networks(request: BehaviourRequest, say: Callable[[str], None]) -> tuple[Kind, ...]:
    answers = _answers(request, say)
    return tuple(read_by_networks(MATCHES, answers.by_network, answers.truth, answers.patients))


def _answers(request: BehaviourRequest, say: Callable[[str], None]) -> Answers:
    """Return what an earlier run wrote of the same networks, or train them."""
    if request.answers is not None and request.answers.exists():
        found = Answers.model_validate_json(request.answers.read_bytes())
        if found.plan == request.plan and found.data == _name(request):
            return found
    with tempfile.TemporaryDirectory(prefix="sliceloop-bench-") as folder:
        if request.data is None:
            splits = phantom_splits(Path(folder) / "phantoms", request.plan.seed)
        else:
            splits = splits_of(request.data, request.exclude_sources)
        answers = answers_of_networks(_name(request), splits, request.plan, say)
    if request.answers is not None:
        request.answers.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(request.answers, answers.model_dump_json().encode())
    return answers


def _name(request: BehaviourRequest) -> str:
    return "phantoms" if request.data is None else data_name(request.data, request.exclude_sources)


@dataclass(frozen=True)
class Ground:
    """Where a kind is run: the slices, whether the edge has kept some, and the bounds of each run, in turn."""

    mix: str
    kept: bool
    held_to: str
    bounds: Sequence[Bounds]


def _grounds(held_to: Mapping[str, Sequence[Bounds]]) -> Iterator[Ground]:
    """Yield every combination."""
    for (name, bounds), kept, mix in product(held_to.items(), (True, False), MIXES):
        yield Ground(mix, kept, name, bounds)


def _course(kind: Kind, ground: Ground, seeds: Sequence[int]) -> Course:
    slices = SLICES_OF_GOOD if kind.good else SLICES_OF_BAD
    ends = [_end(kind, ground, seed, bounds, slices) for seed, bounds in zip(seeds, cycle(ground.bounds), strict=False)]
    return Course(
        kind=kind.name,
        good=kind.good,
        real=kind.real,
        mix=ground.mix,
        kept=ground.kept,
        held_to=ground.held_to,
        slices=slices,
        caught_at=tuple(end.pairs if end.verdict() else None for end in ends),
        verdict=next((end.verdict() for end in ends if end.verdict()), ""),
        accuracy=kind.accuracy(MIXES[ground.mix]),
    )


def _end(kind: Kind, ground: Ground, seed: int, bounds: Bounds, slices: int) -> Comparison:
    """Return the comparison as it stands at the verdict, or after all slices; kept ones come first."""
    comparison, mix = Comparison.begin(bounds), MIXES[ground.mix]
    for pair in kind.kept(mix, seed) if ground.kept else ():
        comparison = comparison.with_kept(pair)
    for pair in islice(kind.pairs(mix, seed), slices):
        if comparison.verdict():
            break
        comparison = comparison.with_pair(pair)
    return comparison
