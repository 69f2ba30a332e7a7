"""Shares with their intervals."""

import math
from dataclasses import dataclass

_Z_95 = 1.96


@dataclass(frozen=True)
class Share:
    """So many of so many, with Wilson's 95 % interval; slices count alone, though those of one patient are alike."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """Return the share, nan of none."""
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Return the interval (Wilson 1927), 0..1."""
        if not self.of:
            return (0.0, 1.0)
        scale = 1 + _Z_95**2 / self.of
        middle = (self.value + _Z_95**2 / (2 * self.of)) / scale
        half = _Z_95 / scale * math.sqrt(self.value * (1 - self.value) / self.of + _Z_95**2 / (4 * self.of**2))
        return (max(0.0, middle - half), min(1.0, middle + half))

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"

    def __add__(self, other: "Share") -> "Share":
        return Share(self.hits + other.hits, self.of + other.of)
