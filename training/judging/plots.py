"""The plots of one evaluation; slices on the left, patients on the right."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from protocol.labels import LABELS, Label
from training.evaluate import Estimate
from training.judging.canvas import CLASS_COLOURS, FAINT, INK, SECOND, SHARES, below, figure, forest, save, unit_square
from training.judging.curves import GRID
from training.judging.figures import CalibrationFigures, ConfidenceBin, Judged, Judgement
from training.judging.unseen import LeakMark

PRECISION_RECALL, ROC, CONFUSION = "precision_recall.png", "roc.png", "confusion.png"
CALIBRATION, RISK_COVERAGE, BY_SOURCE = "calibration.png", "risk_coverage.png", "by_source.png"
_ROW_INCHES = 0.3
_DARK = 0.6
"""Cells darker than this carry white figures."""


def draw_plots(folder: Path, judged: tuple[Judged, ...], name: str, leak: LeakMark) -> list[Path]:
    """Draw every plot of the judgements by slice and by patient; return the files."""
    return [
        _precision_recall(folder, judged, name, leak),
        _roc(folder, judged, name, leak),
        _confusion(folder, judged, name, leak),
        _calibration(folder, judged, name, leak),
        _risk_coverage(folder, judged, name, leak),
        _by_source(folder, judged, name, leak),
    ]


def _precision_recall(folder: Path, judged: tuple[Judged, ...], name: str, leak: LeakMark) -> Path:
    canvas, panels = figure(f"{name}: precision against recall", 11, 6, len(judged))
    for panel, one in zip(panels, judged, strict=True):
        for label, curve in one.curves.items():
            colour = CLASS_COLOURS[label]
            share = curve.n_positive / (curve.n_positive + curve.n_negative)
            text = f"{label}: AP {curve.average_precision}, n {curve.n_positive}"
            panel.fill_between(GRID, *curve.precision_band, color=colour, alpha=0.12, linewidth=0)
            panel.step(np.append(0, curve.recall), _held(curve.precision), where="pre", color=colour, label=text)
            panel.axhline(share, color=colour, linewidth=0.8, linestyle=":")
        unit_square(panel, "recall (sensitivity)", "precision (positive predictive value)")
        _title(panel, one.figures)
        below(panel, "dotted: the class's share, as by chance")
    return save(canvas, folder / PRECISION_RECALL, leak)


def _roc(folder: Path, judged: tuple[Judged, ...], name: str, leak: LeakMark) -> Path:
    canvas, panels = figure(f"{name}: each class against the others", 11, 6, len(judged))
    for panel, one in zip(panels, judged, strict=True):
        for label, curve in one.curves.items():
            colour = CLASS_COLOURS[label]
            text = f"{label}: AUROC {curve.auroc}, n {curve.n_positive}"
            panel.fill_between(GRID, *curve.recall_band, color=colour, alpha=0.12, linewidth=0)
            panel.plot(np.append(0, curve.false_positive_rate), np.append(0, curve.recall), color=colour, label=text)
        panel.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
        unit_square(panel, "false positive rate (1 - specificity)", "true positive rate (sensitivity)")
        _title(panel, one.figures)
        below(panel)
    return save(canvas, folder / ROC, leak)


def _confusion(folder: Path, judged: tuple[Judged, ...], name: str, leak: LeakMark) -> Path:
    canvas, panels = figure(f"{name}: true class against answer", 9.5, 4.6, len(judged))
    for panel, one in zip(panels, judged, strict=True):
        counts = np.array(one.figures.evaluation.confusion)
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), n in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > _DARK else INK
            panel.text(column, row, f"{n}\n{shares[row, column]:.0%}", ha="center", va="center", color=colour)
        panel.set_xticks(range(len(LABELS)), LABELS, fontsize=8)
        panel.set_yticks(range(len(LABELS)), LABELS, fontsize=8)
        panel.set(xlabel="answer", ylabel="true class")
        panel.spines[:].set_visible(False)
        _title(panel, one.figures)
    return save(canvas, folder / CONFUSION, leak)


def _calibration(folder: Path, judged: tuple[Judged, ...], name: str, leak: LeakMark) -> Path:
    canvas, panels = figure(f"{name}: how often right, by how sure", 11, 5.8, len(judged))
    for panel, one in zip(panels, judged, strict=True):
        figures = one.figures.calibration
        panel.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
        if figures.error_without is not None:
            _reliability(panel, figures.bins_without, FAINT, f"temperature 1: ECE {figures.error_without}")
        _reliability(panel, figures.bins, CLASS_COLOURS[LABELS[0]], _calibrated(one.figures.unit, figures))
        unit_square(panel, "confidence (probability of the answer)", "share of right answers")
        _title(panel, one.figures)
        below(panel, "area of a point: its share of the answers")
    return save(canvas, folder / CALIBRATION, leak)


def _calibrated(unit: str, figures: CalibrationFigures) -> str:
    what = "mean of the slices" if unit == "patient" else f"temperature {figures.temperature:.2f}"
    return f"{what}: ECE {figures.error}"


def _reliability(panel: Axes, bins: tuple[ConfidenceBin, ...], colour: str, label: str) -> None:
    confidence, accuracy = [one.confidence for one in bins], [one.accuracy for one in bins]
    total = sum(one.n for one in bins)
    panel.plot(confidence, accuracy, color=colour, linewidth=1.2, label=label)
    panel.scatter(
        confidence,
        accuracy,
        s=[8 + 400 * one.n / total for one in bins],
        color=colour,
        alpha=0.5,
        linewidths=0,
        clip_on=False,
    )


def _risk_coverage(folder: Path, judged: tuple[Judged, ...], name: str, leak: LeakMark) -> Path:
    canvas, panels = figure(
        f"{name}: errors when the least sure are left to someone else", 11, 5.2, len(judged), sharey=True
    )
    for panel, one in zip(panels, judged, strict=True):
        figures, colour = one.figures.risk_coverage, CLASS_COLOURS[LABELS[0]]
        panel.fill_between(GRID, *one.risk.band, color=colour, alpha=0.12, linewidth=0)
        panel.step(one.risk.coverage, one.risk.risk, where="pre", color=colour, label=f"mean error {figures.area}")
        own = figures.own_threshold
        if own.error is not None:
            text = (
                f"confidence of at least {own.uncertain_below:g}: {own.answered.value:.0%} answered, {own.error} wrong"
            )
            panel.plot(own.answered.value, own.error.value, "D", color=CLASS_COLOURS[LABELS[2]], label=text)
        panel.set(xlim=(0, 1), ylim=(0, None), xlabel="coverage (share answered, the surest first)")
        panel.grid(color="#EEEEEE")
        _title(panel, one.figures)
        below(panel)
    panels[0].set_ylabel("risk (share wrong among the answered)")
    return save(canvas, folder / RISK_COVERAGE, leak)


def _by_source(folder: Path, judged: tuple[Judged, ...], name: str, leak: LeakMark) -> Path:
    rows = [_source_rows(one.figures) for one in judged]
    height = 1.7 + _ROW_INCHES * 1.6 * len(rows[0])
    canvas, (panel,) = figure(f"{name}: balanced accuracy by source", 9.5, height)
    for one, estimates, colour, shift in zip(judged, rows, (INK, SECOND), (0.12, -0.12), strict=False):
        forest(panel, estimates, colour, f"by {one.figures.unit}", shift)
    panel.set(xlim=SHARES, xlabel="balanced accuracy over the classes of the source, 95 % interval over patients")
    below(panel, columns=2)
    return save(canvas, folder / BY_SOURCE, leak)


def _source_rows(figures: Judgement) -> dict[str, Estimate]:
    evaluation = figures.evaluation
    rows = {f"all\n{evaluation.n_patients} patients": evaluation.balanced_accuracy}
    for source, one in evaluation.by_source.items():
        rows[_row_name(source, one.sensitivity, one.n_patients)] = one.balanced_accuracy
    for fair in figures.fair.values():
        if len(fair.sources) > 1:
            rows[_row_name(" + ".join(fair.sources), fair.labels, fair.n_patients)] = fair.balanced_accuracy
    return rows


def _row_name(source: str, labels: Iterable[Label], n_patients: int) -> str:
    return f"{source}\n{' / '.join(labels)}, {n_patients} patients"


def _held(precision: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Begin the curve at recall 0 with the first precision, as there is none before the first answer."""
    return np.append(precision[0], precision)


def _title(panel: Axes, figures: Judgement) -> None:
    evaluation = figures.evaluation
    n = f"{evaluation.n_slices} slices of " if figures.unit == "slice" else ""
    panel.set_title(f"by {figures.unit} ({n}{evaluation.n_patients} patients)", fontsize=9, color=INK)
