"""What every source of frames gives, whatever it captures with."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class CapturedFrame:
    """The bytes of one captured frame or file.

    `key` tells the frame apart within this edge and never leaves it; neither does `patient_id`.
    """

    key: str
    data: bytes
    media_type: str
    source: str
    patient_id: str
    captured_at: datetime
    patient_known: bool = True
    """Whether the id is a patient's; else it stands for all of a folder, or all since the start."""


class SourceError(RuntimeError):
    """The source cannot give frames now; the message says what to do, and the agent tries again."""


class FrameRefusedError(ValueError):
    """One frame cannot be used; it is recorded and passed over. `key` names it within this edge, `code` the reason."""

    def __init__(self, key: str, reason: str, code: str = "unusable-frame") -> None:
        """Remember which frame, and why."""
        super().__init__(reason)
        self.key, self.reason, self.code = key, reason, code


class Source(Protocol):
    """Gives at most one frame a step, at its own pace."""

    def step(self, now_s: float) -> CapturedFrame | None:
        """Return the frame that is due at the monotonic time, or None; raises `SourceError`, `FrameRefusedError`."""

    def taken(self, key: str, now_s: float) -> None:
        """Hear that a frame is kept for good (or refused for good), so the next may come."""
