"""Run the dashboard: attach to a broker, take in what is said, and show it until told to stop."""

import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from broker.messages import Inbound
from broker.session import Session
from broker.settings import BrokerSettings
from cloud_worker.dashboard.announcement import read_announcement
from cloud_worker.dashboard.state import DashboardState
from cloud_worker.dashboard.summary import summary
from cloud_worker.dashboard.view import render
from protocol import codec, topics
from protocol.errors import ProtocolError
from protocol.topics import Kind

EDGE_KINDS = (Kind.STATUS, Kind.SLICE, Kind.DIAGNOSIS, Kind.VERDICT, Kind.MODEL_REPORTED)
CLOUD_KINDS = (Kind.RETRAIN_STATUS, Kind.RETRAIN_RESULT)
"""Not the requests: their presigned addresses are credentials."""
SUBSCRIPTIONS = (
    *(topics.every_edge(kind) for kind in EDGE_KINDS),
    *(topics.cloud_topic(kind) for kind in CLOUD_KINDS),
    topics.every_edge(Kind.MODEL_DESIRED),
)
SHOWN_KINDS = frozenset({*EDGE_KINDS, *CLOUD_KINDS})
PLAIN_LINE_EVERY_S = 5.0
SVG_TITLE = "sliceloop dashboard — research use only"

OnState = Callable[[DashboardState], None]


class Dashboard:
    """The state with a door for what arrives and one for who looks; both may be used from different threads."""

    def __init__(self, broker: str) -> None:
        self.state = DashboardState(broker)
        self._lock = threading.Lock()

    def apply_inbound(self, inbound: Inbound, now: datetime) -> None:
        """Take in whatever arrived; what is no message of ours is counted, and does no more."""
        with self._lock:
            try:
                self._apply(inbound, now)
            except ProtocolError:
                self.state.count_unreadable()

    def set_connected(self, connected: bool, now: datetime, trouble: str = "") -> None:
        """Remember whether the broker is reached, and what stands in the way."""
        with self._lock:
            self.state.set_connected(connected, now, trouble)

    def renderable(self, now: datetime, free_rows: int = 0) -> "Screen":
        """Return what is to be shown at this time; it fills the height that it is given, but for the free rows."""
        return Screen(self.state, self._lock, now, free_rows)

    def _apply(self, inbound: Inbound, now: datetime) -> None:
        address = topics.parse(inbound.topic)
        if address.kind is Kind.MODEL_DESIRED and not inbound.payload:
            return  # taken off the topic: the release was withdrawn
        if address.kind is Kind.MODEL_DESIRED:
            self.state.apply(address, read_announcement(inbound.payload), now)
        elif address.kind in SHOWN_KINDS:
            event = codec.decode(address.kind, inbound.payload, inbound.user_properties)
            self.state.apply(address, event.message, now, retained=inbound.retained)


class Screen:
    """A renderable that asks the console for its size, and holds the state still while it draws."""

    def __init__(self, state: DashboardState, lock: threading.Lock, now: datetime, free_rows: int) -> None:
        self._state, self._lock, self._now, self._free_rows = state, lock, now, free_rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw into the height that is given, or all of the console."""
        height = max(1, (options.height or console.height) - self._free_rows)
        with self._lock:
            yield render(self._state, self._now, options.max_width, height)


def run_dashboard(
    settings: BrokerSettings,
    *,
    stop: threading.Event,
    console: Console | None = None,
    refresh_per_second: float = 4,
    on_state: OnState | None = None,
) -> None:
    """Show what the broker says until `stop` is set: full screen on a terminal, a line now and then elsewhere.

    on_state is called before each refresh.
    """
    console = console or Console()
    dashboard = Dashboard(f"{settings.host}:{settings.port}")
    client_id = f"dashboard-{secrets.token_hex(6)}"
    # A clean start: the broker must keep nothing for a dashboard that nobody looks at any more.
    with Session(settings, client_id, subscriptions=SUBSCRIPTIONS, clean_start=True) as session:
        show = _show_screen if console.is_terminal else _show_lines
        show(dashboard, session, stop, console, 1 / refresh_per_second, on_state)


def save_svg(state: DashboardState, path: Path, now: datetime, width: int = 140, height: int = 40) -> None:
    """Write the screen as an SVG picture, for documents."""
    console = Console(
        record=True,
        file=StringIO(),
        width=width,
        height=height,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(render(state, now, width, height))
    path.write_text(console.export_svg(title=SVG_TITLE), encoding="utf-8")


def local_now() -> datetime:
    """Return the time of the place where the screen stands."""
    return datetime.now(UTC).astimezone()


def _show_screen(
    dashboard: Dashboard,
    session: Session,
    stop: threading.Event,
    console: Console,
    every_s: float,
    on_state: OnState | None,
) -> None:
    with Live(
        dashboard.renderable(local_now()),
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as live:
        while not stop.is_set():
            _take_in(dashboard, session, stop, every_s, on_state)
            live.update(dashboard.renderable(local_now()), refresh=True)


def _show_lines(
    dashboard: Dashboard,
    session: Session,
    stop: threading.Event,
    console: Console,
    every_s: float,
    on_state: OnState | None,
) -> None:
    next_line_s = 0.0
    while not stop.is_set():
        _take_in(dashboard, session, stop, every_s, on_state)
        if time.monotonic() >= next_line_s:
            next_line_s = time.monotonic() + PLAIN_LINE_EVERY_S
            console.print(summary(dashboard.state, local_now()), highlight=False, soft_wrap=True)


def _take_in(
    dashboard: Dashboard, session: Session, stop: threading.Event, for_s: float, on_state: OnState | None
) -> None:
    """Take in what arrives during one refresh."""
    until_s = time.monotonic() + for_s
    while not stop.is_set() and (left_s := until_s - time.monotonic()) > 0:
        inbound = session.receive(left_s)
        if inbound is not None:
            dashboard.apply_inbound(inbound, local_now())
            session.ack(inbound)
    dashboard.set_connected(session.connected, local_now(), session.trouble or "")
    if on_state is not None:
        on_state(dashboard.state)
