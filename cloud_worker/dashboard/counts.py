"""The counts: figures, and the classes' shares as one bar."""

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cloud_worker.dashboard.palette import GOOD, INK, LABEL_LOOKS, LINE, QUIET, UNCERTAIN, WARN, Look
from cloud_worker.dashboard.state import Count, DashboardState
from protocol.labels import LABELS

BRIEF_FROM = 10_000


def counts_strip(state: DashboardState, width: int) -> RenderableType:
    """Return three lines: figures, what they count, and the classes' shares as one bar."""
    grid = Table.grid(expand=True)
    tallies = _tallies(state)
    for _ in tallies:
        grid.add_column(justify="center", ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row(*(Text(f"{number:,}", style=f"bold {look.colour}") for look, number in tallies))
    grid.add_row(*(Text(f"{look.sign} {look.word}".strip(), style=QUIET) for look, _ in tallies))
    return Group(grid, _shares(state, width))


def counts_line(state: DashboardState, width: int) -> RenderableType:
    """Return the counts in one line: 80 columns hold them all, in thousands once there is no room for more digits."""
    tallies = _tallies(state)
    line = _counted(tallies, " ", _exact)
    for say in (_exact, _brief):
        if line.cell_len > width:
            line = _counted(tallies, "", say)
    line.truncate(width, overflow="ellipsis", pad=True)
    return line


def _counted(tallies: list[tuple[Look, int]], gap: str, say: Callable[[int], str]) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for look, number in tallies:
        line.append(f" {look.sign}{gap}" if look.sign else f" {look.word.split()[0]} ", look.colour)
        line.append(f"{say(number)}{gap}", f"bold {INK}")
    return line


def _exact(number: int) -> str:
    return f"{number:,}"


def _brief(number: int) -> str:
    return f"{number:,}" if number < BRIEF_FROM else f"{number // 1_000:,}k"


def _tallies(state: DashboardState) -> list[tuple[Look, int]]:
    looks: list[tuple[Look, Count]] = [
        (Look("", INK, "read"), "read"),
        *((LABEL_LOOKS[label], label) for label in LABELS),
        (UNCERTAIN, "uncertain"),
        (Look("", INK, "2nd reads"), "second"),
        (Look("≠", WARN, "disagree"), "disagreement"),
        (Look("○", WARN, "open"), "open"),
        (Look("✓", INK, "reviewed"), "reviewed"),
        (Look("↻", GOOD, "retrain"), "retrain"),
    ]
    return [(look, state.counts[count]) for look, count in looks]


def _shares(state: DashboardState, width: int) -> Text:
    looks: list[tuple[Look, Count]] = [*((LABEL_LOOKS[label], label) for label in LABELS), (UNCERTAIN, "uncertain")]
    total = state.counts["read"]
    if not total:
        return Text("─" * width, LINE, no_wrap=True)
    line, drawn, seen = Text(no_wrap=True), 0, 0
    for look, count in looks:
        seen += state.counts[count]
        end = round(seen / total * width)
        line.append(_stretch(look.sign, end - drawn), look.colour)
        drawn = end
    return line


def _stretch(sign: str, width: int) -> str:
    """Return a stretch of bar that carries its sign in the middle, where there is room."""
    return f"{sign:━^{width}}" if width >= len("━━?━━") else "━" * width
