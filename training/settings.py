"""Everything about a trainer that an engineer chooses; units stand in the names."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from protocol.messages import MAX_SLICE_PNG_BYTES
from training.plan import TrainSettings

MIB = 1024 * 1024


class TrainerSettings(BaseModel):
    """One trainer; `base_data` is a folder with a labels.csv whose train and val patients it always learns from too."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(default="trainer-1", pattern=r"^[a-z0-9-]{1,32}$")
    """Unique among the trainers."""
    work_dir: Path
    """One folder a request: downloads, epochs, bundle."""
    base_data: Path | None = None
    """Folder with a labels.csv whose train and val patients every training learns from too."""
    training: TrainSettings = TrainSettings()
    download_timeout_s: float = Field(default=30.0, gt=0)
    """For one transfer."""
    max_dataset_bytes: int = Field(default=64 * MIB, ge=1)
    """Of a data set list."""
    max_checkpoint_bytes: int = Field(default=512 * MIB, ge=1)
    """Of the served weights."""
    max_slice_bytes: int = Field(default=MAX_SLICE_PNG_BYTES, ge=1)
    """Of one slice."""
    stop_timeout_s: float = Field(default=10.0, gt=0)
    """A training that does not stop by then is killed; it goes on after the last epoch."""
