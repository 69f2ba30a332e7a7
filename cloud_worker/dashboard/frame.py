"""Boxes of exactly the size that they are given, and what goes into them."""

from dataclasses import dataclass
from typing import TypeVar

from rich import box
from rich.align import Align
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cloud_worker.dashboard.palette import INK, LINE, QUIET

FRAME = 2
Item = TypeVar("Item")


@dataclass(frozen=True)
class Size:
    """A box on the screen, in cells, its frame included."""

    width: int
    height: int

    @property
    def inner_width(self) -> int:
        """Return what is left between frame and padding."""
        return max(1, self.width - FRAME - 2)

    @property
    def inner_height(self) -> int:
        """Return the rows between the frame's lines."""
        return max(1, self.height - FRAME)


@dataclass(frozen=True)
class Column:
    """A table's column; without a width it takes what the others leave."""

    title: str
    width: int | None = None
    right: bool = False


def panel(title: Text | str, content: RenderableType, size: Size) -> Panel:
    """Return a box around the content, which is cut where it does not fit."""
    heading = Text(title, f"bold {INK}") if isinstance(title, str) else title
    return Panel(
        content,
        title=heading,
        title_align="left",
        box=box.ROUNDED,
        border_style=LINE,
        padding=(0, 1),
        width=size.width,
        height=size.height,
    )


def waiting(title: str, words: str, size: Size) -> Panel:
    """Return a box that says what is waited for."""
    return panel(title, Align.center(Text(words, f"italic {QUIET}"), vertical="middle"), size)


def table(columns: list[Column]) -> Table:
    """Return an empty table without lines."""
    empty = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style=QUIET)
    for column in columns:
        empty.add_column(
            column.title,
            width=column.width,
            ratio=1 if column.width is None else None,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    return empty


def line(*parts: tuple[str, str] | Text) -> Text:
    """Return one line that is cut, never wrapped."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def fit(items: list[Item], rows: int) -> tuple[list[Item], int]:
    """Return what fits, leaving a row to say how much does not, and that number."""
    if len(items) <= rows:
        return items, 0
    shown = max(0, rows - 1)
    return items[:shown], len(items) - shown


def more(hidden: int) -> list[Text]:
    """Return the line that says how many are not shown, if any are not."""
    return [Text(f"and {hidden} more", QUIET)] if hidden else []
