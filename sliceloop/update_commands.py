"""The command that measures updates: bytes, seconds, swaps, bad candidates, a cut line, and a fleet."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sliceloop.logs import configure_logs

update_bench_app = typer.Typer()


class PartName(StrEnum):
    """The parts, named here so that `--help` needs no torch."""

    BYTES = "bytes"
    FINE_TUNINGS = "fine-tunings"
    BEHAVIOUR = "behaviour"
    SWAPS = "swaps"
    LINE = "line"
    FLEET = "fleet"


@update_bench_app.command("update")
def bench_update(
    only: Annotated[list[PartName] | None, typer.Option(help="A part; may be said again. Default: all.")] = None,
    architecture: Annotated[str, typer.Option(help="Of what is moved; `sliceloop train` lists them.")] = "resnet18",
    swaps: Annotated[int, typer.Option(min=2, help="Of a small network; the architecture's are 10 at most.")] = 200,
    edges: Annotated[int, typer.Option(min=2, max=200, help="That fetch a release from one worker.")] = 50,
    runs: Annotated[int, typer.Option(min=1, help="Of each good and bad candidate.")] = 100,
    networks: Annotated[bool, typer.Option(help="Candidates that are trained too, which takes minutes.")] = True,
    seed: int = 7,
    data: Annotated[
        Path | None, typer.Option(help="Labelled slices to learn from; without, phantoms.", exists=True)
    ] = None,
    exclude_source: Annotated[list[str] | None, typer.Option(help="Leave a source out; may be repeated.")] = None,
    input_px: Annotated[
        int, typer.Option(min=32, help="Of the networks that are fine-tuned, or learn from --data.")
    ] = 96,
    folder: Annotated[Path, typer.Option(help="For passing files; the parts' folders in it are emptied.")] = Path(
        "bench-data/update"
    ),
    json: Annotated[Path | None, typer.Option(help="File for the figures; grows with each part.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for the page, .png or .svg.")] = None,
    behaviour_plot: Annotated[Path | None, typer.Option(help="File for each candidate's curve.")] = None,
) -> None:
    """Measure what new weights cost on their way, at the swap and when they are bad; each figure beside its aim."""
    from rich.console import Console

    from sliceloop.demo.processes import exit_on_signals
    from sliceloop.update_bench import behaviour_figures, figures
    from sliceloop.update_bench.bench import BenchRequest, Part, measure
    from sliceloop.update_bench.report import show
    from training.durable import write_atomically

    configure_logs("error")
    exit_on_signals()
    parts = [Part(name) for name in only or PartName]
    request = BenchRequest(
        parts=parts,
        folder=folder.absolute(),
        architecture=architecture,
        swaps=swaps,
        edges=edges,
        runs=runs,
        networks=networks,
        seed=seed,
        data=data,
        exclude_sources=tuple(exclude_source or ()),
        input_px=input_px,
    )
    console = Console()
    with console.status("starting") as status:
        for result in measure(request, status.update):
            if json is not None:
                write_atomically(json, result.model_dump_json(indent=1).encode())
    if plot is not None:
        write_atomically(plot, figures.draw(result, plot.suffix.lstrip(".") or "png"))
    if behaviour_plot is not None and result.behaviour is not None:
        kind = behaviour_plot.suffix.lstrip(".") or "png"
        write_atomically(behaviour_plot, behaviour_figures.draw(result.behaviour, kind))
    show(result, console)
