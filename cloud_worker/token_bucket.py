"""How many bytes may go out now, where a bandwidth is set."""

BURST_S = 0.1
"""So much of a second's bytes may go at once."""


class TokenBucket:
    """Lets so many bytes a second through; what goes beyond is a debt that is waited off."""

    def __init__(self, bytes_per_s: int | None) -> None:
        """Remember the bandwidth; None or 0 is without limit."""
        self._rate = bytes_per_s or 0
        self._credit = self._rate * BURST_S
        self._filled_s: float | None = None

    def open(self, now_s: float) -> bool:
        """Tell whether something may go now, by the monotonic clock."""
        if not self._rate:
            return True
        passed_s = now_s - (self._filled_s if self._filled_s is not None else now_s)
        self._credit = min(self._credit + passed_s * self._rate, self._rate * BURST_S)
        self._filled_s = now_s
        return self._credit > 0

    def spend(self, size: int) -> None:
        """Count what went."""
        self._credit -= size
