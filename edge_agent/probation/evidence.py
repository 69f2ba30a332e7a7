"""Evidence, as an e-process, that an event is more frequent than a bound allows; it may be looked at after each trial.

A gambler stakes 1 on "the rate is q" against "the rate is the bound": each event multiplies the fortune by q / bound,
each trial without one by (1 - q) / (1 - bound). While the true rate is within the bound, whatever the past, the
fortune is expected to shrink or stay (for q above the bound): a supermartingale. By Ville's inequality it ever reaches
1 / alpha with a chance of alpha at most, so that no fixed number of trials is needed. Betting: Waudby-Smith and Ramdas
2023, "Estimating means of bounded random variables by betting"; mixtures over q and stopping at any time: Howard,
Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, NonNegativeInt

LARGEST_LOG = 690.0
"""Of a fortune: exp() of more overflows; evidence of this size has long decided."""


class Count(BaseModel):
    """How many trials there were, and in how many the event happened: all that the evidence depends on."""

    model_config = ConfigDict(frozen=True)

    trials: NonNegativeInt = 0
    events: NonNegativeInt = 0

    def plus(self, happened: bool) -> "Count":
        """Return the count after one more trial."""
        return Count(trials=self.trials + 1, events=self.events + happened)


@dataclass(frozen=True)
class Stakes:
    """How the stake of 1 is divided over rates above the bound: the larger the share, the sooner such a rate shows."""

    sure: float
    """On rate 1: the event in every trial. One trial without it, and this share is lost for good."""
    clear: float
    """On a third of the way from the bound to 1: for a bound of 25 % that is twice as many."""
    slight: float
    """On a ninth of the way: what shows in hundreds of trials only."""

    def rates(self, bound: float) -> Mapping[float, float]:
        """Return the share of the stake by rate."""
        above = 1 - bound
        return {1.0: self.sure, bound + above / 3: self.clear, bound + above / 9: self.slight}


def evidence(count: Count, bound: float, stakes: Stakes) -> float:
    """Return what a stake of 1 has become, from 0; expected to be 1 at most while the rate is within the bound (0..1).

    The fortune of a mixture is the mixture of the fortunes, and each depends on the two counts alone: no past is kept.
    """
    return math.fsum(share * _fortune(count, bound, rate) for rate, share in stakes.rates(bound).items() if share > 0)


def _fortune(count: Count, bound: float, rate: float) -> float:
    without = count.trials - count.events
    if rate >= 1:
        return 0.0 if without else math.exp(min(-count.events * math.log(bound), LARGEST_LOG))
    log = count.events * math.log(rate / bound) + without * math.log((1 - rate) / (1 - bound))
    return math.exp(min(log, LARGEST_LOG))
