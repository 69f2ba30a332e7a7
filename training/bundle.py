"""What one training leaves in a folder: the ONNX network, its checkpoint, and a report of what it is worth."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from protocol.labels import LABELS, Label
from protocol.manifest import MODEL_FILE
from training.durable import write_atomically
from training.evaluate import Estimate, Evaluation
from training.model.reader import Calibration, OnnxReader
from training.plan import Progress
from training.views_story import ViewsMade

CHECKPOINT_FILE = "checkpoint.safetensors"
REPORT_FILE = "report.json"
_KEY_DIGITS = 12
UNCERTAIN_BELOW = 0.5
"""A label with less than an even chance is none."""


class BundleError(ValueError):
    """A folder that holds no trained network; the message names the file and what to do."""


class CapturedFigure(BaseModel):
    """What a network is worth on one simulated captured view of each validation slice, at one severity."""

    model_config = ConfigDict(frozen=True)
    severity: float
    n_slices: int
    n_patients: int
    balanced_accuracy: Estimate
    same_answer: float
    """Share of the views that are read as their digital slice is."""


class SimulatedViews(BaseModel):
    """The simulated captured views that a network learnt from, and what it is worth on those of validation's slices."""

    model_config = ConfigDict(frozen=True)
    train: ViewsMade
    validation: ViewsMade
    figures: tuple[CapturedFigure, ...]


class Report(BaseModel):
    """What a network learnt from, how to read its answer, and what it is worth on patients it did not learn from."""

    model_config = ConfigDict(frozen=True, extra="allow")

    architecture: str
    input_px: int
    labels: tuple[Label, ...] = LABELS
    temperature: float = Field(gt=0)
    uncertain_below: float = Field(default=UNCERTAIN_BELOW, ge=0, le=1)
    training_data_sha256: str
    split_sha256: str
    seed: int
    n_train_slices: int
    n_train_patients: int
    train_sources: tuple[str, ...]
    validation: Evaluation
    seconds: float
    n_train_by_source: dict[str, int] = {}
    """Slices."""
    train_patient_keys: tuple[str, ...] = ()
    """See `patient_keys`: enough to find a patient again who stands on both sides, and nothing to tell who it is; those
    who taught the start weights are among them."""
    leaked_patients: int = 0
    """Patients on two sides of the split, here or when the start weights learnt, and at least so many: above 0, no
    figure of this network says anything about new patients."""
    start_weights: str = ""
    """Name and short hash; empty where an older version did not tell."""
    start_patients_known: bool = True
    """False where the start weights may have learnt from patients whom nobody listed."""
    parity_difference: float | None = None
    """Largest difference in logits between the ONNX file and torch, on the first validation slices."""
    settings: dict[str, JsonValue] | None = None
    """Those that were used, of a head fewer."""
    history: tuple[Progress, ...] = ()
    simulated_views: SimulatedViews | None = None
    """None where a network learnt from digital slices alone."""


@dataclass(frozen=True)
class Bundle:
    """The three files in memory."""

    model: bytes
    checkpoint: bytes
    report: Report

    def files(self) -> dict[str, bytes]:
        """Return the files by name."""
        return {
            MODEL_FILE: self.model,
            CHECKPOINT_FILE: self.checkpoint,
            REPORT_FILE: self.report.model_dump_json(indent=2).encode(),
        }

    def reader(self, *, threads: int = 1) -> OnnxReader:
        """Load the network with its calibration."""
        report = self.report
        return OnnxReader(
            self.model, Calibration(report.labels, report.temperature, report.uncertain_below), threads=threads
        )


def patient_keys(patients: Iterable[str]) -> tuple[str, ...]:
    """Return the first 12 hexadecimal digits of the SHA-256 of each patient id, sorted."""
    return tuple(sorted({hashlib.sha256(patient.encode()).hexdigest()[:_KEY_DIGITS] for patient in patients}))


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write the files durably, the report last: a folder with a report is complete."""
    for name, data in bundle.files().items():
        write_atomically(folder / name, data)


def read_bundle(folder: Path) -> Bundle:
    """Read a folder that `sliceloop train` wrote; raises `BundleError`."""
    try:
        report = Report.model_validate_json((folder / REPORT_FILE).read_bytes())
        return Bundle((folder / MODEL_FILE).read_bytes(), (folder / CHECKPOINT_FILE).read_bytes(), report)
    except OSError as error:
        raise BundleError(f"{error.filename or folder} cannot be read; train one with `sliceloop train`") from error
    except ValidationError as error:
        raise BundleError(
            f"{folder / REPORT_FILE} is no report of a training ({error.error_count()} faults)"
        ) from error
