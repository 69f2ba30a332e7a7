"""How often a candidate answers otherwise than the incumbent on held-back slices: an edge must not mind that."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from protocol.labels import LABELS
from protocol.manifest import ProbationBounds
from protocol.messages import Probability

Z = 1.96
"""Of a two-sided 95 % interval."""
MOST = 0.5
"""Above it a probation finds hardly anything within 50 slices; who means it, sets `release.probation`."""


class ExpectedChanges(BaseModel):
    """Upper ends of 95 % intervals (Wilson, with patients as the number of trials, since slices of one are alike)."""

    model_config = ConfigDict(frozen=True)
    disagreement: Probability
    """Another label."""
    shift: Probability
    """Of all slices, that get one label which they did not have."""
    abstention: Probability
    """Uncertain where the incumbent was not."""


def expected_changes(
    incumbent: NDArray[np.float64], candidate: NDArray[np.float64], uncertain_below: float, patients: Sequence[str]
) -> ExpectedChanges | None:
    """Compare the probabilities float64 [n, 3] of both networks; None where the incumbent is sure of no slice."""
    certain = incumbent.max(axis=1) >= uncertain_below
    if not certain.any():
        return None
    before, after = incumbent[certain].argmax(axis=1), candidate[certain].argmax(axis=1)
    whose = np.array(patients)[certain]
    other = before != after
    shifts = [_upper(other & (after == label), whose) for label in range(len(LABELS))]
    abstained = _upper(candidate[certain].max(axis=1) < uncertain_below, whose)
    return ExpectedChanges(disagreement=_upper(other, whose), shift=max(shifts), abstention=abstained)


def allowing(bounds: ProbationBounds, expected: ExpectedChanges | None) -> ProbationBounds:
    """Return bounds that are wide enough for what is expected, and no narrower than they are."""
    if expected is None:
        return bounds
    return bounds.model_copy(
        update={
            "max_disagreement": max(bounds.max_disagreement, min(expected.disagreement, MOST)),
            "max_shift": max(bounds.max_shift, min(expected.shift, MOST)),
            "max_abstention": max(bounds.max_abstention, min(expected.abstention, MOST)),
        }
    )


def probabilities(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return what a network's readings say of the slices, float64 [n, 3]."""
    scaled = logits.astype(np.float64) / temperature
    odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _upper(events: NDArray[np.bool_], patients: NDArray[np.str_]) -> float:
    """Return the upper end of Wilson's interval (1927) for a share of slices."""
    n, share = len(set(patients.tolist())), float(events.mean())
    centre = share + Z**2 / (2 * n)
    spread = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return min(1.0, (centre + spread) / (1 + Z**2 / n))
