"""How long to wait before the next attempt."""

import random

MAX_DOUBLINGS = 32


def backoff_s(attempt: int, min_s: float, max_s: float, rng: random.Random) -> float:
    """Return a wait by exponential backoff with full jitter: uniform in 0 .. min(max_s, min_s * 2**attempt)."""
    ceiling = min(max_s, min_s * 2 ** min(attempt, MAX_DOUBLINGS))
    return rng.uniform(0, ceiling)


def slow_s(max_s: float, rng: random.Random) -> float:
    """Return a long wait, for what retrying alone does not mend: uniform in max_s / 2 .. max_s."""
    return rng.uniform(max_s / 2, max_s)
