"""`sliceloop train`: a data set becomes a bundle, with the picture and the story of its training."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from protocol.labels import LABELS
from sliceloop.progress import counted
from training.bundle import Bundle, write_bundle
from training.captured import Views, open_views
from training.checkpoint import story
from training.data.cache import CachingStoppedError
from training.data.check import missing_classes
from training.data.dataset import DataSet, load_split, open_dataset
from training.data.slices import SliceSet
from training.durable import write_atomically
from training.export import is_at_bound
from training.figures import LEAKED_TEXT, curves_png
from training.learn import PARITY_SLICES, bundle_of
from training.networks import ARCHITECTURES, Network
from training.parallel import Team, TeamError, joined
from training.plan import Progress, Step, TrainSettings
from training.sampling import budget
from training.train import Trained, TrainingStoppedError, train
from training.views_story import ViewsError
from training.weights import NONE, load_network, refuse_untrained_body, start_weights

EPOCHS_FOLDER, FEATURES_FOLDER = "epochs", "features"
STORY_FILE, CURVES_FILE = "checkpoint.json", "curves.png"
_REFUSED, _STOPPED = 2, 130
"""Exit codes: of what `sliceloop` refuses, and of a process that an interrupt ended, as shells have it."""
Mode = Literal["finetune", "head"]


class BadSettingError(ValueError):
    """A setting outside its range; the message names it."""


@dataclass(frozen=True)
class TrainRequest:
    """What the user asked for besides the training's own settings."""

    data: Path
    out: Path
    architecture: str
    input_px: int
    weights: str = NONE
    mode: Mode = "finetune"
    cache: Path | None = None
    patients: int | None = None
    exclude_sources: tuple[str, ...] = ()
    patient_rule: str | None = None
    allow_leak: bool = False
    views: Path | None = None
    """Folder that `sliceloop capture-views` made."""


def train_settings(**chosen: object) -> TrainSettings:
    """Return the settings; raises `BadSettingError`."""
    try:
        return TrainSettings.model_validate(chosen)
    except ValidationError as error:
        faults = (f"--{'-'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise BadSettingError("; ".join(faults).replace("_", "-")) from error


def train_folder(request: TrainRequest, settings: TrainSettings, stop: threading.Event) -> None:
    """Train on the data set's train split and write all outputs; raises what reading and training raise.

    Under torchrun every process makes this call; the first alone speaks and writes.
    """
    with joined(os.environ) as team:
        try:
            _train(request, _with_rate(request, settings), stop, team)
        except (TrainingStoppedError, CachingStoppedError) as error:
            if team.leads:
                typer.echo(str(error))
            raise typer.Exit(_STOPPED) from None
        except ValueError:  # what is refused, every process refuses: the first one says it
            if team.leads:
                raise
            raise typer.Exit(_REFUSED) from None


def _train(request: TrainRequest, settings: TrainSettings, stop: threading.Event, team: Team) -> None:
    torch.manual_seed(settings.seed)  # the new weights are part of the run, and of its resumption
    if request.mode == "head" and request.views is not None:
        raise ViewsError("--views: a head learns from features of digital slices alone; use --mode finetune")
    if request.mode == "head":
        refuse_untrained_body(request.weights)
    network = load_network(request.weights, request.architecture, request.input_px)
    start = start_weights(request.weights, request.architecture)
    dataset = _dataset(request)
    absent = [one.label for one in missing_classes(dataset.rows) if one.split == "test"]
    if absent and team.leads:
        typer.echo(f"test has no slice of {', '.join(absent)}: `sliceloop evaluate` cannot judge by it")
    if not request.allow_leak:
        start.refuse_judging(row.patient_id for row in dataset.rows if row.split == "val")
    train_slices, validation = (_split(dataset, split, request, stop, team) for split in ("train", "val"))
    if request.patients is not None:
        train_slices = budget(train_slices, request.patients, settings.seed)
    views = _views(request, train_slices, validation)
    started_s = time.monotonic()
    trained = _trained(request, network, train_slices, validation, views, settings, stop, team)
    if team.leads:
        leaked = dataset.leaked
        bundle = bundle_of(
            trained, train_slices, validation, settings, started_s, views=views, leaked=leaked, start=start, team=team
        )
        if request.mode == "finetune":  # a head's history is of strengths, not of epochs
            _draw(request.out, bundle)
        _write(request.out, bundle)
        _summarise(bundle, request.out)


def _with_rate(request: TrainRequest, settings: TrainSettings) -> TrainSettings:
    """Give weights that were trained before their architecture's gentler rate, unless the user chose one."""
    if request.weights == NONE or settings.learning_rate is not None or settings.optimizer != "adamw":
        return settings
    known = ARCHITECTURES.get(request.architecture)
    return settings.model_copy(update={"learning_rate": known.fine_tune_rate}) if known else settings


def _dataset(request: TrainRequest) -> DataSet:
    dataset = open_dataset(request.data, allow_leak=request.allow_leak, patient_rule=request.patient_rule)
    return dataset.without_sources(request.exclude_sources)


def _split(dataset: DataSet, split: str, request: TrainRequest, stop: threading.Event, team: Team) -> SliceSet:
    bar = counted(f"reading {split} slices") if team.leads else nullcontext()
    with team.first_alone(), bar as on_slice:
        return load_split(dataset, split, cache=request.cache, on_slice=on_slice, stop=stop)


def _views(request: TrainRequest, train_slices: SliceSet, validation: SliceSet) -> Views | None:
    """Map the captured views of both splits; raises `ViewsError`."""
    if request.views is None:
        return None
    return Views(open_views(request.views / "train", train_slices), open_views(request.views / "val", validation))


def _trained(
    request: TrainRequest,
    network: Network,
    train_slices: SliceSet,
    validation: SliceSet,
    views: Views | None,
    settings: TrainSettings,
    stop: threading.Event,
    team: Team,
) -> Trained:
    if request.mode == "head":
        return _trained_head(request, network, train_slices, validation, settings, stop, team)
    with _shown(team) as shown:
        return train(
            network,
            train_slices,
            validation,
            settings,
            views=views,
            on_epoch=shown.epoch,
            on_step=shown.step,
            stop=stop,
            resume_folder=request.out / EPOCHS_FOLDER,
            allow_leak=request.allow_leak,
            team=team,
        )


class _Shown:
    """A bar for the steps of an epoch, and a line for each epoch that is over."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("training", total=None, loss=float("nan"), speed=0.0)
        self._epoch_began_s = time.monotonic()
        self._slices = 0

    def step(self, step: Step) -> None:
        if step.step == 1:
            self._epoch_began_s, self._slices = time.monotonic(), 0
        else:
            self._slices += step.slices  # the first step's time went by before anyone listened
        speed = self._slices / max(time.monotonic() - self._epoch_began_s, 1e-9)
        self._bars.update(
            self._task,
            description=f"epoch {step.epoch}/{step.epochs}",
            completed=step.step,
            total=step.steps,
            loss=step.loss,
            speed=speed,
        )

    def epoch(self, progress: Progress) -> None:
        seen = progress.captured_balanced_accuracy
        captured = "" if seen is None else f" (captured, simulated: {seen:.3f})"
        self._bars.console.print(
            f"epoch {progress.epoch}/{progress.epochs}  loss {progress.train_loss:.3f}  "
            f"accuracy {progress.train_accuracy:.3f}  validation loss {progress.validation_loss:.3f}  "
            f"balanced accuracy {progress.validation_balanced_accuracy:.3f}{captured}  {progress.seconds:.1f} s",
            soft_wrap=True,
            highlight=False,
        )


@contextmanager
def _shown(team: Team) -> Iterator[_Shown]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:.1f} images/s"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, transient=True, console=Console(quiet=not team.leads)) as bars:
        yield _Shown(bars)


def _trained_head(
    request: TrainRequest,
    network: Network,
    train_slices: SliceSet,
    validation: SliceSet,
    settings: TrainSettings,
    stop: threading.Event,
    team: Team,
) -> Trained:
    """Learn the last layer from cached features: seconds, so one process does it."""
    from training.head import train_head

    if team.size > 1:
        raise TeamError("a head on cached features is learnt in seconds by one process: start it without torchrun")
    with counted("features") as on_progress:
        return train_head(
            network,
            train_slices,
            validation,
            settings,
            cache_folder=(request.cache or request.out) / FEATURES_FOLDER,
            on_progress=on_progress,
            stop=stop,
            allow_leak=request.allow_leak,
        )


def _draw(out: Path, bundle: Bundle) -> None:
    report = bundle.report
    title = f"{report.architecture}, {report.input_px} px, {report.n_train_patients} patients to learn from"
    write_atomically(out / CURVES_FILE, curves_png(report.history, title, report.leaked_patients))


def _write(out: Path, bundle: Bundle) -> None:
    """Write the bundle last: a folder with a report is complete."""
    write_atomically(out / STORY_FILE, story(bundle.checkpoint))
    write_bundle(out, bundle)


def _summarise(bundle: Bundle, out: Path) -> None:
    report, judged = bundle.report, bundle.report.validation
    if report.leaked_patients:
        typer.echo(LEAKED_TEXT.format(report.leaked_patients))
    answered = [label for label, times in zip(LABELS, np.sum(judged.confusion, axis=0), strict=True) if times]
    if len(answered) == 1:
        typer.echo(f"every validation slice is read as {answered[0]}: the network tells no class from another")
    for seen in report.simulated_views.figures if report.simulated_views else ():
        typer.echo(
            f"captured (simulated) at severity {seen.severity:g}: balanced accuracy {seen.balanced_accuracy}, "
            f"{seen.same_answer:.1%} read as the digital slice"
        )
    bound = " (at its bound: the probabilities mean little)" if is_at_bound(report.temperature) else ""
    typer.echo(
        f"{report.architecture}: balanced accuracy {judged.balanced_accuracy} on {judged.n_patients} "
        f"validation patients ({judged.n_slices} slices); temperature {report.temperature:.2f}{bound}; ONNX and torch "
        f"differ by up to {report.parity_difference:.2g} in logits on {min(PARITY_SLICES, judged.n_slices)} of them; "
        f"all files in {out}"
    )
