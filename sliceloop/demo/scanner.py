"""The scanner of the demo: puts slices into the edges' folders at a pace that outlasts the retraining."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FAST_S = 0.35
"""Interval on each edge while there is plenty."""
STEADY_S = 0.8
"""Interval on each edge when a retraining was asked for; it grows slowly, so that the slices outlast the training."""
SLOWING = 1.04
SLOWEST_S = 6.0
RESERVE_SHARE = 0.35
"""Share of the slices that is kept for the time after the retraining was asked for."""
TAIL = 24
"""Slices on each edge that wait for the new release: what it reads silently at first, and what proves it after."""
AFTER_SWAP = 12
"""Slices on each edge at an unchanged pace after the swap, so that the gap at the swap has neighbours."""


@dataclass
class EdgeFeed:
    """The files of one edge, in order, and how many it was given; `swapped_at` counts those before the swap.

    While it is `waiting`, the tail is held back.
    """

    folder: Path
    files: Sequence[Path]
    given: int = 0
    next_due_s: float = 0.0
    interval_s: float = FAST_S
    swapped_at: int | None = None
    waiting: bool = False

    @property
    def tail(self) -> int:
        """Count the files that wait for the new release."""
        return min(TAIL, len(self.files) // 3)

    @property
    def left(self) -> int:
        """Count the files that were not given yet."""
        return len(self.files) - self.given


class Scanner:
    """Feeds every edge; `step` gives each at most one file."""

    def __init__(self, feeds: Sequence[EdgeFeed]) -> None:
        """Remember the feeds."""
        self._feeds = feeds

    @property
    def given(self) -> int:
        """Count the files given so far."""
        return sum(feed.given for feed in self._feeds)

    @property
    def finished(self) -> bool:
        """Tell whether every file was given."""
        return all(feed.left == 0 for feed in self._feeds)

    def step(self, now_s: float, *, requested: bool, hold_reserve: bool) -> None:
        """Give what is due; while it is held, the reserve waits until a retraining was requested."""
        for feed in self._feeds:
            reserve = int(len(feed.files) * RESERVE_SHARE) if hold_reserve and not requested else 0
            held = max(reserve, feed.tail if feed.waiting else 0)
            if feed.left <= held or now_s < feed.next_due_s:
                continue
            if 0 < feed.tail == feed.left:
                feed.interval_s = STEADY_S
            _give(feed)
            feed.interval_s = next_interval_s(feed, requested=requested)
            feed.next_due_s = max(feed.next_due_s + feed.interval_s, now_s + feed.interval_s / 2)


def next_interval_s(feed: EdgeFeed, *, requested: bool) -> float:
    """Return the time until the next file: fast before the request, slowing until the swap, then fast again."""
    if not requested:
        return FAST_S
    if feed.swapped_at is None:
        return min(max(feed.interval_s * SLOWING, STEADY_S), SLOWEST_S)
    return feed.interval_s if feed.given - feed.swapped_at < AFTER_SWAP else FAST_S


def _give(feed: EdgeFeed) -> None:
    """Copy the next file so that the edge sees it whole or not at all."""
    source = feed.files[feed.given]
    target = feed.folder / f"{feed.given:05d}{source.suffix.lower()}"
    temporary = target.with_suffix(".part")
    shutil.copyfile(source, temporary)
    temporary.replace(target)
    feed.given += 1
