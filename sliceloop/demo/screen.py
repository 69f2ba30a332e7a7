"""What a person sees of a running demo: lines while it prepares, then the dashboard with the last lines below it."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from broker.session import Session
from broker.settings import BrokerSettings
from cloud_worker.dashboard.app import SUBSCRIPTIONS, Dashboard, local_now, save_svg
from sliceloop.progress import counted

LINES_BELOW = 3
REFRESH_S = 0.5


class DemoScreen:
    """Headless (or without a terminal) it prints lines with the time since the start; otherwise it shows all live."""

    def __init__(self, headless: bool, svg: Path | None = None) -> None:
        """Remember how to show things, and where to leave a picture of the dashboard at the end."""
        self._svg = svg
        self._console = Console()
        self._live_wanted = self._console.is_terminal and not headless
        self._lines: deque[str] = deque(maxlen=LINES_BELOW)
        self._stack = ExitStack()
        self._started_s = time.monotonic()
        self._next_refresh_s = 0.0
        self._session: Session | None = None
        self._dashboard: Dashboard | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""
        self._stack.close()

    def say(self, text: str) -> None:
        """Show one line."""
        line = f"[{time.monotonic() - self._started_s:6.1f} s] {text}"
        self._lines.append(line)
        if self._live is None:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar on a terminal; without one, stay silent until it is done."""
        if self._console.is_terminal:
            with counted(what) as on_slice:
                yield on_slice
        else:
            yield lambda *_: None

    def attach(self, broker: BrokerSettings) -> None:
        """Listen to the broker, and on a terminal show the dashboard from now on."""
        if not self._live_wanted and self._svg is None:
            return
        self._dashboard = Dashboard(f"{broker.host}:{broker.port}")
        session = Session(broker, "dashboard-demo", subscriptions=SUBSCRIPTIONS, clean_start=True)
        self._session = self._stack.enter_context(session)
        if self._live_wanted:
            self._live = self._stack.enter_context(
                Live(
                    console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
                )
            )

    def refresh(self) -> None:
        """Take in what arrived, and draw when it is time."""
        if self._session is None or self._dashboard is None:
            return
        while (inbound := self._session.receive(0)) is not None:
            self._dashboard.apply_inbound(inbound, local_now())
            self._session.ack(inbound)
        if time.monotonic() < self._next_refresh_s:
            return
        self._next_refresh_s = time.monotonic() + REFRESH_S
        self._dashboard.set_connected(self._session.connected, local_now(), self._session.fatal or "")
        if self._live is not None:
            self._draw(self._dashboard, self._live)

    def take_picture(self) -> None:
        """Leave a picture of the dashboard as it stands, when one was asked for."""
        if self._svg is not None and self._dashboard is not None:
            self._svg.parent.mkdir(parents=True, exist_ok=True)
            save_svg(self._dashboard.state, self._svg, local_now())

    def _draw(self, dashboard: Dashboard, live: Live) -> None:
        below = Text("\n".join(self._lines), style="dim", overflow="ellipsis", no_wrap=True)
        screen = dashboard.renderable(local_now(), free_rows=LINES_BELOW + 1)
        live.update(Group(screen, below), refresh=True)
