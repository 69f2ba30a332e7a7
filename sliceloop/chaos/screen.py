"""What a person sees of a running chaos: bars and the faults at work on a terminal, else a line now and then."""

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

PLAIN_LINE_EVERY_S = 5.0
REFRESH_S = 0.25


class ChaosScreen:
    """Shows how far the stream, the store and the faults are."""

    def __init__(self, what: str, total: int, faults: int) -> None:
        """Remember the goals."""
        self.console = Console()
        self._what, self._total, self._faults = what, total, faults
        self._stack = ExitStack()
        self._live: Live | None = None
        self._next_s = 0.0
        self._bars = Progress(
            TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )

    def __enter__(self) -> Self:
        """Begin."""
        self._tasks = [self._bars.add_task(name, total=total) for name, total in self._goals()]
        if self.console.is_terminal:
            self._live = self._stack.enter_context(Live(console=self.console, auto_refresh=False, transient=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""
        self._stack.close()

    def say(self, text: str) -> None:
        """Show one line for good."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, given: int, stored: int, faults: int, now: str) -> None:
        """Show how far it is, when it is time."""
        if time.monotonic() < self._next_s:
            return
        counts = (given, stored, faults)
        if self._live is None:
            self._next_s = time.monotonic() + PLAIN_LINE_EVERY_S
            said = ", ".join(f"{name} {n}/{total}" for (name, total), n in zip(self._goals(), counts, strict=True))
            self.say(f"{self._what}: {said}; {now}")
            return
        self._next_s = time.monotonic() + REFRESH_S
        for task, count in zip(self._tasks, counts, strict=True):
            self._bars.update(task, completed=count)
        self._live.update(Group(Text(self._what), self._bars, Text(now, style="dim")), refresh=True)

    def _goals(self) -> list[tuple[str, int]]:
        return [("given", self._total), ("stored", self._total), ("faults", self._faults)]
