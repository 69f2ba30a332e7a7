"""`bench update`, the part on behaviour: how soon probation finds bad candidates, and whether it spares good ones."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path

from edge_agent.probation import Bounds, Comparison
from sliceloop.update_bench.behaviour_result import DEFAULT, SIGNED, WIDEST, BehaviourResult, Course
from sliceloop.update_bench.kinds import MIXES, Kind, made_up, read_by_networks
from sliceloop.update_bench.networks import MATCHES, answers_of_networks
from sliceloop.update_bench.signed import signed, widest
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
    """Run every kind on every mix, by an edge that has kept slices, and by a new one."""
    kinds = made_up() + (_kinds_of_networks(request.seed, say) if request.networks else ())
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
        seed=request.seed,
        runs=request.runs,
        courses=tuple(courses),
        machine=machine(),
        commit=code_commit(),
        versions=versions("torch", "onnxruntime"),
    )


def _kinds_of_networks(seed: int, say: Callable[[str], None]) -> tuple[Kind, ...]:
    with tempfile.TemporaryDirectory(prefix="sliceloop-bench-") as folder:
        answers = answers_of_networks(Path(folder) / "phantoms", seed, say)
    return tuple(read_by_networks(MATCHES, answers.by_network, answers.truth))


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
