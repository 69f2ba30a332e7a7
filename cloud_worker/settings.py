"""Everything about a worker that an engineer chooses; units stand in the names."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cloud_worker.fleet_settings import DeliverySettings, RolloutSettings
from protocol.messages import ShortText


class DisagreementSettings(BaseModel):
    """When two readings need a person."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    confidence_gap: float = Field(default=0.4, gt=0, le=1)
    """Readers that agree on the label but differ by this much in its probability are looked at."""
    audit_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the agreed slices that are drawn for review, so that labels are not only of what went wrong."""


class RetrainSettings(BaseModel):
    """When to ask for a retraining, and of what."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_new_labels: int = Field(default=20, ge=1)
    """Labels since the last request that make a retraining worthwhile."""
    min_patients_per_class: int = Field(default=2, ge=1)
    """Labelled patients of each class that must stand among those to learn from and among those held back."""
    cooldown_s: float = Field(default=3600, ge=0)
    """Least time between two requests."""
    silence_s: float = Field(default=60, gt=0)
    """A request whose trainer says nothing for so long is published again."""
    held_back_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of the patients that no training sees; the gate judges on them."""
    val_share: float = Field(default=0.15, ge=0, lt=1)
    """Share of the patients on which a training chooses its best epoch."""
    seed: int = Field(default=0, ge=0)
    """Decides who is held back: never change it once labels are there."""


class GateSettings(BaseModel):
    """What a candidate must show on held-back patients before it may be released."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_held_back_patients: int = Field(default=6, ge=1)
    """With fewer the gate refuses."""
    max_class_drop: float = Field(default=0.02, ge=0, lt=1)
    """By how much a class's one-vs-rest balanced accuracy may lie below the incumbent's."""


class WorkerSettings(BaseModel):
    """One worker."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(default="worker-1", pattern=r"^[a-z0-9-]{1,32}$")
    """Unique among the workers."""
    ledger_url: str = "sqlite:///sliceloop-ledger.sqlite"
    """SQLAlchemy URL; SQLite, or PostgreSQL with the extra `postgresql`."""
    second_reader_dir: Path | None = None
    """A folder as `sliceloop train` writes it; without one no slice gets a second reading."""
    second_reader_name: ShortText = "second-reader"
    """How its readings are signed."""
    decides: bool = True
    """One of N workers requests retrainings, gates, and assigns releases; the others only store and read."""
    parallel_writes: int = Field(default=8, ge=1, le=64)
    """Objects that go to the store at once."""
    max_in_hand_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Of messages that are not stored yet; beyond it the broker holds the rest."""
    poll_s: float = Field(default=0.5, gt=0)
    """How often the ledger is looked at for labels, requests and releases."""
    store_retry_s: float = Field(default=2.0, gt=0)
    """Wait between two tries while object store or ledger are away."""
    threads: int = Field(default=1, ge=1)
    """Threads of the second reader and of the gate."""
    assign_key_file: Path | None = None
    """PKCS8 PEM, `assign.pem` of `sliceloop keys new`; without one this worker assigns nothing to edges."""
    trusted_keys_dir: Path | None = Field(
        default=None,
        description="The edges' trust folder; needed with `assign_key_file`: only what verifies is assigned.",
    )
    trusted_threshold: int = Field(default=1, ge=1)
    """How many different trusted keys must have signed a release; as on the edges."""
    disagreement: DisagreementSettings = DisagreementSettings()
    retrain: RetrainSettings = RetrainSettings()
    gate: GateSettings = GateSettings()
    rollout: RolloutSettings = RolloutSettings()
    delivery: DeliverySettings = DeliverySettings()

    @model_validator(mode="after")
    def _assigns_what_verifies(self) -> Self:
        if self.assign_key_file is not None and self.trusted_keys_dir is None:
            raise ValueError("assign_key_file needs trusted_keys_dir: a worker assigns only what verifies")
        return self
