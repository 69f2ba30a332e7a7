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
from training.base_data import PatientSecretError, SamePixelsError, keyed, on_the_same_side, refuse_same_pixels
from training.bundle import write_bundle
from training.checkpoint import CheckpointError, loads, read_bytes
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
from training.weights import LeakedWeightsError, TaughtBeforeError, start_of

REFUSALS = (
    CheckpointError,
    DeadRunError,
    ImageError,
    LabelsError,
    LeakError,
    LeakedWeightsError,
    MissingClassError,
    ParityError,
    PatientSecretError,
    SamePixelsError,
    UnreadableSliceError,
)


def main(folder: Path) -> int:
    """Run the job; return 0, or EXIT_REFUSED with the reason on standard error."""
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    job = Job.model_validate_json((folder / JOB_FILE).read_bytes())
    try:
        base = read_bytes(folder / BASE_FILE)
        network, metadata = loads(base, architecture=job.architecture)
        train_slices, validation = _slices(folder, job)
        bundle = learn(
            network,
            train_slices,
            validation,
            job.training,
            on_epoch=_tell,
            resume_folder=folder / EPOCHS_FOLDER,
            start=start_of(metadata.provenance, folder / BASE_FILE, base),
        )
    except REFUSALS as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n{_without_names(error)}\n")
        return EXIT_REFUSED
    write_bundle(folder / BUNDLE_FOLDER, bundle)
    return 0


def _without_names(error: Exception) -> str:
    """Say what failed without the patients' ids and file names that some errors carry: this line leaves the trainer."""
    kind = type(error).__name__
    if isinstance(error, TaughtBeforeError):
        return (
            f"{kind}: {len(error.patients)} patients of validation taught the served weights; job.log on the trainer "
            "names them"
        )
    if isinstance(error, LeakError):
        return f"{kind}: {len(error.patients)} patients on two sides of the split; job.log on the trainer names them"
    if isinstance(error, SamePixelsError):
        return (
            f"{kind}: {len(error.files)} slices of base_data stand on the other side in the data set; job.log on the "
            "trainer names them: take their patients out, or set trainer.patient_secret_file"
        )
    if isinstance(error, LabelsError | UnreadableSliceError):
        return f"{kind}: base_data cannot be used; job.log on the trainer says which file and line"
    return f"{kind}: {error}"


def load_dataset(folder: Path, split: str) -> SliceSet:
    """Return one split of a downloaded data set; its slices were prepared at the edge."""
    dataset = _dataset(folder)
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
        rows = _base_rows(folder, job.base_data, job.patient_secret_file)
        base_train = _base(job.base_data, rows, "train", other_side=validation)
        base_validation = _base(job.base_data, rows, "val", other_side=train_slices)
        return base_train.concat(train_slices), base_validation.concat(validation)
    return train_slices, validation


def _base_rows(folder: Path, base_data: Path, secret_file: Path | None) -> list[LabelledSlice]:
    rows = [row for row in read_labels(base_data) if row.split in ("train", "val")]
    if secret_file is None:
        return rows
    try:
        secret = secret_file.read_bytes().strip()
    except OSError as error:
        raise PatientSecretError(f"trainer.patient_secret_file cannot be read ({error.strerror})") from None
    rows = keyed(rows, secret)
    kept = on_the_same_side(rows, _dataset(folder))
    patients = len({row.patient_id for row in rows} - {row.patient_id for row in kept})
    sys.stderr.write(
        f"base_data: {len(rows) - len(kept)} slices of {patients} patients left out, who are held back or stand on "
        "the other side in the data set\n"
    )
    return kept


def _base(folder: Path, rows: list[LabelledSlice], split: str, *, other_side: SliceSet) -> SliceSet:
    chosen = [row for row in rows if row.split == split]
    loaded = load_slices(folder, chosen)
    refuse_same_pixels(loaded, chosen, other_side)
    return loaded


def _dataset(folder: Path) -> Dataset:
    return Dataset.model_validate_json((folder / DATASET_FILE).read_bytes())


def _tell(progress: Progress) -> None:
    sys.stdout.write(progress.model_dump_json() + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin: its lock, held here, would crash the interpreter's own end
        pass
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
