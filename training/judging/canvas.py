"""Figures drawn without global state, in one style, and marked across where a leak was allowed."""

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from protocol.labels import Label
from training.durable import write_atomically
from training.evaluate import Estimate
from training.judging.unseen import LeakMark

CLASS_COLOURS: Mapping[Label, str] = {Label.NORMAL: "#0072B2", Label.PNEUMONIA: "#E69F00", Label.COVID_19: "#D55E00"}
"""Told apart by colour-blind eyes too (Okabe and Ito 2008)."""
INK, FAINT, SECOND = "#333333", "#999999", "#009E73"
_DPI = 120
_TITLE_PT = 11
_HEADROOM = 1.02
_LEGEND_BELOW = 5.5
"""From the axis to the legend below it in letters' heights: past the tick labels and the axis' name."""
SHARES = (-0.02, 1.02)
"""Limits of an axis from 0 to 1 that cut no point at its ends."""


def figure(
    title: str, width: float, height: float, panels: int = 1, *, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of so many inches and its panels, side by side, titled on top."""
    canvas = Figure(figsize=(width, height), layout="constrained")
    axes = canvas.subplots(1, panels, squeeze=False, sharey=sharey)[0]
    canvas.suptitle(title, fontsize=_TITLE_PT, color=INK)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return canvas, list(axes)


def save(canvas: Figure, path: Path, leak: LeakMark | None) -> Path:
    """Write the PNG, marked across when it is of a leaked run."""
    if leak is not None and leak.leaked:
        canvas.text(
            0.5,
            0.5,
            "LEAKED",
            fontsize=70,
            color="#CC0000",
            alpha=0.25,
            rotation=30,
            ha="center",
            va="center",
            zorder=9,
        )
        head_leaked(canvas, "LEAKED: patients on both sides, says nothing about new ones")
    png = io.BytesIO()
    canvas.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    write_atomically(path, png.getvalue())
    return path


def head_leaked(canvas: Figure, sentence: str) -> None:
    """Put the sentence over the title, in red: below, it would lie on a legend."""
    canvas.suptitle(f"{sentence}\n{canvas.get_suptitle()}", color="#CC0000", fontsize=_TITLE_PT)


def unit_square(panel: Axes, x: str, y: str) -> None:
    """Show 0..1 on both axes, named, with a light grid."""
    panel.set(xlim=(0, 1), ylim=(0, _HEADROOM), xlabel=x, ylabel=y)
    panel.grid(color="#EEEEEE")
    panel.set_axisbelow(True)


def below(panel: Axes, title: str | None = None, *, columns: int = 1) -> None:
    """Put the panel's legend under it, where it hides nothing."""
    panel.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=_LEGEND_BELOW,
        ncols=columns,
        fontsize=8,
        title=title,
        title_fontsize=7,
        frameon=False,
    )


def forest(panel: Axes, rows: Mapping[str, Estimate], colour: str, label: str = "", shift: float = 0.0) -> None:
    """Draw each estimate as a point with its interval, the first row on top; `shift` sets two groups apart."""
    for index, estimate in enumerate(rows.values()):
        y = len(rows) - 1 - index + shift
        panel.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
        panel.plot(estimate.value, y, "o", color=colour, markersize=5, label=label if index == 0 else None)
    panel.set_yticks(range(len(rows)), list(rows)[::-1], fontsize=8)
    panel.set_ylim(-0.7, len(rows) - 0.3)
    panel.grid(axis="x", color="#EEEEEE")
    panel.set_axisbelow(True)
