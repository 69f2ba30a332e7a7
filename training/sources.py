"""Leave one source out: what a network is worth on a source that taught it nothing, beside one that saw it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from protocol.labels import LABELS, Label
from training.evaluate import Evaluation, SourceFigures, evaluate
from training.kept import KeptResults, SearchStoppedError
from training.pool import Learner, Mask, Pool
from training.pulse import DeadRunError

UP_TO = {"val": ("train", "val"), "test": ("train", "val", "test")}
"""Splits of a left-out source that are judged: all, but the test split only where the test split is asked for."""


class NoSourceError(ValueError):
    """A data set of one source, where there is none to leave out."""


class SourceResult(BaseModel):
    """One source: unseen on all its slices, unseen and seen on those of the judged split; None where there are none."""

    model_config = ConfigDict(frozen=True)
    source: str
    classes: tuple[Label, ...]
    unseen_all: SourceFigures | None = None
    unseen: SourceFigures | None = None
    seen: SourceFigures | None = None
    skipped: str = ""
    """Why nothing could be learnt without this source."""


@dataclass(frozen=True)
class SourcesPlan:
    """The split (val or test) on which unseen and seen are compared; the excluded sources neither teach nor judge."""

    split: str
    seed: int = 0
    without_sources: tuple[str, ...] = ()


def leave_each_source_out(
    pool: Pool,
    learner: Learner,
    plan: SourcesPlan,
    kept: KeptResults,
    *,
    on_source: Callable[[SourceResult, int], None] = lambda _result, _total: None,
    stop: threading.Event | None = None,
) -> tuple[SourceResult, ...]:
    """Learn from all sources but one, for each source in turn, and once from all; keep each result.

    The left-out source is judged on all its slices (see UP_TO), and on those of the plan's split alone, where the
    network that saw its training slices is judged too. Raises `NoSourceError` and what the learner raises; after
    `TrainingStoppedError` the same call goes on.
    """
    present = ~pool.of_sources(plan.without_sources)
    names = sorted(set(np.array(pool.slices.sources)[present].tolist()))
    if len(names) < 2:
        raise NoSourceError(f"the data set has no source but {', '.join(names)}: there is none to leave out")
    _refuse_set(stop, 0)
    seen = kept.get("with-all", _Seen, lambda: _seen(pool, learner, plan, present))
    results: list[SourceResult] = []
    for done, name in enumerate(names):
        _refuse_set(stop, done)
        result = kept.get(f"without-{name}", SourceResult, lambda: _result(pool, learner, plan, present, name, seen))  # noqa: B023
        results.append(result)
        on_source(result, len(names))
    return tuple(results)


class _Seen(BaseModel):
    evaluation: Evaluation


def _seen(pool: Pool, learner: Learner, plan: SourcesPlan, present: Mask) -> _Seen:
    judge = pool.of_splits(plan.split) & present
    learn_from, validate_on = pool.of_splits("train") & present, pool.of_splits("val") & present
    logits = learner.read_after(learn_from, validate_on, judge, plan.seed)
    judged = pool.slices.select(judge)
    return _Seen(evaluation=evaluate(logits, judged.labels, judged.patients, judged.sources))


def _result(pool: Pool, learner: Learner, plan: SourcesPlan, present: Mask, name: str, seen: _Seen) -> SourceResult:
    of_source = pool.of_sources([name])
    learn_from, validate_on = (pool.of_splits(split) & present & ~of_source for split in ("train", "val"))
    judge = of_source & pool.of_splits(*UP_TO[plan.split])
    judge &= ~pool.of_patients(sorted(set(np.array(pool.slices.patients)[learn_from].tolist())))
    result = SourceResult(source=name, classes=_classes(pool, of_source), seen=seen.evaluation.by_source.get(name))
    skipped = _why_not(pool, learn_from, validate_on, judge, name, plan.split)
    if skipped:
        return result.model_copy(update={"skipped": skipped})
    try:
        logits = learner.read_after(learn_from, validate_on, judge, plan.seed)
    except DeadRunError as error:
        return result.model_copy(update={"skipped": str(error)})
    judged = pool.slices.select(judge)
    everywhere = evaluate(logits, judged.labels, judged.patients, judged.sources).by_source[name]
    in_split = pool.of_splits(plan.split)[judge]
    there = judged.select(in_split)
    unseen = (
        evaluate(logits[in_split], there.labels, there.patients, there.sources).by_source[name] if len(there) else None
    )
    return result.model_copy(update={"unseen_all": everywhere, "unseen": unseen})


def _why_not(pool: Pool, learn_from: Mask, validate_on: Mask, judge: Mask, name: str, split: str) -> str:
    for what, mask in (("training", learn_from), ("validation", validate_on)):
        there = _classes(pool, mask)
        missing = [label for label in LABELS if label not in there]
        if missing:
            return f"without {name} no {what} slice of {', '.join(missing)} is left"
    return "" if judge.any() else f"no slice of {name} in {', '.join(UP_TO[split])}"


def _classes(pool: Pool, mask: Mask) -> tuple[Label, ...]:
    return tuple(label for index, label in enumerate(LABELS) if (pool.slices.labels[mask] == index).any())


def _refuse_set(stop: threading.Event | None, done: int) -> None:
    if stop is not None and stop.is_set():
        raise SearchStoppedError(done)


def summary_rows(results: Sequence[SourceResult]) -> list[dict[str, object]]:
    """Return a row of plain values for each source: for a CSV file and a table."""
    return [_row(result) for result in results]


def _row(result: SourceResult) -> dict[str, object]:
    row: dict[str, object] = {"source": result.source, "classes": " ".join(result.classes)}
    for name in ("unseen_all", "unseen", "seen"):
        figure: SourceFigures | None = getattr(result, name)
        estimate = figure and figure.balanced_accuracy
        row |= {
            f"{name}_slices": figure.n_slices if figure else "",
            f"{name}_patients": figure.n_patients if figure else "",
            f"{name}_balanced_accuracy": round(estimate.value, 4) if estimate else "",
            f"{name}_low": round(estimate.low, 4) if estimate else "",
            f"{name}_high": round(estimate.high, 4) if estimate else "",
        }
    return row | {"skipped": result.skipped}
