"""What `bench update` prints about behaviour."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from sliceloop.update_bench.behaviour_result import BehaviourResult, Course

WITHIN = 50
"""Live slices in which a bad candidate is to be found."""


def show(result: BehaviourResult, console: Console) -> None:
    """Print the tables: bad candidates, then good ones."""
    console.print(_bad(result))
    console.print(_good(result))


def name_of(course: Course) -> str:
    """Name a kind, and say whether networks read."""
    return f"{course.kind} (network)" if course.real else course.kind


def ground_of(course: Course) -> str:
    """Name where it ran."""
    return f"{course.held_to}, {'kept slices' if course.kept else 'new edge'}, {course.mix}"


def _bad(result: BehaviourResult) -> Table:
    table = Table(title=f"Bad candidates, {result.runs} runs each [95 % interval by Wilson]{_read_by(result)}")
    for name in ("candidate", "held to", "slices"):
        table.add_column(name)
    for name in ("back by kept slices alone", f"back within {WITHIN}", f"new edge: back within {WITHIN}", "latest"):
        table.add_column(name, justify="right")
    table.add_column("because it")
    for kept, new in _both(result, good=False):
        shares = (kept.share(0), kept.share(WITHIN), new.share(WITHIN))
        table.add_row(name_of(kept), kept.held_to, kept.mix, *map(str, shares), _latest(new), kept.verdict)
    return table


def _good(result: BehaviourResult) -> Table:
    table = Table(title=f"Good candidates, {result.runs} runs each [95 % interval by Wilson]{_read_by(result)}")
    for name in ("candidate", "slices"):
        table.add_column(name)
    for name in ("right here", "back by kept slices alone", "back ever", "new edge: back ever", "of slices"):
        table.add_column(name, justify="right")
    table.add_column("because it")
    for kept, new in _both(result, good=True):
        shares = (kept.share(0), kept.share(kept.slices), new.share(new.slices))
        why = kept.verdict or new.verdict
        table.add_row(name_of(kept), kept.mix, _right(kept), *map(str, shares), str(kept.slices), why)
    return table


def _both(result: BehaviourResult, *, good: bool) -> Iterator[tuple[Course, Course]]:
    """Yield the courses of an edge with kept slices, each with that of a new edge."""
    courses = {(each.kind, each.held_to, each.mix, each.kept): each for each in result.courses if each.good is good}
    for (kind, held_to, mix, kept), course in courses.items():
        if kept:
            yield course, courses[kind, held_to, mix, False]


def _read_by(result: BehaviourResult) -> str:
    return f"; networks read {result.data}" if result.data else ""


def _right(course: Course) -> str:
    """Say how many slices a candidate calls rightly, and how many the incumbent did."""
    if course.accuracy is None:
        return ""
    candidate, incumbent = course.accuracy
    return f"{candidate:.2f} ({incumbent:.2f}){', worse' if course.worse_here else ''}"


def _latest(course: Course) -> str:
    caught = [at for at in course.caught_at if at is not None]
    return f"not within {course.slices}" if len(caught) < len(course.caught_at) else str(max(caught))
