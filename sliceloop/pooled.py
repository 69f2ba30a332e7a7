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
from training.checkpoint import pack, write_atomically
from training.data.dataset import DataSet, load_split, open_dataset
from training.data.slices import SliceSet
from training.head import FeatureSet, feature_set
from training.judging.canvas import save
from training.judging.unseen import LeakMark
from training.networks import ARCHITECTURES, Network
from training.plan import TrainSettings
from training.pool import FineTuneLearner, HeadLearner, Learner, Pool
from training.weights import NONE, load_network

FEATURES_FOLDER = "features"
STOPPED = 130
"""The exit code of a process that an interrupt ended, as shells have it."""
Mode = Literal["finetune", "head"]


class UnknownSourceError(ValueError):
    """A source to leave out that the data set does not have."""


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


def open_for(request: Request) -> DataSet:
    """Open the data set; raises what reading raises, a `LeakError` among it, and `UnknownSourceError`."""
    dataset = open_dataset(request.data, allow_leak=request.allow_leak)
    sources = sorted({row.source for row in dataset.rows})
    unknown = [source for source in request.exclude_sources if source not in sources]
    if unknown:
        raise UnknownSourceError(f"no source {', '.join(unknown)} to leave out; there are {', '.join(sources)}")
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
