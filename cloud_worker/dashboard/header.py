"""The two lines on top, which are never dropped: what this is, whether it is live, and what it must not be used for."""

import textwrap
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from cloud_worker.dashboard.frame import line
from cloud_worker.dashboard.palette import BACKGROUND, BAD, GOOD, INK, NOTICE, PHANTOM, QUIET, WARN, ago
from cloud_worker.dashboard.rows import PHANTOM_PREFIX, SliceRow
from cloud_worker.dashboard.state import DashboardState

NOTICES = ("RESEARCH USE ONLY — NOT FOR DIAGNOSIS", "RESEARCH USE ONLY")
TITLES = ("sliceloop · chest CT, read at the edge, checked in the cloud", "sliceloop")
HEIGHT = 2
ROWS_A_TROUBLE_LINE = 6
"""For so many rows of the screen one line may say what stands in the way."""


def header(state: DashboardState, rows: list[SliceRow], now: datetime, width: int) -> RenderableType:
    """Return the header; `rows` are the slices on the screen."""
    right = Text.assemble(_connection(state, now), ("  " + f"{now:%H:%M:%S %Z}".strip() + " ", INK))
    title = _fitting(TITLES, width - right.cell_len - 3)
    left = Text.assemble((f" {title[:9]}", f"bold {INK}"), (title[9:], QUIET))
    if state.unreadable:
        left.append(f"  ! {state.unreadable} unreadable", WARN)
    phantom = _phantom(rows)
    notice = Text(f" {_fitting(NOTICES, width - phantom.cell_len - 2)} ", NOTICE)
    return Group(_spread(left, right, width), _spread(notice, phantom, width, NOTICE))


def trouble_lines(state: DashboardState, width: int, height: int) -> list[Text]:
    """Return what stands in the way of the messages, in as many lines as a screen of this height has room for."""
    room = height // ROWS_A_TROUBLE_LINE
    if not room:
        return []
    said = f"! {state.trouble}" if state.trouble else ""
    wrapped = textwrap.wrap(said, max(8, width - 1), max_lines=room, placeholder="…")
    return [line((f" {part}", f"bold {BAD}")) for part in wrapped]


def _connection(state: DashboardState, now: datetime) -> Text:
    if state.connected:
        return Text(f"● connected {state.broker}", GOOD)
    word = "RECONNECTING" if state.was_connected else "CONNECTING"
    return Text(f" ✗ {word} {state.broker} · {ago(state.disconnected_since, now)} ", f"bold {BACKGROUND} on {BAD}")


def _phantom(rows: list[SliceRow]) -> Text:
    phantoms = sum(row.phantom for row in rows)
    if not phantoms:
        return Text()
    words = "NO PATIENTS" if phantoms == len(rows) else "AND OTHER SLICES, MIXED"
    return Text(f" {PHANTOM_PREFIX.upper()} — {words} ", PHANTOM)


def _fitting(texts: tuple[str, ...], width: int) -> str:
    return next((text for text in texts if len(text) <= width), texts[-1])


def _spread(left: Text, right: Text, width: int, style: str = "") -> Text:
    """Return both texts at the ends of one line; where they do not fit, the right one is cut."""
    left.truncate(width, overflow="ellipsis")
    right.truncate(max(0, width - left.cell_len - 1), overflow="ellipsis")
    gap = " " * (width - left.cell_len - right.cell_len)
    return Text.assemble(left, gap, right, style=style, no_wrap=True, overflow="crop")
