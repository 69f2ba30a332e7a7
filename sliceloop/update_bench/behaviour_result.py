"""What the behaviour bench measured, as JSON."""

from pydantic import BaseModel, ConfigDict, JsonValue

from edge_agent.probation import Bounds
from training.intake.figures import Share

DEFAULT, WIDEST, SIGNED = "default bounds", "widest bounds", "signed by its gate"
"""A bad candidate passes no gate: it is held to the default bounds, and to the widest that a gate gave."""

MAX_DROP = 0.02
"""Of the accuracy, by which a candidate may be worse and still be called good: a gate's own margin."""


class Course(BaseModel):
    """The runs of one kind of candidate on slices of one mix."""

    model_config = ConfigDict(frozen=True)

    kind: str
    good: bool
    real: bool
    """Read by networks, not made up."""
    mix: str
    kept: bool
    """The edge had kept slices; otherwise it was a new one."""
    held_to: str
    """Which bounds."""
    slices: int
    """So many were read in a run, unless a verdict came before."""
    caught_at: tuple[int | None, ...]
    """For each run the live slice that brought the verdict, 0 where kept ones did."""
    verdict: str
    """Of the first run that had one."""
    accuracy: tuple[float, float] | None = None
    """Of networks: how many of such slices the candidate calls rightly, and how many the incumbent."""

    @property
    def worse_here(self) -> bool:
        """Tell whether a candidate that is good elsewhere is worse than the incumbent here: taking it back is right."""
        return self.accuracy is not None and self.accuracy[0] < self.accuracy[1] - MAX_DROP

    def share(self, within: int) -> Share:
        """Return in how many of the runs a verdict came within so many slices."""
        return Share(sum(at is not None and at <= within for at in self.caught_at), len(self.caught_at))


class BehaviourResult(BaseModel):
    """All courses, and by what bounds; those of good candidates are of each run's gate."""

    model_config = ConfigDict(frozen=True)

    bounds: Bounds
    widest: Bounds
    """Of all that the gates of good networks gave (of good made-up candidates where there are no networks)."""
    data: str = ""
    """What the networks read."""
    seed: int
    runs: int
    courses: tuple[Course, ...]
    machine: dict[str, JsonValue]
    commit: str | None
    versions: dict[str, str]
