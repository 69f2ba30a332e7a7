"""Pictures of a training: loss and accuracy against the epoch (the paper's Figures 5, 9 and 13), and its speed."""

import io
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.plan import Progress
from training.run import best_epoch
from training.throughput import Throughput

_TRAINING, _VALIDATION, _BALANCED, _CAPTURED, _QUIET = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
"""Okabe and Ito's colours, which colour-blind people tell apart."""
_SIZE_IN = (9.0, 3.8)
_THROUGHPUT_IN = (8.0, 2.2)
_DPI = 130
LEAKED_TEXT = "LEAKED: {} patients on two sides of the split; says nothing about new patients"


def curves_png(history: Sequence[Progress], title: str, leaked_patients: int = 0) -> bytes:
    """Return the curves as a PNG; a leaked run says so in the picture."""
    png = io.BytesIO()
    draw_curves(history, title, leaked_patients).savefig(png, format="png", dpi=_DPI)
    return png.getvalue()


def draw_curves(history: Sequence[Progress], title: str, leaked_patients: int = 0) -> Figure:
    """Draw training's and validation's loss and accuracy; a dotted line marks the epoch that was kept."""
    figure = Figure(_SIZE_IN, layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    epochs = [progress.epoch for progress in history]
    _line(loss, epochs, [progress.train_loss for progress in history], "training", _TRAINING)
    _line(loss, epochs, [progress.validation_loss for progress in history], "validation", _VALIDATION)
    loss.set_ylabel("loss (nats)")
    _line(accuracy, epochs, [progress.train_accuracy for progress in history], "training", _TRAINING)
    _line(accuracy, epochs, [progress.validation_accuracy for progress in history], "validation", _VALIDATION)
    balanced = [progress.validation_balanced_accuracy for progress in history]
    _line(accuracy, epochs, balanced, "validation, balanced", _BALANCED, "--")
    captured = [each.captured_balanced_accuracy for each in history if each.captured_balanced_accuracy is not None]
    if captured:
        _line(accuracy, epochs, captured, "... captured (simulated)", _CAPTURED, ":")
    accuracy.set_ylabel("accuracy")
    accuracy.set_ylim(0, 1.02)
    for axes in (loss, accuracy):
        _finish(axes, best_epoch(history).epoch)
    figure.suptitle(title, fontsize=11)
    if leaked_patients:
        figure.supxlabel(LEAKED_TEXT.format(leaked_patients), color="#B00020", fontsize=10, fontweight="bold")
    return figure


def throughput_image(result: Throughput, kind: str) -> bytes:
    """Return the measured rounds of both ways as a picture, "png" or "svg"."""
    figure = Figure(_THROUGHPUT_IN, layout="constrained")
    axes = figure.subplots()
    for name, colour, speeds in (
        ("ours", _TRAINING, [each.ours for each in result.rounds]),
        ("ImageFolder + DataLoader", _VALIDATION, [each.plain for each in result.rounds]),
    ):
        median = statistics.median(speeds)
        axes.barh(name, median, color=colour, alpha=0.85)
        axes.plot(speeds, [name] * len(speeds), "|", color="black", markersize=14)
        axes.annotate(f" {median:.1f}", (max(speeds), name), va="center")
    axes.set_xlabel("images a second (bar: median, strokes: rounds)")
    axes.set_xlim(0, 1.2 * max(max(each.ours, each.plain) for each in result.rounds))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"{result.architecture}, {result.input_px} px, batch {result.batch}, {result.threads} threads: "
        f"{result.ratio_median:.2f} times ({result.ratio_low:.2f} to {result.ratio_high:.2f})",
        fontsize=10,
    )
    image = io.BytesIO()
    figure.savefig(image, format=kind, dpi=_DPI)
    return image.getvalue()


def _line(axes: Axes, epochs: list[int], values: list[float], label: str, colour: str, style: str = "-") -> None:
    axes.plot(epochs, values, style, color=colour, label=label, marker="o", markersize=3, linewidth=1.5)


def _finish(axes: Axes, kept_epoch: int) -> None:
    axes.axvline(kept_epoch, color=_QUIET, linestyle=":", linewidth=1, label=f"kept: epoch {kept_epoch}")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
