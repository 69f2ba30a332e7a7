"""The search as pictures: all combinations in the order of their worth, and what halving kept at each rung."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from training.judging.canvas import FAINT, INK, figure
from training.tune.space import PAPER_CHOICE
from training.tune.table import TuneRow, best_first

_COLOURS = {"adamw": "#0072B2", "sgd": "#D55E00"}
_CHANCE = 1 / 3


def draw_ranking(rows: Sequence[TuneRow], title: str) -> Figure:
    """Draw balanced accuracy with its interval, best first, by optimizer; rings mark the paper's own network."""
    canvas, (panel,) = figure(title, 10, 4.2)
    for rank, row in enumerate(best_first(rows), start=1):
        if row.balanced_accuracy is not None:
            _draw_row(panel, rank, row)
    panel.axhline(_CHANCE, color=FAINT, linestyle=":", linewidth=1)
    panel.text(len(rows) + 0.5, _CHANCE, "chance", fontsize=7, color=FAINT, ha="right", va="bottom")
    panel.set_xlabel("rank")
    panel.set_ylabel("balanced accuracy on validation")
    panel.set_xlim(0, len(rows) + 1)
    panel.grid(axis="y", color="#EEEEEE")
    panel.set_axisbelow(True)
    ring = Line2D([], [], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=INK, linestyle="none")
    dots = [Line2D([], [], marker="o", color=colour, markersize=4) for colour in _COLOURS.values()]
    labels = [*_COLOURS, "the paper's network"]
    panel.legend([*dots, ring], labels, loc="upper right", frameon=False, fontsize=8, title="line: 95 % over patients")
    return canvas


def draw_rungs(rows: Sequence[TuneRow], title: str) -> Figure:
    """Draw balanced accuracy against the epoch; a combination's line ends where halving stopped it."""
    canvas, (panel,) = figure(title, 7, 4.2)
    for row in rows:
        epochs = range(1, len(row.by_epoch) + 1)
        colour = FAINT if row.stopped else _COLOURS[row.optimizer]
        panel.plot(epochs, row.by_epoch, color=colour, linewidth=0.7 if row.stopped else 1.6, alpha=0.8)
        if row.by_epoch:
            panel.plot(len(row.by_epoch), row.by_epoch[-1], "x" if row.stopped else "o", color=colour, markersize=4)
    last = max((row.epochs for row in rows), default=1)
    rungs = [2**power for power in range(last.bit_length()) if 2**power < last] + [last]
    for rung in rungs:
        reached = sum(row.epochs >= rung for row in rows)
        panel.axvline(rung, color="#EEEEEE", zorder=0)
        panel.text(rung, 1.01, f"n={reached}", transform=panel.get_xaxis_transform(), fontsize=7, ha="center")
    panel.set_xscale("log", base=2)
    panel.set_xticks(rungs, [str(rung) for rung in rungs])
    panel.set_xlabel("epochs (n: combinations that came so far)")
    panel.set_ylabel("balanced accuracy on validation")
    lines = [Line2D([], [], color=colour) for colour in (*_COLOURS.values(), FAINT)]
    panel.legend(lines, [*_COLOURS, "stopped"], frameon=False, fontsize=8, loc="best")
    return canvas


def _draw_row(panel: Axes, rank: int, row: TuneRow) -> None:
    estimate, colour = row.balanced_accuracy, _COLOURS[row.optimizer]
    if estimate is None:
        return
    panel.plot([rank, rank], [estimate.low, estimate.high], color=colour, linewidth=1, alpha=0.45)
    panel.plot(rank, estimate.value, "x" if row.stopped else "o", color=colour, markersize=4)
    if all(getattr(row, name) == value for name, value in PAPER_CHOICE.items()):
        panel.plot(rank, estimate.value, "o", markersize=10, markerfacecolor="none", markeredgecolor=INK)
