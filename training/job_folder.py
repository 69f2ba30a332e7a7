"""What service and job exchange: the files of a job's folder and the exit code; without torch."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from training.plan import TrainSettings

JOB_FILE, DATASET_FILE, BASE_FILE = "job.json", "dataset.json", "base.safetensors"
SLICES_FOLDER, EPOCHS_FOLDER, BUNDLE_FOLDER = "slices", "epochs", "bundle"
EXIT_REFUSED = 3
"""The job cannot succeed however often it is started; its last line on standard error says why."""


class Job(BaseModel):
    """What the service writes for the job besides the downloaded files."""

    model_config = ConfigDict(frozen=True)

    architecture: str
    training: TrainSettings
    base_data: Path | None
    patient_secret_file: Path | None = None
