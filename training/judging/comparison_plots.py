"""The plots of a comparison."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import LogLocator, NullFormatter

from protocol.labels import LABELS
from training.evaluate import Estimate
from training.judging.canvas import CLASS_COLOURS, INK, SECOND, SHARES, below, figure, forest, save
from training.judging.comparison import Comparison, ModelRow
from training.judging.record import Record

FOREST, COST, SOURCES = "balanced_accuracy.png", "cost.png", "sources.png"
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333", "#999999")
_MANY = "tab20"
_ROW_INCHES = 0.42
_MOST_APART = 0.7
_LEGEND_COLUMNS = 4


def draw_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Draw every plot of the comparison; return the files."""
    return [_forest(folder, comparison), _cost(folder, comparison), _sources(folder, comparison)]


def _forest(folder: Path, comparison: Comparison) -> Path:
    models = comparison.models
    title = f"Balanced accuracy on the {comparison.split} split, 95 % intervals over {comparison.n_patients} patients"
    canvas, panels = figure(title, 13, 2.8 + _ROW_INCHES * len(models), 3, sharey=True)
    for judgement, colour, shift in (("by_slice", INK, 0.12), ("by_patient", SECOND, -0.12)):
        rows = {row.name: getattr(row.record, judgement).evaluation.balanced_accuracy for row in models}
        forest(panels[0], rows, colour, judgement.replace("_", " "), shift)
    panels[0].axvline(1 / len(LABELS), color="#999999", linewidth=0.8, linestyle=":")
    panels[0].set(xlim=SHARES, xlabel="balanced accuracy (dotted: chance)")
    below(panels[0], columns=2)
    _sensitivities(panels[1], models)
    _differences(panels[2], comparison)
    return save(canvas, folder / FOREST, comparison.leak)


def _sensitivities(panel: Axes, models: Sequence[ModelRow]) -> None:
    for label, shift in zip(LABELS, (0.22, 0.0, -0.22), strict=True):
        found = {row.name: row.record.by_slice.evaluation.by_class[label].sensitivity for row in models}
        rows = {name: estimate for name, estimate in found.items() if estimate is not None}
        if rows:
            forest(panel, rows, CLASS_COLOURS[label], label, shift)
    panel.set(xlim=SHARES, xlabel="sensitivity by slice")
    below(panel, columns=3)


def _differences(panel: Axes, comparison: Comparison) -> None:
    nothing = Estimate(value=0, low=0, high=0)
    for judgement, colour, shift in (("by_slice", INK, 0.12), ("by_patient", SECOND, -0.12)):
        found = {pair.model: getattr(pair, judgement).balanced_accuracy for pair in comparison.pairs}
        forest(panel, {row.name: found.get(row.name, nothing) for row in comparison.models}, colour, "", shift)
    panel.axvline(0, color="#999999", linewidth=0.8, linestyle=":")
    panel.set_xlabel(f"paired difference from {comparison.reference}")


def _cost(folder: Path, comparison: Comparison) -> Path:
    canvas, panels = figure(f"What accuracy costs ({comparison.split} split, by slice)", 12, 4.8, 3)
    axes: list[tuple[str, Callable[[ModelRow], float | None]]] = [
        ("million multiply-accumulates a slice", lambda row: row.record.model.cost.macs / 1e6),
        (f"median ms a slice, one thread, {comparison.origin.processor}", _median_ms),
        ("MB as ONNX", lambda row: row.record.model.cost.file_bytes / 1e6),
    ]
    for panel, (name, read) in zip(panels, axes, strict=True):
        for row, colour in zip(comparison.models, _colours(len(comparison.models)), strict=True):
            _point(panel, read(row), row.record, row.name, colour)
        panel.set(xscale="log", xlabel=name, ylim=(0, 1))
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(color="#EEEEEE")
        panel.set_axisbelow(True)
    panels[0].set_ylabel("balanced accuracy, 95 % interval over patients")
    canvas.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=_LEGEND_COLUMNS, frameon=False
    )
    return save(canvas, folder / COST, comparison.leak)


def _median_ms(row: ModelRow) -> float | None:
    return row.latency.median_ms if row.latency else None


def _point(panel: Axes, x: float | None, record: Record, name: str, colour: str) -> None:
    if x:
        estimate = record.by_slice.evaluation.balanced_accuracy
        panel.plot([x, x], [estimate.low, estimate.high], color=colour, linewidth=1.4)
        panel.plot(x, estimate.value, "o", color=colour, label=name)


def _sources(folder: Path, comparison: Comparison) -> Path:
    sources = list(comparison.models[0].record.by_slice.evaluation.by_source)
    models = comparison.models
    height = 1.6 + len(sources) * max(0.5, 0.17 * len(models))
    canvas, (panel,) = figure("Balanced accuracy by slice inside each source, over its classes", 10, height)
    step = min(_MOST_APART / len(models), 0.2)
    for index, (row, colour) in enumerate(zip(models, _colours(len(models)), strict=True)):
        found = row.record.by_slice.evaluation.by_source
        rows = {f"{name}\n{' / '.join(found[name].sensitivity)}": found[name].balanced_accuracy for name in sources}
        forest(panel, rows, colour, row.name, step * ((len(models) - 1) / 2 - index))
    panel.set(xlim=SHARES, xlabel="balanced accuracy, 95 % interval over patients")
    below(panel, columns=_LEGEND_COLUMNS)
    return save(canvas, folder / SOURCES, comparison.leak)


def _colours(n: int) -> list[str]:
    """Return a colour for each model; ours are for all eyes, but there are only so many."""
    palette = (
        _PALETTE if n <= len(_PALETTE) else [to_hex(colormaps[_MANY](index)) for index in range(colormaps[_MANY].N)]
    )
    return [palette[index % len(palette)] for index in range(n)]
