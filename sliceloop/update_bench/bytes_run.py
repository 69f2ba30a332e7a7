"""Measure, show and write what updates move."""

import tempfile
from pathlib import Path

import typer
from rich.console import Console

from sliceloop.update_bench.bytes_moved import UpdateBytes, measure_bytes, table
from sliceloop.update_bench.update_pairs import UpdatePlan
from training.durable import write_atomically


def bench_update_bytes(plan: UpdatePlan, json: Path | None) -> UpdateBytes:
    """Make the networks, about two minutes on one core, and say what their updates move."""
    with tempfile.TemporaryDirectory(prefix="sliceloop-bench-") as folder:
        result = measure_bytes(Path(folder) / "phantoms", plan, typer.echo)
    if json is not None:
        write_atomically(json, result.model_dump_json(indent=2).encode())
    Console().print(table(result))
    for aim, reached in result.aims.items():
        typer.echo(f"{'reached' if reached else 'NOT reached'}: {aim}")
    return result
