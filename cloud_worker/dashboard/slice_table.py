"""The slices as they are read: local reading, second reading, review."""

from datetime import datetime

from rich.console import RenderableType
from rich.text import Text

from cloud_worker.dashboard.frame import Column, Size, panel, table, waiting
from cloud_worker.dashboard.palette import (
    GOOD,
    INK,
    LABEL_LOOKS,
    OPEN_ROW,
    QUIET,
    WARN,
    bar,
    clock,
    look_of,
    named,
    percent,
    version,
)
from cloud_worker.dashboard.rows import AUDIT, SliceRow
from cloud_worker.dashboard.state import DashboardState

WIDE = 96
PERCENT_WIDTH = 5


def slices_panel(state: DashboardState, rows: list[SliceRow], now: datetime, size: Size) -> RenderableType:
    """Return the slices as they are read, newest first."""
    if not rows:
        return waiting("live", "waiting for the first slice…", size)
    columns = _columns(wide=size.inner_width >= WIDE)
    shown = table(columns)
    for row in rows[: size.inner_height - 1]:
        cells = _cells(row, now, state.name_of(row.key.edge), bar_width=(columns[3].width or 0) - PERCENT_WIDTH)
        shown.add_row(*cells[: len(columns)], style=OPEN_ROW if row.open else "")
    return panel("live · newest first", shown, size)


def _columns(*, wide: bool) -> list[Column]:
    columns = [
        Column("time", 8),
        Column("edge", 14 if wide else 11),
        Column("local reading", 13),
        Column("confidence", 17 if wide else 13),
        Column("ms", 4, right=True),
        Column("model", 5, right=True),
        Column("second reader", 15),
    ]
    return [*columns, Column("review")] if wide else columns


def _cells(row: SliceRow, now: datetime, edge: str, bar_width: int) -> list[Text]:
    reading = row.reading
    if reading is None:
        return []
    look = look_of(reading)
    return [
        Text(clock(row.captured_at, now), QUIET),
        Text(edge, INK),
        named(look, "bold"),
        bar(reading.confidence, bar_width, look.colour).append(f" {percent(reading.confidence):>4}", INK),
        Text(f"{reading.latency_ms:.0f}", QUIET),
        Text(version(reading.version), QUIET),
        second_reading(row),
        _review(row),
    ]


def second_reading(row: SliceRow) -> Text:
    """Say what the second reader said, and whether a person has settled it; equal labels may still disagree."""
    if not row.judged:
        return Text("…", QUIET)
    second = look_of(row.second) if row.second else None
    if not row.disagreement:
        return Text(f"= {second.word}" if second else "none", QUIET)
    if row.disagreement == AUDIT:
        word = second.word if second else ""
        return Text.assemble((f"= {word}, audit", QUIET), (" ✓" if row.review else "", GOOD))
    first = look_of(row.reading) if row.reading else None
    what = Text(row.disagreement, f"bold {WARN}") if second is None or second == first else named(second, "bold")
    return Text.assemble(("≠ ", f"bold {WARN}"), what, (" ✓" if row.review else "", GOOD))


def _review(row: SliceRow) -> Text:
    if row.review is not None:
        look = LABEL_LOOKS[row.review.label]
        return Text.assemble("✓ ", (look.word, look.colour), (f" {row.review.reviewer}", QUIET))
    return Text("○ open", WARN) if row.open else Text()
