"""What `bench update` prints: each part, and at the end every figure beside its aim."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from sliceloop.update_bench import behaviour_report, bytes_moved, fine_tunings
from sliceloop.update_bench.aims import Aim
from sliceloop.update_bench.result import UpdateResult
from sliceloop.update_bench.timed import TimedUpdate

MET, SHORT = "met", "falls short"


def show(result: UpdateResult, console: Console) -> None:
    """Print the tables."""
    if result.bytes is not None:
        console.print(bytes_moved.table(result.bytes))
    if result.timed:
        console.print(_timed(result.timed, result.architecture))
    if result.fine_tunings is not None:
        console.print(fine_tunings.table(result.fine_tunings))
    if result.behaviour is not None:
        behaviour_report.show(result.behaviour, console)
    if result.line is not None:
        line = result.line
        console.print(
            f"{line.needed_bytes:,} bytes over {line.bytes_per_s / 1e6:g} MB/s: {line.whole_s:.0f} s, "
            f"cut every {line.every_s:g} s: {line.cut_s:.0f} s; the protocol adds {line.overhead:.2%}"
        )
    if result.fleet is not None:
        fleet = result.fleet
        console.print(
            f"{fleet.edges} edges ran it after {fleet.seconds[0]:.0f} to {fleet.seconds[-1]:.0f} s; "
            f"out of the broker went {fleet.to_edges / fleet.artefact_bytes / fleet.edges:.3f} artefacts an edge"
        )
    console.print(_aims(result.aims))


def _timed(updates: Sequence[TimedUpdate], architecture: str) -> Table:
    table = Table(title=f"Updates of an edge that reads, {architecture}, from the assignment on")
    table.add_column("update")
    for name in ("model MB", "fetched MB", "s to the swap", "s to the end of probation"):
        table.add_column(name, justify="right")
    for each in updates:
        table.add_row(
            each.update,
            f"{each.model_bytes / 1e6:.2f}",
            f"{each.chunk_bytes / 1e6:.3f}",
            f"{each.swap_s:.1f}",
            f"{each.proven_s:.1f}",
        )
    return table


def _aims(aims: Sequence[Aim]) -> Table:
    table = Table(title="Aims")
    table.add_column("what")
    table.add_column("aim", justify="right", no_wrap=True)
    table.add_column("measured", justify="right")
    table.add_column("", no_wrap=True)
    for aim in aims:
        table.add_row(aim.what, aim.aim, aim.measured, MET if aim.met else SHORT)
    return table
