"""Publish what the outbox holds, the most urgent first, and again whatever got no receipt in time."""

import random
from collections import Counter
from collections.abc import Collection, Set
from dataclasses import dataclass

import structlog

from broker.errors import (
    InvalidMessageError,
    NotConnectedError,
    OversizeError,
    UnsupportedByBrokerError,
    WindowFullError,
)
from broker.messages import Outbound
from broker.session import Session
from edge_agent.flights import Flights
from edge_agent.outbox import HeldBack, Outbox, OutboxMessage
from edge_agent.window import AdaptiveWindow
from protocol.topics import edge_topic

log = structlog.get_logger()

MAX_PATIENCE = 4
"""So many receipt timeouts is the longest wait for a receipt: it doubles each time, or a slow worker would drown.

After that time without any receipt it is said that nobody answers.
"""
BLOCKED_S = 0.2
"""Wait where the session takes nothing more, so that payloads are not read from the disk in vain."""
MAX_DROPS = 3
"""So many connections may end while a message is on its way to the broker before it is suspected of being why."""
MAX_REFUSALS = 3
"""A message that the broker itself refused so often is kept back until the next connection."""


@dataclass(frozen=True)
class Room:
    """How much more may go now."""

    messages: int
    bytes: int


class Publisher:
    """Moves messages from the outbox to the broker; only `receipt` removes them."""

    def __init__(
        self,
        outbox: Outbox,
        session: Session,
        *,
        site: str,
        edge: str,
        window: int,
        receipt_timeout_s: float,
        max_inflight_bytes: int = 8 * 1024 * 1024,
        rng: random.Random | None = None,
        pace: AdaptiveWindow | None = None,
    ) -> None:
        """Remember the queue, the way, and how much may be without a receipt at once. rng: jitter of resends."""
        self._outbox, self._session = outbox, session
        self._site, self._edge = site, edge
        self._window, self._pace = window, pace or AdaptiveWindow(window)
        self._max_inflight_bytes = max_inflight_bytes
        self._receipt_timeout_s = receipt_timeout_s
        self._flights = Flights(receipt_timeout_s, MAX_PATIENCE, rng or random.Random())  # noqa: S311 - jitter
        self._receipts: dict[str, None] = {}
        self._drops = Counter[str]()
        self._limits: object = None
        self._looked_at = -1
        self._look_again_s = 0.0
        self._unanswered_since_s: float | None = None
        self._unanswered = ""
        self._held = HeldBack(0, "")

    @property
    def problem(self) -> str:
        """Say that nobody answers, or what this broker does not take; empty when all goes well."""
        count, reason = self._held.count, self._held.reason
        kept = f"{count} message{'s' * (count != 1)} cannot be sent: {reason}" if count else ""
        return "; ".join(filter(None, (self._unanswered, kept)))

    def step(self, now_s: float) -> int:
        """Delete what has a receipt, publish what has room in the window; return how many messages went out."""
        self.settle(now_s)
        connected = self._session.connected
        self._follow(connected)
        self._judge_silence(now_s)
        if not connected:
            return 0
        self._hear_failures(now_s)
        room = self._room(now_s)
        if room.messages <= 0 or room.bytes <= 0 or not self._is_anything_due(now_s):
            return 0
        added = self._outbox.added
        due = self._due(room, now_s)
        self._looked_at = added if len(due) < room.messages else -1
        published = 0
        try:
            for message in due:
                published += self._publish(message, now_s)
            self._look_again_s = self._flights.next_due_s()
        except (NotConnectedError, WindowFullError):
            self._looked_at, self._look_again_s = added, now_s + BLOCKED_S
        return published

    def _due(self, room: Room, now_s: float) -> list[OutboxMessage]:
        """Choose what goes next; what was on its way when the broker hung up several times goes last, and alone."""
        under_way = self._flights.open_at(now_s)
        suspects = {message_id for message_id, drops in self._drops.items() if drops >= MAX_DROPS}
        due = self._pending(room.messages, [*under_way, *suspects], room)
        return due if due or under_way or not suspects else self._least_suspect(suspects, room)

    def _least_suspect(self, suspects: Set[str], room: Room) -> list[OutboxMessage]:
        least = min(self._drops[message_id] for message_id in suspects)
        chosen = {message_id for message_id in suspects if self._drops[message_id] == least}
        due = self._pending(1, suspects - chosen, room)
        if not due:  # they have left the outbox
            for message_id in chosen:
                del self._drops[message_id]
        return due

    def _pending(self, limit: int, besides: Collection[str], room: Room) -> list[OutboxMessage]:
        return self._outbox.pending(limit, besides=besides, max_bytes=room.bytes, whole=self._max_inflight_bytes)

    def receipt(self, message_ids: Collection[str]) -> None:
        """Hear what is stored for good; it is deleted with the next step, all receipts of a step in one transaction."""
        self._receipts.update(dict.fromkeys(message_ids))

    def settle(self, now_s: float) -> int:
        """Delete what receipts named, and learn from how long they took; return how many messages that were."""
        if not self._receipts:
            return 0
        deleted = self._outbox.delete(self._receipts)
        for message_id in self._receipts:
            self._drops.pop(message_id, None)
            took_s = self._flights.land(message_id, now_s)
            if took_s is not None:
                self._pace.receipt(took_s)
        self._receipts.clear()
        self._looked_at = -1
        if self._unanswered:
            log.info("receipts come again")
        self._unanswered_since_s, self._unanswered = None, ""
        return deleted

    def _follow(self, connected: bool) -> None:
        """Begin anew with each connection: all is sent again, and what the last broker did not take is tried again."""
        limits = self._session.limits if connected else None
        if limits is self._limits:
            return
        self._looked_at = -1
        if self._limits is not None:  # that connection is gone
            self._drops.update(self._flights.untaken())
        self._pace.restart()
        self._flights.clear()  # the next connection sends them again; the worker stores a message once
        if connected:
            self._outbox.line_is_back()
            self._outbox.release_held()
            self._held = HeldBack(0, "")
        self._limits = limits  # last: what the outbox refuses just now is done with the next step

    def _room(self, now_s: float) -> Room:
        """Return what the windows leave: ours, the receive maximum that the broker stated, and that by the receipts.

        The last counts the young alone: a message whose receipt does not come takes no place from those behind it.
        """
        messages, size = self._flights.weight_at(now_s)
        window = min(self._window, self._session.limits.window)
        paced = self._pace.messages - self._flights.young_at(now_s, self._pace.patience_s)
        return Room(min(window - messages, paced), self._max_inflight_bytes - size)

    def _is_anything_due(self, now_s: float) -> bool:
        """Spare a look into the outbox where nothing was added, settled or given up since one that found too little."""
        return self._looked_at != self._outbox.added or now_s >= self._look_again_s

    def _hear_failures(self, now_s: float) -> None:
        """Send sooner again what the broker has not taken; keep back what it refuses again and again."""
        for message_id, reason, refusals in self._flights.fail(now_s):
            self._looked_at = -1
            if refusals >= MAX_REFUSALS:
                self._keep_back(message_id, f"{reason} ({refusals} times)")

    def _judge_silence(self, now_s: float) -> None:
        """See how long messages were published without any receipt: the broker may be there, but nobody behind it."""
        if not self._flights.any or self._unanswered_since_s is None:
            self._unanswered_since_s = now_s
        said, silent_s = self._unanswered, now_s - self._unanswered_since_s
        too_long = silent_s >= MAX_PATIENCE * self._receipt_timeout_s
        self._unanswered = (
            f"no receipt for {silent_s:.0f} s: is a worker running, and its object store?" if too_long else ""
        )
        if self._unanswered and not said:
            log.warning("no receipts", reason=self._unanswered, next="messages stay here, and are published again")

    def _publish(self, message: OutboxMessage, now_s: float) -> bool:
        outbound = Outbound(
            topic=edge_topic(self._site, self._edge, message.kind),
            payload=message.payload,
            content_type=message.content_type,
            user_properties=message.user_properties,
        )
        try:
            delivery = self._session.publish(outbound)
        except (OversizeError, InvalidMessageError, UnsupportedByBrokerError) as error:
            self._keep_back(message.message_id, str(error))
            return False
        again = self._flights.start(message.message_id, len(message.payload), delivery, now_s)
        if again:
            self._pace.overdue()
        return True

    def _keep_back(self, message_id: str, reason: str) -> None:
        self._outbox.hold(message_id, reason)
        self._flights.land(message_id, 0)
        self._held = self._outbox.held()
        log.error("message kept back", message_id=message_id, reason=reason, next="tried again at the next connection")
