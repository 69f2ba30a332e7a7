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
from protocol.messages import Dataset, DatasetSlice, HeldBackRule
from protocol.patients import patient_key
from training.bundle import CHECKPOINT_FILE, MODEL_FILE, patient_keys, read_bundle
from training.checkpoint import Provenance, dumps
from training.data.slices import is_held_back
from training.job_folder import BASE_FILE, BUNDLE_FOLDER, DATASET_FILE, EXIT_REFUSED, JOB_FILE, SLICES_FOLDER, Job
from training.model.decode import decode_image
from training.model.preprocess import INPUT_PX, prepare
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


SECRET = b"the secret of the site"


def base_data(folder: Path, rows: dict[str, tuple[str, int, bytes]], secret: bytes | None) -> None:
    """Give the job base_data: a row (split, class, PNG) a patient."""
    base = folder / "base"
    base.mkdir()
    listed = ["file,label,patient_id,source,split"]
    for number, (patient, (split, label, png)) in enumerate(rows.items()):
        (base / f"{number}.png").write_bytes(png)
        listed.append(f"{number}.png,{LABELS[label]},{patient},site-a,{split}")
    (base / "labels.csv").write_text("\n".join(listed))
    update: dict[str, object] = {"base_data": base}
    if secret is not None:
        (folder / "secret").write_bytes(secret + b"\n")
        update["patient_secret_file"] = folder / "secret"
    job = Job.model_validate_json((folder / JOB_FILE).read_bytes())
    (folder / JOB_FILE).write_text(job.model_copy(update=update).model_dump_json())


def same_pixels(folder: Path) -> None:
    """Let the data set's validation hold, as an edge prepares it, what base_data trains on under another name."""
    dataset = Dataset.model_validate_json((folder / DATASET_FILE).read_bytes())
    captured = slice_png(2, seed=100)
    _, prepared = cv2.imencode(".png", prepare(decode_image(captured)))
    (folder / SLICES_FOLDER / f"{dataset.slices[-1].image_sha256}.png").write_bytes(bytes(prepared))
    base_data(folder, {"anybody": ("train", 2, captured)}, None)


def short_secret(folder: Path) -> None:
    base_data(folder, {"anybody": ("train", 0, slice_png(0, seed=100))}, b"abc")


def test_no_patient_of_base_data_stands_on_another_side(tmp_path: Path) -> None:
    """With the site's secret, base_data loses the patients whom the worker holds back or has on the other side."""
    rule = HeldBackRule(share=0.3, seed=0)

    def held_back(patient: str) -> bool:
        return is_held_back(patient_key(SECRET, patient), rule.share, rule.seed)

    names = [f"patient {number}" for number in range(50)]
    hidden = next(name for name in names if held_back(name))
    streamed, free = [name for name in names if not held_back(name)][:2]

    def with_streamed(entries: list[DatasetSlice]) -> list[DatasetSlice]:
        return [*entries[:-1], entries[-1].model_copy(update={"patient_key": patient_key(SECRET, streamed)})]

    folder = job_folder(tmp_path / "job", with_streamed)
    dataset = Dataset.model_validate_json((folder / DATASET_FILE).read_bytes())
    (folder / DATASET_FILE).write_text(dataset.model_copy(update={"held_back": rule}).model_dump_json())
    pictures = {name: slice_png(0, seed=100 + number) for number, name in enumerate((hidden, streamed, free))}
    base_data(folder, {name: ("train", 0, png) for name, png in pictures.items()}, SECRET)
    code, _, err = run(folder)
    assert code == 0, err
    assert read_bundle(folder / BUNDLE_FOLDER).report.n_train_slices == PATIENTS["train"] + 1
    assert "base_data: 2 slices of 2 patients left out" in err


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
    """A leak, a missing class, weights of another architecture, base data that cannot be used, a damaged slice."""
    folders = {
        job_folder(tmp_path / "leak", leaking): "LeakError: 1 patients on two sides of the split",
        job_folder(tmp_path / "class", without_covid): "MissingClassError: training has no slice of COVID-19",
    }
    damages: dict[Callable[[Path], None], str] = {
        other_checkpoint: "the checkpoint is a squeezenet1_1, not a baseline_cnn",
        missing_base_data: "NoLabelsError: base_data cannot be used",
        damaged_slice: "damaged or cut off",
        same_pixels: "SamePixelsError: 1 slices of base_data stand on the other side",
        short_secret: "PatientSecretError: trainer.patient_secret_file holds 3 bytes",
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


def taught(folder: Path, patients: list[str], **told: object) -> None:
    """Let the served weights have learnt from these patients."""
    torch.manual_seed(0)
    provenance = Provenance(train_patient_keys=patient_keys(patients), **told)
    (folder / BASE_FILE).write_bytes(dumps(build("baseline_cnn", 64), provenance))


def test_served_weights_hand_on_their_patients_or_are_refused(tmp_path: Path) -> None:
    """A candidate lists who taught the weights before it; no patient of theirs is judged, no leak is gone on from."""
    chained, judged, leaked = (job_folder(tmp_path / name) for name in ("chained", "judged", "leaked"))
    entries = Dataset.model_validate_json((chained / DATASET_FILE).read_bytes()).slices
    validation = next(entry.patient_key for entry in entries if entry.split == "val")
    taught(chained, ["somebody"])
    code, _, err = run(chained)
    assert code == 0, err
    keys = patient_keys(["somebody", *(entry.patient_key for entry in entries if entry.split == "train")])
    assert read_bundle(chained / BUNDLE_FOLDER).report.train_patient_keys == keys
    taught(judged, ["somebody", validation])
    code, _, err = run(judged)
    assert code == EXIT_REFUSED
    assert "TaughtBeforeError: 1 patients of validation taught the served weights" in err.splitlines()[-1]
    assert validation not in err.splitlines()[-1]
    taught(leaked, ["somebody"], leaked_patients=2)
    code, _, err = run(leaked)
    assert code == EXIT_REFUSED
    assert "learnt with 2 patients on two sides of the split" in err.splitlines()[-1]
