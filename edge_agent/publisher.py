"""Publish what the outbox holds, oldest first, and again whatever got no receipt in time."""

from collections.abc import Collection
from dataclasses import dataclass

import structlog

from broker.errors import BrokerError, InvalidMessageError, OversizeError, UnsupportedByBrokerError
from broker.messages import Outbound
from broker.session import Session
from edge_agent.outbox import Outbox, OutboxMessage
from protocol.topics import edge_topic

log = structlog.get_logger()

MAX_PATIENCE = 4
"""So many receipt timeouts is the longest wait for a receipt: it doubles each time, or a slow worker would drown.

After that time without any receipt it is said that nobody answers.
"""


@dataclass(frozen=True)
class Flight:
    """A message that was published: how long its receipt may take, and when that is over."""

    patience_s: float
    until_s: float


class Publisher:
    """Moves messages from the outbox to the broker; only `receipt` removes them."""

    def __init__(
        self, outbox: Outbox, session: Session, *, site: str, edge: str, window: int, receipt_timeout_s: float
    ) -> None:
        """Remember the queue, the way, and how many messages may be without a receipt at once."""
        self._outbox, self._session = outbox, session
        self._site, self._edge = site, edge
        self._window, self._receipt_timeout_s = window, receipt_timeout_s
        self._flights: dict[str, Flight] = {}
        self._unsendable: set[str] = set()
        self._unanswered_since_s: float | None = None
        self.problem = ""

    def step(self, now_s: float) -> int:
        """Publish what has room in the window; return how many messages went out."""
        if not self._session.connected:
            self._flights.clear()  # the next connection sends them again; the worker stores a message once
            self._unsendable.clear()  # and may have other limits
        self._judge_silence(now_s)
        if not self._session.connected:
            return 0
        waiting = [message_id for message_id, flight in self._flights.items() if now_s < flight.until_s]
        room = self._window - len(waiting)
        if room <= 0:
            return 0
        due = self._outbox.pending(room, besides=[*waiting, *self._unsendable])
        return sum(self._publish(message, now_s) for message in due)

    def receipt(self, message_ids: Collection[str]) -> int:
        """Delete what is stored for good; return how many messages that were."""
        deleted = self._outbox.delete(message_ids)
        for message_id in message_ids:
            self._flights.pop(message_id, None)
        if self.problem:
            log.info("receipts come again")
        self._unanswered_since_s, self.problem = None, ""
        return deleted

    def _judge_silence(self, now_s: float) -> None:
        """See how long messages were published without any receipt: the broker may be there, but nobody behind it."""
        if not self._flights or self._unanswered_since_s is None:
            self._unanswered_since_s = now_s
        said, silent_s = self.problem, now_s - self._unanswered_since_s
        too_long = silent_s >= MAX_PATIENCE * self._receipt_timeout_s
        self.problem = (
            f"no receipt for {silent_s:.0f} s: is a worker running, and its object store?" if too_long else ""
        )
        if self.problem and not said:
            log.warning("no receipts", reason=self.problem, next="messages stay here, and are published again")

    def _publish(self, message: OutboxMessage, now_s: float) -> bool:
        outbound = Outbound(
            topic=edge_topic(self._site, self._edge, message.kind),
            payload=message.payload,
            content_type=message.content_type,
            user_properties=message.user_properties,
        )
        try:
            self._session.publish(outbound)
        except (OversizeError, InvalidMessageError, UnsupportedByBrokerError) as error:
            self._unsendable.add(message.message_id)  # kept in the outbox, but those behind it go on
            log.error("message kept back", message_id=message.message_id, kind=message.kind, reason=str(error))
            return False
        except BrokerError:  # no connection, or the window is full: the next step tries again
            return False
        patience_s = self._patience_s(message.message_id)
        self._flights[message.message_id] = Flight(patience_s, now_s + patience_s)
        return True

    def _patience_s(self, message_id: str) -> float:
        before = self._flights.get(message_id)
        if before is None:
            return self._receipt_timeout_s
        return min(2 * before.patience_s, MAX_PATIENCE * self._receipt_timeout_s)
