"""What the shortcut audit lets a classifier see of a slice: parts without disease, and a small whole as reference."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.content import picture_box
from training.data.lungs import Region, find_lungs
from training.data.slices import SliceSet
from training.model.preprocess import Frame

SMALL_PX = 32
"""Side of the small slice: enough for crop, table, window and the lungs' outline, too little for a fine texture."""
BORDER_SHARE = 1 / 16
"""The border is this share of the picture's height and width on each side."""
HISTOGRAM_BINS = 32
_LEVELS = 256


class View(StrEnum):
    """The audit's rows."""

    SOURCE = "source known, no picture"
    CUT_OUT = "one bit: are the surroundings black?"
    BORDER = "border alone"
    NO_LUNGS = "lungs blacked out"
    HISTOGRAM = "histogram alone"
    LUNGS = "lungs alone"
    WHOLE = f"whole slice, {SMALL_PX} px"


WITHOUT_LUNGS = frozenset({View.SOURCE, View.CUT_OUT, View.BORDER, View.NO_LUNGS})
"""Views without lung tissue, as far as lungs were found: what they tell, no finding in the lungs has told."""


@dataclass(frozen=True)
class Views:
    """The views of n slices: `features` by view float32 [n, width], and what each slice shows."""

    features: dict[View, NDArray[np.float32]]
    regions: tuple[Region, ...]
    labels: NDArray[np.int64]
    patients: tuple[str, ...]
    sources: tuple[str, ...]

    def of(self, view: View) -> NDArray[np.float32]:
        """Return a view's features float32 [n, width]; where only the source is known, a column for each source."""
        if view is not View.SOURCE:
            return self.features[view]
        names, source = np.unique(np.asarray(self.sources), return_inverse=True)
        return np.eye(len(names), dtype=np.float32)[source]

    def concat(self, other: "Views") -> "Views":
        """Return the slices of both."""
        return Views(
            {view: np.concatenate([self.features[view], other.features[view]]) for view in self.features},
            self.regions + other.regions,
            np.concatenate([self.labels, other.labels]),
            self.patients + other.patients,
            self.sources + other.sources,
        )

    def select(self, chosen: NDArray[np.bool_]) -> "Views":
        """Return the slices under the mask."""
        at = np.flatnonzero(chosen)
        return Views(
            {view: features[at] for view, features in self.features.items()},
            tuple(self.regions[i] for i in at),
            self.labels[at],
            tuple(self.patients[i] for i in at),
            tuple(self.sources[i] for i in at),
        )


def look(slices: SliceSet, at: NDArray[np.intp], on_slice: Callable[[int], None]) -> Views:
    """Take every view of the slices at the indices, one at least; tells as many as are done."""
    taken: list[dict[View, NDArray[np.float32]]] = []
    regions: list[Region] = []
    for done, index in enumerate(at, start=1):
        views, region = look_at(slices.pixels[index : index + 1][0])
        taken.append(views)
        regions.append(region)
        on_slice(done)
    features = {view: np.stack([one[view] for one in taken]) for view in taken[0]}
    patients, sources = (tuple(names[index] for index in at) for names in (slices.patients, slices.sources))
    return Views(features, tuple(regions), slices.labels[at], patients, sources)


def look_at(prepared: Frame) -> tuple[dict[View, NDArray[np.float32]], Region]:
    """Take the views of a prepared slice uint8 [256, 256] that need no other slice."""
    lungs = find_lungs(prepared)
    without_lungs = prepared * (1 - lungs.mask)
    views = {
        View.CUT_OUT: np.array([lungs.region is Region.LUNGS_ONLY], np.float32),
        View.BORDER: _small(border_of(prepared, without_lungs)),
        View.NO_LUNGS: _small(without_lungs),
        View.HISTOGRAM: histogram(prepared),
        View.LUNGS: _small(prepared * lungs.mask),
        View.WHOLE: _small(prepared),
    }
    return views, lungs.region


def border_of(prepared: Frame, shown: Frame) -> Frame:
    """Return `shown` uint8 [256, 256] with all but the frame of the prepared slice's picture black.

    The padding stays, for a network sees it too.
    """
    box = picture_box(prepared)
    height, width = (max(1, round(side * BORDER_SHARE)) for side in (box.bottom - box.top, box.right - box.left))
    border = shown.copy()
    border[box.top + height : box.bottom - height, box.left + width : box.right - width] = 0
    return border


def histogram(prepared: Frame) -> NDArray[np.float32]:
    """Return the share of the picture's pixels in each of 32 bins of grey; the padding does not count."""
    picture = picture_box(prepared).cut(prepared)
    counts = np.bincount(picture.ravel() // (_LEVELS // HISTOGRAM_BINS), minlength=HISTOGRAM_BINS)
    return (counts / picture.size).astype(np.float32)


def _small(prepared: Frame) -> NDArray[np.float32]:
    small = cv2.resize(prepared, (SMALL_PX, SMALL_PX), interpolation=cv2.INTER_AREA)
    return (small.ravel() / (_LEVELS - 1)).astype(np.float32)
