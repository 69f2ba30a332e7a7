"""What `bench update` prints about behaviour."""

from rich.console import Console
from rich.table import Table

from sliceloop.update_bench.behaviour_result import BehaviourResult, Course

WITHIN = 50
"""Slices in which a bad candidate is to be found."""


def show(result: BehaviourResult, console: Console) -> None:
    """Print the tables: bad candidates, then good ones."""
    console.print(_bad(result))
    console.print(_good(result))


def _bad(result: BehaviourResult) -> Table:
    table = Table(title=f"Bad candidates, {result.runs} runs each [95 % interval by Wilson]")
    for name in ("candidate", "slices"):
        table.add_column(name)
    for name in (f"rolled back within {WITHIN}", "median slice", "latest"):
        table.add_column(name, justify="right")
    table.add_column("because it")
    for course in result.courses:
        if not course.good:
            table.add_row(_name(course), course.mix, str(course.share(WITHIN)), *_slices(course), course.verdict)
    return table


def _good(result: BehaviourResult) -> Table:
    table = Table(title=f"Good candidates, {result.runs} runs each [95 % interval by Wilson]")
    for name in ("candidate", "slices"):
        table.add_column(name)
    for name in (f"rolled back within {WITHIN}", "ever", "of slices"):
        table.add_column(name, justify="right")
    table.add_column("because it")
    for course in result.courses:
        if course.good:
            within, ever = course.share(WITHIN), course.share(course.slices)
            table.add_row(_name(course), course.mix, str(within), str(ever), str(course.slices), course.verdict)
    return table


def _name(course: Course) -> str:
    return f"{course.kind} (network)" if course.real else course.kind


def _slices(course: Course) -> tuple[str, str]:
    caught = [at for at in course.caught_at if at is not None]
    missed = len(caught) < len(course.caught_at)
    latest = f"not within {course.slices}" if missed else str(max(caught))
    return f"{course.median_at:.0f}" if caught else "-", latest
