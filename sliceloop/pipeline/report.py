"""What `bench pipeline` prints."""

from rich.console import Console
from rich.table import Table

from sliceloop.fleet.report import Latency
from sliceloop.pipeline.result import PipelineResult

MIB = 1024 * 1024


def show(result: PipelineResult, console: Console) -> None:
    """Print the tables."""
    console.print(_points(result))
    if result.outage is not None:
        console.print(_outage(result))
    if result.soak is not None:
        console.print(_soak(result))


def _points(result: PipelineResult) -> Table:
    table = Table(title=f"Slices a second, {result.payload_bytes:,} bytes each; {result.broker}, {result.ledger}")
    for name in ("edges", "workers", "paho pair", "boto3", "our puts", "SQLite", "pipeline", "of slowest floor"):
        table.add_column(name, justify="right")
    table.add_column("p50 / p99 at half speed", justify="right")
    table.add_column("CPU ms a slice: edges, worker, broker, S3", justify="right")
    for point in result.points:
        floors = point.floors
        speeds = (floors.paho_pair_per_s, floors.boto3_put_per_s, floors.our_put_per_s, floors.sqlite_commit_per_s)
        table.add_row(
            str(point.edges),
            str(point.workers),
            *(f"{speed:.0f}" for speed in speeds),
            f"{point.full.slices_per_s:.0f}",
            f"{point.share:.0%}",
            _milliseconds(point.half.latency),
            _cpu(point.cpu_ms),
        )
    return table


def _cpu(cpu_ms: dict[str, float]) -> str:
    workers = sum(ms for name, ms in cpu_ms.items() if name.startswith("worker"))
    return ", ".join(f"{ms:.1f}" for ms in (cpu_ms["edges"], workers, cpu_ms["broker"], cpu_ms["s3"]))


def _outage(result: PipelineResult) -> Table:
    outage = result.outage
    assert outage is not None
    table = Table(title=f"Line cut for {outage.cut_s:.0f} s, {outage.edges} edges, {outage.stream_per_s:.0f} slices/s")
    for name in ("waited", "caught up in", "at", "p50 / p99 before", "while catching up", "after", "without receipt"):
        table.add_column(name, justify="right")
    table.add_row(
        str(outage.backlog),
        f"{outage.catch_up_s:.0f} s",
        f"{outage.catch_up_per_s:.0f}/s",
        _milliseconds(outage.before),
        _milliseconds(outage.during_catch_up),
        _milliseconds(outage.after),
        str(outage.unreceipted),
    )
    return table


def _soak(result: PipelineResult) -> Table:
    soak = result.soak
    assert soak is not None
    table = Table(title=f"Memory over {soak.slices:,} slices ({soak.seconds:.0f} s)")
    for name in ("process", "first tenth", "last tenth", "growth"):
        table.add_column(name, justify="right")
    for name, (first, last) in (("worker", soak.worker_bytes), ("edges", soak.edge_bytes)):
        table.add_row(name, f"{first / MIB:.1f} MiB", f"{last / MIB:.1f} MiB", f"{last / first - 1:+.1%}")
    return table


def _milliseconds(latency: Latency | None) -> str:
    return f"{latency.p50_ms:.0f} / {latency.p99_ms:.0f} ms" if latency else "-"
