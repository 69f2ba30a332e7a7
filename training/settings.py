"""Everything about a trainer that an engineer chooses; units stand in the names."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, FilePath

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
    patient_secret_file: FilePath | None = None
    """The site's secret, as its edges have it. With it, base_data's patients get the keys that edges give to the same
    ids, and those whom the worker holds back (`worker.retrain.held_back_share` of them) or has on the other side are
    left out; job.log counts them. Without it, and for patients with another id there or of another site, nothing tells
    that a patient whom the gate judges on was learnt from: keep such patients out of base_data, or its figures are too
    good. Either way a slice that equals one on the data set's other side to the pixel is refused."""
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
