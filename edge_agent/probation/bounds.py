"""What a candidate may do otherwise than the incumbent, as its signed release says it."""

from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field


class BoundsLike(Protocol):
    """What a signed release says that it may differ from the one before it."""

    @property
    def max_disagreement(self) -> float: ...
    @property
    def max_contradiction(self) -> float: ...
    @property
    def max_shift(self) -> float: ...
    @property
    def max_abstention(self) -> float: ...
    @property
    def max_latency_ratio(self) -> float: ...
    @property
    def max_slow_share(self) -> float: ...
    @property
    def alpha(self) -> float: ...


class Bounds(BaseModel):
    """Bounds of a behaviour; the defaults hold for a release that answers differently in up to a quarter of slices."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    max_disagreement: float = Field(0.25, ge=0, le=1)
    """Share of slices that may get another label."""
    max_contradiction: float = Field(default_factory=lambda bounds: bounds["max_disagreement"], ge=0, le=1)
    """Of those with a finding, and of those with one label. A release from before there was this bound meant the first
    one by both."""
    max_shift: float = Field(0.25, ge=0, le=1)
    """Share of all slices that may get a label which they did not have, for each label."""
    max_abstention: float = Field(0.25, ge=0, le=1)
    """Share of slices that may be uncertain where they were not."""
    max_latency_ratio: float = Field(2.0, ge=1)
    """A reading that costs more than so many times the incumbent's is slow."""
    max_slow_share: float = Field(0.2, ge=0, le=1)
    """Share of readings that may be slow."""
    alpha: float = Field(0.01, gt=0, lt=1)
    """Chance that a model within all bounds is ever called out of bounds."""
