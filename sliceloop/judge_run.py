"""`sliceloop evaluate` and `sliceloop compare`: what a network is worth on patients that it never saw."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import typer

from protocol.labels import LABELS
from sliceloop.progress import counted
from training.data.cache import CachingStoppedError
from training.data.dataset import DataSet, load_split, open_dataset
from training.durable import write_atomically
from training.judging.comparison import COMPARISON_FILE, Comparison, compare, open_evaluations, reference_of
from training.judging.comparison_page import COMPARISON_PAGE, comparison_page
from training.judging.comparison_plots import draw_comparison
from training.judging.cost import TimingStoppedError, time_in_turns
from training.judging.evaluation import Circumstances, write_evaluation
from training.judging.figures import RESAMPLES
from training.judging.page import as_text
from training.judging.predictions import EvaluationStoppedError, predict
from training.judging.record import Record, origin
from training.judging.subject import open_subject
from training.judging.unseen import check_unseen

_STOPPED = 130
"""The exit code of a process that an interrupt ended, as shells have it."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What the user asked for; architecture, side and class order matter to a weights file alone."""

    model: Path
    data: Path
    out: Path
    split: str
    cache: Path | None
    exclude_sources: tuple[str, ...]
    architecture: str | None
    input_px: int | None
    weights_labels: str | None
    patient_rule: str | None
    name: str | None
    allow_leak: bool
    threads: int


def evaluate_model(request: EvaluateRequest, stop: threading.Event) -> None:
    """Judge the model on the data's split and write all outputs; raises what reading and judging raise."""
    dataset = _dataset(request)
    subject = open_subject(
        request.model, request.out, request.architecture, request.input_px, request.weights_labels, request.name
    )
    leak = check_unseen(dataset, request.split, subject.learnt, allow_leak=request.allow_leak)
    try:
        with counted(f"decoding {request.split} slices") as on_slice:
            slices = load_split(dataset, request.split, cache=request.cache, on_slice=on_slice, stop=stop)
        started_s = time.monotonic()
        with counted(f"reading with {subject.name}") as on_slice:
            predictions = predict(subject.reader(threads=request.threads), slices, request.split, on_slice, stop)
    except (CachingStoppedError, EvaluationStoppedError) as error:
        typer.echo(str(error))
        raise typer.Exit(_STOPPED) from None
    circumstances = Circumstances(request.exclude_sources, request.threads, time.monotonic() - started_s)
    _summarise(write_evaluation(request.out, subject, predictions, leak, circumstances), request.out)


def compare_models(folders: tuple[Path, ...], out: Path, against: str, stop: threading.Event) -> None:
    """Compare evaluations of the same slices and write all outputs; raises what opening and comparing raise."""
    opened = open_evaluations(folders)
    reference_of(opened, against)
    readers = {one.name: reader for one in opened if (reader := one.reader()) is not None}
    started_s = time.monotonic()
    try:
        with counted("timing, in turns") as on_round:
            latencies = time_in_turns(readers, on_round=on_round, stop=stop)
    except TimingStoppedError as error:
        typer.echo(str(error))
        raise typer.Exit(_STOPPED) from None
    made = origin(threads=1, resamples=RESAMPLES, seed=0, seconds=time.monotonic() - started_s)
    comparison = compare(opened, against, latencies, made)
    write_atomically(out / COMPARISON_PAGE, comparison_page(comparison, draw_comparison(out, comparison)).encode())
    write_atomically(out / COMPARISON_FILE, comparison.model_dump_json(indent=2).encode())
    _show(comparison, out)


def _dataset(request: EvaluateRequest) -> DataSet:
    dataset = open_dataset(request.data, allow_leak=request.allow_leak, patient_rule=request.patient_rule)
    return dataset.without_sources(request.exclude_sources)


def _show(comparison: Comparison, out: Path) -> None:
    if comparison.leaked:
        typer.echo(comparison.leak.sentence())
    for row in comparison.models:
        cost = f"{row.record.model.cost.macs / 1e6:,.0f} million MACs"
        time_taken = f", {row.latency.median_ms:.1f} ms" if row.latency else ", file gone or changed: not timed"
        typer.echo(
            f"{row.name}: balanced accuracy {row.record.by_slice.evaluation.balanced_accuracy}, {cost}{time_taken}"
        )
    typer.echo(f"by slice, n {comparison.n_slices} of {comparison.n_patients} patients; in {out}")


def _summarise(record: Record, out: Path) -> None:
    if record.leaked:
        typer.echo(record.leak.sentence())
    slices, patients = record.by_slice.evaluation, record.by_patient.evaluation
    absent = [label for label in LABELS if label not in record.by_slice.report.by_class]
    if absent:
        typer.echo(
            f"no slice of {', '.join(absent)} in {record.data.split}: all figures are over the other classes alone"
        )
    typer.echo(as_text(record.by_slice.report))
    typer.echo(
        f"\n{record.model.name}: balanced accuracy {slices.balanced_accuracy} by slice (n {slices.n_slices}), "
        f"{patients.balanced_accuracy} by patient (n {patients.n_patients}); in {out}"
    )
