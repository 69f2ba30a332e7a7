"""Kept slices that both networks read silently, one after another, between the live ones."""

from collections.abc import Callable, Iterator

import numpy as np
import structlog
from numpy.typing import NDArray

from edge_agent.probation.behaviour import Paired
from edge_agent.probation.cost import SilentReader

log = structlog.get_logger()

KeptSlice = tuple[str, NDArray[np.uint8]]
"""Its name and its pixels uint8 [256, 256]."""


class KeptReading:
    """What is left of the kept slices, who reads them besides the candidate, and who hears of it, in that thread."""

    def __init__(
        self, slices: Iterator[KeptSlice], incumbent: SilentReader, on_pair: Callable[[str, Paired], None]
    ) -> None:
        """Remember the parts; the slices are taken one by one."""
        self._slices, self.incumbent, self.on_pair = slices, incumbent, on_pair
        self.done = False
        """Set after the last slice was heard of."""

    def next(self) -> KeptSlice | None:
        """Return the next slice, None after the last; whatever goes wrong with them ends no thread, but the slices."""
        try:
            following = next(self._slices, None)
        except Exception:
            log.exception("kept slices not read on", next="the candidate is compared on live slices")
            following = None
        self.done = following is None
        return following
