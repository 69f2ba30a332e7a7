"""The picture of `bench pipeline`: floors and pipeline side by side, latency, and the course of an outage."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sliceloop.pipeline.result import Outage, PipelineResult, Point

DPI = 120
HEIGHT_IN, PANEL_IN = 4.2, 5.0
GREYS = ("#B8BEC7", "#8D96A3", "#5E6773", "#C9B37E")
OURS, OURS_LATE = "#1F6FB4", "#7FB2E0"
BARS = 5


def draw(result: PipelineResult, kind: str) -> bytes:
    """Return the picture, "png" or "svg"."""
    panels = 2 + (result.outage is not None)
    figure = Figure((panels * PANEL_IN, HEIGHT_IN), layout="constrained")
    axes = figure.subplots(1, panels)
    _speed(axes[0], result.points)
    _latency(axes[1], result.points)
    if result.outage is not None:
        _course(axes[2], result.outage)
    figure.suptitle(
        f"Capture to receipt, slices of {result.payload_bytes / 1000:.0f} KB"
        f"{' and their originals' if result.with_frames else ''}; {result.broker}, {result.ledger}, "
        f"{result.machine['cores']} cores",
        fontsize=11,
    )
    image = io.BytesIO()
    figure.savefig(image, format=kind, dpi=DPI)
    return image.getvalue()


def _name(point: Point) -> str:
    return f"{point.edges} edge{'s' * (point.edges > 1)}\n{point.workers} worker{'s' * (point.workers > 1)}"


def _speed(axes: Axes, points: Sequence[Point]) -> None:
    series = {
        "floor: paho pair": [point.floors.paho_pair_per_s for point in points],
        "floor: SQLite commits": [point.floors.sqlite_commit_per_s for point in points],
        "floor: boto3 puts": [point.floors.boto3_put_per_s for point in points],
        "our puts alone": [point.floors.our_put_per_s for point in points],
        "pipeline": [point.full.slices_per_s for point in points],
    }
    width = 0.8 / BARS
    for number, ((name, values), colour) in enumerate(zip(series.items(), (*GREYS, OURS), strict=True)):
        places = [place + (number - 2) * width for place in range(len(points))]
        axes.bar(places, values, width, label=name, color=colour)
    for place, point in enumerate(points):
        text = f"{point.full.slices_per_s:.0f}/s\n{point.share:.0%}"
        axes.annotate(text, (place + 2 * width, point.full.slices_per_s), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(points)), [_name(point) for point in points], fontsize=7)
    axes.set_yscale("log")
    axes.set_ylabel("payloads a second (%: of the slowest floor)")
    axes.legend(fontsize=7, loc="upper left", ncols=2)
    axes.margins(y=0.3)


def _latency(axes: Axes, points: Sequence[Point]) -> None:
    for shift, quantile, colour in ((-0.2, "p50_ms", OURS), (0.2, "p99_ms", OURS_LATE)):
        values = [getattr(point.half.latency, quantile) if point.half.latency else 0 for point in points]
        bars = axes.bar([place + shift for place in range(len(points))], values, 0.4, color=colour, label=quantile[:3])
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(points)), [_name(point) for point in points], fontsize=7)
    axes.set_ylabel("capture to receipt at half speed, ms")
    axes.legend(fontsize=8)


def _course(axes: Axes, outage: Outage) -> None:
    seconds = [moment.at_s for moment in outage.course]
    axes.plot(seconds, [moment.waiting for moment in outage.course], color=OURS, label="waiting")
    axes.plot(seconds, [moment.receipted for moment in outage.course], color=GREYS[2], label="receipted")
    axes.set_xlabel("seconds")
    axes.set_ylabel("slices")
    axes.set_title(
        f"line cut for {outage.cut_s:.0f} s at {outage.stream_per_s:.0f} slices/s: "
        f"{outage.backlog} waited, caught up at {outage.catch_up_per_s:.0f}/s",
        fontsize=9,
    )
    axes.legend(fontsize=8)
