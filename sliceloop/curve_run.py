"""`sliceloop curve`: what more patients are worth, as a table and a picture."""

import csv
import io
import threading
from dataclasses import replace

import numpy as np
import typer
from pydantic import TypeAdapter

from sliceloop.pooled import Request, leak_mark, open_for, pool_and_learner, stopped, write_plot, write_text
from training.curve_plots import draw_curve
from training.data.cache import CachingStoppedError
from training.head import head_epoch_seconds
from training.judging.page import table
from training.judging.unseen import LeakMark
from training.kept import KeptResults, run_identity
from training.learning_curve import ALL, Curve, CurveBudget, CurvePlan, CurvePoint, learning_curve
from training.pool import HeadLearner
from training.train import TrainingStoppedError

POINTS_FOLDER = "points"
TIMED_SLICES = 2000


class BadBudgetError(ValueError):
    """Budgets that are neither numbers of patients nor "all"."""


def parse_budgets(text: str) -> tuple[str, ...]:
    """Read "10,30,100,all"; raises `BadBudgetError`."""
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    wrong = [name for name in names if name != ALL and not (name.isdecimal() and int(name) > 0)]
    if wrong:
        raise BadBudgetError(f"budget '{wrong[0]}' is neither a number of patients nor '{ALL}'; as in 10,30,100,{ALL}")
    return names


def draw_learning_curve(request: Request, plan: CurvePlan, stop: threading.Event) -> None:
    """Learn from each budget, judge, and write curve.csv, .json, .md and .png; goes on where it was stopped."""
    dataset = open_for(request)
    splits = tuple(dict.fromkeys(("train", "val", plan.split)))
    try:
        pool, learner, story = pool_and_learner(request, dataset, splits, stop)
        kept = KeptResults(request.out / POINTS_FOLDER).open(run_identity("curve", story))
        curve = learning_curve(pool, learner, plan, kept, on_point=_tell, stop=stop)
    except (TrainingStoppedError, CachingStoppedError):
        raise stopped() from None
    speed = _speed(learner, request) if isinstance(learner, HeadLearner) else ""
    _write(request, plan, curve, leak_mark(dataset), speed)
    typer.echo(f"{speed}\ncurve.csv, curve.json, curve.md and curve.png in {request.out}".strip())


def _tell(point: CurvePoint, total: int) -> None:
    typer.echo(
        f"{point.budget} patients, repeat {point.repeat} ({total} points in all): {point.n_patients} patients, "
        f"{point.n_slices} slices: balanced accuracy {point.evaluation.balanced_accuracy}"
    )


def _speed(learner: HeadLearner, request: Request) -> str:
    """Measure what an epoch over cached features takes."""
    features = learner.features
    timed = features.select(np.arange(len(features)) < TIMED_SLICES)
    epoch_s, fit_s = head_epoch_seconds(replace(timed, views=timed.views[:1]), request.settings)
    return f"an epoch over {len(timed)} cached features: {epoch_s:.4f} s; the whole fit: {fit_s:.1f} s"


def _write(request: Request, plan: CurvePlan, curve: Curve, leak: LeakMark, speed: str) -> None:
    what = f"{request.architecture}, {request.input_px} px, {request.mode}; judged on {plan.split}"
    out = request.out
    write_text(out / "curve.csv", _csv(curve, leak), leak)
    write_text(out / "curve.json", _json(request, plan, curve, leak), leak)
    write_text(out / "curve.md", _page(what, plan, curve, speed), leak)
    write_plot(out / "curve.png", draw_curve(curve, f"Learning curve: {what}"), leak)


def _csv(curve: Curve, leak: LeakMark) -> str:
    sources = sorted(curve.points[0].evaluation.by_source)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["budget", "repeat", "patients", "slices", "balanced_accuracy", "low", "high", *sources, "leaked"])
    for point in curve.points:
        estimate, by_source = point.evaluation.balanced_accuracy, point.evaluation.by_source
        figures = [estimate.value, estimate.low, estimate.high]
        figures += [by_source[source].balanced_accuracy.value for source in sources]
        rounded = [round(figure, 4) for figure in figures]
        writer.writerow(
            [point.budget, point.repeat, point.n_patients, point.n_slices, *rounded, "yes" if leak.leaked else "no"]
        )
    return text.getvalue()


def _json(request: Request, plan: CurvePlan, curve: Curve, leak: LeakMark) -> str:
    story = {
        "architecture": request.architecture,
        "input_px": request.input_px,
        "mode": request.mode,
        "split": plan.split,
        "seed": plan.seed,
        "excluded_sources": plan.without_sources,
        "settings": request.settings.model_dump(mode="json"),
        "leak": leak.model_dump(mode="json"),
        "budgets": [budget.model_dump(mode="json") for budget in curve.budgets],
        "points": [point.model_dump(mode="json", exclude={"answers"}) for point in curve.points],
    }
    return TypeAdapter(dict[str, object]).dump_json(story, indent=1).decode()


def _page(what: str, plan: CurvePlan, curve: Curve, speed: str) -> str:
    judged = curve.points[0].evaluation
    left_out = f" Left out: {', '.join(plan.without_sources)}." if plan.without_sources else ""
    parts = [
        "# Learning curve by patients",
        f"{what}: {judged.n_slices} slices of {judged.n_patients} patients.{left_out} A repeat draws patients anew "
        f"(seeds from {plan.seed}); its larger budget holds its smaller one. The interval is over the judged patients, "
        "the spread (standard deviation) over the repeats. What is chosen on validation is chosen on the whole "
        "validation split, whatever the budget"
        + (": figures on validation are therefore a little too good." if plan.split == "val" else "."),
        table(
            ("patients", "repeats", "balanced accuracy", "spread", "lowest", "highest"),
            [_cells(budget) for budget in curve.budgets],
        ),
        "Inside each source, balanced accuracy over its classes, mean of the repeats:",
        table(
            ("patients", *curve.budgets[0].by_source),
            [(b.n_patients, *(f"{value:.3f}" for value in b.by_source.values())) for b in curve.budgets],
        ),
        speed,
        "![learning curve](curve.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(budget: CurveBudget) -> tuple[object, ...]:
    spread = None if budget.spread is None else f"{budget.spread:.3f}"
    return (
        budget.n_patients,
        budget.repeats,
        budget.balanced_accuracy,
        spread,
        f"{budget.lowest:.3f}",
        f"{budget.highest:.3f}",
    )
