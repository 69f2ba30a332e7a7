"""The session with the broker: it connects, comes back by itself, and hands messages over between threads.

At least once, and nothing more: a message is delivered when its PUBACK came. When the connection is lost first, its
delivery fails and whoever published it sends it again; nothing is resent here, because each connection starts with
empty hands. So a message may arrive twice, and the receiver drops the double by the message's id.
"""

import random
import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import structlog

from broker.backoff import backoff_s, slow_s
from broker.connection import (
    LEAVE_TIMEOUT_S,
    TICK_S,
    Birth,
    Connection,
    Ending,
    Interest,
    Plan,
    properties_bytes,
)
from broker.credentials import read_credentials
from broker.errors import NotConnectedError, WindowFullError
from broker.inbox import Inbox
from broker.limits import Limits, check, check_topic_filter
from broker.messages import Delivery, Inbound, Outbound
from broker.settings import BrokerSettings

__all__ = ["Delivery", "Inbound", "Outbound", "Session"]

log = structlog.get_logger()

DROPPED_TOO_OFTEN = 3
"""So many times in a row accepted and dropped at once is no accident; mosquitto 2.0.11 and rumqttd do not say why."""

DROPPED_REMEDY = "accepted and dropped again and again: does another process use this client id?"


class Session:
    """A connection to the broker that comes back by itself, from `with` until its end; used once.

    birth: gives the messages that open every connection; called on the network thread, so it must be quick.
    clean_start: begin with nothing and leave nothing at the broker; otherwise the broker keeps subscriptions, and what
    was not acknowledged, for session_expiry_s.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        *,
        will: Outbound | None = None,
        subscriptions: Sequence[str] = (),
        clean_start: bool = False,
        birth: Birth | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        expiry_s = 0 if clean_start else settings.session_expiry_s
        self._plan = Plan(settings, client_id, will, tuple(subscriptions), clean_start, expiry_s, birth)
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._inbox = Inbox(settings.max_queued_messages, reserved=settings.max_queued_messages // 2)
        self._stop = threading.Event()
        self._told: set[Ending] = set()
        self._changed = threading.Condition()  # guards the fields below
        self._connected = False
        self._closing = False
        self._fatal: str | None = None
        self._trouble: str | None = None
        self._limits = Limits(settings.max_payload_bytes, settings.max_inflight)
        self._open: dict[Delivery, int] = {}
        self._further: dict[str, bool] = {}
        self._requests: deque[tuple[Outbound, Delivery] | Inbound | Interest] = deque()

    def __enter__(self) -> Self:
        """Start the network thread; a broker that is down is waited for, a credential file that is missing is not."""
        for topic_filter in self._plan.subscriptions:
            check_topic_filter(topic_filter)
        if self._plan.will is not None:
            check(self._plan.will, self._limits, properties_bytes(self._plan.will))
        self._credentials = read_credentials(self._settings)
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{self._plan.client_id}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last PUBACKs, say goodbye (so that the will is not sent), and join the thread."""
        self._drain()
        self._stop.set()
        self._wake()
        self._thread.join(self._settings.connect_timeout_s + LEAVE_TIMEOUT_S + TICK_S)
        if self._thread.is_alive():
            log.error("network thread did not stop", thread=self._thread.name)
            return
        self._wake_reader.close()
        self._wake_writer.close()

    @property
    def connected(self) -> bool:
        """Say whether the broker has accepted us and answered every subscription."""
        return self._connected

    @property
    def fatal(self) -> str | None:
        """Say what stands in the way that retrying cannot mend, and what to do; None when nothing does."""
        return self._fatal

    @property
    def trouble(self) -> str | None:
        """Say why there is no connection, or what else stands in the way; None when nothing has yet, or any more."""
        return self._trouble

    @property
    def limits(self) -> Limits:
        """Return the limits in force: ours, tightened by what the broker said when we last connected."""
        return self._limits

    @property
    def dropped(self) -> int:
        """Count the QoS 0 messages that found the inbox full."""
        return self._inbox.dropped

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until connected; False when the timeout passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._connected, timeout_s)

    def publish(self, outbound: Outbound) -> Delivery:
        """Hand a message to the network thread and return its delivery.

        Raises OversizeError, InvalidMessageError or UnsupportedByBrokerError for a message that can never go,
        NotConnectedError or WindowFullError for one that may go later; then nothing was sent.
        """
        packed_bytes = properties_bytes(outbound)
        delivery = Delivery()
        with self._changed:
            check(outbound, self._limits, packed_bytes)
            if not self._connected or self._closing:
                raise NotConnectedError(self._settings.host, self._settings.port)
            if sum(qos == outbound.qos for qos in self._open.values()) >= self._limits.window:
                raise WindowFullError(self._limits.window)
            self._open[delivery] = outbound.qos
            self._request((outbound, delivery))
        return delivery

    def receive(self, timeout_s: float) -> Inbound | None:
        """Return the next message, or None when none came in time; acknowledge it once it is dealt with."""
        return self._inbox.take(timeout_s)

    def nudge(self) -> None:
        """Let a thread that waits in `receive` return at once, since it has something to publish."""
        self._inbox.nudge()

    def subscribe(self, topic_filter: str) -> None:
        """Hear a further topic filter, on this connection and on those to come, until `unsubscribe`."""
        check_topic_filter(topic_filter)
        with self._changed:
            self._turn(topic_filter, wanted=True)

    def unsubscribe(self, topic_filter: str) -> None:
        """Hear a further topic filter no longer; what is on its way may still come."""
        check_topic_filter(topic_filter)
        with self._changed:
            self._turn(topic_filter, wanted=False)

    def ack(self, inbound: Inbound) -> None:
        """Acknowledge a message; one of an earlier connection is let go, since the broker sends it again."""
        if inbound.qos == 0:
            return
        with self._changed:
            self._request(inbound)

    def _turn(self, topic_filter: str, *, wanted: bool) -> None:
        """Remember what is wanted: each new connection begins with it, since a broker that kept the session kept both.

        What was given up is remembered too; there are no more of these than filters that were ever named.
        """
        self._further[topic_filter] = wanted
        if self._connected:
            self._request(Interest(topic_filter, wanted=wanted))

    def _request(self, request: tuple[Outbound, Delivery] | Inbound | Interest) -> None:
        """Hand over, waking the network thread for the first alone: it takes all that are there."""
        self._requests.append(request)
        if len(self._requests) == 1:
            self._wake()

    def _drain(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not (self._open and self._connected), self._settings.drain_timeout_s)
            undelivered = len(self._open)
        if undelivered:
            log.warning("session stops before its last messages were acknowledged", undelivered=undelivered)

    def _wake(self) -> None:
        try:
            self._wake_writer.send(b"!")
        except BlockingIOError:
            pass  # enough wake-ups wait already
        except OSError:
            log.debug("session is over: nobody to wake")

    # From here on everything runs on the network thread.

    def _run(self) -> None:
        number, failures, plan = 0, 0, self._plan
        while not self._stop.is_set():
            number += 1
            connection = Connection(plan, self._credentials, number, self._inbox, self._settle)
            ending = self._live(connection)
            failures = 1 if connection.lasted_s >= self._settings.reconnect_min_s else failures + 1
            if connection.ready and failures > DROPPED_TOO_OFTEN and ending.remedy is None:
                ending = replace(ending, remedy=DROPPED_REMEDY)
            self._record_loss(ending)
            if not self._stop.is_set():
                plan = self._next_plan(ending)
                self._pause(ending, failures)

    def _next_plan(self, ending: Ending) -> Plan:
        """Leave a session behind that holds an unreadable message; senders keep what they have no receipt for."""
        if not ending.malformed:
            return self._plan
        log.error("unreadable message: starting afresh without what the broker kept", client_id=self._plan.client_id)
        return replace(self._plan, clean_start=True)

    def _live(self, connection: Connection) -> Ending:
        try:
            connection.open()
            while connection.ending is None:
                if connection.ready and not self._connected:
                    self._record_ready(connection)
                self._hand_over(connection)
                if self._stop.is_set():
                    connection.leave()
                connection.step(self._wake_reader)
            return connection.ending
        except Exception as error:  # a thread's top: no message may end the session
            log.exception("connection given up", client_id=self._plan.client_id)
            return Ending(f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    def _hand_over(self, connection: Connection) -> None:
        while self._requests:
            request = self._requests.popleft()
            if isinstance(request, Inbound):
                connection.ack(request)
            elif isinstance(request, Interest):
                connection.turn(request)
            else:
                connection.publish(*request)

    def _settle(self, delivery: Delivery, failure: str | None) -> None:
        with self._changed:
            self._open.pop(delivery, None)
            delivery.settle(failure)
            self._changed.notify_all()

    def _record_ready(self, connection: Connection) -> None:
        with self._changed:
            self._connected, self._limits = True, connection.limits
            self._fatal = self._trouble = connection.refused
            self._requests.extend(Interest(*further) for further in self._further.items())
            self._changed.notify_all()
        log.info(
            "connected to the broker",
            host=self._settings.host,
            port=self._settings.port,
            client_id=self._plan.client_id,
            session_present=connection.session_present,
            window=connection.limits.window,
        )

    def _record_loss(self, ending: Ending) -> None:
        with self._changed:
            self._connected = False
            self._fatal = None if ending.remedy is None else f"{ending.reason}: {ending.remedy}"
            self._trouble = self._fatal or ending.reason
            self._requests.clear()
            lost, self._open = list(self._open), {}
            for delivery in lost:
                delivery.settle(ending.reason)
            self._changed.notify_all()

    def _pause(self, ending: Ending, failures: int) -> None:
        bounds = self._settings.reconnect_min_s, self._settings.reconnect_max_s
        wait_s = backoff_s(failures - 1, *bounds, self._rng) if ending.remedy is None else slow_s(bounds[1], self._rng)
        if failures == 1:
            self._told.clear()
        self._tell(ending, wait_s)
        self._stop.wait(wait_s)

    def _tell(self, ending: Ending, wait_s: float) -> None:
        """Say a new trouble aloud, and one that lasts quietly."""
        place = f"{self._settings.host}:{self._settings.port}"
        text = f"broker unreachable at {place}: {ending.reason}; retrying in {_one_digit(wait_s)} s"
        speak = log.debug if ending in self._told else log.error if ending.remedy else log.warning
        speak(text, client_id=self._plan.client_id, **({"remedy": ending.remedy} if ending.remedy else {}))
        self._told.add(ending)


def _one_digit(seconds: float) -> str:
    """Return a wait with one digit that says something; no wait is told as none."""
    return f"{float(f'{max(seconds, 0.01):.1g}'):g}"
