"""One retraining in a process of its own: `python -m training.job FOLDER` reads a job's files and leaves a bundle.

Nothing here knows MQTT or S3. Progress goes to standard output, a JSON object a line; when the parent dies, standard
input ends, and so does the job. Started again in the same folder it goes on after the last finished epoch.
"""

import os
import sys
import threading
from pathlib import Path

import numpy as np

from protocol.labels import LABELS
from protocol.messages import Dataset
from training.bundle import write_bundle
from training.checkpoint import CheckpointError, load_checkpoint
from training.data.labelled import LabelsError, UnreadableSliceError, load_slices, read_labels
from training.data.slices import LabelledSlice, LeakError, SliceSet
from training.export import ParityError
from training.job_folder import (
    BASE_FILE,
    BUNDLE_FOLDER,
    DATASET_FILE,
    EPOCHS_FOLDER,
    EXIT_REFUSED,
    JOB_FILE,
    SLICES_FOLDER,
    Job,
)
from training.learn import learn
from training.model.decode import ImageError, decode_image
from training.model.preprocess import INPUT_PX
from training.plan import Progress
from training.train import DeadRunError, MissingClassError

REFUSALS = (
    CheckpointError,
    DeadRunError,
    ImageError,
    LabelsError,
    LeakError,
    MissingClassError,
    ParityError,
    UnreadableSliceError,
)


def main(folder: Path) -> int:
    """Run the job; return 0, or EXIT_REFUSED with the reason on standard error."""
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    job = Job.model_validate_json((folder / JOB_FILE).read_bytes())
    try:
        network, _ = load_checkpoint(folder / BASE_FILE, architecture=job.architecture)
        train_slices, validation = _slices(folder, job)
        bundle = learn(
            network, train_slices, validation, job.training, on_epoch=_tell, resume_folder=folder / EPOCHS_FOLDER
        )
    except REFUSALS as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n{_without_names(error)}\n")
        return EXIT_REFUSED
    write_bundle(folder / BUNDLE_FOLDER, bundle)
    return 0


def _without_names(error: Exception) -> str:
    """Say what failed without the patients' ids and file names that some errors carry: this line leaves the trainer."""
    kind = type(error).__name__
    if isinstance(error, LeakError):
        return f"{kind}: {len(error.patients)} patients on two sides of the split; job.log on the trainer names them"
    if isinstance(error, LabelsError | UnreadableSliceError):
        return f"{kind}: base_data cannot be used; job.log on the trainer says which file and line"
    return f"{kind}: {error}"


def load_dataset(folder: Path, split: str) -> SliceSet:
    """Return one split of a downloaded data set; its slices were prepared at the edge."""
    dataset = Dataset.model_validate_json((folder / DATASET_FILE).read_bytes())
    chosen = [entry for entry in dataset.slices if entry.split == split]
    frames = [decode_image((folder / SLICES_FOLDER / f"{entry.image_sha256}.png").read_bytes()) for entry in chosen]
    return SliceSet(
        np.array(frames, np.uint8).reshape(-1, INPUT_PX, INPUT_PX),
        np.array([LABELS.index(entry.label) for entry in chosen], np.int64),
        tuple(entry.patient_key for entry in chosen),
        tuple(entry.source for entry in chosen),
    )


def _slices(folder: Path, job: Job) -> tuple[SliceSet, SliceSet]:
    train_slices, validation = load_dataset(folder, "train"), load_dataset(folder, "val")
    if job.base_data is not None:
        rows = read_labels(job.base_data)
        train_slices = _base(job.base_data, rows, "train").concat(train_slices)
        validation = _base(job.base_data, rows, "val").concat(validation)
    return train_slices, validation


def _base(folder: Path, rows: list[LabelledSlice], split: str) -> SliceSet:
    return load_slices(folder, [row for row in rows if row.split == split])


def _tell(progress: Progress) -> None:
    sys.stdout.write(progress.model_dump_json() + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin: its lock, held here, would crash the interpreter's own end
        pass
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
