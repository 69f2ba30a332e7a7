"""Weigh how quads look: a scorecard ranks the outlines, a small network judges the best of them together.

The numbers lie in judge.json; sliceloop.judge_fit fits them to simulated frames alone: over one frame's quads and the
answer that none is the slice, as a conditional logit (McFadden 1974). So a quad's chance is its share among its rivals.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from edge_agent.locate.edges import Floats
from edge_agent.locate.looks import CONTENT, OUTLINE

WEIGHTS_FILE = "judge.json"
_MOST_SCALES = 4.0
"""Looks further from the usual than so many standard deviations count as that far."""
_MOST_LOGIT = 30.0


@dataclass(frozen=True)
class _Weights:
    """The scorecard's knots and points [looks, knots] (a row's last knot is repeated), and the network's matrices."""

    knots: Floats
    points: Floats
    mean: Floats
    scale: Floats
    hidden: Floats
    hidden_bias: Floats
    output: Floats
    output_bias: float


def outline_scores(looks: Floats) -> Floats:
    """Return the score [n] of outlines that look like this [n, len(OUTLINE)]: points between knots, added up."""
    weights = _weights()
    columns = (np.interp(looks[:, i], k, p) for i, (k, p) in enumerate(zip(weights.knots, weights.points, strict=True)))
    return np.asarray(sum(columns), np.float32)


def judge(looks: Floats) -> Floats:
    """Return the logit [n] of quads that look like this [n, len(CONTENT + OUTLINE)] to be the slice; none has 0."""
    weights = _weights()
    usual = np.clip((looks - weights.mean) / weights.scale, -_MOST_SCALES, _MOST_SCALES)
    logits = np.tanh(usual @ weights.hidden + weights.hidden_bias) @ weights.output + weights.output_bias
    return np.asarray(np.clip(logits, -_MOST_LOGIT, _MOST_LOGIT), np.float32)


@cache
def _weights() -> _Weights:
    stored = json.loads(files("edge_agent.locate").joinpath(WEIGHTS_FILE).read_text())
    if tuple(stored["outline"]) != OUTLINE or tuple(stored["looks"]) != CONTENT + OUTLINE:
        raise ValueError(f"{WEIGHTS_FILE} weighs other looks than are measured; fit it again")
    card: list[dict[str, list[float]]] = list(stored["outline"].values())
    most = max(len(row["knots"]) for row in card)
    network: dict[str, NDArray[np.float32]] = {
        name: np.array(value, np.float32) for name, value in stored["network"].items()
    }
    return _Weights(
        np.array([_filled(row["knots"], most, 1e-6) for row in card], np.float32),
        np.array([_filled(row["points"], most, 0.0) for row in card], np.float32),
        network["mean"],
        network["scale"],
        network["hidden"],
        network["hidden bias"],
        network["output"],
        float(network["output bias"]),
    )


def _filled(values: list[float], length: int, step: float) -> list[float]:
    """Repeat the last value up to this length, rising so little that knots stay in order."""
    return values + [values[-1] + step * (i + 1) for i in range(length - len(values))]
