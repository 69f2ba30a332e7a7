"""evaluation.json: what was judged, on what, with which figures, and what made them."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from protocol.labels import Label
from training.durable import write_atomically
from training.judging.cost import Cost, processor
from training.judging.figures import Judgement
from training.judging.unseen import LeakMark
from training.provenance import code_commit, versions

EVALUATION_FILE = "evaluation.json"
FORMAT = 1
"""Grows when an older reader would misread the file."""
_VERSIONS_OF = ("sliceloop", "numpy", "onnxruntime", "scipy")


class RecordError(ValueError):
    """A folder without a usable evaluation.json; the message says why and what to do."""


class ModelFacts(BaseModel):
    """The judged network; `file` is relative to the evaluation's folder."""

    model_config = ConfigDict(frozen=True)
    name: str
    architecture: str
    input_px: int
    file: str
    sha256: str
    cost: Cost
    labels: tuple[Label, ...]
    temperature: float
    temperature_fitted: bool
    uncertain_below: float
    n_train_slices: int | None = None
    n_train_patients: int | None = None
    train_sources: tuple[str, ...] = ()
    split_sha256: str | None = None


class DataFacts(BaseModel):
    """The judged slices; `slices_sha256` is the same for two evaluations that can be compared."""

    model_config = ConfigDict(frozen=True)
    split: str
    n_slices: int
    n_patients: int
    sources: tuple[str, ...]
    excluded_sources: tuple[str, ...]
    patients: dict[str, dict[Label, int]]
    """Patients by source and class."""
    slices_sha256: str


class Origin(BaseModel):
    """What made the figures."""

    model_config = ConfigDict(frozen=True)
    versions: dict[str, str]
    commit: str | None
    processor: str
    threads: int
    resamples: int
    seed: int
    seconds: float


class Record(BaseModel):
    """One evaluation; unknown fields of newer versions are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")
    format: int = FORMAT
    leaked: bool
    leak: LeakMark
    model: ModelFacts
    data: DataFacts
    by_slice: Judgement
    by_patient: Judgement
    origin: Origin


def write_record(folder: Path, record: Record) -> None:
    """Write it durably; it comes last, so that a folder with it is complete."""
    write_atomically(folder / EVALUATION_FILE, record.model_dump_json(indent=2).encode())


def read_record(folder: Path) -> Record:
    """Read what `write_record` wrote; raises `RecordError`."""
    path = folder / EVALUATION_FILE
    try:
        record = Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error}); make it with `sliceloop evaluate`") from error
    except ValidationError as error:
        raise RecordError(f"{path} is no evaluation of ours ({error.error_count()} faults); evaluate again") from error
    if record.format > FORMAT:
        raise RecordError(f"{path} has format {record.format}, this version reads up to {FORMAT}: update first")
    return record


def origin(threads: int, resamples: int, seed: int, seconds: float) -> Origin:
    """Collect what this process runs on."""
    return Origin(
        versions=versions(*_VERSIONS_OF),
        commit=code_commit(),
        processor=processor(),
        threads=threads,
        resamples=resamples,
        seed=seed,
        seconds=seconds,
    )
