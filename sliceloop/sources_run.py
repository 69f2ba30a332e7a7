"""`sliceloop sources`: each source left out in turn, as a table and a picture."""

import csv
import io
import threading

import typer

from sliceloop.pooled import Request, begin, open_for, pool_and_learner, stopped, write_plot, write_text
from sliceloop.search_story import as_json, footer, in_words, tell_story
from training.curve_plots import draw_sources
from training.data.cache import CachingStoppedError
from training.evaluate import SourceFigures
from training.judging.page import table
from training.judging.unseen import LeakMark
from training.kept import KeptResults, run_identity
from training.sources import UP_TO, SourceResult, SourcesPlan, leave_each_source_out, summary_rows
from training.train import TrainingStoppedError

RESULTS_FOLDER = "results"


def leave_sources_out(request: Request, plan: SourcesPlan, stop: threading.Event) -> None:
    """Leave each source out, judge it, and write sources.csv, .json, .md and .png; goes on where it was stopped."""
    dataset = open_for(request)
    start = begin(request, dataset, UP_TO[plan.split])
    try:
        pool, learner, identity = pool_and_learner(request, dataset, UP_TO[plan.split], stop)
        kept = KeptResults(request.out / RESULTS_FOLDER).open(run_identity("sources", identity))
        results = leave_each_source_out(pool, learner, plan, kept, on_source=_tell, stop=stop)
    except (TrainingStoppedError, CachingStoppedError):
        raise stopped() from None
    leak = start.leak
    what = f"{request.architecture}, {request.input_px} px, {request.mode}; {plan.split} split"
    write_text(request.out / "sources.csv", _csv(results, leak), leak)
    parts = pool.parts(plan.without_sources)
    story = tell_story(request, learner.settings, parts, start)
    told = [result.model_dump(mode="json") for result in results]
    write_text(request.out / "sources.json", as_json(story, results=told), leak)
    page = _page(what, plan, results, in_words(request, parts, start), footer(story))
    write_text(request.out / "sources.md", page, leak)
    write_plot(request.out / "sources.png", draw_sources(results, f"One source left out: {what}"), leak)
    typer.echo(f"sources.csv, sources.json, sources.md and sources.png in {request.out}")


def _tell(result: SourceResult, total: int) -> None:
    if result.skipped:
        typer.echo(f"{result.source} (of {total} sources): skipped: {result.skipped}")
    else:
        typer.echo(
            f"{result.source} (of {total} sources): left out {_figure(result.unseen_all)} on all its slices, "
            f"{_figure(result.unseen)} on the split; seen {_figure(result.seen)}"
        )


def _csv(results: tuple[SourceResult, ...], leak: LeakMark) -> str:
    text = io.StringIO()
    rows = [row | {"leaked": "yes" if leak.leaked else "no"} for row in summary_rows(results)]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _page(what: str, plan: SourcesPlan, results: tuple[SourceResult, ...], words: str, end: str) -> str:
    splits = ", ".join(UP_TO[plan.split])
    parts = [
        "# One source left out",
        f"{what}. Each source in turn teaches nothing, neither weights nor the choice of them, and is then judged: on "
        f"all its slices ({splits}), and on those of {plan.split} alone, where the network that learnt from every "
        "source is judged too. Balanced accuracy over the classes that the source has there (of one class: its "
        "sensitivity), with the 95 % interval over patients; n is patients.",
        words,
        table(
            ("source", "classes", "left out, all its slices", "n", "left out", "seen", "n "),
            [_cells(result) for result in results],
        ),
        *(f"- {result.source}: skipped, {result.skipped}." for result in results if result.skipped),
        "![sources](sources.png)",
        end,
    ]
    return "\n\n".join(parts) + "\n"


def _cells(result: SourceResult) -> tuple[object, ...]:
    return (
        result.source,
        ", ".join(result.classes),
        _figure(result.unseen_all),
        result.unseen_all.n_patients if result.unseen_all else None,
        _figure(result.unseen),
        _figure(result.seen),
        result.seen.n_patients if result.seen else None,
    )


def _figure(figures: SourceFigures | None) -> str:
    return "-" if figures is None else str(figures.balanced_accuracy)
