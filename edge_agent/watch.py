"""Watch a candidate beside the incumbent on live slices: silently before the swap, in use after it."""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edge_agent.kept import KeptSlices
from edge_agent.model_slot import ServedModel
from edge_agent.probation import Answer, Beside, Comparison, KeptReading, Paired, Role, SilentReader
from edge_agent.reading import ReadSlice

JOIN_TIMEOUT_S = 0.5
"""A silent reading that hangs must not hold up the conversation with the cloud."""
MAX_WAITING_PAIRS = 1_000


class SilentReading(AbstractContextManager["SilentReading"], Protocol):
    """What reads slices a second time; `Beside` does it in a thread."""

    def offer(self, pixels: NDArray[np.uint8], answer: Answer, cost_ms: float) -> bool:
        """Take a slice uint8 [256, 256] that was read."""
        ...

    def step(self, now_s: float) -> None:
        """Report a reading that hangs."""
        ...


Silently = Callable[
    [SilentReader, Role, Callable[[Paired], None], Callable[[str], None], KeptReading | None], SilentReading
]


def in_a_thread(
    reader: SilentReader,
    role: Role,
    on_pair: Callable[[Paired], None],
    on_fault: Callable[[str], None],
    kept: KeptReading | None,
) -> SilentReading:
    """Read silently in a thread of its own."""
    return Beside(reader, role, on_pair, on_fault, kept, join_timeout_s=JOIN_TIMEOUT_S)


class Known(BaseModel):
    """What was found out of a candidate so far, for the next phase and the next life: no slice counts twice."""

    model_config = ConfigDict(frozen=True)
    incumbent: int = 0
    """The version beside which it was; beside another one the comparison begins anew."""
    comparison: Comparison | None = None
    kept_until: str = ""
    """Of the kept slices, which are read by name, the last one that is counted."""
    phase: Role | None = None
    begun: int = 0
    """Slices that were compared before this phase."""
    clean: int = 0
    """Slices that were read without a fault on probation."""


class Watch:
    """One phase of a candidate's life, from `with` to its end; slices come from the reading thread."""

    def __init__(
        self,
        candidate: ServedModel,
        incumbent: ServedModel,
        role: Role,
        silently: Silently,
        known: Known = Known(),  # noqa: B008  frozen
        kept: KeptSlices | None = None,
    ) -> None:
        """Begin a comparison, or go on with what is known; `role` says which of the two reads silently."""
        self._incumbent, self._role = incumbent.manifest.version, role
        begin = Comparison.begin(candidate.manifest.probation, incumbent=f"release {self._incumbent}")
        if known.incumbent != self._incumbent or known.comparison is None or known.comparison.bounds != begin.bounds:
            known = Known(comparison=begin)
        self.comparison, self._kept_until = known.comparison or begin, known.kept_until
        self._begun = known.begun if known.phase is role else self.comparison.pairs
        loud, silent = (incumbent, candidate) if role is Role.CANDIDATE else (candidate, incumbent)
        self._loud_version = loud.manifest.version
        self._pairs: deque[Paired] = deque(maxlen=MAX_WAITING_PAIRS)
        self._faults: deque[str] = deque(maxlen=1)
        self._kept_pairs: deque[tuple[str, Paired]] = deque(maxlen=MAX_WAITING_PAIRS)
        self._kept = None
        if kept is not None:
            slices = kept.slices(self._kept_until)
            self._kept = KeptReading(slices, incumbent.reader, self._hear_kept)
        self._silent = silently(silent.reader, role, self._pairs.append, self._faults.append, self._kept)

    @property
    def pairs(self) -> int:
        """Count the slices that were compared in this phase, in this life and in those before."""
        return self.comparison.pairs - self._begun

    @property
    def known(self) -> Known:
        """Return all that is known by now."""
        return Known(
            incumbent=self._incumbent,
            comparison=self.comparison,
            kept_until=self._kept_until,
            phase=self._role,
            begun=self._begun,
        )

    @property
    def kept_done(self) -> bool:
        """Tell whether the kept slices are compared, as far as they can be read."""
        return self._kept is None or (self._kept.done and not self._kept_pairs)

    @property
    def fault(self) -> str:
        """Say what the silent network failed of; empty while it has not."""
        return self._faults[0] if self._faults else ""

    def start(self) -> None:
        """Start to read silently."""
        self._silent.__enter__()

    def close(self) -> None:
        """Stop; slices that wait are not compared any more."""
        self._silent.__exit__(None, None, None)

    def offer(self, read: ReadSlice) -> None:
        """Take a slice that the loop has read; called in the reading thread, and never waits."""
        if read.diagnosis.reading.model.version == self._loud_version:
            self._silent.offer(read.pixels, read.diagnosis.reading, read.cost_ms)

    def step(self, now_s: float) -> None:
        """Count what was compared since."""
        self._silent.step(now_s)
        while self._pairs:
            self.comparison = self.comparison.with_pair(self._pairs.popleft())
        while self._kept_pairs:
            self._kept_until, pair = self._kept_pairs.popleft()
            self.comparison = self.comparison.with_kept(pair)

    def _hear_kept(self, name: str, pair: Paired) -> None:
        self._kept_pairs.append((name, pair))
