"""The paper's Figure 2: how bright slices are, measured inside the picture and averaged to one value a patient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.content import BLACK, picture_box
from training.data.slices import SliceSet
from training.model.preprocess import Frame

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

VERY_BRIGHT = 230
"""Grey levels from here on are very bright. In the lung window (centre -600, width 1500 HU) this is 0 HU and above: as
dense as water or denser. Sources with other windows differ in this for reasons that are no disease. The threshold is
ours: what the paper took is not known to us."""
OTHER_THRESHOLDS = (200, 250)
"""-174 and +121 HU in the same window: whether the findings hang on the threshold."""


@dataclass(frozen=True)
class Measure:
    """One number of a picture uint8 [height, width]; `words` say it in a title, `unit` on an axis."""

    name: str
    words: str
    unit: str
    of: Callable[[Frame], float]
    is_share: bool = False


def _share_from(level: int) -> Callable[[Frame], float]:
    return lambda picture: float((picture >= level).mean())


def _mean_of_lit(picture: Frame) -> float:
    lit = picture[picture > BLACK]
    return float(lit.mean()) if lit.size else 0.0


MEASURES = (
    Measure("mean_pixel", "Mean pixel", "grey level, 0 to 255", lambda picture: float(picture.mean())),
    Measure(
        "bright_share",
        "Share of very bright pixels",
        f"share of pixels ≥ {VERY_BRIGHT}",
        _share_from(VERY_BRIGHT),
        is_share=True,
    ),
)
"""What the paper shows."""
OTHER_MEASURES = (
    Measure("mean_of_lit", f"Mean of the pixels above {BLACK}", "grey level, 0 to 255", _mean_of_lit),
    *(
        Measure(f"share_from_{t}", f"Share of pixels ≥ {t}", "share", _share_from(t), is_share=True)
        for t in OTHER_THRESHOLDS
    ),
)
"""The same questions asked otherwise: without the black around, and with other thresholds."""
ALL_MEASURES = MEASURES + OTHER_MEASURES


@dataclass(frozen=True)
class PatientValues:
    """One row for each patient: values [patients, measures], labels int64 [patients], sources.

    `two_labels` patients were left out, because their mean belongs to no class.
    """

    values: Array
    labels: Labels
    sources: tuple[str, ...]
    two_labels: int

    def of_source(self, source: str) -> "PatientValues":
        """Return the patients of a source."""
        at = np.array([name == source for name in self.sources], dtype=np.bool_)
        return PatientValues(self.values[at], self.labels[at], (source,) * int(at.sum()), 0)


def measure(slices: SliceSet, on_slice: Callable[[int], None]) -> Array:
    """Return all measures float64 [n, measures] of the slices, each inside its picture; tells as many as are done."""
    values = np.empty((len(slices), len(ALL_MEASURES)))
    for index in range(len(slices)):
        values[index] = measure_one(slices.pixels[index : index + 1][0])
        on_slice(index + 1)
    return values


def measure_one(prepared: Frame) -> list[float]:
    """Return all measures of a prepared slice uint8 [256, 256]; the padding does not count."""
    picture = picture_box(prepared).cut(prepared)
    return [measure.of(picture) for measure in ALL_MEASURES]


def by_patient(values: Array, labels: Labels, patients: Sequence[str], sources: Sequence[str]) -> PatientValues:
    """Average values [slices, measures] over each patient's slices; who is in two sources counts once in each."""
    key = np.array([f"{source}\0{patient}" for source, patient in zip(sources, patients, strict=True)])
    _, first, of_slice, n = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(of_slice, column) / n for column in values.T], axis=1)
    one_label = np.bincount(of_slice, labels != labels[first][of_slice]) == 0
    kept = np.flatnonzero(one_label)
    return PatientValues(
        means[kept], labels[first[kept]], tuple(sources[first[at]] for at in kept), int((~one_label).sum())
    )
