"""`sliceloop bench training`: our training loop beside the plain way, in turns, in one run."""

import platform
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import typer

from sliceloop.progress import counted
from training.data.dataset import load_split, open_dataset
from training.data.phantom import SITES, Cohort, write_phantoms
from training.durable import write_atomically
from training.figures import throughput_image
from training.provenance import code_commit, hardware
from training.throughput import WORKERS, Course, Race, Round, Throughput, race

_PHANTOMS_A_CLASS = 16
_PATIENTS_A_COHORT = 8


@dataclass(frozen=True)
class BenchRequest:
    """What is measured, on which data set (None: phantoms), and where the result goes."""

    data: Path | None
    patient_rule: str | None
    plan: Race
    json: Path | None
    plot: Path | None


def bench_training(request: BenchRequest) -> Throughput:
    """Measure, print, and write; raises what reading the data set raises."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sliceloop-bench-")))
        data = request.data.absolute() if request.data else _phantoms(work / "phantoms")
        course = Course(data, work / "cache", work / "by-class", request.patient_rule)
        n_images = _prepare(course)
        rounds, costs = race(course, request.plan, _show)
    result = _result(request.plan, n_images, rounds, costs)
    if request.json is not None:
        write_atomically(request.json, result.model_dump_json(indent=2).encode())
    if request.plot is not None:
        write_atomically(request.plot, throughput_image(result, request.plot.suffix.lstrip(".") or "png"))
    _summarise(result)
    return result


def _phantoms(folder: Path) -> Path:
    cohorts = [Cohort(site, "train", _PATIENTS_A_COHORT, 1) for site in sorted(SITES)]
    with counted("phantom slices") as on_slice:
        write_phantoms(folder, cohorts, 0, on_slice)
    return folder


def _prepare(course: Course) -> int:
    """Fill the cache, and link each image below its class's folder; return how many there are."""
    dataset = open_dataset(course.data, patient_rule=course.patient_rule)
    with counted("caching slices") as on_slice:
        load_split(dataset, "train", cache=course.cache, on_slice=on_slice)
    rows = [row for row in dataset.rows if row.split == "train"]
    for number, row in enumerate(rows):
        link = course.by_class / row.label / f"{number}{Path(row.file).suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((course.data / row.file).absolute())
    return len(rows)


def _result(plan: Race, n_images: int, rounds: tuple[Round, ...], costs: dict[str, float]) -> Throughput:
    ratios = [each.ratio for each in rounds]
    return Throughput(
        architecture=plan.architecture,
        input_px=plan.input_px,
        batch=plan.batch,
        threads=plan.threads,
        workers=WORKERS,
        steps=plan.steps,
        n_images=n_images,
        rounds=rounds,
        ratio_median=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        milliseconds=costs,
        hardware=hardware(torch.device("cpu"), plan.threads, 1),
        commit=code_commit(),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
        },
    )


def _show(number: int, measured: Round) -> None:
    typer.echo(
        f"round {number}: ours {measured.ours:.1f} images/s, plain {measured.plain:.1f}, ratio {measured.ratio:.2f}"
    )


def _summarise(result: Throughput) -> None:
    for part, cost in result.milliseconds.items():
        typer.echo(f"  {part:32s} {cost:7.2f} ms of CPU an image")
    typer.echo(
        f"{result.architecture} at {result.input_px} px, batch {result.batch}, {result.threads} threads: "
        f"{result.ratio_median:.2f} times the plain way (median of {len(result.rounds)} rounds, "
        f"{result.ratio_low:.2f} to {result.ratio_high:.2f})"
    )
