"""The dashboard on a broker: what arrives, whatever it is, and a broker that dies."""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

import pytest
from dashboard_said import START, at, diagnosis, progress, reading, slice_read, status, to, verdict
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from broker.embedded import EmbeddedBroker, free_port
from broker.errors import BrokerError
from broker.messages import Inbound, Outbound
from broker.session import Session
from broker.settings import BrokerSettings
from cloud_worker.dashboard.announcement import read_announcement
from cloud_worker.dashboard.app import SUBSCRIPTIONS, Dashboard, run_dashboard
from cloud_worker.dashboard.state import DashboardState
from protocol import codec, signing, topics
from protocol.codec import EventContext
from protocol.errors import ProtocolError
from protocol.messages import KIND_OF, Message
from protocol.topics import Kind

DEADLINE_S = 20.0
TOPICS = [
    *(
        topics.edge_topic("north", "ct-1", kind)
        for kind in Kind
        if kind not in topics.CLOUD_KINDS | {Kind.MODEL_CHUNK, Kind.MODEL_KEYS}
    ),
    *(topics.cloud_topic(kind) for kind in topics.CLOUD_KINDS),
    topics.FLEET_DESIRED,
    topics.FLEET_KEYS,
]


def inbound(topic: str, payload: bytes, properties: tuple[tuple[str, str], ...] = ()) -> Inbound:
    """Return a message as the session hands it over."""
    return Inbound(topic, payload, 1, False, None, properties, mid=1, connection=1)


def outbound(message: Message, message_id: str) -> Outbound:
    """Return a message of the edge north/ct-1 or of the cloud as it is published."""
    kind = KIND_OF[type(message)]
    topic = topics.cloud_topic(kind) if kind in topics.CLOUD_KINDS else topics.edge_topic("north", "ct-1", kind)
    encoded = codec.encode(message, EventContext(message_id, "test", START))
    return Outbound(topic, encoded.payload, user_properties=encoded.user_properties)


def arrived(message: Message, message_id: str = "m1") -> Inbound:
    """Return a message as the session hands it over, after the way through the codec."""
    sent = outbound(message, message_id)
    return inbound(sent.topic, sent.payload, sent.user_properties)


def screen(dashboard: Dashboard) -> str:
    """Return what the dashboard shows, as text."""
    console = Console(file=StringIO(), width=120, height=36, force_terminal=True, record=True)
    console.print(dashboard.renderable(at(1)))
    return console.export_text()


@settings(deadline=None, max_examples=150)
@given(
    topic=st.sampled_from(TOPICS) | st.text(max_size=60),
    payload=st.binary(max_size=300),
    kind=st.sampled_from(Kind),
    major=st.integers(0, 3),
)
@example(topics.FLEET_DESIRED, b'{"payload": "' + b"!" * 9 + b'"}', Kind.MODEL_DESIRED, 1)
@example(topics.FLEET_DESIRED, b"[" * 100_000, Kind.MODEL_DESIRED, 1)
@example("sliceloop/v1/cloud/retrain/status", b"{}", Kind.RETRAIN_STATUS, 1)
def test_no_bytes_on_any_topic_break_it(topic: str, payload: bytes, kind: Kind, major: int) -> None:
    """After any bytes on any topic the dashboard still takes in the next slice, and shows it."""
    dashboard = Dashboard("b:1")
    schema = codec.schema_uri(kind, major)
    dashboard.apply_inbound(inbound(topic, payload, (("dataschema", schema), ("id", "m1"))), at(0))
    dashboard.apply_inbound(arrived(diagnosis()), at(0))
    assert dashboard.state.counts["read"] == 1
    assert "Pneumonia" in screen(dashboard)


@pytest.mark.parametrize(
    "year", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"], ids=["first year", "last year"]
)
def test_impossible_times_and_numbers_are_shown_as_far_as_they_go(year: str) -> None:
    """Times at the calendar's ends and endless integers do not break the screen."""
    huge = 10**4000
    model = reading().model.model_copy(update={"version": huge})
    odd = reading().model_copy(update={"model": model, "latency_ms": 1e308})
    dashboard = Dashboard("b:1")
    captured = diagnosis(first=odd).model_dump(mode="json") | {"captured_at": year}
    dashboard.state.apply(to(Kind.DIAGNOSIS), type(diagnosis()).model_validate(captured), at(0))
    said = status().model_dump(mode="json") | {"at": year, "outbox_depth": huge, "last_sequence": huge}
    dashboard.state.apply(to(Kind.STATUS), type(status()).model_validate(said), at(0), retained=True)
    assert "Pneumonia" in screen(dashboard)


def test_what_cannot_be_read_is_counted_and_said() -> None:
    """A message that is none of ours adds one to a small counter on the screen."""
    dashboard = Dashboard("b:1")
    dashboard.apply_inbound(inbound(TOPICS[0], b"garbage"), at(0))
    assert "1 unreadable" in screen(dashboard)


def test_it_leaves_rows_for_others() -> None:
    """A program that shows lines of its own beneath gets as many free rows as it asks for."""
    console = Console(file=StringIO(), width=120, height=36, force_terminal=True, record=True)
    console.print(Dashboard("b:1").renderable(at(1), free_rows=4))
    assert len(console.export_text().splitlines()) == 32


def test_a_picture_that_cannot_be_decoded_is_said_to_be_unreadable() -> None:
    """A slice whose image is no image still shows its reading."""
    dashboard = Dashboard("b:1")
    dashboard.apply_inbound(arrived(slice_read(image=b"not a PNG at all")), at(0))
    assert "the picture cannot be read" in screen(dashboard)
    assert "Pneumonia" in screen(dashboard)


def test_an_announcement_is_read_without_keys_and_not_verified() -> None:
    """A signed envelope is shown by its name and version, as announced."""
    envelope = signing.sign(b'{"name": "squeezenet", "version": 4}', [signing.generate_signer()])
    assert read_announcement(envelope).version == 4
    dashboard = Dashboard("b:1")
    topic = topics.edge_topic("north", "ct-1", Kind.MODEL_DESIRED)
    assert topics.every_edge(Kind.MODEL_DESIRED) in SUBSCRIPTIONS
    dashboard.apply_inbound(inbound(topic, envelope), at(0))
    dashboard.apply_inbound(inbound(topic, b""), at(1))
    assert "announced, unverified" in screen(dashboard)
    assert "unreadable" not in screen(dashboard)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_an_announcement_of_any_bytes_raises_protocol_errors_only(envelope: bytes) -> None:
    """No bytes make the reader of announcements raise anything but a protocol error."""
    try:
        read_announcement(envelope)
    except ProtocolError as error:
        assert str(error)


class Watcher:
    """Runs the dashboard in a thread and waits for what its state comes to."""

    def __init__(self, port: int, console: Console, host: str = "127.0.0.1") -> None:
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._state: DashboardState | None = None
        broker = BrokerSettings(host=host, port=port, reconnect_min_s=0.05, reconnect_max_s=0.2)
        self._thread = threading.Thread(
            target=run_dashboard,
            args=(broker,),
            kwargs={"stop": self._stop, "console": console, "refresh_per_second": 20, "on_state": self._look},
        )

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def wait(self, holds: Callable[[DashboardState], bool]) -> bool:
        """Wait until the state is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state is not None and holds(self._state), DEADLINE_S)

    def _look(self, state: DashboardState) -> None:
        with self._changed:
            self._state = copy.deepcopy(state)
            self._changed.notify_all()


@contextmanager
def publisher(port: int) -> Iterator[Callable[[Message, str], None]]:
    """Give a function that publishes a message until the broker has it."""
    broker = BrokerSettings(port=port, reconnect_min_s=0.05, reconnect_max_s=0.2)
    with Session(broker, "test-publisher", clean_start=True) as session:

        def publish(message: Message, message_id: str) -> None:
            deadline_s = time.monotonic() + DEADLINE_S
            while time.monotonic() < deadline_s:
                try:
                    assert session.wait_connected(DEADLINE_S)
                    if session.publish(outbound(message, message_id)).wait(1):
                        return
                except BrokerError:
                    continue
            raise AssertionError("not published in time")

        yield publish


def test_it_says_why_it_does_not_connect() -> None:
    """A wrong name and a port where nobody listens are told apart, on the screen and in the log's line."""
    for host, words in (("127.0.0.1", "Connection refused"), ("nobody.invalid", "ame")):
        console = Console(file=StringIO(), width=120, height=36)
        with Watcher(free_port(), console, host) as watcher:
            assert watcher.wait(lambda state, words=words: words in state.trouble)
            assert watcher.wait(lambda state: not state.connected and not state.was_connected)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_it_outlives_its_broker(terminal: bool) -> None:
    """The dashboard sees what is published, says so when the broker is killed, and sees what comes next."""
    console = Console(file=StringIO(), width=120, height=36, force_terminal=terminal, force_interactive=terminal)
    first = EmbeddedBroker()
    with first, Watcher(first.port, console) as watcher, publisher(first.port) as publish:
        assert watcher.wait(lambda state: state.connected)
        publish(status(), "m1")
        publish(slice_read("s1"), "m2")
        publish(verdict("s1", kind="label"), "m3")
        publish(progress(0.5), "m4")
        assert watcher.wait(
            lambda state: (
                state.counts["read"] == state.counts["disagreement"] == state.counts["retrain"] == 1
                and [edge.state for edge in state.edges.values()] == ["online"]
            )
        )
        first.kill()
        assert watcher.wait(lambda state: not state.connected and state.disconnected_since is not None)
        with EmbeddedBroker(first.port):
            assert watcher.wait(lambda state: state.connected)
            publish(slice_read("s2"), "m5")
            assert watcher.wait(lambda state: state.counts["read"] == 2)
    assert isinstance(console.file, StringIO)
    assert "research use only" in console.file.getvalue().lower()
