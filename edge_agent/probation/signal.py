"""One way to be out of bounds: what a candidate was seen to do too often, and the evidence that it does."""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.probation.bounds import Bounds
from edge_agent.probation.evidence import Count, Stakes, evidence
from edge_agent.probation.said import Said, other_answers
from protocol.labels import Label

WEIGHTS: Mapping[str, float] = {
    "findings": 0.41,
    "all": 0.25,
    "label": 0.03,
    "shift": 0.02,
    "abstention": 0.03,
    "slow": 0.03,
    "kept findings": 0.025,
    "kept label": 0.035,
}
"""Shares of the stake, 1 over all fourteen signals (three labels, three shifts, three kept labels). The mean of
e-processes is one itself, under any dependence (Vovk and Wang 2021, "E-values: calibration, combination and
applications"), so signals that speak together add up, which shares of alpha would not. Findings have the most because
they are rare: with 80 % Normal one run of 54 meets no more than four in 50 slices, and these four have to do. Kept
slices are many: a small share is enough for them."""
STAKES: Mapping[str, Stakes] = {
    "findings": {1.0: 0.96, 0.9: 0.04},
    "all": {1 / 3: 0.9, 1 / 9: 0.1},
    "label": {1.0: 0.85, 0.9: 0.15},
    "shift": {1.0: 0.5, 1 / 3: 0.4, 1 / 9: 0.1},
    "abstention": {1.0: 0.5, 1 / 3: 0.4, 1 / 9: 0.1},
    "slow": {1.0: 0.5, 1 / 3: 0.4, 1 / 9: 0.1},
    "kept findings": {1.0: 0.7, 0.9: 0.3},
    "kept label": {1.0: 0.9, 0.9: 0.1},
}


@dataclass(frozen=True)
class Signal:
    """How often something happened that may happen in a share of slices, the bound."""

    kind: str
    count: Count
    bound: float
    labels: tuple[Label, ...] = ()
    said: Said | None = None
    """Of a contradiction."""

    @property
    def evidence(self) -> float:
        """Return this signal's part of the fortune."""
        return WEIGHTS[self.kind] * evidence(self.count, self.bound, STAKES[self.kind])

    def say(self, incumbent: str, bounds: Bounds) -> str:
        """Say it for the verdict, "said Normal where release 6 said Pneumonia on 4 of 4 slices (allowed 25%)"."""
        slices = "kept slices" if self.kind.startswith("kept") else "slices"
        often = f"{self.count.events} of {self.count.trials} {slices}"
        return f"{self._what(incumbent, bounds)} on {often} (allowed {self.bound:.0%})"

    def _what(self, incumbent: str, bounds: Bounds) -> str:
        match self.kind:
            case "all":
                return f"gave another label than {incumbent}"
            case "shift":
                return f"said {self.labels[0]} where {incumbent} did not"
            case "abstention":
                return f"was uncertain where {incumbent} was certain"
            case "slow":
                return f"took over {bounds.max_latency_ratio:g} times as long as {incumbent} usually does"
        answers = other_answers(self.said or {}, self.labels)
        what = f"said {answers[0]}" if len(answers) == 1 else "gave another label"
        return f"{what} where {incumbent} said {' or '.join(self.labels)}"
