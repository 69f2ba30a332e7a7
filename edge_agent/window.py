"""How many messages may be without a receipt: so many that the line is busy, so few that none waits behind the others.

A fixed window of fifty on each of many edges queues at broker and worker, and a slice that is captured now waits behind
all of it. So the window follows the time that receipts take, as LEDBAT does (RFC 6817): it grows while they take little
longer than the fastest, and shrinks when they take twice as long. What the fastest is it learns anew from time to time,
with next to nothing on its way, as BBR does.
"""

from collections import deque

FEWEST = 2
START = 8.0
"""On a new connection, before anything is known of it."""
MIN_TARGET_S = 0.04
"""So much later than the fastest a receipt may always be: batches of workers and schedulers cost that much."""
PROBE_EVERY, PROBES = 1_000, 4
"""After so many receipts the line is left empty for so many, to see how fast it is."""
MEMORY = 10
"""The fastest of so many probes counts: lines change."""
MAX_STEP = 1.0
"""A receipt takes away at most one place."""
MIN_PATIENCE_S, LATE = 1.0, 4.0
"""A receipt is late after so many times the fastest's time, and never before that."""
FOUND = 0.5
"""With so little of the target's room left the search for the line's width ends; what is on its way fills the rest."""


class AdaptiveWindow:
    """The number of messages, by what it hears; `most` is the bound of settings and broker."""

    def __init__(self, most: int) -> None:
        """Remember the bound."""
        self._most = most
        self.restart()

    @property
    def messages(self) -> int:
        """Return how many may be on their way now."""
        return max(1, min(self._most, FEWEST if self._draining else int(self._size)))

    @property
    def patience_s(self) -> float:
        """Return after how long a receipt is late, and its message counts no more."""
        fastest_s = min(self._fastest_s)
        return max(MIN_PATIENCE_S, LATE * fastest_s) if fastest_s < float("inf") else MIN_PATIENCE_S

    def restart(self) -> None:
        """Begin anew, as on a new connection: first see how fast it is, since all edges may have come back at once."""
        self._size, self._searching = START, True
        self._heard, self._draining = 0, PROBES
        self._fastest_s: deque[float] = deque([float("inf")], maxlen=MEMORY)

    def receipt(self, took_s: float) -> None:
        """Hear how long a message that was sent once took to its receipt."""
        self._fastest_s[-1] = min(self._fastest_s[-1], took_s)
        if self._draining:
            self._draining -= 1
            return
        self._heard += 1
        if self._heard % PROBE_EVERY == 0:
            self._draining = int(self._size) + PROBES
            self._fastest_s.append(float("inf"))
        self._adjust(took_s)

    def overdue(self) -> None:
        """Hear that a receipt did not come in time; many such at once soon leave the least."""
        self._searching = False
        self._size = max(float(FEWEST), self._size / 2)

    def _adjust(self, took_s: float) -> None:
        fastest_s = min(self._fastest_s)
        room = 1 - (took_s - fastest_s) / max(fastest_s, MIN_TARGET_S)
        self._searching = self._searching and room > FOUND
        step = room / 2 if self._searching else max(-MAX_STEP, room if room < 0 else room / self._size)
        self._size = min(float(self._most), max(float(FEWEST), self._size + step))
