"""Whether two networks are right on the same slices: McNemar's exact test, and Holm's correction for several."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest


class McNemar(BaseModel):
    """How often only one of two is right, and the chance of a split as uneven as this if both were equally good."""

    model_config = ConfigDict(frozen=True)
    n: int
    only_first_right: int
    only_second_right: int
    p: float
    p_holm: float
    """Corrected for all pairs of the same table; alone, the same as `p`."""


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """Test whether one of two is right more often than the other, two-sided and exact, over the same n answers.

    Answers must be independent: slices of one patient are not, so that the test by slice finds too much.
    """
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return McNemar(n=len(first_right), only_first_right=only_first, only_second_right=only_second, p=p, p_holm=p)


def corrected(tests: Sequence[McNemar]) -> list[McNemar]:
    """Return the tests with Holm's correction over all of them (Holm 1979)."""
    adjusted = holm([test.p for test in tests])
    return [test.model_copy(update={"p_holm": p}) for test, p in zip(tests, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values adjusted so that all of them together are wrong at most as often as one alone."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return [float(p) for p in adjusted]
