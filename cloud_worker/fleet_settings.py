"""How a release goes through the fleet, ring by ring, and how its bytes get there."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from protocol.messages import Probability

HOUR_S, DAY_S = 3_600, 86_400
EdgeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}/[a-z0-9-]{1,32}$")]


class RingSettings(BaseModel):
    """One ring: who is in it, when the next may follow, and when all is called off."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    """How assignments and `sliceloop status` call it."""
    edges: tuple[EdgeName, ...] = ()
    """These, as site/edge; without any and without a share it is one edge, the first by hash."""
    share: Probability = 0.0
    """So much of the fleet, the rings before included, drawn by a hash of site/edge that never changes."""
    success_share: Probability = 1.0
    """So many of its edges must run the release for good before the next ring follows."""
    abort_failures: int | None = Field(default=None, ge=1)
    """As many of its edges that refuse the release, or take it back, end the rollout."""
    abort_share: Probability | None = None
    """A larger share of its edges that do so ends it."""
    min_s: float = Field(default=HOUR_S, ge=0)
    """Least time before the next ring follows."""
    timeout_s: float = Field(default=7 * DAY_S, gt=0)
    """A ring that has not succeeded by then pauses the rollout until a person looks."""

    @model_validator(mode="after")
    def _can_succeed(self) -> Self:
        if self.timeout_s <= self.min_s:
            raise ValueError(
                f"ring {self.name}: timeout_s ({self.timeout_s:g} s) must be above min_s ({self.min_s:g} s): "
                "it would never succeed"
            )
        return self


RINGS = (
    RingSettings(name="canary", abort_failures=1),
    RingSettings(name="10-percent", share=0.1, success_share=0.9, abort_share=0.1),
    RingSettings(name="all", share=1.0, success_share=0.9, abort_share=0.05, timeout_s=30 * DAY_S),
)


class RolloutSettings(BaseModel):
    """How a release goes through the fleet."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rings: tuple[RingSettings, ...] = Field(default=RINGS, min_length=1, max_length=16)
    """One after the other: name, edges or share, success_share, abort_failures, abort_share, min_s, timeout_s."""
    stuck_s: float = Field(default=6 * HOUR_S, gt=0)
    """An edge that was told so long ago and reports no progress is named."""
    assignment_valid_h: float = Field(default=72, gt=0)
    """An edge that hears nothing newer for so long says that news is kept away; renewed at half of it."""

    @model_validator(mode="after")
    def _reaches_all(self) -> Self:
        if self.rings[-1].share < 1:
            raise ValueError(f"the last ring, {self.rings[-1].name}, must have share = 1: it reaches all that is left")
        if len({ring.name for ring in self.rings}) < len(self.rings):
            raise ValueError("two rings have one name")
        return self


class DeliverySettings(BaseModel):
    """How chunks are sent to edges that ask for them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    presigned_urls: bool = False
    """Tell edges addresses in the object store too; only where edges reach it."""
    repeat_after_s: float = Field(default=2.0, ge=0)
    """A chunk for all goes out at most once in this time, whoever asks; less than the edges' wait for a chunk."""
    max_bytes_per_s: int | None = Field(default=None, ge=0)
    """Of chunks, on the way to the broker; none or 0 is without limit."""
