"""`sliceloop tune`: the paper's search over its baseline CNN, as a grid or by successive halving."""

import threading

import typer

from sliceloop.pooled import Request, begin, load, open_for, stopped, write_plot, write_text
from sliceloop.search_story import as_json, footer, in_words, tell_story
from training.data.cache import CachingStoppedError
from training.judging.page import table
from training.judging.unseen import LeakMark
from training.train import TrainingStoppedError
from training.tune.plots import draw_ranking, draw_rungs
from training.tune.search import Method, TunePlan, paper_plan, search
from training.tune.space import SPACE
from training.tune.table import HEADER, TuneRow, as_csv, best_first, cells


def tune_folder(request: Request, method: Method, stop: threading.Event) -> None:
    """Search, and write tune.csv, .json, .md and .png; goes on where it was stopped."""
    dataset = open_for(request)
    plan = paper_plan(method, request.input_px, request.settings)
    taught = dataset.without_sources(request.exclude_sources)
    try:
        train_slices, validation = (load(taught, split, request.cache, stop) for split in ("train", "val"))
        rows = search(
            plan,
            train_slices,
            validation,
            request.out,
            on_row=_tell,
            stop=stop,
            allow_leak=bool(dataset.leaked),
        )
    except (TrainingStoppedError, CachingStoppedError):
        raise stopped() from None
    start = begin(request, taught, ("val",))
    leak, parts = start.leak, {"train": train_slices, "val": validation}
    story = tell_story(request, request.settings, parts, start)
    settings = request.settings.model_dump(mode="json", exclude={*SPACE})
    story = story.model_copy(update={"settings": settings})
    title = f"{len(rows)} baseline CNNs, {method}, {request.input_px} px, up to {request.settings.epochs} epochs"
    write_text(request.out / "tune.csv", as_csv(rows, len(dataset.leaked)), leak)
    told = [row.model_dump(mode="json") for row in best_first(rows)]
    space = {name: list(values) for name, values in SPACE.items()}
    write_text(request.out / "tune.json", as_json(story, method=method, space=space, combinations=told), leak)
    page = _page(title, plan, rows, in_words(request, parts, start), footer(story))
    write_text(request.out / "tune.md", page, leak)
    write_plots(request, method, rows, title, leak)
    typer.echo(f"tune.csv, tune.json, tune.md and tune.png in {request.out}")


def write_plots(request: Request, method: Method, rows: tuple[TuneRow, ...], title: str, leak: LeakMark) -> None:
    """Write the ranking and, of halving, what was kept at each rung."""
    write_plot(request.out / "tune.png", draw_ranking(rows, title), leak)
    if method == "halving":
        write_plot(request.out / "tune_rungs.png", draw_rungs(rows, title), leak)


def _tell(row: TuneRow, done: int, total: int) -> None:
    value = f"balanced accuracy {row.balanced_accuracy}" if row.balanced_accuracy else row.fault
    typer.echo(
        f"{done}/{total}  kernels {row.kernels}, {row.maps} maps, hidden {row.hidden}, {row.optimizer}: {value}, "
        f"{row.epochs} epochs{', stopped' if row.stopped else ''}, {row.seconds:.0f} s"
    )


def _page(title: str, plan: TunePlan, rows: tuple[TuneRow, ...], words: str, end: str) -> str:
    space = [(name, ", ".join(values)) for name, values in SPACE.items()]
    parts = [
        f"# {title}",
        words,
        "Each combination is a fresh network (the same seed for all). Balanced accuracy on validation "
        "with the 95 % interval over patients, of the best epoch, or of the epoch at which "
        "halving stopped it. The paper reports a search of 72 combinations without its lists of values that we "
        "know of; this space has its chosen network (2-3-4, 25 maps, 200-50) inside:",
        table(("varied", "values"), space),
        table(HEADER, [cells(rank, row) for rank, row in enumerate(best_first(rows), start=1)]),
        f"Seconds in all: {sum(row.seconds for row in rows):.0f}, epochs in all: {sum(row.epochs for row in rows)}, "
        f"threads: {plan.settings.threads}.",
        "![ranking](tune.png)" + ("\n\n![rungs](tune_rungs.png)" if plan.method == "halving" else ""),
        end,
    ]
    return "\n\n".join(parts) + "\n"
