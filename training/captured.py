"""Captured views: slices as a camera before a screen gives them, made once and mapped from a file.

They are simulated. A training shows some of them beside their digital slices, and asks for the same answer to both.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.data.slices import SliceSet
from training.model.preprocess import INPUT_PX
from training.views_story import MAKE_THEM, VIEWS_FILE, ViewsError, ViewsStory, ids_of, read_story


@dataclass(frozen=True)
class CapturedViews:
    """k views of each of n slices; `pixels` uint8 [all, k, 256, 256] holds those of slice i at `rows[i]`."""

    pixels: NDArray[np.uint8]
    rows: NDArray[np.intp]
    story: ViewsStory

    def __len__(self) -> int:
        return len(self.rows)

    def drawn(self, at: Tensor) -> Tensor:
        """Return one view of each slice at the indices, uint8 [m, 1, 256, 256], by torch's global generator."""
        which = torch.randint(self.pixels.shape[1], (len(at),))
        return torch.from_numpy(self.pixels[self.rows[at.numpy()], which.numpy()]).unsqueeze(1)

    def each(self) -> tuple["OneView", ...]:
        """Return the first view of all slices, the second one, and so on."""
        return tuple(OneView(self.pixels, self.rows, view) for view in range(self.pixels.shape[1]))


@dataclass(frozen=True)
class OneView:
    """One view of each slice, as pixels uint8 [n, 256, 256] that stay in their file."""

    pixels: NDArray[np.uint8]
    rows: NDArray[np.intp]
    view: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), INPUT_PX, INPUT_PX)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: NDArray[np.intp] | slice) -> NDArray[np.uint8]:
        """Return the views at the indices, in memory."""
        return np.asarray(self.pixels[self.rows[at], self.view])


@dataclass(frozen=True)
class Views:
    """The captured views that a training learns from, and those that it is judged on."""

    train: CapturedViews
    validation: CapturedViews


def open_views(folder: Path, slices: SliceSet) -> CapturedViews:
    """Map the views of these slices; raises `ViewsError` for unfinished ones, and where a slice has none.

    A view is found by its slice's pixels, so that whoever leaves patients out leaves their views out too.
    """
    story = read_story(folder)
    try:
        pixels = np.load(folder / VIEWS_FILE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ViewsError(f"{folder / VIEWS_FILE} cannot be read ({error}): {MAKE_THEM}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(story.slice_ids), len(story.severities), INPUT_PX, INPUT_PX):
        raise ViewsError(f"{folder / VIEWS_FILE} is {pixels.dtype} {list(pixels.shape)}: {MAKE_THEM}")
    places = {one: row for row, one in enumerate(story.slice_ids)}
    rows = np.array([places.get(one, -1) for one in ids_of(slices)], np.intp)
    missing = int((rows < 0).sum())
    if missing:
        raise ViewsError(
            f"{missing} of {len(slices)} slices have no captured view in {folder}, which was made of others: "
            "make views of this data set as it is now, in another folder, with `sliceloop capture-views`"
        )
    return CapturedViews(pixels, rows, story)


def inconsistency(digital: Tensor, captured: Tensor) -> Tensor:
    """Return how far logits [m, 3] of captured views and of their digital slices lie apart: a sum over m, in nats.

    The mean of both Kullback-Leibler divergences draws each answer to the other: so the digital one, too, leans on what
    a camera leaves of a slice, and not on greys that no photograph keeps.
    """
    one, other = F.log_softmax(digital, dim=1), F.log_softmax(captured, dim=1)
    there, back = (F.kl_div(*pair, reduction="sum", log_target=True) for pair in ((other, one), (one, other)))
    return (there + back) / 2
