"""What the behaviour bench measured, as JSON."""

from statistics import median

from pydantic import BaseModel, ConfigDict, JsonValue

from edge_agent.probation import Bounds
from training.intake.figures import Share


class Course(BaseModel):
    """The runs of one kind of candidate on slices of one mix."""

    model_config = ConfigDict(frozen=True)

    kind: str
    good: bool
    real: bool
    """Read by networks, not made up."""
    mix: str
    slices: int
    """So many were read in a run, unless a verdict came before."""
    caught_at: tuple[int | None, ...]
    """For each run the slice that brought the verdict."""
    verdict: str
    """Of the first run that had one."""

    def share(self, within: int) -> Share:
        """Return in how many of the runs a verdict came within so many slices."""
        return Share(sum(at is not None and at <= within for at in self.caught_at), len(self.caught_at))

    @property
    def median_at(self) -> float | None:
        """Return the median slice of the runs with a verdict."""
        caught = [at for at in self.caught_at if at is not None]
        return median(caught) if caught else None


class BehaviourResult(BaseModel):
    """All courses, and by what bounds."""

    model_config = ConfigDict(frozen=True)

    bounds: Bounds
    seed: int
    runs: int
    courses: tuple[Course, ...]
    machine: dict[str, JsonValue]
    commit: str | None
    versions: dict[str, str]
