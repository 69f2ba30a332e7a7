"""What an edge says of its model: the phase, which versions, and why; the newest report is the retained one."""

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from edge_agent.model_slot import ModelSlot
from edge_agent.trust import EdgeTrust
from protocol.messages import ModelPhase, ModelReported

log = structlog.get_logger()

PROGRESS_S = 1.0
"""So often progress is told at most."""
MAX_REASON = 2_000


class Reports:
    """Says how it stands; `compared` is kept up to date by whoever compares."""

    def __init__(self, slot: ModelSlot, trust: EdgeTrust, say: Callable[[ModelReported], None]) -> None:
        """Make the first report, of what runs since the start; it is not said yet."""
        self._slot, self._trust, self._say = slot, trust, say
        self._next_progress_s = 0.0
        self.compared = 0
        self.newest = self._message(self.phase, slot.running_version, "", (0, 0))

    @property
    def phase(self) -> ModelPhase:
        """Return how it stands with the model in use."""
        if self._slot.current is None:
            return ModelPhase.NONE
        return ModelPhase.PROBATION if self._slot.on_probation else ModelPhase.ACTIVE

    def say(self, phase: ModelPhase, version: int, reason: str = "", chunks: tuple[int, int] = (0, 0)) -> None:
        """Say how it stands with a version, 0 being one that nothing trustworthy names; `chunks` are here, of all."""
        if reason:
            log.warning("model update", phase=phase, version=version, reason=reason)
        self.newest = self._message(phase, version, reason, chunks)
        self._say(self.newest)

    def stand(self, reason: str = "") -> None:
        """Say how it stands with the model in use, and what there is to say besides."""
        self.say(self.phase, self._slot.running_version, reason)

    def progress_is_due(self, now_s: float) -> bool:
        """Tell whether progress may be said again, and count it as said."""
        due = now_s >= self._next_progress_s
        if due:
            self._next_progress_s = now_s + PROGRESS_S
        return due

    def _message(self, phase: ModelPhase, version: int, reason: str, chunks: tuple[int, int]) -> ModelReported:
        assignment = self._trust.assignment
        return ModelReported(
            phase=phase,
            at=datetime.now(UTC),
            running=self._slot.running,
            desired_version=version,
            chunks_done=chunks[0],
            chunks_total=chunks[1],
            compared=self.compared,
            assignment=assignment.sequence if assignment is not None else 0,
            keys_version=self._trust.keys.version,
            banned=self._slot.banned,
            reason=_plain(reason)[:MAX_REASON],
        )


def _plain(text: str) -> str:
    """Replace what is no text: a reason may hold the words of a process that a network took over."""
    return text.encode(errors="replace").decode()
