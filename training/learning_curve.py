"""The learning curve: what more patients are worth, as balanced accuracy against a budget of patients."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from protocol.labels import LABELS
from training.data.slices import SliceSet
from training.evaluate import Estimate, Evaluation, draw_patients, evaluate, interval
from training.kept import KeptResults, SearchStoppedError
from training.pool import Learner, Mask, Pool
from training.sampling import budget

ALL = "all"


class CurvePoint(BaseModel):
    """One network: what it learnt from, and what it is worth on the judged split."""

    model_config = ConfigDict(frozen=True)
    budget: str
    """Patients asked for, or "all"."""
    repeat: int
    """From 1; each repeat draws other patients."""
    n_patients: int
    n_slices: int
    evaluation: Evaluation
    answers: tuple[int, ...]
    """Index into LABELS of each judged slice."""


class CurveSource(BaseModel):
    """What the repeats are worth inside one source, over its classes."""

    model_config = ConfigDict(frozen=True)
    n_patients: int
    """Judged ones."""
    fewest_patients: int
    """Of a class; with one the interval says nothing."""
    balanced_accuracy: Estimate


class CurveBudget(BaseModel):
    """The repeats of one budget together."""

    model_config = ConfigDict(frozen=True)
    budget: str
    n_patients: int
    repeats: int
    balanced_accuracy: Estimate
    """Mean over the repeats; the interval is over the judged patients, the same draws for every repeat."""
    spread: float | None
    """Standard deviation over the repeats, so over what was learnt from; None for one repeat."""
    lowest: float
    highest: float
    by_source: dict[str, CurveSource]


@dataclass(frozen=True)
class Curve:
    """All points, and each budget's summary, smallest first."""

    points: tuple[CurvePoint, ...]
    budgets: tuple[CurveBudget, ...]


@dataclass(frozen=True)
class CurvePlan:
    """Budgets of patients ("all" among them) with so many repeats each; the sources left out teach nothing."""

    budgets: tuple[str, ...]
    repeats: int
    split: str
    seed: int = 0
    without_sources: tuple[str, ...] = ()


def learning_curve(
    pool: Pool,
    learner: Learner,
    plan: CurvePlan,
    kept: KeptResults,
    *,
    on_point: Callable[[CurvePoint, int], None] = lambda _point, _total: None,
    stop: threading.Event | None = None,
) -> Curve:
    """Learn from every budget, judge on the whole split, and keep each point; `on_point` hears of all of them.

    A repeat's larger budget holds its smaller one. Raises `BudgetError` before anything is learnt, and what the
    learner raises; after `TrainingStoppedError` the same call goes on.
    """
    taught = pool.of_splits("train") & ~pool.of_sources(plan.without_sources)
    draws = _draws(pool.slices.select(taught), plan, learner)
    points: list[CurvePoint] = []
    for done, (name, repeat, patients) in enumerate(draws):
        if stop is not None and stop.is_set():
            raise SearchStoppedError(done)
        learn_from = taught & pool.of_patients(patients)
        point = kept.get(
            f"{name}-{repeat}",
            CurvePoint,
            lambda: _point(pool, learner, plan, name, repeat, learn_from),  # noqa: B023
        )
        points.append(point)
        on_point(point, len(draws))
    return Curve(tuple(points), tuple(_summaries(points, pool.slices.select(_judged(pool, plan)))))


def _draws(train: SliceSet, plan: CurvePlan, learner: Learner) -> list[tuple[str, int, tuple[str, ...]]]:
    """Return the budget's name, the repeat and the patients of each point."""
    draws: list[tuple[str, int, tuple[str, ...]]] = []
    everybody = tuple(sorted(set(train.patients)))
    for name in plan.budgets:
        if name == ALL:
            repeats = 1 if learner.same_each_time else plan.repeats
            draws += [(name, repeat, everybody) for repeat in range(1, repeats + 1)]
        else:
            for repeat in range(1, plan.repeats + 1):
                chosen = budget(train, int(name), plan.seed + repeat - 1)
                draws.append((name, repeat, tuple(sorted(set(chosen.patients)))))
    return draws


def _judged(pool: Pool, plan: CurvePlan) -> Mask:
    return pool.of_splits(plan.split) & ~pool.of_sources(plan.without_sources)


def _point(pool: Pool, learner: Learner, plan: CurvePlan, name: str, repeat: int, learn_from: Mask) -> CurvePoint:
    validate_on = pool.of_splits("val") & ~pool.of_sources(plan.without_sources)
    logits = learner.read_after(learn_from, validate_on, _judged(pool, plan), plan.seed + repeat - 1)
    judged = pool.slices.select(_judged(pool, plan))
    return CurvePoint(
        budget=name,
        repeat=repeat,
        n_patients=len(set(np.array(pool.slices.patients)[learn_from])),
        n_slices=int(learn_from.sum()),
        evaluation=evaluate(logits, judged.labels, judged.patients, judged.sources),
        answers=tuple(logits.argmax(1).tolist()),
    )


def _summaries(points: Sequence[CurvePoint], judged: SliceSet) -> list[CurveBudget]:
    by_budget: dict[str, list[CurvePoint]] = {}
    for point in points:
        by_budget.setdefault(point.budget, []).append(point)
    return sorted((_summary(group, judged) for group in by_budget.values()), key=lambda one: one.n_patients)


def _summary(points: Sequence[CurvePoint], judged: SliceSet) -> CurveBudget:
    values = np.array([point.evaluation.balanced_accuracy.value for point in points])
    return CurveBudget(
        budget=points[0].budget,
        n_patients=points[0].n_patients,
        repeats=len(points),
        balanced_accuracy=_mean_with_interval(points, judged, np.ones(len(judged), np.bool_)),
        spread=float(values.std(ddof=1)) if len(points) > 1 else None,
        lowest=float(values.min()),
        highest=float(values.max()),
        by_source={name: _of_source(points, judged, name) for name in sorted(set(judged.sources))},
    )


def _of_source(points: Sequence[CurvePoint], judged: SliceSet, name: str) -> CurveSource:
    chosen = np.array(judged.sources) == name
    its = judged.select(chosen)
    patients = [len(set(np.array(its.patients)[its.labels == label])) for label in np.unique(its.labels)]
    return CurveSource(
        n_patients=len(set(its.patients)),
        fewest_patients=min(patients),
        balanced_accuracy=_mean_with_interval(points, judged, chosen),
    )


def _mean_with_interval(points: Sequence[CurvePoint], judged: SliceSet, chosen: Mask) -> Estimate:
    """Draw patients for the mean of the repeats: a sensitivity is linear in how often each slice was read rightly."""
    labels = judged.labels[chosen]
    right = np.mean([np.array(point.answers)[chosen] == labels for point in points], axis=0)
    times = draw_patients(labels, tuple(np.array(judged.patients)[chosen])).of_slices()
    return interval(float(_balanced(np.ones((1, len(right))), right, labels)[0]), _balanced(times, right, labels))


def _balanced(times: NDArray[np.float64], right: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean sensitivity [draws] of slices drawn so many times [draws, n]."""
    classes = [labels == index for index in range(len(LABELS)) if (labels == index).any()]
    return np.asarray(
        np.mean([times[:, of_class] @ right[of_class] / times[:, of_class].sum(1) for of_class in classes], axis=0)
    )
