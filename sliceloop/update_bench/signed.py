"""The bounds that a candidate would be signed with: what a gate sees on held-back slices widens them."""

import random
from collections.abc import Iterable, Sequence

import numpy as np

from cloud_worker.expected_changes import Answers, allowing, expected_changes
from edge_agent.probation import Answer, Bounds
from protocol.labels import LABELS
from protocol.manifest import ProbationBounds
from sliceloop.update_bench.kinds import Kind

HELD_BACK_EACH = 30
"""Patients of each true label, of whom one slice is held back."""


def signed(kind: Kind, seed: int) -> Bounds:
    """Return the default bounds, widened by what the gate sees; the same seed gives the same held-back slices."""
    chance = random.Random(f"{kind.name} held back {seed}")  # noqa: S311  a simulation
    draw = kind.gate or kind.draw
    truth = np.repeat(np.arange(len(LABELS)), HELD_BACK_EACH)
    candidate, incumbent = zip(*(draw(LABELS[label], chance) for label in truth), strict=True)
    patients = [f"p{number}" for number in range(len(truth))]
    changes = expected_changes(_answers(incumbent), _answers(candidate), truth, patients)
    return Bounds.model_validate(allowing(ProbationBounds(), changes))


def widest(bounds: Iterable[Bounds]) -> Bounds:
    """Return bounds that allow whatever one of these does."""
    every = [each.model_dump() for each in bounds]
    return Bounds(**{name: max(each[name] for each in every) for name in Bounds.model_fields})


def _answers(said: Sequence[Answer]) -> Answers:
    return Answers(
        np.array([LABELS.index(answer.label) for answer in said], np.int64),
        np.array([not answer.uncertain for answer in said]),
    )
