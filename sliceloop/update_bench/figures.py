"""The page of `bench update`: bytes, seconds, gaps, memory, bad candidates caught, and when a fleet has a release."""

import io
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sliceloop.update_bench.aims import MAX_GAP, MAX_SGD_SHARE, MIN_CAUGHT
from sliceloop.update_bench.behaviour_report import WITHIN
from sliceloop.update_bench.behaviour_result import WIDEST, BehaviourResult
from sliceloop.update_bench.bytes_moved import FLOAT16, FLOAT32, UpdateBytes
from sliceloop.update_bench.fifty import FiftyResult
from sliceloop.update_bench.fine_tunings import FineTunings
from sliceloop.update_bench.result import UpdateResult
from sliceloop.update_bench.swaps import SwapsResult
from sliceloop.update_bench.timed import TimedUpdate
from training.intake.figures import Share

DPI = 120
PANEL_IN, HEIGHT_IN = 5.0, 3.8
COLUMNS = 3
OURS, OTHER, GREY = "#1F6FB4", "#C98A1B", "#B8BEC7"
COLOURS = ("#1F6FB4", "#D1495B", "#2E8B57")


def draw(result: UpdateResult, kind: str) -> bytes:
    """Return the page, "png" or "svg"; a part that was not measured leaves no panel."""
    panels = _panels(result)
    columns = max(1, min(COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = Figure((columns * PANEL_IN, rows * HEIGHT_IN), layout="constrained")
    for place, panel in enumerate(panels):
        panel(figure.add_subplot(rows, columns, place + 1))
    figure.suptitle(f"Updates of {result.architecture}, {result.machine['cpu']}, {result.machine['cores']} cores")
    image = io.BytesIO()
    figure.savefig(image, format=kind, dpi=DPI)
    return image.getvalue()


def _panels(result: UpdateResult) -> list[Callable[[Axes], None]]:
    found: list[Callable[[Axes], None]] = []
    moved, behaviour, fleet, timed = result.bytes, result.behaviour, result.fleet, result.timed
    tuned = result.fine_tunings
    swaps = {result.architecture: result.gap, result.swaps_architecture: result.swaps}
    swapped = {name: each for name, each in swaps.items() if each is not None}
    if moved is not None:
        found.append(lambda axes: _bytes(axes, moved))
    if tuned is not None:
        found.append(lambda axes: _fine_tunings(axes, tuned))
    if timed:
        found.append(lambda axes: _seconds(axes, timed))
    if swapped:
        found.append(lambda axes: _gaps(axes, swapped))
        found.append(lambda axes: _memory(axes, swapped))
    if behaviour is not None:
        found.append(lambda axes: _caught(axes, behaviour))
    if fleet is not None:
        found.append(lambda axes: _arrivals(axes, fleet))
    return found


def _bytes(axes: Axes, moved: UpdateBytes) -> None:
    names = list(dict.fromkeys((row.update, row.way) for row in moved.rows))
    for shift, layout, colour in ((-0.2, FLOAT32, OURS), (0.2, FLOAT16, OTHER)):
        values = [moved.find(update, layout, way).moved_bytes / 1e6 for update, way in names]
        bars = axes.barh([place + shift for place in range(len(names))], values, 0.4, color=colour, label=layout)
        axes.bar_label(bars, fmt="%.2g", fontsize=7, padding=2)
    axes.set_yticks(range(len(names)), [f"{update}, {way}" for update, way in names], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("MB moved")
    axes.legend(fontsize=7)


def _fine_tunings(axes: Axes, tuned: FineTunings) -> None:
    lines = dict.fromkeys((row.optimizer, row.rate) for row in tuned.rows)
    for (optimizer, rate), colour in zip(lines, (*COLOURS, OTHER), strict=False):
        rows = [row for row in tuned.rows if (row.optimizer, row.rate) == (optimizer, rate)]
        shares = [row.share for row in rows]
        axes.plot(
            [row.steps for row in rows], shares, "o-", color=colour, label=f"{optimizer} at {rate:g}", markersize=4
        )
    axes.axhline(MAX_SGD_SHARE, color=GREY, linewidth=1, zorder=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("steps up to the epoch that was kept")
    axes.set_ylabel("delta, of the float16 file")
    axes.set_title(f"whole network fine-tuned on {tuned.data}", fontsize=9)
    axes.legend(fontsize=7)


def _seconds(axes: Axes, timed: Sequence[TimedUpdate]) -> None:
    places = range(len(timed))
    bars = axes.bar(places, [each.swap_s for each in timed], color=OURS, label="to the swap")
    rest = [each.proven_s - each.swap_s for each in timed]
    axes.bar(places, rest, bottom=[each.swap_s for each in timed], color=GREY, label="probation")
    axes.bar_label(bars, fmt="%.1f", fontsize=8, label_type="center", color="white")
    axes.set_xticks(places, [f"{each.update}\n{each.chunk_bytes / 1e6:.2f} MB" for each in timed], fontsize=7)
    axes.set_ylabel("seconds from the assignment")
    axes.legend(fontsize=7)


def _gaps(axes: Axes, swapped: dict[str, SwapsResult]) -> None:
    for (name, each), colour in zip(swapped.items(), COLOURS, strict=False):
        gaps = [gap / each.median_interval_ms for gap in each.swap_gaps_ms]
        label = f"{name}, median {each.median_interval_ms:.0f} ms"
        axes.plot(range(1, len(gaps) + 1), gaps, ".", color=colour, label=label, markersize=5)
    axes.axhline(MAX_GAP, color=GREY, linewidth=1, zorder=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("swap")
    axes.set_ylabel("gap at the swap, median intervals")
    axes.legend(fontsize=7)


def _memory(axes: Axes, swapped: dict[str, SwapsResult]) -> None:
    for (name, each), colour in zip(swapped.items(), COLOURS, strict=False):
        axes.plot(range(1, len(each.memory_mb) + 1), each.memory_mb, color=colour, label=name, linewidth=1.3)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("swap")
    axes.set_ylabel("resident memory of the edge, MiB")
    axes.legend(fontsize=7, loc="lower right")


def _caught(axes: Axes, behaviour: BehaviourResult) -> None:
    """Draw all kinds on an edge with kept slices together; the picture of the behaviour bench shows each, and more."""
    kept = [course for course in behaviour.courses if course.kept and course.held_to != WIDEST]
    for mix, colour in zip(dict.fromkeys(course.mix for course in kept), COLOURS, strict=False):
        for good, line in ((False, "-"), (True, ":")):
            courses = [course for course in kept if course.mix == mix and course.good is good]
            slices = range(min((course.slices for course in courses), default=0) + 1)
            shares = [sum((course.share(within) for course in courses), Share(0, 0)).value for within in slices]
            name = f"{'good' if good else 'bad'}, slices {mix}"
            axes.plot(slices, shares, line, color=colour, label=name, linewidth=1.3)
    axes.axvline(WITHIN, color=GREY, linewidth=1, zorder=0)
    axes.axhline(MIN_CAUGHT, color=GREY, linewidth=1, zorder=0)
    axes.set_xscale("symlog", linthresh=1)  # 0: by kept slices alone
    axes.set_xlim(left=0)
    axes.set_xlabel("live slices")
    axes.set_ylabel("rolled back, of all candidates' runs")
    axes.legend(fontsize=6)


def _arrivals(axes: Axes, fleet: FiftyResult) -> None:
    axes.step([0.0, *fleet.seconds], range(len(fleet.seconds) + 1), where="post", color=OURS)
    axes.set_xlabel("seconds from the release")
    axes.set_ylabel(f"edges that run it, of {fleet.edges}")
    axes.set_title(f"{fleet.inbound:.3f} artefacts of {fleet.artefact_bytes / 1e6:.1f} MB into the broker", fontsize=9)
