"""What `curve`, `tune` and `sources` share: the data set in one piece, the network to start from, the marked files."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import typer
from matplotlib.figure import Figure

from sliceloop.progress import counted
from training.checkpoint import pack
from training.data.dataset import DataSet, load_split, open_dataset
from training.data.slices import LabelledSlice, SliceSet
from training.durable import write_atomically
from training.head import FeatureSet, feature_set
from training.judging.canvas import save
from training.judging.unseen import LeakMark
from training.networks import ARCHITECTURES, Network
from training.plan import TrainSettings
from training.pool import FineTuneLearner, HeadLearner, Learner, Pool
from training.weights import NONE, StartWeights, load_network, refuse_untrained_body, start_weights

FEATURES_FOLDER = "features"
STOPPED = 130
"""The exit code of a process that an interrupt ended, as shells have it."""
Mode = Literal["finetune", "head"]


@dataclass(frozen=True)
class Request:
    """What the user asked for, whichever search it is."""

    data: Path
    out: Path
    architecture: str
    input_px: int
    weights: str
    mode: Mode
    split: str
    settings: TrainSettings
    cache: Path | None = None
    exclude_sources: tuple[str, ...] = ()
    allow_leak: bool = False
    patient_rule: str | None = None


@dataclass(frozen=True)
class Begin:
    """The weights that every network of the search starts from, and the mark of what they and the data set leak."""

    weights: StartWeights
    leak: LeakMark
    note: str
    """Names the weights, for a page."""


def begin(request: Request, dataset: DataSet, judged_splits: Sequence[str]) -> Begin:
    """Look at the start weights before anything is learnt, and hold their patients against those judged.

    Raises `UntrainedBodyError`, a `LeakError` unless it is allowed, and what reading weights raises.
    """
    if request.mode == "head":
        refuse_untrained_body(request.weights)
    start = start_weights(request.weights, request.architecture)
    rows = [row for row in dataset.rows if row.source not in request.exclude_sources]
    judged = {row.patient_id for row in rows if row.split in judged_splits}
    if not request.allow_leak:
        start.refuse_judging(judged)
    leak = _with_start(leak_mark(dataset), start, len(start.taught_by(judged)))
    if leak.leaked:
        typer.echo(leak.sentence())
    return Begin(start, leak, _start_note(start, rows))


def _with_start(leak: LeakMark, start: StartWeights, seen: int) -> LeakMark:
    reasons = [*leak.reasons]
    if start.leaked_patients:
        reasons.append(f"the start weights learnt with {start.leaked_patients} patient(s) on two sides of their split")
    if seen:
        reasons.append(f"{seen} judged patient(s) taught the start weights")
    checked = f"{leak.checked}; those judged held against {len(start.patient_keys)} that taught the start weights"
    return LeakMark(reasons=tuple(reasons), checked=checked)


def _start_note(start: StartWeights, rows: Sequence[LabelledSlice]) -> str:
    if start.name == NONE:
        return "Start weights: none, every network begins at random."
    note = f"Start weights: {start.name}"
    if start.patient_keys:
        here = len(start.taught_by(row.patient_id for row in rows))
        note += f", which learnt from {len(start.patient_keys)} patients, {here} of them in this data set"
    return f"{note}." if start.patients_known else f"{note}; whom they learnt from is not fully known."


def open_for(request: Request) -> DataSet:
    """Open the data set, whole; raises what reading and leaving out sources raise, a `LeakError` among it."""
    dataset = open_dataset(request.data, allow_leak=request.allow_leak, patient_rule=request.patient_rule)
    dataset.without_sources(request.exclude_sources)
    return dataset


def load(dataset: DataSet, split: str, cache: Path | None, stop: threading.Event) -> SliceSet:
    """Read a split's slices with a progress bar."""
    with counted(f"reading {split} slices") as on_slice:
        return load_split(dataset, split, cache=cache, on_slice=on_slice, stop=stop)


def pool_and_learner(
    request: Request, dataset: DataSet, splits: Sequence[str], stop: threading.Event
) -> tuple[Pool, Learner, str]:
    """Return the splits' slices in one piece, what learns from them, and the words that tell this run from others."""
    parts = {split: load(dataset, split, request.cache, stop) for split in splits}
    first, *others = parts.values()
    slices = first
    for other in others:
        slices = slices.concat(other)
    pool = Pool(slices, tuple(split for split, part in parts.items() for _ in range(len(part))))
    torch.manual_seed(request.settings.seed)
    network = load_network(request.weights, request.architecture, request.input_px)
    story = f"{slices.sha256()} {pool.splits} {request.architecture} {request.input_px} {request.mode} "
    story += f"{hashlib.sha256(pack(network.state_dict(), {})).hexdigest()} {request.settings.model_dump_json()} "
    story += f"{request.exclude_sources} {request.split}"
    if request.mode == "head":
        return pool, HeadLearner(_features(request, network, parts, stop), request.settings, stop), story
    return pool, _fine_tuner(request, pool, dataset, stop), story


def leak_mark(dataset: DataSet) -> LeakMark:
    """Return the mark of a data set whose patients stand on two sides."""
    leaked = len(dataset.leaked)
    reasons = (f"{leaked} patient(s) of the data set stand on two sides of its split",) if leaked else ()
    return LeakMark(reasons=reasons, checked="patients of the data set's splits compared")


def write_text(path: Path, text: str, leak: LeakMark) -> None:
    """Write a file durably, Markdown with the leak's sentence on top."""
    if leak.leaked and path.suffix == ".md":
        text = f"**{leak.sentence()}**\n\n{text}"
    write_atomically(path, text.encode())


def write_plot(path: Path, canvas: Figure, leak: LeakMark) -> None:
    """Write a PNG, marked across where a leak was allowed."""
    save(canvas, path, leak)


def stopped() -> typer.Exit:
    """Tell that the work stopped and goes on later; returns what to raise."""
    typer.echo("stopped: what is finished is kept, and the same command goes on")
    return typer.Exit(STOPPED)


def _features(request: Request, network: Network, parts: dict[str, SliceSet], stop: threading.Event) -> FeatureSet:
    """Compute or map the features split by split, so that every command finds those of the others."""
    folder = (request.cache or request.out) / FEATURES_FOLDER
    sets: list[FeatureSet] = []
    for split, slices in parts.items():
        with counted(f"features of {split} slices") as on_progress:
            sets.append(feature_set(network, slices, cache_folder=folder, on_progress=on_progress, stop=stop))
    first, *others = sets
    for other in others:
        first = first.concat(other)
    return first


def _fine_tuner(request: Request, pool: Pool, dataset: DataSet, stop: threading.Event) -> FineTuneLearner:
    def start() -> Network:
        return load_network(request.weights, request.architecture, request.input_px)

    settings = request.settings
    if request.weights != NONE and settings.learning_rate is None:
        rate = ARCHITECTURES[request.architecture].fine_tune_rate
        settings = settings.model_copy(update={"learning_rate": rate})
    return FineTuneLearner(start, pool.slices, settings, stop, allow_leak=bool(dataset.leaked))
