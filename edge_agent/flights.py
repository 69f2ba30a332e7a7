"""Messages without a receipt: how long each is waited for, and what became of its delivery."""

import random
from collections.abc import Collection
from dataclasses import dataclass, replace

from broker.messages import Delivery

JITTER = 0.25
"""A wait is up to so much longer, so that edges that lost their worker together do not come back together."""
FAILED_PATIENCE = 0.1
"""Of the usual wait: a message that the broker has not taken cannot get a receipt."""
MAX_DOUBLINGS = 16


@dataclass(frozen=True)
class Flight:
    """A message on its way: the attempts so far, and when it is to be sent again."""

    size: int
    delivery: Delivery | None
    attempts: int
    begun_s: float
    until_s: float
    refusals: int = 0


class Flights:
    """What is on its way, by message id; what is overdue stays in it, to be waited for longer the next time."""

    def __init__(self, timeout_s: float, max_patience: float, rng: random.Random) -> None:
        """timeout_s: the first wait; it doubles up to `max_patience` times itself."""
        self._timeout_s, self._max_patience, self._rng = timeout_s, max_patience, rng
        self._flights: dict[str, Flight] = {}

    @property
    def any(self) -> bool:
        """Tell whether anything is without a receipt."""
        return bool(self._flights)

    def start(self, message_id: str, size: int, delivery: Delivery, now_s: float) -> bool:
        """Note that a message went out; return whether again."""
        before = self._flights.get(message_id)
        attempts, refusals = (before.attempts + 1, before.refusals) if before else (1, 0)
        until_s = now_s + self._patience_s(attempts)
        self._flights[message_id] = Flight(size, delivery, attempts, now_s, until_s, refusals)
        return attempts > 1

    def land(self, message_id: str, now_s: float) -> float | None:
        """Forget a message; return how long it was on its way, where it was sent once and so can tell."""
        flight = self._flights.pop(message_id, None)
        return now_s - flight.begun_s if flight is not None and flight.attempts == 1 else None

    def clear(self) -> None:
        """Forget all: their connection is gone."""
        self._flights.clear()

    def untaken(self) -> list[str]:
        """Return what the broker has not taken."""
        return [
            message_id
            for message_id, flight in self._flights.items()
            if flight.delivery is None or not flight.delivery.done
        ]

    def open_at(self, now_s: float) -> Collection[str]:
        """Return what is still waited for."""
        return [message_id for message_id, flight in self._flights.items() if now_s < flight.until_s]

    def weight_at(self, now_s: float) -> tuple[int, int]:
        """Return how many messages and bytes are still waited for."""
        sizes = [flight.size for flight in self._flights.values() if now_s < flight.until_s]
        return len(sizes), sum(sizes)

    def young_at(self, now_s: float, age_s: float) -> int:
        """Count what is waited for and went out less than so long ago."""
        return sum(now_s < flight.until_s and now_s - flight.begun_s < age_s for flight in self._flights.values())

    def next_due_s(self) -> float:
        """Return when the next one is to be sent again."""
        return min((flight.until_s for flight in self._flights.values()), default=float("inf"))

    def fail(self, now_s: float) -> list[tuple[str, str, int]]:
        """Wait less for what the broker has not taken; return what newly failed: id, reason, and how often by now."""
        failed = []
        for message_id, flight in self._flights.items():
            if flight.delivery is not None and flight.delivery.failed:
                reason, refusals = flight.delivery.reason or "", flight.refusals + 1
                until_s = min(flight.until_s, now_s + FAILED_PATIENCE * self._patience_s(flight.attempts))
                self._flights[message_id] = replace(flight, delivery=None, until_s=until_s, refusals=refusals)
                failed.append((message_id, reason, refusals))
        return failed

    def _patience_s(self, attempts: int) -> float:
        doubled = 1 << min(attempts - 1, MAX_DOUBLINGS)
        return self._timeout_s * min(doubled, self._max_patience) * (1 + self._rng.uniform(0, JITTER))
