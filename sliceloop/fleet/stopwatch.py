"""The edge's own outbox, which also notes how long each slice waited for its last receipt."""

import threading
import time
from array import array
from collections.abc import Collection, Sequence

from edge_agent.outbox import Outbox, OutboxMessage


class TimedOutbox(Outbox):
    """Behaves as an `Outbox`; times are by the monotonic clock, and only of slices of this life."""

    def __init__(self, *arguments: object, **options: object) -> None:
        """Take what `Outbox` takes."""
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._guard = threading.Condition()
        self._slice_of: dict[str, str] = {}
        self._missing: dict[str, int] = {}
        self._begun_s: dict[str, float] = {}
        self._latencies_s = array("d")
        self._ended_s = array("d")

    def begin(self, slice_id: str, begun_s: float, messages: Sequence[OutboxMessage]) -> None:
        """Note when a slice was captured; to be called before it is added."""
        with self._guard:
            self._begun_s[slice_id], self._missing[slice_id] = begun_s, len(messages)
            self._slice_of.update((message.message_id, slice_id) for message in messages)

    def forget(self, slice_id: str, messages: Sequence[OutboxMessage]) -> None:
        """Forget a slice that was not added after all."""
        with self._guard:
            del self._begun_s[slice_id], self._missing[slice_id]
            for message in messages:
                self._slice_of.pop(message.message_id, None)

    def delete(self, message_ids: Collection[str]) -> int:
        """Delete what a receipt names, and note when."""
        deleted = super().delete(message_ids)
        now_s = time.monotonic()
        with self._guard:
            for message_id in message_ids:
                slice_id = self._slice_of.pop(message_id, None)
                if slice_id is not None:
                    self._came(slice_id, now_s)
            self._guard.notify_all()
        return deleted

    def wait_below(self, waiting: int, timeout_s: float) -> bool:
        """Wait until fewer slices lack a receipt; False when the timeout passed first."""
        with self._guard:
            return self._guard.wait_for(lambda: len(self._missing) < waiting, timeout_s)

    @property
    def waiting(self) -> int:
        """Count the slices of this life that lack a receipt."""
        return len(self._missing)

    def latencies(self) -> tuple[list[float], list[float]]:
        """Return, of each slice that has all its receipts, the seconds from capture, and when the last one came."""
        with self._guard:
            return list(self._latencies_s), list(self._ended_s)

    def _came(self, slice_id: str, now_s: float) -> None:
        self._missing[slice_id] -= 1
        if not self._missing[slice_id]:
            del self._missing[slice_id]
            self._latencies_s.append(now_s - self._begun_s.pop(slice_id))
            self._ended_s.append(now_s)
