"""What an engineer chooses who makes releases; the keys lie with that person, and never with a worker."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from protocol.manifest import MAX_DELTAS, ProbationBounds, TrialBounds
from protocol.messages import Probability, ShortText

_BOUNDS, _TRIAL = ProbationBounds(), TrialBounds()


class ProbationSettings(BaseModel):
    """What a network may do otherwise than its predecessor before an edge takes it back; signed with the release."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_disagreement: Probability = _BOUNDS.max_disagreement
    """How many slices may get another label than the predecessor's."""
    max_contradiction: Probability = _BOUNDS.max_contradiction
    """Of the slices to which the predecessor gives a finding, or one label, how many may get another; at any site."""
    max_shift: Probability = _BOUNDS.max_shift
    """How many slices may get a label that the predecessor did not give them; for each label."""
    max_abstention: Probability = _BOUNDS.max_abstention
    """How many slices may become uncertain that were not."""
    max_latency_ratio: float = Field(default=_BOUNDS.max_latency_ratio, gt=1)
    """How many times as long as the predecessor's median a reading may take."""
    max_slow_share: Probability = _BOUNDS.max_slow_share
    """How many readings may take longer than that."""
    alpha: float = Field(default=_BOUNDS.alpha, gt=0, lt=1)
    """The chance to take a network back that keeps to all of this, however long it is watched."""

    def bounds(self) -> ProbationBounds:
        """Return them as a manifest says them."""
        return ProbationBounds(**self.model_dump())


class ReleaseSettings(BaseModel):
    """How releases are made and signed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    signing_key_files: tuple[Path, ...] = ()
    """PKCS8 PEM as `sliceloop keys new` writes it; each signs. On no machine where a worker runs."""
    name: ShortText = "sliceloop-edge"
    """How readings name the released network."""
    uncertain_below: float = Field(default=0.5, ge=0, le=1)
    """A reading whose largest probability is below is called uncertain."""
    golden_tolerance: float = Field(default=0.05, gt=0)
    """In logits; execution providers differ by less, a wrong network by far more."""
    valid_days: float = Field(default=90, gt=0)
    """After this time an edge does not take the release any more; one that runs it goes on."""
    deltas: int = Field(default=2, ge=0, le=MAX_DELTAS)
    """Against how many of the last releases a delta is made; one that saves nothing is left out."""
    latency_bound_ms: float = Field(default=_TRIAL.latency_ms, gt=0)
    """Median time to read a slice on any edge; above it an edge refuses the release."""
    memory_bound_mb: float = Field(default=_TRIAL.memory_mb, gt=0)
    """Highest resident memory of the trial on an edge."""
    probation: ProbationSettings = ProbationSettings()
