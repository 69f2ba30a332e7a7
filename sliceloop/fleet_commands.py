"""The commands that measure the way from capture to receipt: a simulated fleet, and the pipeline beside its floors."""

import threading
from pathlib import Path
from typing import Annotated

import typer

from broker.settings import BrokerSettings
from sliceloop.config import read_section
from sliceloop.logs import configure_logs
from sliceloop.stopping import stop_on_signals

fleet_app = typer.Typer()
pipeline_bench_app = typer.Typer()


@fleet_app.command()
def fleet(
    edges: Annotated[int, typer.Option(min=1, max=1000, help="Each has an outbox, a session and a link of its own.")],
    folder: Annotated[Path, typer.Option(help="Keeps the outboxes: what a run leaves is sent by the next.")],
    slices: Annotated[int, typer.Option(min=1, help="That each edge captures.")] = 20,
    interval_s: Annotated[
        float, typer.Option(min=0, help="Between two slices of an edge; 0: as fast as receipts come.")
    ] = 5.0,
    with_frames: Annotated[bool, typer.Option(help="A captured original goes with each slice.")] = False,
    limit_s: Annotated[float, typer.Option(min=1, help="Give up after this time.")] = 600.0,
    seed: int = 0,
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", envvar="SLICELOOP_CONFIG")] = None,
    log_level: Annotated[str, typer.Option(envvar="SLICELOOP_LOG_LEVEL")] = "error",
) -> None:
    """Simulate many edges against the broker of the configuration, behind which a worker must run.

    They speak as site `simulated`, trust no release and show no patient. A broker that wants a certificate for each
    edge refuses them: point the fleet at a broker of a test.
    """
    from rich.console import Console

    from sliceloop.fleet.edge import Pace
    from sliceloop.fleet.run import FleetPlan, run_fleet
    from sliceloop.progress import counted
    from training.durable import write_atomically

    configure_logs(log_level)
    waiting = 16
    plan = FleetPlan(edges, Pace(interval_s, slices, waiting), with_frames, limit_s, seed)
    with counted("slices with receipts") as on_slice:
        report = run_fleet(plan, read_section(config, "broker", BrokerSettings), folder, stop_on_signals(), on_slice)
    if json is not None:
        write_atomically(json, report.model_dump_json(indent=2).encode())
    Console().print_json(report.model_dump_json())
    raise typer.Exit(1 if report.waiting else 0)


@pipeline_bench_app.command("pipeline")
def bench_pipeline(
    edges: Annotated[str, typer.Option(help="Numbers of edges, each measured.")] = "1,4,16",
    workers: Annotated[str, typer.Option(help="Numbers of workers, each measured.")] = "1",
    slices: Annotated[int, typer.Option(min=16, help="At full speed, in all.")] = 2000,
    with_frames: Annotated[bool, typer.Option(help="A captured original goes with each slice.")] = False,
    cut_s: Annotated[float, typer.Option(min=0, help="Cut the line of a stream for so long; 0: do not.")] = 0.0,
    soak: Annotated[int, typer.Option(min=0, help="Watch memory over so many slices; 0: do not.")] = 0,
    ledger_url: Annotated[str | None, typer.Option(help="SQLAlchemy URL; default: a SQLite file.")] = None,
    folder: Annotated[Path, typer.Option(help="Emptied before each part.")] = Path("bench-data"),
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for the picture, .png or .svg.")] = None,
) -> None:
    """Measure capture to receipt beside raw floors on the same payloads; broker, S3 server and workers are started."""
    from rich.console import Console

    from sliceloop.demo.processes import exit_on_signals
    from sliceloop.pipeline.bench import PipelinePlan, measure
    from sliceloop.pipeline.figures import draw
    from sliceloop.pipeline.report import show
    from training.durable import write_atomically

    configure_logs("error")
    exit_on_signals()
    console = Console()
    plan = PipelinePlan(_numbers(edges), _numbers(workers), slices, with_frames, cut_s, soak, ledger_url)
    with console.status("starting") as status:
        result = measure(plan, folder.absolute(), threading.Event(), status.update)
    if json is not None:
        write_atomically(json, result.model_dump_json(indent=2).encode())
    if plot is not None:
        write_atomically(plot, draw(result, plot.suffix.lstrip(".") or "png"))
    show(result, console)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise typer.BadParameter(f"{text!r}: give whole numbers from 1 on, separated by commas")
    return numbers
