"""Cases: which slice is shown at which severity, with which dice; each is one frame of the benchmark."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from training.screen_camera import EmptyScene, Factor
from training.screen_camera.factors import MOST_SEVERITY

SEVERITIES = (0.0, 0.6, 1.0, 1.6)


class BadSeverityError(ValueError):
    """Severities that are no numbers, or that the simulator does not have."""


class Case(BaseModel):
    """One frame to take: a slice with all factors or with a single one (`only`), or a scene without a slice."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["slice", "factor", "empty"]
    severity: float
    seed: int
    """Of the simulated shot; the same for all severities of a slice, so that they differ in severity alone."""
    at: int = -1
    """Number of the slice among those of the benchmark; -1 where there is none."""
    only: Factor | None = None
    scene: EmptyScene | None = None


class CasePlan(BaseModel):
    """How many frames of each kind."""

    model_config = ConfigDict(frozen=True)
    severities: tuple[float, ...] = SEVERITIES
    shots: int = Field(default=1, ge=1)
    """Frames of each slice at each severity."""
    factor_slices: int = Field(default=20, ge=0)
    """Slices, drawn evenly over the classes, that are also shown with one factor at a time."""
    empty_scenes: int = Field(default=25, ge=0)
    """Frames without a slice of each kind at each severity."""
    seed: int = Field(default=0, ge=0)


def parse_severities(text: str) -> tuple[float, ...]:
    """Read "0,0.6,1,1.6", each once and in order; raises `BadSeverityError`."""
    try:
        told = sorted({float(one) for one in text.split(",")})
    except ValueError:
        told = []
    if not told or not all(0 <= one <= MOST_SEVERITY for one in told):
        raise BadSeverityError(f"severities '{text}' are not numbers from 0 to {MOST_SEVERITY:g}, as in 0,0.6,1,1.6")
    return tuple(told)


def cases(plan: CasePlan, slice_ids: Sequence[str], labels: Sequence[int]) -> tuple[Case, ...]:
    """List the frames to take, slice by slice, then without slices, then factor by factor."""
    return (*_slice_cases(plan, slice_ids), *_empty_cases(plan), *_factor_cases(plan, slice_ids, labels))


def stratified(labels: Sequence[int], count: int, seed: int) -> tuple[int, ...]:
    """Draw so many numbers of slices (or all), the classes as even as they allow, in an order that tells nothing."""
    rng = np.random.default_rng(seed)
    waiting: defaultdict[int, list[int]] = defaultdict(list)
    for at in rng.permutation(len(labels)).tolist():
        waiting[labels[at]].append(at)
    drawn: list[int] = []
    while len(drawn) < min(count, len(labels)):
        drawn += [of_class.pop() for _, of_class in sorted(waiting.items()) if of_class]
    return tuple(drawn[at] for at in rng.permutation(min(count, len(drawn))).tolist())


def shot_seed(seed: int, *parts: object) -> int:
    """Return the seed of one shot: its own for each slice and each repetition."""
    digest = hashlib.sha256(":".join(map(str, (seed, *parts))).encode()).digest()
    return int.from_bytes(digest[:4])


def _slice_cases(plan: CasePlan, slice_ids: Sequence[str]) -> Iterator[Case]:
    for at, slice_id in enumerate(slice_ids):
        for shot in range(plan.shots):
            for severity in plan.severities:
                yield Case(kind="slice", severity=severity, seed=shot_seed(plan.seed, slice_id, shot), at=at)


def _empty_cases(plan: CasePlan) -> Iterator[Case]:
    for scene in EmptyScene:
        for number in range(plan.empty_scenes):
            for severity in plan.severities:
                yield Case(kind="empty", severity=severity, seed=shot_seed(plan.seed, scene, number), scene=scene)


def _factor_cases(plan: CasePlan, slice_ids: Sequence[str], labels: Sequence[int]) -> Iterator[Case]:
    chosen = stratified(labels, plan.factor_slices, plan.seed)
    for factor in Factor:
        for at in chosen:
            for severity in filter(None, plan.severities):  # at 0 no factor does anything
                seed = shot_seed(plan.seed, slice_ids[at], 0)
                yield Case(kind="factor", severity=severity, seed=seed, at=at, only=factor)
