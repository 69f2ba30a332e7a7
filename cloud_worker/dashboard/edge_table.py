"""The edges: who is there, what it runs, what it still holds."""

import textwrap
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from cloud_worker.dashboard.frame import Column, Size, fit, line, more, panel, table, waiting
from cloud_worker.dashboard.palette import (
    BAD,
    EDGE_LOOKS,
    GOOD,
    INK,
    QUIET,
    WARN,
    Look,
    ago,
    bar,
    named,
    percent,
    version,
)
from cloud_worker.dashboard.rows import EdgeRow
from cloud_worker.dashboard.state import DashboardState
from protocol.messages import ModelPhase

WIDE = 54
HIGH_WATER_MARK = 0.8
"""An outbox that is fuller is told in words, and one that takes no more in the colour of what is bad."""
SILENT_AFTER_S = 90
"""An edge repeats its status more often than this."""


def edges_panel(state: DashboardState, now: datetime, size: Size) -> RenderableType:
    """Return the edges, those in trouble first."""
    if not state.edges:
        return waiting("edges", "no edge has spoken yet", size)
    wide = size.inner_width >= WIDE
    edges = sorted(state.edges.values(), key=lambda edge: (edge.state != "lost", str(edge.id)))
    shown, hidden = fit(edges, size.inner_height - 1)
    room = size.inner_height - 1 - len(shown) - bool(hidden)
    lines: list[RenderableType] = []
    for edge in shown:
        problem = _problem_lines(edge, now, size.inner_width, room)
        room -= len(problem)
        row = table(_columns(wide=wide))
        row.show_header = not lines
        row.add_row(*_cells(edge, now, state.name_of(edge.id), wide=wide, told_below=bool(problem)))
        lines += [row, *problem]
    return panel(f"edges · {len(edges)}", Group(*lines, *more(hidden)), size)


def _columns(*, wide: bool) -> list[Column]:
    heard = [Column("heard", 6, right=True)] if wide else []
    name = Column("edge", 18 if wide else 11)
    return [Column("", 9), name, Column("runs", 4, True), Column("outbox", 6, True), *heard, Column("update")]


def _look(edge: EdgeRow, now: datetime) -> Look:
    silent = edge.last_seen is not None and (now - edge.last_seen).total_seconds() > SILENT_AFTER_S
    return EDGE_LOOKS["silent" if edge.state == "online" and silent else edge.state]


def _problem_lines(edge: EdgeRow, now: datetime, width: int, room: int) -> list[Text]:
    """Return an online edge's problem, or its camera's guidance and refusals, in as many lines as there is room for."""
    if not room or _look(edge, now) is not EDGE_LOOKS["online"]:
        return []
    filling = _filling(edge)
    trouble = "; ".join(filter(None, (filling, edge.problem)))
    told = trouble or " · ".join(filter(None, (edge.guidance, _refused(edge))))
    sign, colour = ("!", _outbox_colour(edge) if filling else WARN) if trouble else ("›", QUIET)
    wrapped = textwrap.wrap(told, max(8, width - 4), max_lines=room, placeholder="…")
    return [line((f"  {sign} {part}" if number == 0 else f"    {part}", colour)) for number, part in enumerate(wrapped)]


def _filling(edge: EdgeRow) -> str:
    full = edge.outbox_fullness
    return f"outbox {percent(full)} full" if full >= HIGH_WATER_MARK else ""


def _outbox_colour(edge: EdgeRow) -> str:
    if edge.outbox_fullness >= 1:
        return BAD
    return WARN if edge.outbox_depth or edge.outbox_fullness >= HIGH_WATER_MARK else QUIET


def _refused(edge: EdgeRow) -> str:
    total = sum(count for _, count in edge.refusals)
    reasons = ", ".join(f"{code} {count}" for code, count in edge.refusals)
    return f"{total} pictures refused: {reasons}" if total else ""


def _cells(edge: EdgeRow, now: datetime, name: str, *, wide: bool, told_below: bool) -> list[Text]:
    look = _look(edge, now)
    heard = [Text(ago(edge.last_seen, now), QUIET)] if wide else []
    return [
        named(look, "bold"),
        Text(name, INK),
        Text(version(edge.running_version), INK),
        Text(f"{edge.outbox_depth:,}", _outbox_colour(edge)),
        *heard,
        _trouble(edge, look, now, told_below) or _update(edge, bar_width=8 if wide else 0),
    ]


def _trouble(edge: EdgeRow, look: Look, now: datetime, told_below: bool) -> Text | None:
    if look is EDGE_LOOKS["silent"]:
        return Text(f"for {ago(edge.last_seen, now)}", WARN)
    if edge.state in ("lost", "stopped"):
        return Text(f"{ago(edge.since, now)} ago", look.colour)
    if told_below:
        return None
    if filling := _filling(edge):
        return Text(filling, _outbox_colour(edge))
    return Text(edge.problem, WARN) if edge.problem else None


def _update(edge: EdgeRow, bar_width: int) -> Text:
    desired = version(edge.desired_version)
    match edge.phase:
        case ModelPhase.DOWNLOADING:
            done = edge.chunks_done / edge.chunks_total if edge.chunks_total else 0.0
            return Text.assemble((f"↓ {desired} ", GOOD), (f"{percent(done)} ", INK), bar(done, bar_width, GOOD))
        case ModelPhase.TESTING:
            return Text(f"{desired} {edge.phase}", GOOD)
        case ModelPhase.SHADOW | ModelPhase.PROBATION:
            return Text(f"{desired} {edge.phase} {edge.compared or ''}".rstrip(), GOOD)
        case ModelPhase.REJECTED | ModelPhase.ROLLED_BACK:
            return Text(f"✗ {desired} {edge.phase}" if edge.desired_version else f"✗ {edge.phase}", BAD)
        case _:
            return Text()
