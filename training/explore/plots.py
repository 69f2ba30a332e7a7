"""The exploration's pictures; each title says what the picture shows, with its figure."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from protocol.labels import LABELS, Label
from training.data.labelled import SPLITS
from training.explore.counts import Count
from training.explore.differences import EVERYWHERE, LEAST_PATIENTS, SURE_P, Difference, Pair
from training.explore.findings import Findings
from training.explore.intensities import MEASURES, Array, Measure, PatientValues
from training.explore.sentences import (
    brightness_title,
    counts_title,
    effects_title,
    intensities_title,
    shortcuts_title,
    within_title,
)
from training.explore.shortcuts import CLASS, SOURCE, Row
from training.judging.canvas import CLASS_COLOURS, FAINT, INK, head_leaked

COUNTS, INTENSITIES, EFFECTS = "counts.png", "intensities.png", "effects.png"
SHORTCUTS, SHORTCUTS_WITHIN = "shortcuts.png", "shortcuts-within-sources.png"

_NO_LUNG, _WITH_LUNG = "#C0392B", "#5B7C99"
_GRID = "#E6E6E6"
_DPI = 130
_WIDTH_IN = 11.0
_ROW_IN = 0.27
_MARGIN_IN = 1.5
_TITLE_PT, _TEXT_PT, _SMALL_PT = 12, 9, 8
_DOTS = 400
"""As many patients of a row are drawn as dots, evenly over their values; the box is of all."""
_JITTER = 0.22
_LINEAR_SHARE = 0.001


def draw_all(findings: Findings, patients: PatientValues) -> dict[str, bytes]:
    """Return the PNGs by file name; a picture with nothing to show is left out."""
    figures = {
        COUNTS: counts_figure(findings.counts),
        INTENSITIES: intensities_figure(findings, patients),
        EFFECTS: effects_figure(findings),
        SHORTCUTS: shortcuts_figure(findings),
        SHORTCUTS_WITHIN: within_figure(findings),
    }
    return {name: _png(figure, findings) for name, figure in figures.items() if figure is not None}


def counts_figure(counts: Sequence[Count]) -> Figure:
    """Draw slices and patients by source and class as stacked bars, a column for each split (the paper's Figure 1)."""
    splits = [split for split in SPLITS if any(one.split == split for one in counts)]
    sources = sorted({one.source for one in counts}, reverse=True)
    figure = _figure(2 * (len(sources) * _ROW_IN + 1.0) + 0.8)
    axes = figure.subplots(2, len(splits), squeeze=False, sharey=True, sharex="row")
    for column, split in enumerate(splits):
        of_split = [one for one in counts if one.split == split]
        _stack(axes[0, column], of_split, sources, lambda one: one.n_slices)
        _stack(axes[1, column], of_split, sources, lambda one: one.n_patients)
        axes[0, column].set_title(split, fontsize=_TEXT_PT + 1, color=INK)
        axes[0, column].set_xlabel("slices", fontsize=_SMALL_PT)
        axes[1, column].set_xlabel("patients", fontsize=_SMALL_PT)
    handles = [Patch(color=CLASS_COLOURS[label], label=label.value) for label in LABELS]
    _head(figure, counts_title(counts), handles)
    return figure


def intensities_figure(findings: Findings, patients: PatientValues) -> Figure:
    """Draw each patient's brightness by class, over all sources and by source (the paper's Figure 2)."""
    rows = _strata(patients)
    figure = _figure(len(rows) * _ROW_IN * 1.15 + _MARGIN_IN)
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for at, (panel, measure) in enumerate(zip(panels, MEASURES, strict=True)):
        for row, (_, label, chosen) in enumerate(rows):
            _box(panel, len(rows) - 1 - row, patients.values[chosen, at], CLASS_COLOURS[label])
        panel.set_title(intensities_title(findings, measure), fontsize=_TEXT_PT, color=INK)
        panel.set_xlabel(f"{measure.unit}, a patient's mean over its slices", fontsize=_SMALL_PT)
        if measure.is_share:
            _share_scale(panel)
        _finish(panel)
    names = [f"{stratum} · {label} (n={int(chosen.sum())})" for stratum, label, chosen in rows]
    panels[0].set_yticks(range(len(rows) - 1, -1, -1), names)
    _separate(panels, [stratum for stratum, _, _ in rows])
    _head(figure, brightness_title(findings), [])
    return figure


def effects_figure(findings: Findings) -> Figure | None:
    """Draw Cliff's delta with its interval for each pair of classes, over all sources and inside each."""
    shown = {measure: _pairs_of(findings, measure) for measure in MEASURES}
    names = [(stratum, pair.first, pair.second) for stratum, pair in shown[MEASURES[0]]]
    if not names:
        return None
    figure = _figure(len(names) * _ROW_IN * 1.2 + _MARGIN_IN)
    panels = figure.subplots(1, len(MEASURES), sharey=True, sharex=True)
    for panel, measure in zip(panels, MEASURES, strict=True):
        for row, (stratum, pair) in enumerate(shown[measure]):
            delta = pair.cliffs_delta
            colour = INK if stratum == EVERYWHERE else _WITH_LUNG
            _dot(panel, len(names) - 1 - row, delta.value, delta.low, delta.high, colour, hollow=pair.p_holm >= SURE_P)
        panel.axvline(0, color=FAINT, linewidth=1)
        panel.set(xlim=(-1.05, 1.05))
        panel.set_title(measure.words, fontsize=_TEXT_PT + 1, color=INK)
        panel.set_xlabel("Cliff's delta: above 0 the first class is brighter", fontsize=_SMALL_PT)
        _finish(panel)
    panels[0].set_yticks(range(len(names) - 1, -1, -1), [f"{s} · {first} over {second}" for s, first, second in names])
    _separate(panels, [stratum for stratum, _, _ in names])
    hollow = Line2D([], [], marker="o", color=INK, markerfacecolor="white", linestyle="", label=f"Holm p ≥ {SURE_P}")
    full = Line2D([], [], marker="o", color=INK, linestyle="", label=f"Holm p < {SURE_P}")
    _head(figure, effects_title(findings), [full, hollow])
    return figure


def shortcuts_figure(findings: Findings) -> Figure | None:
    """Draw how well class and source are told from each view, on all slices and on whole bodies."""
    blocks = [block for block in findings.audit.blocks() if _is_overall(findings, block)]
    by_target = [(t, [b for b in blocks if b[0] == t]) for t in (CLASS, SOURCE)]
    shown = [(target, found) for target, found in by_target if found]
    return _audit_figure(findings, shown, shortcuts_title(findings).replace("; ", "\n")) if shown else None


def within_figure(findings: Findings) -> Figure | None:
    """Draw how well the class is told inside each source that has two."""
    blocks = [block for block in findings.audit.blocks() if not _is_overall(findings, block)]
    return _audit_figure(findings, [("class inside one source", blocks)], within_title(findings)) if blocks else None


def _stack(axes: Axes, counts: Sequence[Count], sources: Sequence[str], size: Callable[[Count], int]) -> None:
    left = np.zeros(len(sources))
    for label in LABELS:
        width = np.array([sum(size(c) for c in counts if (c.source, c.label) == (s, label)) for s in sources], float)
        axes.barh(range(len(sources)), width, left=left, color=CLASS_COLOURS[label], height=0.72)
        left += width
    for row, total in enumerate(left):
        axes.annotate(
            f"{int(total)}" if total else "–",
            (total, row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=_SMALL_PT,
            color=INK if total else FAINT,
        )
    axes.set_yticks(range(len(sources)), sources)
    axes.margins(x=0.14)
    _finish(axes)


def _strata(patients: PatientValues) -> list[tuple[str, Label, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]]:
    """Return stratum, class and who is in it: all sources first, then each source's classes."""
    of = np.asarray(patients.sources)
    everyone = np.ones(len(of), np.bool_)
    strata = [(EVERYWHERE, everyone)]
    if len(set(patients.sources)) > 1:
        strata += [(name, of == name) for name in sorted(set(patients.sources))]
    rows = [(s, label, inside & (patients.labels == at)) for s, inside in strata for at, label in enumerate(LABELS)]
    return [row for row in rows if row[2].any()]


def _box(axes: Axes, row: float, values: Array, colour: str) -> None:
    dots = np.sort(values)[np.linspace(0, len(values) - 1, min(len(values), _DOTS)).round().astype(int)]
    spread = np.random.default_rng(len(values)).uniform(-_JITTER, _JITTER, len(dots))
    few = len(values) < LEAST_PATIENTS
    axes.scatter(
        dots, row + spread, s=22 if few else 6, color=colour, alpha=0.9 if few else 0.4, linewidths=0, zorder=2
    )
    if few:  # a box of so few patients would look like knowledge
        return
    axes.boxplot(
        [values],
        positions=[row],
        orientation="horizontal",
        widths=0.62,
        showfliers=False,
        manage_ticks=False,
        boxprops={"color": INK},
        whiskerprops={"color": INK},
        capprops={"color": INK},
        medianprops={"color": INK, "linewidth": 2},
    )


def _share_scale(axes: Axes) -> None:
    """Show shares from 0 to 1 by their order of magnitude, straight below a thousandth."""
    axes.set_xscale("symlog", linthresh=_LINEAR_SHARE, linscale=0.6)
    axes.set_xticks([0, 0.001, 0.01, 0.1, 1], ["0", "0.1 %", "1 %", "10 %", "100 %"])
    axes.minorticks_off()
    axes.set_xlim(-_LINEAR_SHARE / 5, 1.05)


def _pairs_of(findings: Findings, measure: Measure) -> list[tuple[str, Pair]]:
    found: list[Difference] = [one for one in findings.differences if one.measure == measure.name]
    return [(one.stratum, pair) for one in found for pair in one.pairs]


def _is_overall(findings: Findings, block: tuple[str, str]) -> bool:
    return block[1] not in {one.source for one in findings.lungs}


def _audit_figure(findings: Findings, columns: Sequence[tuple[str, list[tuple[str, str]]]], title: str) -> Figure:
    lists = [[row for block in blocks for row in findings.audit.rows_of(*block)] for _, blocks in columns]
    heads = max(len(blocks) for _, blocks in columns)
    figure = _figure((max(len(rows) for rows in lists) + heads) * _ROW_IN + _MARGIN_IN)
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for panel, (target, blocks), _ in zip(panels, columns, lists, strict=True):
        _audit_panel(panel, findings, blocks)
        panel.set_xlabel(f"balanced accuracy of telling the {target}", fontsize=_SMALL_PT)
    handles = [
        Line2D([], [], marker="o", color=_NO_LUNG, label="no lung in it: all above chance is a shortcut"),
        Line2D([], [], marker="o", color=_WITH_LUNG, label="lung in it"),
        Line2D([], [], marker="|", color=INK, linestyle="", markersize=11, label="chance"),
    ]
    _head(figure, title, handles)
    return figure


def _audit_panel(axes: Axes, findings: Findings, blocks: Sequence[tuple[str, str]]) -> None:
    ticks: dict[float, str] = {}
    least = min(
        min(row.chance, row.balanced_accuracy.low) for block in blocks for row in findings.audit.rows_of(*block)
    )
    left = max(0.0, np.floor(10 * least - 0.5) / 10)
    at = 0.0
    for block in blocks:
        rows = findings.audit.rows_of(*block)
        axes.text(left, at, _block_head(rows[0]), fontsize=_SMALL_PT, fontweight="bold", color=INK, va="center")
        for row in rows:
            at -= 1
            ticks[at] = row.view.value
            _audit_row(axes, at, row)
        at -= 1.3
    axes.set(xlim=(left, 1 + 0.14 * (1 - left)), ylim=(at + 0.6, 0.8))
    axes.set_xticks(np.arange(left, 1.01, 0.2 if left < 0.2 else 0.1))
    axes.set_yticks(list(ticks), list(ticks.values()))
    _finish(axes)


def _audit_row(axes: Axes, at: float, row: Row) -> None:
    estimate = row.balanced_accuracy
    across = axes.get_yaxis_transform()
    colour = _WITH_LUNG if row.holds_lung else _NO_LUNG
    axes.plot([row.chance, estimate.value], [at, at], color=colour, linewidth=5, alpha=0.18, solid_capstyle="butt")
    axes.plot([row.chance], [at], marker="|", color=INK, markersize=11)
    _dot(axes, at, estimate.value, estimate.low, estimate.high, colour)
    axes.text(1, at, f"{estimate.value:.2f}", fontsize=_SMALL_PT, color=INK, va="center", ha="right", transform=across)


def _block_head(row: Row) -> str:
    return f"{row.population}: {len(row.answers)} {_plural(row)}, {row.n_patients} patients, {row.n_slices} slices"


def _plural(row: Row) -> str:
    return "sources" if row.target == SOURCE else "classes"


def _dot(axes: Axes, at: float, value: float, low: float, high: float, colour: str, *, hollow: bool = False) -> None:
    axes.plot([low, high], [at, at], color=colour, linewidth=1.6, zorder=3)
    axes.plot(
        [value], [at], marker="o", color=colour, markersize=5.5, markerfacecolor="white" if hollow else colour, zorder=4
    )


def _separate(panels: Sequence[Axes], strata: Sequence[str]) -> None:
    """Draw a line where a new stratum begins; rows go from the top down."""
    for row in range(1, len(strata)):
        if strata[row] != strata[row - 1]:
            for panel in panels:
                panel.axhline(len(strata) - row - 0.5, color=FAINT, linewidth=0.6)


def _figure(height_in: float) -> Figure:
    return Figure((_WIDTH_IN, height_in), layout="constrained")


def _head(figure: Figure, title: str, handles: Sequence[Patch | Line2D]) -> None:
    figure.suptitle(title, fontsize=_TITLE_PT, color=INK, fontweight="bold", wrap=True)
    if handles:
        figure.legend(
            handles=list(handles), loc="outside lower center", ncols=len(handles), frameon=False, fontsize=_SMALL_PT
        )


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_SMALL_PT, length=0)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)


def _png(figure: Figure, findings: Findings) -> bytes:
    if findings.story.leaked_patients:
        text = f"{findings.story.leaked_patients} patients stand on two sides of this data set's split"
        head_leaked(figure, f"LEAKED: {text}")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    return png.getvalue()
