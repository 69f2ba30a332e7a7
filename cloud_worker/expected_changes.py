"""How often a candidate answers otherwise than the incumbent on held-back slices: an edge must not mind that."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
MOST_CONTRADICTION = 0.87
"""Above it the 64 slices of a label that an edge keeps tell nothing: 64 contradictions of 64 are evidence of 3,600 here
(1 / 0.88 to the power of 64), and of 27 at 0.95."""


class ExpectedChanges(BaseModel):
    """Upper ends of 95 % intervals (Wilson, with patients as the number of trials, since slices of one are alike).

    Each is the greatest over parts of the held-back slices of which any site's slices are a mixture, however rare
    findings are there. Of a part without slices nothing is known: its upper end is 1.
    """

    model_config = ConfigDict(frozen=True)
    disagreement: Probability
    """Another label, of slices that are truly of one label."""
    contradiction: Probability = 1.0
    """Another label, of slices to which the incumbent gave one label, rightly or wrongly; nothing is known from gates
    of before."""
    shift: Probability
    """One label that the incumbent did not give, of slices that are truly of one label."""
    abstention: Probability
    """Uncertain where the incumbent was not, of slices that are truly of one label."""


@dataclass(frozen=True)
class Answers:
    """What one network says of n slices: labels int64 [n] index into LABELS, certain bool [n]."""

    labels: NDArray[np.int64]
    certain: NDArray[np.bool_]


def answers(probabilities: NDArray[np.float64], uncertain_below: float) -> Answers:
    """Return what readings with these probabilities, float64 [n, 3], say."""
    return Answers(probabilities.argmax(axis=1), probabilities.max(axis=1) >= uncertain_below)


def expected_changes(
    incumbent: Answers, candidate: Answers, truth: NDArray[np.int64], patients: Sequence[str]
) -> ExpectedChanges | None:
    """Compare the answers of both networks to slices of true labels; None where the incumbent is sure of no slice."""
    sure = incumbent.certain
    if not sure.any():
        return None
    before, after = incumbent.labels[sure], candidate.labels[sure]
    labels, whose = range(len(LABELS)), np.array(patients)[sure]
    other, unsure = before != after, ~candidate.certain[sure]
    truly = [truth[sure] == label for label in labels]
    # no parts for findings as a whole: they are a mixture of those of Pneumonia and of COVID-19
    said = [(before == label) & (right == (before == truth[sure])) for label in labels for right in (True, False)]
    return ExpectedChanges(
        disagreement=_greatest(other, truly, whose),
        contradiction=_greatest(other, said, whose),
        shift=max(_greatest(other & (after == label), truly, whose) for label in labels),
        abstention=_greatest(unsure, truly, whose),
    )


def allowing(bounds: ProbationBounds, expected: ExpectedChanges | None) -> ProbationBounds:
    """Return bounds that are wide enough for what is expected, and no narrower than they are."""
    if expected is None:
        return bounds
    return bounds.model_copy(
        update={
            "max_disagreement": max(bounds.max_disagreement, min(expected.disagreement, MOST)),
            "max_contradiction": max(bounds.max_contradiction, min(expected.contradiction, MOST_CONTRADICTION)),
            "max_shift": max(bounds.max_shift, min(expected.shift, MOST)),
            "max_abstention": max(bounds.max_abstention, min(expected.abstention, MOST)),
        }
    )


def probabilities(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return what a network's readings say of the slices, float64 [n, 3]."""
    scaled = logits.astype(np.float64) / temperature
    odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _greatest(events: NDArray[np.bool_], parts: Iterable[NDArray[np.bool_]], patients: NDArray[np.str_]) -> float:
    """Return the greatest of the upper ends over parts of the slices."""
    return max(_upper(events[part], patients[part]) for part in parts)


def _upper(events: NDArray[np.bool_], patients: NDArray[np.str_]) -> float:
    """Return the upper end of Wilson's interval (1927) for a share of slices."""
    if not len(events):
        return 1.0
    n, share = len(set(patients.tolist())), float(events.mean())
    centre = share + Z**2 / (2 * n)
    spread = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return min(1.0, (centre + spread) / (1 + Z**2 / n))
