"""The picture of the behaviour bench: the share of runs that were rolled back, by slice."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sliceloop.update_bench.behaviour_report import WITHIN
from sliceloop.update_bench.behaviour_result import BehaviourResult, Course

DPI = 120
PANEL_IN, HEIGHT_IN, LEGEND_IN = 4.2, 3.6, 2.4
COLOURS = ("#1F6FB4", "#D1495B", "#2E8B57", "#8E5EA2", "#C98A1B", "#5E6773", "#3FA7A7", "#B05A2C")


def draw(result: BehaviourResult, kind: str) -> bytes:
    """Return the picture, "png" or "svg": a column for each mix, bad candidates above good ones."""
    mixes = list(dict.fromkeys(course.mix for course in result.courses))
    figure = Figure((len(mixes) * PANEL_IN + LEGEND_IN, 2 * HEIGHT_IN), layout="constrained")
    axes = figure.subplots(2, len(mixes), squeeze=False)
    for column, mix in enumerate(mixes):
        for row, good in enumerate((False, True)):
            courses = [course for course in result.courses if course.mix == mix and course.good is good]
            _shares(axes[row][column], courses, legend=column == len(mixes) - 1)
            axes[row][column].set_title(f"{'good' if good else 'bad'} candidates, slices {mix}", fontsize=9)
    figure.suptitle(f"Rolled back by behaviour: share of {result.runs} runs, by slices compared", fontsize=11)
    image = io.BytesIO()
    figure.savefig(image, format=kind, dpi=DPI)
    return image.getvalue()


def _shares(axes: Axes, courses: Sequence[Course], *, legend: bool) -> None:
    for number, course in enumerate(courses):
        line = "--" if course.real else "-"
        name = f"{course.kind} (network)" if course.real else course.kind
        slices = range(1, course.slices + 1)
        shares = [course.share(within).value for within in slices]
        axes.plot(slices, shares, line, color=COLOURS[number % len(COLOURS)], label=name, linewidth=1.3)
    axes.axvline(WITHIN, color="#B8BEC7", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(1, max((course.slices for course in courses), default=WITHIN))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("slices compared")
    axes.set_ylabel("rolled back")
    if legend:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.02, 1))
