"""`sliceloop bench capture`: every slice before the simulated webcam, through the whole path, and what comes out."""

import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import JsonValue

from protocol.labels import LABELS
from sliceloop.capture_bench.cases import CasePlan, cases, stratified
from sliceloop.capture_bench.development import with_unlikeness
from sliceloop.capture_bench.draws import RESAMPLES
from sliceloop.capture_bench.feed import FeedKind, open_feed
from sliceloop.capture_bench.kept import KeptFrames, recipe_hash
from sliceloop.capture_bench.look import FrameResult
from sliceloop.capture_bench.measures import Truth, figures_of, named
from sliceloop.capture_bench.measuring import Bench, measure, one_core
from sliceloop.capture_bench.origin import SIMULATED, CaptureRecord, DataFacts, NetworkFacts
from sliceloop.capture_bench.path import Paths
from sliceloop.capture_bench.plots import draw_plots
from sliceloop.capture_bench.render import FAMILY, render
from sliceloop.capture_bench.report import capture_page, summary
from sliceloop.capture_bench.sheet import SHEET_FILE, draw_sheet, worst
from sliceloop.capture_bench.slices import (
    PHANTOM_SPLIT,
    BenchSlices,
    BenchStoppedError,
    Networks,
    read_slices,
    write_bench_phantoms,
)
from sliceloop.capture_bench.subjects import Subjects, network_facts, open_subjects
from sliceloop.capture_bench.targets import targets
from sliceloop.progress import counted
from training.data.dataset import DataSet, open_dataset
from training.data.slices import LabelledSlice
from training.durable import write_atomically
from training.judging.record import origin
from training.judging.subject import Subject
from training.judging.unseen import LeakMark, NoSlicesError, check_unseen

RECORD_FILE, PAGE_FILE = "capture.json", "capture.md"
ABLATED_SEVERITY = 1.0
"""The stages are switched off one at a time here, or at the highest severity where this one is not measured."""
STOPPED = 130
"""The exit code of a process that an interrupt ended, as shells have it."""
DRAWN_PHANTOMS = "phantoms drawn for this run, of seeds that no training uses"


class NothingToShowError(ValueError):
    """Neither a data set nor phantoms were named, or both."""


@dataclass(frozen=True)
class CaptureRequest:
    """What the user asked for: either `data` or so many `phantoms`.

    `slices` of the split are shown, drawn evenly over the classes; None shows all. `sheet` None draws one of phantoms
    alone.
    """

    data: Path | None
    phantoms: int
    out: Path
    model: Path | None
    plain_model: Path | None
    split: str
    slices: int | None
    plan: CasePlan
    feed: FeedKind
    json: Path | None
    sheet: bool | None
    allow_leak: bool


def bench_capture(request: CaptureRequest, paths: Paths, stop: threading.Event) -> CaptureRecord:
    """Measure, print, and write capture.json, capture.md and plots; started again after a stop, it goes on.

    Raises what reading slices and networks raises; ends with 130 when the stop event is set.
    """
    started_s = time.monotonic()
    try:
        with one_core(), ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sliceloop-phantoms-")))
            dataset, split = _dataset(request, folder)
            subjects = open_subjects(request.model, request.plain_model, request.out)
            facts = _facts(request, dataset, split, subjects)
            networks = subjects.networks()
            slices = _slices(_rows(request, dataset, split), dataset.folder, networks, stop)
            bench = Bench(slices, networks, with_unlikeness(paths, networks.served), _ablated(request.plan))
            results = _measured(request, bench, facts, stop)
            record = _record(request, slices, facts, results, time.monotonic() - started_s)
            _write(request, slices, record, results)
    except BenchStoppedError as error:
        typer.echo(str(error))
        raise typer.Exit(STOPPED) from None
    for line in summary(record):
        typer.echo(line)
    typer.echo(f"{RECORD_FILE}, {PAGE_FILE} and plots in {request.out}")
    return record


def _truth(slices: BenchSlices) -> Truth:
    """Return what is true of the slices."""
    return Truth(slices.labels, slices.patients, slices.sources, _answers(slices.logits), _answers(slices.plain_logits))


@dataclass(frozen=True)
class _Facts:
    split: str
    network: NetworkFacts | None
    plain_network: NetworkFacts | None


def _dataset(request: CaptureRequest, folder: Path) -> tuple[DataSet, str]:
    """Open the data set, or draw phantoms into the folder; return it with the split that is shown."""
    if (request.data is None) == (request.phantoms == 0):
        raise NothingToShowError("name a data set's folder, or ask for phantoms with --phantoms N: one of them")
    if request.data is not None:
        return open_dataset(request.data, allow_leak=request.allow_leak), request.split
    with counted("phantom slices") as on_slice:
        write_bench_phantoms(folder, request.phantoms, request.plan.seed, on_slice)
    return open_dataset(folder), PHANTOM_SPLIT


def _facts(request: CaptureRequest, dataset: DataSet, split: str, subjects: Subjects) -> _Facts:
    def leak(subject: Subject) -> LeakMark:
        if request.data is None:
            return LeakMark(checked=DRAWN_PHANTOMS)
        return check_unseen(dataset, split, subject.learnt, allow_leak=request.allow_leak)

    served, plain = (
        None if subject is None else network_facts(subject, leak(subject))
        for subject in (subjects.served, subjects.plain)
    )
    return _Facts(split, served, plain)


def _rows(request: CaptureRequest, dataset: DataSet, split: str) -> list[LabelledSlice]:
    rows = [row for row in dataset.rows if row.split == split]
    if not rows:
        raise NoSlicesError(f"{dataset.folder} has no slice in split {split}")
    if request.slices is None or request.data is None:
        return rows
    chosen = stratified([LABELS.index(row.label) for row in rows], request.slices, request.plan.seed)
    return [rows[at] for at in sorted(chosen)]


def _slices(rows: Sequence[LabelledSlice], folder: Path, networks: Networks, stop: threading.Event) -> BenchSlices:
    with counted("reading digital slices") as on_slice:
        return read_slices(folder, rows, networks, stop, on_slice)


def _measured(request: CaptureRequest, bench: Bench, facts: _Facts, stop: threading.Event) -> list[FrameResult]:
    todo = cases(request.plan, bench.slices.ids, bench.slices.labels.tolist())
    kept = KeptFrames(request.out, _recipe(request, bench, facts))
    with open_feed(request.feed) as feed, counted(f"simulated frames through {request.feed}") as on_frame:
        return measure(todo, bench, feed, kept, stop, on_frame)


def _recipe(request: CaptureRequest, bench: Bench, facts: _Facts) -> str:
    return recipe_hash(
        {
            "slices": bench.slices.sha256(),
            "plan": request.plan.model_dump(mode="json"),
            "feed": request.feed,
            "networks": [None if one is None else one.sha256 for one in (facts.network, facts.plain_network)],
            "stages": list[JsonValue](sorted(bench.paths.without)),
        }
    )


def _ablated(plan: CasePlan) -> float:
    return ABLATED_SEVERITY if ABLATED_SEVERITY in plan.severities else max(plan.severities)


def _record(
    request: CaptureRequest, slices: BenchSlices, facts: _Facts, results: Sequence[FrameResult], seconds: float
) -> CaptureRecord:
    figures = figures_of(results, _truth(slices), simulated=True)
    return CaptureRecord(
        what=SIMULATED,
        data=DataFacts(
            split=facts.split,
            n_slices=len(slices),
            n_patients=len(set(slices.patients)),
            sources=tuple(sorted(set(slices.sources))),
            slices_sha256=slices.sha256(),
            are_phantoms=slices.are_phantoms,
        ),
        network=facts.network,
        plain_network=facts.plain_network,
        plan=request.plan,
        feed=request.feed,
        family=FAMILY,
        calibrated=False,
        figures=figures,
        targets=targets(figures),
        origin=origin(threads=1, resamples=RESAMPLES, seed=request.plan.seed, seconds=seconds),
    )


def _write(request: CaptureRequest, slices: BenchSlices, record: CaptureRecord, results: Sequence[FrameResult]) -> None:
    pictures = draw_plots(request.out, record.figures, _by_severity(results))
    if slices.are_phantoms if request.sheet is None else request.sheet:
        pictures.append(_sheet(request.out / SHEET_FILE, slices, results))
    json = record.model_dump_json(indent=2).encode()
    write_atomically(request.out / PAGE_FILE, capture_page(record, pictures).encode())
    write_atomically(request.out / RECORD_FILE, json)
    if request.json is not None:
        write_atomically(request.json, json)


def _by_severity(results: Sequence[FrameResult]) -> dict[str, list[FrameResult]]:
    slices = [result for result in results if result.case.kind == "slice"]
    severities = sorted({result.case.severity for result in slices})
    return {named(one): [result for result in slices if result.case.severity == one] for one in severities}


def _sheet(path: Path, slices: BenchSlices, results: Sequence[FrameResult]) -> Path:
    def again(result: FrameResult) -> NDArray[np.uint8]:
        case = result.case
        return render(case, None if case.scene is not None else slices.picture(case.at)).frame

    write_atomically(path, draw_sheet(worst(results), again))
    return path


def _answers(logits: NDArray[np.float32] | None) -> NDArray[np.int64] | None:
    return None if logits is None else logits.argmax(1).astype(np.int64)
