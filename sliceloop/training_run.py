"""`sliceloop train`: a folder of labelled slices becomes a bundle."""

import threading
from pathlib import Path

import torch
import typer

from sliceloop.progress import counted
from training.bundle import Bundle, write_bundle
from training.data.labelled import load_slices, read_labels
from training.data.slices import LabelledSlice, SliceSet
from training.learn import learn
from training.networks import build
from training.plan import Progress, TrainSettings
from training.train import TrainingStoppedError

EPOCHS_FOLDER = "epochs"


def train_folder(
    data: Path, out: Path, architecture: str, input_px: int, settings: TrainSettings, stop: threading.Event
) -> None:
    """Train on the folder's train split and write the bundle; raises what reading and training raise."""
    torch.manual_seed(settings.seed)  # the initial weights are part of the run, and of its resumption
    network = build(architecture, input_px)
    rows = read_labels(data)
    train_slices, validation = _split(data, rows, "train"), _split(data, rows, "val")
    try:
        bundle = learn(
            network, train_slices, validation, settings, on_epoch=_show, stop=stop, resume_folder=out / EPOCHS_FOLDER
        )
    except TrainingStoppedError as error:
        typer.echo(str(error))
        raise typer.Exit(130) from None
    write_bundle(out, bundle)
    _summarise(bundle, out)


def _split(data: Path, rows: list[LabelledSlice], split: str) -> SliceSet:
    with counted(f"reading {split} slices") as on_slice:
        return load_slices(data, [row for row in rows if row.split == split], on_slice)


def _show(progress: Progress) -> None:
    typer.echo(
        f"epoch {progress.epoch}/{progress.epochs}  loss {progress.train_loss:.3f}  "
        f"validation loss {progress.validation_loss:.3f}  "
        f"balanced accuracy {progress.validation_balanced_accuracy:.3f}  {progress.seconds:.1f} s"
    )


def _summarise(bundle: Bundle, out: Path) -> None:
    report, judged = bundle.report, bundle.report.validation
    typer.echo(
        f"{report.architecture}: balanced accuracy {judged.balanced_accuracy} on {judged.n_patients} "
        f"validation patients ({judged.n_slices} slices); temperature {report.temperature:.2f}; in {out}"
    )
