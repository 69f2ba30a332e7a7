"""One retraining as the trainer runs it: a folder and a child process, which may be killed at any moment."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from command_parts import DEADLINE_S

from protocol.labels import LABELS
from protocol.messages import Dataset, DatasetSlice
from training.bundle import CHECKPOINT_FILE, MODEL_FILE, read_bundle
from training.checkpoint import dumps
from training.job_folder import BASE_FILE, BUNDLE_FOLDER, DATASET_FILE, EXIT_REFUSED, JOB_FILE, SLICES_FOLDER, Job
from training.model.preprocess import INPUT_PX
from training.networks import build
from training.plan import Progress, TrainSettings

PATIENTS = {"train": 6, "val": 3}
EPOCHS = 5
Rewrite = Callable[[list[DatasetSlice]], list[DatasetSlice]]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def slice_png(label: int, seed: int) -> bytes:
    """Draw a prepared slice whose disc lies where its class says."""
    rows, columns = np.mgrid[:INPUT_PX, :INPUT_PX]
    disc = (rows - 64 - 64 * label) ** 2 + (columns - 128) ** 2 < 35**2
    grain = np.random.default_rng(seed).normal(0, 12, disc.shape)
    _, png = cv2.imencode(".png", np.clip(60 + 120 * disc + grain, 0, 255).astype(np.uint8))
    return bytes(png)


def job_folder(folder: Path, rewrite: Rewrite = lambda entries: entries) -> Path:
    """Write what the trainer downloads for a job: base weights, data set and slices."""
    slices = folder / SLICES_FOLDER
    slices.mkdir(parents=True)
    entries = []
    for split, patients in PATIENTS.items():
        for patient in range(patients):
            png = slice_png(patient % 3, seed=len(entries))
            (slices / f"{sha256(png)}.png").write_bytes(png)
            entries.append(
                DatasetSlice(
                    image_sha256=sha256(png),
                    url="http://127.0.0.1/slice",
                    label=LABELS[patient % 3],
                    patient_key=sha256(f"{split} {patient}".encode()),
                    source="site-b",
                    split=split,
                )
            )
    dataset = Dataset(created_at=datetime(2026, 3, 1, tzinfo=UTC), slices=tuple(rewrite(entries)))
    (folder / DATASET_FILE).write_text(dataset.model_dump_json())
    torch.manual_seed(0)
    (folder / BASE_FILE).write_bytes(dumps(build("baseline_cnn", 64)))
    training = TrainSettings(epochs=EPOCHS, batch=3, seed=7)
    (folder / JOB_FILE).write_text(
        Job(architecture="baseline_cnn", training=training, base_data=None).model_dump_json()
    )
    return folder


def start(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "training.job", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def run(folder: Path) -> tuple[int, list[str], str]:
    """Run a job to its end, holding its standard input open as the trainer does."""
    with start(folder) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        out, err = child.stdout.read(), child.stderr.read()
        return child.wait(DEADLINE_S), out.splitlines(), err


def test_a_job_killed_with_9_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """A job leaves a bundle and tells each epoch; one that is killed goes on after its last, to the same network."""
    whole, killed = job_folder(tmp_path / "whole"), job_folder(tmp_path / "killed")
    code, said, err = run(whole)
    assert code == 0, err
    assert [Progress.model_validate_json(line).epoch for line in said] == list(range(1, EPOCHS + 1))
    bundle = read_bundle(whole / BUNDLE_FOLDER)
    assert (bundle.report.n_train_slices, bundle.report.validation.n_patients) == (6, 3)

    with start(killed) as child:
        assert child.stdout is not None
        assert Progress.model_validate_json(child.stdout.readline()).epoch == 1
        child.send_signal(signal.SIGKILL)
        assert child.wait(DEADLINE_S) == -signal.SIGKILL
    assert not (killed / BUNDLE_FOLDER).exists()
    code, said, err = run(killed)
    assert code == 0, err
    assert json.loads(said[0])["epoch"] > 1
    for name in (MODEL_FILE, CHECKPOINT_FILE):
        assert (killed / BUNDLE_FOLDER / name).read_bytes() == (whole / BUNDLE_FOLDER / name).read_bytes()


def leaking(entries: list[DatasetSlice]) -> list[DatasetSlice]:
    """Put a patient on both sides."""
    return [*entries[:-1], entries[-1].model_copy(update={"patient_key": entries[0].patient_key})]


def without_covid(entries: list[DatasetSlice]) -> list[DatasetSlice]:
    """Take a class away."""
    return [entry for entry in entries if entry.label is not LABELS[2]]


def garbage_checkpoint(folder: Path) -> None:
    (folder / BASE_FILE).write_bytes(b"garbage" * 100)


def other_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    (folder / BASE_FILE).write_bytes(dumps(build("squeezenet1_1", 64)))


def missing_base_data(folder: Path) -> None:
    job = Job.model_validate_json((folder / JOB_FILE).read_bytes())
    (folder / JOB_FILE).write_text(job.model_copy(update={"base_data": folder / "base"}).model_dump_json())


def damaged_slice(folder: Path) -> None:
    path = next(iter(sorted((folder / SLICES_FOLDER).iterdir())))
    path.write_bytes(path.read_bytes()[:1000])


def test_a_job_that_cannot_succeed_says_why(tmp_path: Path) -> None:
    """What no repetition mends ends with its own exit code, the reason as the last line, and no bundle."""
    folder = job_folder(tmp_path / "job")
    garbage_checkpoint(folder)
    code, said, err = run(folder)
    assert code == EXIT_REFUSED, err
    assert "CheckpointError: 700 bytes are no checkpoint" in err.strip().splitlines()[-1]
    assert said == []
    assert not (folder / BUNDLE_FOLDER).exists()


IN_ONE_PROCESS = """
import os, sys
from pathlib import Path
from training.job import main
for folder in sys.argv[1:]:
    sys.stderr.write(f"code {main(Path(folder))}\\n")
    sys.stderr.flush()
"""


def test_further_jobs_that_cannot_succeed_say_why(tmp_path: Path) -> None:
    """A leak, a missing class, weights of another architecture, base data that is not there, a damaged slice."""
    folders = {
        job_folder(tmp_path / "leak", leaking): "LeakError: 1 patients on two sides of the split",
        job_folder(tmp_path / "class", without_covid): "MissingClassError: training has no slice of COVID-19",
    }
    damages: dict[Callable[[Path], None], str] = {
        other_checkpoint: "the checkpoint is a squeezenet1_1, not a baseline_cnn",
        missing_base_data: "NoLabelsError: base_data cannot be used",
        damaged_slice: "damaged or cut off",
    }
    for damage, reason in damages.items():
        folder = job_folder(tmp_path / damage.__name__)
        damage(folder)
        folders[folder] = reason
    command = [sys.executable, "-c", IN_ONE_PROCESS, *map(str, folders)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as child:
        assert child.stderr is not None
        lines = child.stderr.read().splitlines()
    ends = [index for index, line in enumerate(lines) if line.startswith("code ")]
    assert [lines[index] for index in ends] == [f"code {EXIT_REFUSED}"] * len(folders), lines
    for index, reason in zip(ends, folders.values(), strict=True):
        assert reason in lines[index - 1]
        assert str(tmp_path) not in lines[index - 1], "the last line leaves the trainer, and may name no file"
    assert any("labels.csv, line 1: not a readable CSV text" in line for line in lines), "the log alone says where"


def test_a_job_ends_with_its_parent(tmp_path: Path) -> None:
    """When the parent is gone, standard input ends, and so does the job: nobody trains for nobody."""
    folder = job_folder(tmp_path / "job")
    job = json.loads((folder / JOB_FILE).read_text())
    job["training"]["epochs"] = 100_000
    (folder / JOB_FILE).write_text(json.dumps(job))
    with start(folder) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline()
        child.stdin.close()
        assert child.wait(DEADLINE_S) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    assert not (folder / BUNDLE_FOLDER).exists()
