"""Do the classes differ? Rank tests over patients, never over slices, with effect sizes beside the p-values."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import stats

from protocol.labels import LABELS, Label
from training.evaluate import Estimate
from training.explore.intensities import ALL_MEASURES, Array, PatientValues

LEAST_PATIENTS = 5
"""A class with fewer patients is not tested: 4 against 4 can only just reach p < 0.05, whatever they are."""
SURE_P = 0.05
"""A difference is called sure below this, after Holm's correction."""
RESAMPLES = 2000
EVERYWHERE = "all sources"
_BATCH = 100
"""As many resamples are ranked at once, so that thousands of patients do not fill the memory."""


class Group(BaseModel):
    """A class's patients; the middle half of their values lies in low_quartile..high_quartile."""

    model_config = ConfigDict(frozen=True)
    n_patients: int
    median: float
    low_quartile: float
    high_quartile: float


class Pair(BaseModel):
    """Two classes; `cliffs_delta` is P(first > second) - P(first < second), -1..1, 0 where neither is higher."""

    model_config = ConfigDict(frozen=True)
    first: Label
    second: Label
    p_value: float
    """Mann-Whitney, two-sided."""
    p_holm: float
    """Corrected for the pairs of this measure and stratum."""
    cliffs_delta: Estimate


class Spread(BaseModel):
    """Kruskal-Wallis; `epsilon_squared` (H / (n - 1), 0..1) is the share of the rank variance that the groups tell."""

    model_config = ConfigDict(frozen=True)
    n_patients: int
    statistic: float
    p_value: float
    epsilon_squared: float


class Difference(BaseModel):
    """A measure in a stratum (all sources, or one); `classes` is None where fewer than two can be tested."""

    model_config = ConfigDict(frozen=True)
    measure: str
    stratum: str
    groups: dict[Label, Group]
    classes: Spread | None
    sources: Spread | None = None
    """The same test between the sources, whatever the class; for all sources only."""
    pairs: tuple[Pair, ...] = ()


def find_differences(patients: PatientValues, seed: int) -> tuple[Difference, ...]:
    """Test every measure over all sources and in each source that has two classes or more."""
    found = [_difference(patients, at, EVERYWHERE, seed) for at in range(len(ALL_MEASURES))]
    for source in sorted(set(patients.sources)):
        inside = patients.of_source(source)
        if len(np.unique(inside.labels)) > 1:
            found += [_difference(inside, at, source, seed) for at in range(len(ALL_MEASURES))]
    return tuple(found)


def cliffs_delta(first: Array, second: Array, axis: int = -1) -> Array:
    """Return P(first > second) - P(first < second) along the axis, by ranks."""
    n_first, n_second = first.shape[axis], second.shape[axis]
    ranks = stats.rankdata(np.concatenate([first, second], axis=axis), axis=axis)
    above = np.take(ranks, np.arange(n_first), axis=axis).sum(axis) - n_first * (n_first + 1) / 2
    return np.asarray(2 * above / (n_first * n_second) - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); the order stays."""
    order = np.argsort(p_values)
    raised = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return [float(p) for p in corrected]


def spread(groups: Sequence[Array]) -> Spread | None:
    """Run Kruskal-Wallis over the groups that are large enough; None where fewer than two are, or all is equal."""
    tested = [group for group in groups if len(group) >= LEAST_PATIENTS]
    if len(tested) < 2 or np.ptp(np.concatenate(tested)) == 0:
        return None
    result = stats.kruskal(*tested)
    n = sum(len(group) for group in tested)
    return Spread(
        n_patients=n,
        statistic=float(result.statistic),
        p_value=float(result.pvalue),
        epsilon_squared=float(result.statistic) / (n - 1),
    )


def _difference(patients: PatientValues, at: int, stratum: str, seed: int) -> Difference:
    values = patients.values[:, at]
    groups = {label: values[patients.labels == index] for index, label in enumerate(LABELS)}
    present = {label: group for label, group in groups.items() if len(group)}
    sources = np.asarray(patients.sources)
    return Difference(
        measure=ALL_MEASURES[at].name,
        stratum=stratum,
        groups={label: _group(group) for label, group in present.items()},
        classes=spread(list(present.values())),
        sources=spread([values[sources == s] for s in np.unique(sources)]) if stratum == EVERYWHERE else None,
        pairs=_pairs(present, seed),
    )


def _group(values: Array) -> Group:
    low, median, high = np.percentile(values, (25, 50, 75))
    return Group(n_patients=len(values), median=float(median), low_quartile=float(low), high_quartile=float(high))


def _pairs(groups: dict[Label, Array], seed: int) -> tuple[Pair, ...]:
    pairs = list(combinations([label for label, group in groups.items() if len(group) >= LEAST_PATIENTS], 2))
    p_values = [float(stats.mannwhitneyu(groups[first], groups[second]).pvalue) for first, second in pairs]
    return tuple(
        Pair(
            first=first,
            second=second,
            p_value=p_value,
            p_holm=corrected,
            cliffs_delta=_delta_with_interval(groups[first], groups[second], seed),
        )
        for (first, second), p_value, corrected in zip(pairs, p_values, holm(p_values), strict=True)
    )


def _delta_with_interval(first: Array, second: Array, seed: int) -> Estimate:
    """Draw patients with replacement within each class; 95 % percentile interval."""
    drawn = stats.bootstrap(
        (first, second),
        cliffs_delta,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = drawn.confidence_interval
    return Estimate(value=float(cliffs_delta(first, second)), low=float(low), high=float(high))
