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

from pydantic import BaseModel, ConfigDict, NonNegativeInt

LARGEST_LOG = 690.0
"""Of a fortune: exp() of more overflows; evidence of this size has long decided."""

LEAST_BOUND = 1e-9


class Count(BaseModel):
    """How many trials there were, and in how many the event happened: all that the evidence depends on."""

    model_config = ConfigDict(frozen=True)

    trials: NonNegativeInt = 0
    events: NonNegativeInt = 0

    def plus(self, happened: bool) -> "Count":
        """Return the count after one more trial."""
        return Count(trials=self.trials + 1, events=self.events + happened)


Stakes = Mapping[float, float]
"""Shares of the stake of 1 by how far the rate lies on the way from the bound to 1, (0..1]: 1 is the event in every
trial (one without it, and this share is lost for good), a third of the way is twice a bound of 25 %, and a ninth is
what shows in hundreds of trials only. The larger the share, the sooner such a rate shows."""


def evidence(count: Count, bound: float, stakes: Stakes) -> float:
    """Return what a stake of 1 has become, from 0; expected to be 1 at most while the rate is within the bound (0..1).

    A bound of 1 allows everything, and one of 0 nothing: then a single event is more than enough.
    The fortune of a mixture is the mixture of the fortunes, and each depends on the two counts alone: no past is kept.
    """
    if bound >= 1 or not count.trials:
        return 1.0
    bound = max(bound, LEAST_BOUND)
    return math.fsum(share * _fortune(count, bound, bound + way * (1 - bound)) for way, share in stakes.items())


def _fortune(count: Count, bound: float, rate: float) -> float:
    without = count.trials - count.events
    if rate >= 1:
        return 0.0 if without else math.exp(min(-count.events * math.log(bound), LARGEST_LOG))
    log = count.events * math.log(rate / bound) + without * math.log((1 - rate) / (1 - bound))
    return math.exp(min(log, LARGEST_LOG))
