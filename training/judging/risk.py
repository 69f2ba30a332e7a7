"""What a network gets wrong when it may abstain where it is least sure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from training.evaluate import Array, Estimate, Labels, PatientDraws, interval
from training.judging.curves import GRID, blocks_of

ERROR_TARGETS = (0.2, 0.1, 0.05, 0.02, 0.01)
_BAND = (2.5, 97.5)


class Abstention(BaseModel):
    """The least share of answers to give up so that at most `error` of the others are wrong.

    The threshold is looked up on these very slices, so that new ones will cost more.
    """

    model_config = ConfigDict(frozen=True)
    error: float
    abstained: Estimate


class OwnThreshold(BaseModel):
    """What happens at the threshold that the model brings along, which these slices had no part in."""

    model_config = ConfigDict(frozen=True)
    uncertain_below: float
    answered: Estimate
    error: Estimate | None
    """None where nothing was answered."""


class RiskCoverage(BaseModel):
    """Error among the answered against the share answered; `area` is the mean error over all shares, less is better."""

    model_config = ConfigDict(frozen=True)
    area: Estimate
    error_of_all: Estimate
    abstention: tuple[Abstention, ...]
    own_threshold: OwnThreshold


@dataclass(frozen=True)
class RiskCurve:
    """Points [k] from the surest answer on, and the band [2, 101] over GRID as the coverage."""

    coverage: Array
    risk: Array
    band: Array


def risk_curve(
    probabilities: Array, labels: Labels, draws: PatientDraws, uncertain_below: float
) -> tuple[RiskCurve, RiskCoverage]:
    """Give up the answers with the least confidence first; probabilities [n, 3], labels [n]."""
    confidence, wrong = probabilities.max(1), probabilities.argmax(1) != labels
    here = _Risks(confidence, wrong, np.ones((1, len(labels))))
    drawn = [_Risks(confidence, wrong, draws.of_slices(block)) for block in blocks_of(len(labels), len(draws.times))]
    band = np.concatenate([part.over_grid() for part in drawn])
    figures = RiskCoverage(
        area=interval(here.area[0], np.concatenate([part.area for part in drawn])),
        error_of_all=interval(here.risk[0, -1], np.concatenate([part.risk[:, -1] for part in drawn])),
        abstention=tuple(
            Abstention(
                error=error,
                abstained=interval(here.abstained(error)[0], np.concatenate([part.abstained(error) for part in drawn])),
            )
            for error in ERROR_TARGETS
        ),
        own_threshold=_own_threshold(confidence >= uncertain_below, wrong, draws, uncertain_below),
    )
    return RiskCurve(here.coverage[0], here.risk[0], np.nanpercentile(band, _BAND, axis=0)), figures


class _Risks:
    """Coverage and risk [r, k] at each distinct confidence, the highest first, for weights [r, n]."""

    def __init__(self, confidence: Array, wrong: NDArray[np.bool_], weights: Array) -> None:
        order = np.argsort(-confidence, kind="stable")
        last_of_tie = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)
        answered = np.cumsum(weights[:, order], axis=1)[:, last_of_tie]
        errors = np.cumsum(weights[:, order] * wrong[order], axis=1)[:, last_of_tie]
        self.coverage = answered / answered[:, -1:]
        self.risk = np.divide(errors, answered, out=np.zeros_like(errors), where=answered > 0)
        self.area = (self.risk * np.diff(self.coverage, axis=1, prepend=0)).sum(1)

    def abstained(self, error: float) -> Array:
        """Return the least abstained share [r] with a risk of at most `error`; 1 where no threshold gives that."""
        return np.asarray(1 - np.where(self.risk <= error, self.coverage, 0).max(1))

    def over_grid(self) -> Array:
        """Return the risk [r, 101] at the first threshold that reaches each coverage of GRID."""
        at = [np.minimum(np.searchsorted(row, GRID), len(row) - 1) for row in self.coverage]
        return np.take_along_axis(self.risk, np.stack(at), axis=1)


def _own_threshold(
    answered: NDArray[np.bool_], wrong: NDArray[np.bool_], draws: PatientDraws, uncertain_below: float
) -> OwnThreshold:
    counts = np.zeros((draws.times.shape[1], 3))
    np.add.at(counts, draws.of_slice, np.stack([np.ones(len(wrong)), answered, answered & wrong], axis=1))
    n, given, errors = counts.sum(0)
    drawn_n, drawn_given, drawn_errors = (draws.times @ counts).T
    drawn_error = np.divide(drawn_errors, drawn_given, out=np.full(len(drawn_n), np.nan), where=drawn_given > 0)
    return OwnThreshold(
        uncertain_below=uncertain_below,
        answered=interval(given / n, drawn_given / drawn_n),
        error=interval(errors / given, drawn_error) if given else None,
    )
