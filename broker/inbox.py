"""The bounded inbox between paho's network thread, which never waits here, and the threads that receive."""

import threading
from collections import deque

from broker.messages import Inbound


class Inbox:
    """A queue of at most `capacity` messages, of which QoS 0 may not take the last `reserved` places.

    The broker stops at the receive maximum of unacknowledged QoS 1 messages (rumqttd at 100, whatever was asked), so
    with that many places reserved a QoS 1 message finds room however much QoS 0 rushes in.
    """

    def __init__(self, capacity: int, reserved: int) -> None:
        self._capacity = capacity
        self._reserved = reserved
        self._messages: deque[Inbound] = deque()
        self._changed = threading.Condition()
        self._nudged = False
        self.dropped = 0

    def offer(self, message: Inbound) -> bool:
        """Take the message, or return False at once when there is no room; a dropped QoS 0 message is counted."""
        with self._changed:
            room = self._capacity - len(self._messages) - (self._reserved if message.qos == 0 else 0)
            if room > 0:
                self._messages.append(message)
                self._changed.notify()
            elif message.qos == 0:
                self.dropped += 1
            return room > 0

    @property
    def room(self) -> int:
        """Return how many QoS 1 messages still find room."""
        with self._changed:
            return self._capacity - len(self._messages)

    def take(self, timeout_s: float) -> Inbound | None:
        """Return the oldest message, waiting for one until the timeout or a nudge."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._nudged, timeout_s)
            self._nudged = False
            return self._messages.popleft() if self._messages else None

    def nudge(self) -> None:
        """End a wait in `take`, or the next one, without a message: whoever waits there has something else to do."""
        with self._changed:
            self._nudged = True
            self._changed.notify()

    def forget_resent(self, connection: int) -> int:
        """Remove the QoS 1 messages of connections before this one, which the broker sends again; return how many."""
        with self._changed:
            kept = [message for message in self._messages if message.qos == 0 or message.connection >= connection]
            forgotten = len(self._messages) - len(kept)
            self._messages = deque(kept)
            return forgotten
