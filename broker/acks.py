"""Keeps PUBACKs in the order in which the messages came, whatever the order in which they are dealt with."""

from collections import deque


class AckOrder:
    """The packet ids that wait for their PUBACK; a client must send PUBACKs in order (MQTT 5, 4.6; rumqttd insists).

    So a message that is never acknowledged holds back those after it, until the broker sends no more: acknowledge
    everything that is dealt with, a dead letter too.
    """

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._dealt_with: set[int] = set()

    def received(self, mid: int) -> None:
        """Note a message in the order of arrival."""
        self._waiting.append(mid)

    def acknowledge(self, mid: int) -> list[int]:
        """Note that a message is dealt with; return the packet ids whose PUBACK may go now, in order."""
        self._dealt_with.add(mid)
        released = []
        while self._waiting and self._waiting[0] in self._dealt_with:
            released.append(self._waiting.popleft())
            self._dealt_with.discard(released[-1])
        return released
