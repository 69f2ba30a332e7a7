"""The plots of a capture benchmark; each title says whether it is simulated."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from sliceloop.capture_bench.figures import CaptureFigures, FactorFigures, SeverityFigures
from sliceloop.capture_bench.look import FrameResult
from sliceloop.capture_bench.measures import named
from training.evaluate import Estimate
from training.judging.canvas import FAINT, INK, SECOND, below, figure, save

OUTLINE, ACCURACY, ABSTENTION = "outline.png", "accuracy.png", "abstention.png"
FACTORS, STAGES = "factors.png", "stages.png"
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", INK, FAINT)
"""Told apart by colour-blind eyes too (Okabe and Ito 2008)."""
_LEAST_IOU = 0.8
_BAR, _SHIFT, _ROW_SHIFT = 0.7, 0.02, 0.18


def draw_plots(folder: Path, figures: CaptureFigures, parts: Mapping[str, Sequence[FrameResult]]) -> list[Path]:
    """Draw what the figures have, of the frames by the names of their parts; return the files."""
    said = "simulated" if figures.simulated else "filmed"
    drawn = [_outline(folder, said, parts), _abstention(folder, said, figures)]
    if any(one.reading and one.severity is not None for one in figures.severities):
        drawn.append(_accuracy(folder, said, figures))
    if figures.factors:
        drawn.append(_factors(folder, said, figures.factors))
    if figures.times.stages:
        drawn.append(_stages(folder, said, figures))
    return drawn


def _outline(folder: Path, said: str, parts: Mapping[str, Sequence[FrameResult]]) -> Path:
    canvas, (panel,) = figure(f"Found against true outline ({said})", 7.5, 5.2)
    for (name, results), colour in zip(parts.items(), _COLOURS, strict=False):
        ious = np.sort([result.whole.iou for result in results if result.whole.iou is not None])
        panel.step(ious, np.arange(1, len(ious) + 1) / max(len(ious), 1), where="post", color=colour)
        panel.plot([], color=colour, label=f"{name}, n {len(ious)}")
    panel.axvline(0.95, color=FAINT, linewidth=0.8, linestyle=":")
    panel.set(xlim=(_LEAST_IOU, 1), ylim=(0, 1), xlabel="intersection over union", ylabel="share of frames below")
    panel.grid(color="#EEEEEE")
    below(panel, columns=2)
    return save(canvas, folder / OUTLINE, None)


def _accuracy(folder: Path, said: str, figures: CaptureFigures) -> Path:
    canvas, (panel,) = figure(f"Balanced accuracy by slice, 95 % interval over patients ({said})", 8, 5.4)
    curves: tuple[tuple[str, str, Callable[[SeverityFigures], Estimate | None]], ...] = (
        ("digital slice", INK, lambda one: one.reading.digital if one.reading else None),
        ("captured, not refused", _COLOURS[0], lambda one: one.reading.captured if one.reading else None),
        ("captured, refused as wrong", _COLOURS[5], lambda one: one.reading.refused_wrong if one.reading else None),
        ("the paper's path", _COLOURS[3], lambda one: one.paper.reading.captured if one.paper else None),
    )
    for number, (label, colour, of) in enumerate(curves):
        _curve(panel, [(one.severity, of(one)) for one in figures.severities], colour, label, _SHIFT * number)
    panel.set(ylim=(0, 1.02), xlabel="severity", ylabel="balanced accuracy")
    panel.grid(color="#EEEEEE")
    below(panel, columns=2)
    return save(canvas, folder / ACCURACY, None)


def _curve(
    panel: Axes, points: Sequence[tuple[float | None, Estimate | None]], colour: str, label: str, shift: float
) -> None:
    """Draw an estimate over severity; `shift` keeps two intervals from hiding each other."""
    told = [(x + shift, estimate) for x, estimate in points if x is not None and estimate is not None]
    if told:
        errors = [[one.value - one.low for _, one in told], [one.high - one.value for _, one in told]]
        panel.errorbar(
            [x for x, _ in told],
            [one.value for _, one in told],
            np.maximum(errors, 0),
            color=colour,
            label=label,
            marker="o",
            markersize=4,
            capsize=2,
        )


def _abstention(folder: Path, said: str, figures: CaptureFigures) -> Path:
    canvas, (panel,) = figure(f"Refused frames by reason ({said})", 8, 4.8)
    reasons = sorted({reason for one in figures.severities for reason in one.abstention.by_reason})
    x = np.arange(len(figures.severities))
    width = _BAR / max(len(reasons), 1)
    for number, reason in enumerate(reasons):
        shares = [one.abstention.by_reason.get(reason, 0) / one.n_frames for one in figures.severities]
        colour = _COLOURS[number % len(_COLOURS)]
        panel.bar(x + (number - (len(reasons) - 1) / 2) * width, shares, width, color=colour, label=reason)
    names = [f"{one.name}\n{one.abstention.refused} refused" for one in figures.severities]
    panel.set_xticks(x, names, fontsize=8)
    panel.set(ylabel="share of frames (one may have several reasons)")
    if reasons:
        below(panel, columns=3)
    return save(canvas, folder / ABSTENTION, None)


def _factors(folder: Path, said: str, factors: Sequence[FactorFigures]) -> Path:
    names = sorted({one.factor for one in factors})
    canvas, panels = figure(f"One factor at a time ({said})", 12, 1.5 + 0.36 * len(names), 3, sharey=True)
    severities = sorted({one.severity for one in factors})
    of: tuple[tuple[str, Callable[[FactorFigures], float | None]], ...] = (
        ("5th percentile of IoU", lambda one: one.localisation.p5),
        ("share refused", lambda one: one.abstention.refused.value),
        ("same answer as the digital slice", lambda one: one.agreement.value if one.agreement else None),
    )
    for panel, (title, value) in zip(panels, of, strict=True):
        for number, (severity, colour) in enumerate(zip(severities, _COLOURS, strict=False)):
            points = [
                (value(one), names.index(one.factor) + _ROW_SHIFT * (len(severities) / 2 - number))
                for one in factors
                if one.severity == severity and value(one) is not None
            ]
            if points:
                panel.plot(
                    *zip(*points, strict=True), "o", markersize=4, color=colour, label=named(severity), clip_on=False
                )
        panel.set(xlabel=title, xlim=(0, 1))
        panel.grid(color="#EEEEEE")
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    below(panels[1], columns=len(severities))
    return save(canvas, folder / FACTORS, None)


def _stages(folder: Path, said: str, figures: CaptureFigures) -> Path:
    stages = figures.times.stages
    canvas, (panel,) = figure(f"Time of each stage on one core: median, line to the 95th percentile ({said})", 8, 3.6)
    y = np.arange(len(stages))[::-1]
    panel.barh(y, [one.median_ms for one in stages.values()], _BAR, color=SECOND)
    panel.hlines(y, [one.median_ms for one in stages.values()], [one.p95_ms for one in stages.values()], color=INK)
    panel.set_yticks(y, list(stages), fontsize=8)
    panel.set(xlabel="ms")
    return save(canvas, folder / STAGES, None)
