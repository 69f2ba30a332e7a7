"""How much a worker holds that is not stored yet: a bound in bytes, so that memory stays flat and the broker waits."""

import threading

WAIT_S = 0.2
"""How often a stop is looked for while there is no room."""


class InHand:
    """Room for messages; one that is larger than all of it still goes, alone."""

    def __init__(self, max_bytes: int) -> None:
        """Remember the bound."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._changed = threading.Condition()

    def enter(self, size: int, stop: threading.Event) -> bool:
        """Wait for room and take it; False when stopped first."""
        with self._changed:
            while self._bytes and self._bytes + size > self._max_bytes:
                if stop.is_set():
                    return False
                self._changed.wait(WAIT_S)
            self._bytes += size
            return not stop.is_set()

    def leave(self, size: int) -> None:
        """Give room back."""
        with self._changed:
            self._bytes -= size
            self._changed.notify()
