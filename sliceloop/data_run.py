"""`sliceloop data`: look through a data set before it is believed, and decode it once."""

import json
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sliceloop.progress import counted
from training.data.cache import CachingStoppedError, SliceCache
from training.data.check import Copy, Count, Findings, Several, check_dataset
from training.data.dataset import DataSet, open_dataset
from training.data.duplicates import MAX_BITS, MIN_CORRELATION
from training.data.labelled import SPLITS, TwoLabelsWarning
from training.durable import write_atomically

EXIT_FOUND, EXIT_STOPPED = 1, 130
_SHOWN = 20
"""As many lines of a finding the terminal shows; the JSON file holds them all."""


def check_data(
    data: Path, patient_rule: str | None, json_file: Path | None, cache: Path | None, stop: threading.Event
) -> int:
    """Check the data set and print what was found; return the exit code: 1 for what makes it unusable."""
    dataset = _open(data, patient_rule)
    try:
        with ExitStack() as stack:
            where = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sliceloop-check-")))
            on_decoded = stack.enter_context(counted("reading slices"))
            on_hashed = stack.enter_context(counted("looking for copies"))
            findings = check_dataset(dataset, where, on_decoded=on_decoded, on_hashed=on_hashed, stop=stop)
    except CachingStoppedError as error:
        typer.echo(str(error))
        return EXIT_STOPPED
    if json_file is not None:
        write_atomically(json_file, json.dumps(asdict(findings), indent=1).encode())
    _show(findings, Console())
    return 0 if findings.is_clean else EXIT_FOUND


def cache_data(data: Path, patient_rule: str | None, cache: Path, stop: threading.Event) -> int:
    """Decode the data set's slices into the cache; return the exit code: 1 when a file cannot be read."""
    dataset = _open(data, patient_rule)
    faults: list[str] = []
    try:
        with counted("caching slices") as on_slice:
            slices = SliceCache(cache).load(
                dataset.folder,
                dataset.rows,
                on_slice=on_slice,
                on_unreadable=lambda _, error: faults.append(str(error)),
                stop=stop,
            )
    except CachingStoppedError as error:
        typer.echo(str(error))
        return EXIT_STOPPED
    for fault in faults:
        typer.echo(fault, err=True)
    typer.echo(f"{len(slices)} slices in {cache}, {len(faults)} files could not be read")
    return EXIT_FOUND if faults else 0


def _open(data: Path, patient_rule: str | None) -> DataSet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TwoLabelsWarning)  # the check lists them
        return open_dataset(data, allow_leak=True, allow_missing=True, patient_rule=patient_rule)


def _show(findings: Findings, console: Console) -> None:
    console.print(_counts(findings.counts))
    for note in (*findings.notes, *_lacking(findings)):
        console.print(f"[yellow]note[/]: {escape(note)}")
    _list(console, "yellow", "patients with two labels", map(_several, findings.two_labels))
    _list(console, "red", "patients on two sides of the split", map(_several, findings.leaked))
    measure = f"at most {MAX_BITS} of 256 bits apart, correlation at least {MIN_CORRELATION}"
    _list(console, "red", f"near-duplicates across splits ({measure})", map(_pair, findings.copies))
    _list(console, "red", "files that cannot be read", (f"{one.file}: {one.fault}" for one in findings.unreadable))
    console.print("[green]clean[/]" if findings.is_clean else "[red]not clean[/]: see above")


def _counts(counts: Sequence[Count]) -> Table:
    table = Table(title="slices / patients", title_justify="left")
    table.add_column("class")
    table.add_column("source")
    for split in SPLITS:
        table.add_column(split, justify="right")
    cells = {(one.label, one.source, one.split): f"{one.slices} / {one.patients}" for one in counts}
    for label, source in dict.fromkeys((one.label, one.source) for one in counts):
        table.add_row(label, escape(source), *(cells.get((label, source, split), "-") for split in SPLITS))
    for label in dict.fromkeys(one.label for one in counts):
        table.add_row(label, "all", *(_total(counts, label, split) for split in SPLITS), style="bold")
    return table


def _total(counts: Sequence[Count], label: str, split: str) -> str:
    chosen = [one for one in counts if (one.label, one.split) == (label, split)]
    return f"{sum(one.slices for one in chosen)} / {sum(one.patients for one in chosen)}"


def _lacking(findings: Findings) -> Iterator[str]:
    if findings.one_class:
        yield f"all slices are {findings.counts[0].label}: nothing can be learnt from one class alone"
    elif findings.missing:
        yield "no slice of " + ", ".join(f"{one.label} in {one.split}" for one in findings.missing)


def _list(console: Console, colour: str, what: str, lines: Iterable[str]) -> None:
    """Print how many there are, and the first of them."""
    named = list(lines)
    console.print(f"[{colour if named else 'green'}]{len(named)}[/] {what}")
    for line in named[:_SHOWN]:
        console.print(f"  {escape(line)}", soft_wrap=True)
    if len(named) > _SHOWN:
        console.print(f"  and {len(named) - _SHOWN} more: --json lists them all")


def _several(one: Several) -> str:
    return f"{one.patient}: {' and '.join(one.values)}"


def _pair(copy: Copy) -> str:
    sides = " = ".join(f"{twin.file} ({twin.split}, {twin.patient})" for twin in (copy.first, copy.second))
    return f"{sides}: {'identical' if copy.identical else f'{copy.bits} bits, {copy.correlation:.3f}'}"
