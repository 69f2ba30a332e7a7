"""Shares with their intervals."""

import math
from dataclasses import dataclass

from scipy.stats import binomtest


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
        interval = binomtest(self.hits, self.of).proportion_ci(method="wilson")
        return (float(interval.low), float(interval.high))

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"

    def __add__(self, other: "Share") -> "Share":
        return Share(self.hits + other.hits, self.of + other.of)
