"""`sliceloop capture-views`: slices as a simulated camera gives them, made once for a training to learn from."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from edge_agent.develop import Development, DevelopmentSettings, PictureRefusedError
from edge_agent.locate import Location
from sliceloop.capture_bench.cases import shot_seed
from sliceloop.capture_bench.kept import recipe_hash
from sliceloop.capture_bench.look import iou_of
from sliceloop.capture_bench.measures import WRONG_IOU
from sliceloop.capture_bench.slices import shown_picture
from sliceloop.progress import counted
from training.data.cache import CachingStoppedError
from training.data.dataset import DataSet, load_split, open_dataset
from training.data.slices import SliceSet
from training.growing_views import GrowingViews
from training.model.preprocess import PREPROCESSING_VERSION
from training.screen_camera import Family, shoot
from training.views_story import ViewsRecipe, ids_of

SPLITS = ("train", "val")
"""A training sees no other ones."""
_BATCH = 8
"""Slices between two writes: as many a kill can cost."""
_STOPPED = 130
"""Exit code of a process that an interrupt ended, as shells have it."""
_BARE = DevelopmentSettings(quality_gate=False, intake=False)
"""What a camera's agent would refuse is learnt from all the same."""

Picture = NDArray[np.uint8]
Slice = NDArray[np.uint8]


@dataclass(frozen=True)
class ViewsRequest:
    """Which slices are shown to the simulated camera, and how often."""

    data: Path
    out: Path
    splits: tuple[str, ...] = SPLITS
    severities: tuple[float, ...] = ()
    views: int = 1
    """Of each slice at each severity."""
    exclude_sources: tuple[str, ...] = ()
    patient_rule: str | None = None
    cache: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class View:
    """One captured view uint8 [256, 256], and whether it came the whole way."""

    pixels: Slice
    true_outline: bool = False
    digital: bool = False


def capture_views(request: ViewsRequest, stop: threading.Event) -> None:
    """Make the views of each split in a folder of its name; goes on where it was stopped.

    Raises what reading a data set raises, `ViewsError` for a folder of other views, and `OSError`.
    """
    cv2.setNumThreads(1)  # several threads on pictures of this size cost more than they bring
    dataset = open_dataset(request.data, patient_rule=request.patient_rule).without_sources(request.exclude_sources)
    for split in request.splits:
        try:
            with counted(f"reading {split} slices") as on_slice:
                slices = load_split(dataset, split, cache=request.cache, on_slice=on_slice, stop=stop)
        except CachingStoppedError as error:
            typer.echo(str(error))
            raise typer.Exit(_STOPPED) from None
        _capture_split(request, dataset, split, slices, stop)


def view_of(picture: Picture, digital: Slice, severity: float, seed: int) -> View:
    """Photograph a slice uint8 [h, w], find it, and bring it back as the edge agent does: uint8 [256, 256].

    Where the outline is not found or wrong, the true one is taken, so that each slice has its views; where nothing can
    be read even then, the prepared digital slice uint8 [256, 256] stands in.
    """
    shot = shoot(picture, severity=severity, seed=seed, family=Family.TRAINING)
    try:
        developed = Development(_BARE)(shot.frame)
        if iou_of(developed.quad, shot.quad) >= WRONG_IOU:
            return View(developed.pixels)
    except PictureRefusedError:
        pass
    try:
        known = Development(_BARE, find=lambda _: Location(shot.quad, 1.0))
        return View(known(shot.frame).pixels, true_outline=True)
    except PictureRefusedError:
        return View(digital, digital=True)


def _capture_split(
    request: ViewsRequest, dataset: DataSet, split: str, slices: SliceSet, stop: threading.Event
) -> None:
    rows = [row for row in dataset.rows if row.split == split]
    ids = ids_of(slices)
    recipe = ViewsRecipe(
        split=split,
        family=Family.TRAINING,
        severities=tuple(severity for severity in request.severities for _ in range(request.views)),
        seed=request.seed,
    )
    growing = GrowingViews(request.out / split, recipe, ids, _hash(recipe, ids))
    growing.open()
    if growing.is_finished:
        typer.echo(f"{growing.path}: all views are there already")
        return

    def views_at(at: int) -> Sequence[View]:
        picture, digital = shown_picture(dataset.folder, rows[at]), slices.pixels[at : at + 1][0]
        return [
            view_of(picture, digital, severity, shot_seed(request.seed, "view", ids[at], number))
            for number, severity in enumerate(recipe.severities)
        ]

    with counted(f"{split} slices before the simulated camera") as on_slice:
        is_whole = _grow(growing, len(ids), views_at, on_slice, stop)
    if not is_whole:
        typer.echo(f"stopped after {growing.progress.done} of {len(ids)} {split} slices; the same command goes on")
        raise typer.Exit(_STOPPED)
    made = growing.finish()
    typer.echo(
        f"{split}: {made.n_views} simulated views of {made.n_slices} slices of {len(set(slices.patients))} patients in "
        f"{growing.path}; of {made.true_outlines} the true outline was taken, of {made.digital} the digital slice"
    )


def _grow(
    growing: GrowingViews,
    total: int,
    views_at: Callable[[int], Sequence[View]],
    on_slice: Callable[[int, int], None],
    stop: threading.Event,
) -> bool:
    """Make what is missing, some slices between two writes; return whether all is there."""
    on_slice(growing.progress.done, total)
    while growing.progress.done < total and not stop.is_set():
        first = growing.progress.done
        made = [views_at(at) for at in range(first, min(first + _BATCH, total))]
        growing.add(
            np.stack([[view.pixels for view in views] for views in made]),
            sum(view.true_outline for views in made for view in views),
            sum(view.digital for views in made for view in views),
        )
        on_slice(growing.progress.done, total)
    return growing.progress.done == total


def _hash(recipe: ViewsRecipe, ids: tuple[str, ...]) -> str:
    told = json.loads(recipe.model_dump_json())
    return recipe_hash({**told, "slices": list(ids), "preprocessing": PREPROCESSING_VERSION})
