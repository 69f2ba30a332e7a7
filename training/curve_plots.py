"""Pictures of the learning curve and of the sources left out."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluate import SourceFigures
from training.judging.canvas import FAINT, INK, figure
from training.learning_curve import Curve
from training.sources import SourceResult

_BAND, _UNSEEN, _SEEN = "#0072B2", "#D55E00", "#0072B2"
_SOURCES = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's colours."""


def draw_curve(curve: Curve, title: str) -> Figure:
    """Draw balanced accuracy against patients: each repeat, the mean with its interval, and the same by source."""
    canvas, (overall, by_source) = figure(title, 10, 4.2, panels=2, sharey=True)
    patients = [budget.n_patients for budget in curve.budgets]
    estimates = [budget.balanced_accuracy for budget in curve.budgets]
    overall.fill_between(
        patients,
        [one.low for one in estimates],
        [one.high for one in estimates],
        color=_BAND,
        alpha=0.15,
        linewidth=0,
        label="95 % over the judged patients",
    )
    overall.plot(patients, [one.value for one in estimates], "-", color=_BAND, linewidth=2, label="mean of the repeats")
    points = [(point.n_patients, point.evaluation.balanced_accuracy.value) for point in curve.points]
    overall.plot(*np.transpose(points), "o", color=INK, markersize=4, alpha=0.6, label="one network")
    overall.set_ylabel("balanced accuracy")
    for index, (source, its) in enumerate(curve.budgets[0].by_source.items()):
        estimates = [budget.by_source[source].balanced_accuracy for budget in curve.budgets]
        colour, label = _SOURCES[index % len(_SOURCES)], f"{source} (n {its.n_patients})"
        if its.fewest_patients > 1:
            by_source.fill_between(
                patients,
                [one.low for one in estimates],
                [one.high for one in estimates],
                color=colour,
                alpha=0.1,
                linewidth=0,
            )
        by_source.plot(patients, [one.value for one in estimates], "o-", color=colour, markersize=3, label=label)
    for panel in (overall, by_source):
        _patients_axis(panel, patients)
    overall.legend(frameon=False, fontsize=8, loc="lower right")
    by_source.legend(
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        title="inside a source (n judged patients;\nband: 95 % over them, none for one\npatient in a class)",
        title_fontsize=7,
    )
    return canvas


def draw_sources(results: Sequence[SourceResult], title: str) -> Figure:
    """Draw each source's balanced accuracy when it was left out and when it was seen, with intervals."""
    canvas, (panel,) = figure(title, 8, 1.2 + 0.55 * len(results))
    for y, result in enumerate(reversed(results)):
        _bar(panel, result.unseen_all, y + 0.2, _UNSEEN, "s", "left out, all its slices", "none")
        _bar(panel, result.unseen, y, _UNSEEN, "o", "left out")
        _bar(panel, result.seen, y - 0.2, _SEEN, "o", "seen")
        if result.skipped:
            panel.text(0.01, y + 0.1, result.skipped, fontsize=7, color=FAINT, va="center")
    names = [f"{result.source}\n{', '.join(result.classes)}" for result in reversed(results)]
    panel.set_yticks(range(len(results)), names, fontsize=8)
    panel.set_xlim(-0.02, 1.02)
    panel.set_xlabel("balanced accuracy over the source's classes, 95 % over patients")
    panel.grid(axis="x", color="#EEEEEE")
    panel.set_axisbelow(True)
    handles, labels = panel.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    panel.legend(
        list(by_label.values()), list(by_label), frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return canvas


def _patients_axis(panel: Axes, patients: list[int]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(patients, [str(n) for n in patients])
    panel.minorticks_off()
    panel.set_xlabel("training patients")
    panel.set_ylim(0, 1.02)
    panel.grid(axis="y", color="#EEEEEE")
    panel.set_axisbelow(True)


def _bar(
    panel: Axes, figures: SourceFigures | None, y: float, colour: str, marker: str, label: str, fill: str | None = None
) -> None:
    if figures is None:
        return
    estimate = figures.balanced_accuracy
    panel.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=1.4, alpha=0.6)
    panel.plot(estimate.value, y, marker, color=colour, markerfacecolor=fill or colour, markersize=5, label=label)
