"""All that an exploration found, as one object: results.json is this, report and plots say it."""

from collections import Counter

import cv2
import numpy
import scipy
import sklearn
from pydantic import BaseModel, ConfigDict

from training.data.lungs import Region
from training.explore.counts import Count
from training.explore.differences import Difference
from training.explore.shortcuts import Audit
from training.explore.views import Views

FORMAT = 1
"""Grows when an older reader would misread results.json."""


class LungCount(BaseModel):
    """How the search for lungs went in a source's audited slices."""

    model_config = ConfigDict(frozen=True)
    source: str
    whole_body: int
    lungs_only: int
    lungs_not_found: int

    @property
    def failed_share(self) -> float | None:
        """Return the share of slices with a body in which no lungs were found; None where no slice has a body."""
        bodies = self.whole_body + self.lungs_not_found
        return self.lungs_not_found / bodies if bodies else None


class Story(BaseModel):
    """Where the findings come from."""

    model_config = ConfigDict(frozen=True)
    data: str
    """The folder's name, without its place."""
    list_sha256: str
    """Of the listed files, classes, patients, sources and splits."""
    seed: int
    n_slices: int
    n_patients: int
    unreadable: int
    leaked_patients: int
    """Patients on two sides of the split; above 0 the official splits of this data set say nothing."""
    two_label_patients: int
    together: dict[str, tuple[str, ...]]
    """Sources that were taken as one, by the name that they got."""
    audited_slices: int
    audited_patients: int
    versions: dict[str, str]
    commit: str | None = None
    """Of our code; None outside its repository."""


class Findings(BaseModel):
    """The exploration's result."""

    model_config = ConfigDict(frozen=True)
    format: int
    story: Story
    counts: tuple[Count, ...]
    differences: tuple[Difference, ...]
    lungs: tuple[LungCount, ...]
    audit: Audit

    def difference(self, measure: str, stratum: str) -> Difference | None:
        """Return a measure's tests in a stratum, None where there were none."""
        found = (one for one in self.differences if (one.measure, one.stratum) == (measure, stratum))
        return next(found, None)


def count_lungs(views: Views) -> tuple[LungCount, ...]:
    """Count what the slices show, by source."""
    seen = Counter(zip(views.sources, views.regions, strict=True))
    return tuple(
        LungCount(
            source=source,
            whole_body=seen[source, Region.WHOLE_BODY],
            lungs_only=seen[source, Region.LUNGS_ONLY],
            lungs_not_found=seen[source, Region.LUNGS_NOT_FOUND],
        )
        for source in sorted(set(views.sources))
    )


def library_versions() -> dict[str, str]:
    """Return the versions of what computes the numbers."""
    return {library.__name__: library.__version__ for library in (cv2, numpy, scipy, sklearn)}
