"""`sliceloop curve`: what more patients are worth, as a table and a picture."""

import csv
import io
import threading
from dataclasses import replace

import numpy as np
import typer

from sliceloop.pooled import Begin, Request, begin, open_for, pool_and_learner, stopped, write_plot, write_text
from sliceloop.search_story import Story, as_json, footer, in_words, tell_story
from training.curve_plots import draw_curve
from training.data.cache import CachingStoppedError
from training.head import head_epoch_seconds
from training.judging.page import shown, table
from training.judging.unseen import LeakMark
from training.kept import KeptResults, run_identity
from training.learning_curve import ALL, Curve, CurveBudget, CurvePlan, CurvePoint, learning_curve
from training.pool import HeadLearner, Pool
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
    start = begin(request, dataset, ("val", plan.split))
    splits = tuple(dict.fromkeys(("train", "val", plan.split)))
    try:
        pool, learner, identity = pool_and_learner(request, dataset, splits, stop)
        kept = KeptResults(request.out / POINTS_FOLDER).open(run_identity("curve", identity))
        plan = _affordable(plan, pool)
        curve = learning_curve(pool, learner, plan, kept, on_point=_tell, stop=stop)
    except (TrainingStoppedError, CachingStoppedError):
        raise stopped() from None
    speed = _speed(learner, request) if isinstance(learner, HeadLearner) else ""
    parts = pool.parts(plan.without_sources)
    story = tell_story(request, learner.settings, parts, start)
    _write(request, plan, curve, start, story, (in_words(request, parts, start), speed))
    typer.echo(f"{speed}\ncurve.csv, curve.json, curve.md and curve.png in {request.out}".strip())


def _affordable(plan: CurvePlan, pool: Pool) -> CurvePlan:
    """Leave out, saying so, budgets of more patients than there are, where another one stays."""
    there = len(set(pool.parts(plan.without_sources)["train"].patients))
    kept = tuple(name for name in plan.budgets if name == ALL or int(name) <= there)
    too_large = [name for name in plan.budgets if name not in kept]
    if too_large and kept:
        typer.echo(f"budget {', '.join(too_large)} left out: there are {there} patients to learn from")
    return replace(plan, budgets=kept or plan.budgets)


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


def _write(request: Request, plan: CurvePlan, curve: Curve, start: Begin, story: Story, said: tuple[str, str]) -> None:
    what = f"{request.architecture}, {request.input_px} px, {request.mode}; judged on {plan.split}"
    out, leak = request.out, start.leak
    write_text(out / "curve.csv", _csv(curve, leak), leak)
    write_text(out / "curve.json", _json(story, curve), leak)
    write_text(out / "curve.md", _page(what, plan, curve, story, *said), leak)
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


def _json(story: Story, curve: Curve) -> str:
    return as_json(
        story,
        budgets=[budget.model_dump(mode="json") for budget in curve.budgets],
        points=[point.model_dump(mode="json", exclude={"answers"}) for point in curve.points],
    )


def _page(what: str, plan: CurvePlan, curve: Curve, story: Story, words: str, speed: str) -> str:
    judged = curve.points[0].evaluation
    parts = [
        "# Learning curve by patients",
        f"{what}: {judged.n_slices} slices of {judged.n_patients} patients. A repeat draws patients anew "
        f"(seeds from {plan.seed}); its larger budget holds its smaller one. The interval is over the judged patients, "
        "the spread (standard deviation) over the repeats. What is chosen on validation is chosen on the whole "
        "validation split, whatever the budget"
        + (": figures on validation are therefore a little too good." if plan.split == "val" else "."),
        words,
        table(
            ("patients", "repeats", "balanced accuracy", "spread", "lowest", "highest"),
            [_cells(budget) for budget in curve.budgets],
        ),
        "Inside each source, balanced accuracy over its classes, mean of the repeats; n is judged patients:",
        table(
            ("patients", *(f"{name} (n {one.n_patients})" for name, one in curve.budgets[0].by_source.items())),
            [
                (b.n_patients, *(shown(one.balanced_accuracy, one.fewest_patients) for one in b.by_source.values()))
                for b in curve.budgets
            ],
        ),
        speed,
        "![learning curve](curve.png)",
        footer(story),
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
