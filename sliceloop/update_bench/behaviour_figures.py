"""The picture of the behaviour bench: the share of runs that were rolled back, by slice."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sliceloop.update_bench.behaviour_report import WITHIN, name_of
from sliceloop.update_bench.behaviour_result import BehaviourResult, Course

DPI = 120
PANEL_IN, HEIGHT_IN, LEGEND_IN = 4.2, 2.4, 2.4
COLOURS = ("#1F6FB4", "#D1495B", "#2E8B57", "#8E5EA2", "#C98A1B", "#5E6773", "#3FA7A7", "#B05A2C")


def draw(result: BehaviourResult, kind: str) -> bytes:
    """Return the picture, "png" or "svg": a column for each mix, a row for bounds and edges, good candidates below."""
    mixes = list(dict.fromkeys(course.mix for course in result.courses))
    rows = sorted({(course.good, course.held_to, not course.kept) for course in result.courses})
    figure = Figure((len(mixes) * PANEL_IN + LEGEND_IN, len(rows) * HEIGHT_IN), layout="constrained")
    axes = figure.subplots(len(rows), len(mixes), squeeze=False)
    for column, mix in enumerate(mixes):
        for row, (good, held_to, new) in enumerate(rows):
            courses = [
                each for each in result.courses if (each.held_to, not each.kept, each.mix) == (held_to, new, mix)
            ]
            _shares(axes[row][column], courses, legend=column == len(mixes) - 1)
            edge = "a new edge" if new else "kept slices"
            title = f"{'good' if good else 'bad'}, {held_to}, {edge}: {mix}"
            axes[row][column].set_title(title, fontsize=9)
    read = f" (networks: {result.data})" if result.data else ""
    what = f"Rolled back by behaviour: share of {result.runs} runs, by live slices compared{read}"
    figure.suptitle(what, fontsize=11)
    image = io.BytesIO()
    figure.savefig(image, format=kind, dpi=DPI)
    return image.getvalue()


def _shares(axes: Axes, courses: Sequence[Course], *, legend: bool) -> None:
    for number, course in enumerate(courses):
        slices = range(course.slices + 1)
        shares = [course.share(within).value for within in slices]
        line, colour = "--" if course.real else "-", COLOURS[number % len(COLOURS)]
        axes.plot(slices, shares, line, color=colour, label=name_of(course), linewidth=1.3)
    axes.axvline(WITHIN, color="#B8BEC7", linewidth=1, zorder=0)
    axes.set_xscale("symlog", linthresh=1)  # 0: by kept slices alone
    axes.set_xlim(0, max((course.slices for course in courses), default=WITHIN))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("live slices")
    axes.set_ylabel("rolled back")
    if legend:
        axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.02, 1))
