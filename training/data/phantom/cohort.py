"""Cohorts: which patients are drawn for which split, and where through the chest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from protocol.labels import LABELS, Label
from training.data.labelled import SPLITS
from training.data.phantom.errors import PhantomError
from training.data.phantom.seeds import rng_for
from training.data.phantom.sites import SITES, PhantomSite

Z_RANGE = (0.27, 0.73)  # nearer to 0 lies the neck, nearer to 1 the abdomen
Z_JITTER = (0.1, 0.9)  # where in its equal part of the range a slice may lie
Z_DECIMALS = 4


@dataclass(frozen=True)
class Cohort:
    """So many patients of one site for one split."""

    site: str
    split: str
    patients_per_class: int
    slices_per_patient: int


@dataclass(frozen=True)
class Plan:
    """One patient to write."""

    site: PhantomSite
    split: str
    patient: int
    label: Label
    zs: tuple[float, ...]

    @property
    def source(self) -> str:
        return f"phantom-{self.site.name}"

    @property
    def patient_id(self) -> str:
        return f"{self.source}-{self.patient:04d}"


def check_cohort(cohort: Cohort) -> None:
    """Raise PhantomError for an unknown site or split, no slices, or a negative number."""
    if cohort.site not in SITES:
        raise PhantomError(f"cohort of unknown site {cohort.site!r}: known are {', '.join(SITES)}")
    if cohort.split not in SPLITS:
        raise PhantomError(f"cohort of unknown split {cohort.split!r}: known are {', '.join(SPLITS)}")
    if cohort.patients_per_class < 0 or cohort.slices_per_patient < 1:
        raise PhantomError(f"{cohort}: needs at least one slice per patient, and no negative number")


def plan_patients(cohorts: Sequence[Cohort], seed: int) -> Iterator[Plan]:
    """Number the patients of a site through all its cohorts, in an order that does not tell the class."""
    taken = dict.fromkeys(SITES, 0)
    for cohort in cohorts:
        site, first = SITES[cohort.site], taken[cohort.site]
        labels = [label for label in LABELS for _ in range(cohort.patients_per_class)]
        order = rng_for(seed, site.name, first, "order").permutation(len(labels))
        for patient, index in enumerate(order, start=first):
            zs = _slice_positions(rng_for(seed, site.name, patient, "positions"), cohort.slices_per_patient)
            yield Plan(site, cohort.split, patient, labels[index], zs)
        taken[cohort.site] += len(labels)


def _slice_positions(rng: Generator, count: int) -> tuple[float, ...]:
    """Spread the slices over the chest, one somewhere in each of `count` equal parts."""
    low, high = Z_RANGE
    steps = (np.arange(count) + rng.uniform(*Z_JITTER, count)) / count
    return tuple(float(z) for z in np.round(low + steps * (high - low), Z_DECIMALS))
