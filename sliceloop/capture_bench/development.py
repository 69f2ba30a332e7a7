"""The edge's own path, whole and with one stage off each, as the benchmark takes it."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_agent.calibration import Calibration
from edge_agent.develop import Development, DevelopmentSettings, PictureRefusedError
from edge_agent.intake import Intake
from edge_agent.unlike import refuse_unlike
from sliceloop.capture_bench.path import Outcome, Paths, PicturePath
from training.model.reader import OnnxReader

STAGES = ("photometry", "quality_gate", "intake")
"""Switches of `DevelopmentSettings`."""
UNLIKENESS = "unlikeness"
"""The network's own refusal, which needs a network."""


def development_paths(calibration: Calibration | None = None, intake: Intake | None = None) -> Paths:
    """Return the path of the edge with these parts, and the same with each stage switched off."""
    whole = DevelopmentSettings()
    return Paths(
        path_of(Development(whole, calibration, intake)),
        {stage: path_of(Development(whole.model_copy(update={stage: False}), calibration, intake)) for stage in STAGES},
    )


def with_unlikeness(
    paths: Paths, network: OnnxReader | None, most_unlike: float = DevelopmentSettings().unlikeness
) -> Paths:
    """Return paths that refuse, as the edge does, what is unlike what the network learnt from; without is a stage off.

    Without a network, or with one that does not tell, the paths stay as they are.
    """
    if network is None or not network.tells_unlikeness:
        return paths

    def refusing(path: PicturePath) -> PicturePath:
        return _refusing_unlike(path, network, most_unlike)

    off = {stage: refusing(path) for stage, path in paths.without.items()}
    return Paths(refusing(paths.whole), off | {UNLIKENESS: paths.whole})


def path_of(development: Development) -> PicturePath:
    """Return a path that gives a refused frame as an outcome."""

    def path(frame: NDArray[np.uint8], /) -> Outcome:
        try:
            developed = development(frame)
        except PictureRefusedError as error:
            return Outcome(None, error.quad, 0.0, tuple(str(one) for one in error.refusals), error.milliseconds)
        return Outcome(developed.pixels, developed.quad, developed.score, (), developed.milliseconds)

    return path


def _refusing_unlike(developing: PicturePath, network: OnnxReader, most_unlike: float) -> PicturePath:
    def path(frame: NDArray[np.uint8], /) -> Outcome:
        outcome = developing(frame)
        if outcome.pixels is None:
            return outcome
        try:
            refuse_unlike(network.read(outcome.pixels), most_unlike)
        except PictureRefusedError as error:
            return replace(outcome, pixels=None, refusals=tuple(map(str, error.refusals)))
        return outcome

    return path
