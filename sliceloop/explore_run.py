"""`sliceloop explore`: a data set becomes a report of who is in it, how it looks, and what a network can cheat with."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sliceloop.progress import counted
from training.data.cache import CachingStoppedError
from training.data.dataset import DataSet, load_split, open_dataset
from training.data.labelled import SPLITS
from training.data.slices import SliceSet
from training.durable import write_atomically
from training.explore.explore import Question, check_sources, explore
from training.explore.findings import Findings
from training.explore.plots import draw_all
from training.explore.report import HTML_FILE, REPORT_FILE, RESULTS_FILE, as_html, report_text
from training.explore.shortcuts import Row
from training.explore.verdicts import verdict
from training.figures import LEAKED_TEXT

EXIT_STOPPED = 130


class TogetherError(ValueError):
    """An option that takes sources together, in a form that cannot be read."""

    def __init__(self, text: str, fault: str) -> None:
        super().__init__(f"--together {text}: {fault}; write NAME=SOURCE,SOURCE, each source once")


class ExploreStoppedError(Exception):
    """The exploration was asked to stop; nothing was written."""


def explore_folder(
    data: Path,
    out: Path,
    cache: Path | None,
    seed: int,
    together: Sequence[str],
    patient_rule: str | None,
    stop: threading.Event,
    *,
    allow_leak: bool,
) -> None:
    """Explore the folder's data set and write report, pictures and numbers to `out`."""
    groups = parse_together(together)
    dataset = open_dataset(data, allow_leak=allow_leak, patient_rule=patient_rule)
    check_sources(dataset, groups)
    try:
        splits, unreadable = _read(dataset, cache, stop)
        with _stages(stop) as heard:
            findings, patients = explore(dataset, splits, Question(seed, groups, unreadable), heard)
    except (ExploreStoppedError, CachingStoppedError) as error:
        typer.echo(str(error))
        raise typer.Exit(EXIT_STOPPED) from None
    write_report(out, findings, draw_all(findings, patients))
    _summarise(findings, out)


def parse_together(options: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read options of the form NAME=SOURCE,SOURCE; raises `TogetherError`."""
    groups: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for text in options:
        name, _, listed = text.partition("=")
        sources = tuple(source.strip() for source in listed.split(",") if source.strip())
        if not name.strip() or not sources:
            raise TogetherError(text, "a name or its sources are missing")
        if name.strip() in groups or seen & set(sources) or len(set(sources)) < len(sources):
            raise TogetherError(text, "a name or a source is there twice")
        groups[name.strip()] = sources
        seen |= set(sources)
    return groups


def write_report(out: Path, findings: Findings, plots: Mapping[str, bytes]) -> None:
    """Write the pictures, the report as Markdown and as one HTML page, and, last, results.json."""
    text = report_text(findings, plots)
    for name, png in plots.items():
        write_atomically(out / name, png)
    write_atomically(out / REPORT_FILE, text.encode())
    write_atomically(out / HTML_FILE, as_html(text, plots).encode())
    write_atomically(out / RESULTS_FILE, findings.model_dump_json(indent=1).encode())


def _read(dataset: DataSet, cache: Path | None, stop: threading.Event) -> tuple[list[SliceSet], int]:
    """Return each split's slices, and how many files could not be read; those are named on the terminal alone."""
    faults: list[str] = []
    splits = []
    for split in SPLITS:
        if any(row.split == split for row in dataset.rows):
            with counted(f"reading {split} slices") as on_slice:
                slices = load_split(
                    dataset,
                    split,
                    cache=cache,
                    on_slice=on_slice,
                    on_unreadable=lambda _, error: faults.append(str(error)),
                    stop=stop,
                )
            splits.append(slices)
    for fault in faults:
        typer.echo(fault, err=True)
    return splits, len(faults)


def _stoppable(on_slice: Callable[[int, int], None], stop: threading.Event) -> Callable[[int, int], None]:
    def heard(done: int, total: int) -> None:
        if stop.is_set():
            raise ExploreStoppedError("stopped; nothing was written, start it again")
        on_slice(done, total)

    return heard


@contextmanager
def _stages(stop: threading.Event) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each stage as it begins."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield lambda what, done, total: _stoppable(lambda d, t: show(what, d, t), stop)(done, total)


def _verdict(findings: Findings, row: Row) -> str:
    return verdict(row, findings.audit.best_without_lungs(row.target, row.population))


def _summarise(findings: Findings, out: Path) -> None:
    if findings.story.leaked_patients:
        typer.echo(LEAKED_TEXT.format(findings.story.leaked_patients))
    for row in findings.audit.rows:
        typer.echo(f"{row.target}, {row.population} (chance {row.chance:.2f}): {_verdict(findings, row)}")
    for sentence in findings.audit.left_out:
        typer.echo(sentence)
    typer.echo(f"{findings.story.n_slices} slices of {findings.story.n_patients} patients; {out / REPORT_FILE}")
