"""The findings in one sentence each: the titles of the plots, and the head of the report."""

from collections.abc import Sequence

from training.explore.counts import Count, most_tied
from training.explore.differences import EVERYWHERE, SURE_P, Pair
from training.explore.findings import Findings
from training.explore.intensities import MEASURES, Measure
from training.explore.shortcuts import CLASS, SOURCE, Row
from training.explore.views import View

TIED = 0.9
"""From this share on a class is called tied to its source; ours."""


def counts_title(counts: Sequence[Count]) -> str:
    """Say which class comes most from one source."""
    tie = most_tied(counts)
    if tie is None:
        return "All slices are from one source"
    label, source, share = tie
    tied = "Class and source are tied" if share >= TIED else "No class is from one source alone"
    return f"{tied}: {share:.0%} of the {label} slices are from {source}"


def brightness_title(findings: Findings) -> str:
    """Say whether brightness goes with the source more than with the class."""
    found = [findings.difference(measure.name, EVERYWHERE) for measure in MEASURES]
    told = [(one.sources, one.classes) for one in found if one is not None and one.sources and one.classes]
    if told and all(sources.epsilon_squared > classes.epsilon_squared for sources, classes in told):
        return "Brightness goes with the source more than with the class"
    return "Brightness by class, each dot a patient"


def intensities_title(findings: Findings, measure: Measure) -> str:
    """Say how much of a measure's variance the source tells, and how much the class."""
    found = findings.difference(measure.name, EVERYWHERE)
    classes, sources = (found.classes, found.sources) if found else (None, None)
    told = [
        f"{what} {spread.epsilon_squared:.0%}"
        for what, spread in (("source", sources), ("class", classes))
        if spread is not None
    ]
    return f"{measure.words}" + (f": {', '.join(told)} of the rank variance" if told else "")


def effects_title(findings: Findings) -> str:
    """Say how many of the differences between classes hold inside the sources."""
    kept, asked = _kept_inside(findings)
    if not asked:
        return "Differences between classes over patients (no source has two classes to compare)"
    return f"Inside one source {kept} of {asked} differences are sure and point as they do over all sources"


def shortcuts_title(findings: Findings) -> str:
    """Say what knowing the source tells of the class, and what the border tells of the source."""
    told = [
        f"{words} tells the {target} with {row.balanced_accuracy.value:.2f} (chance {row.chance:.2f})"
        for target, view, words in (
            (CLASS, View.SOURCE, "knowing the source"),
            (SOURCE, View.BORDER, "the border alone"),
        )
        if (row := _row(findings, target, view)) is not None and row.beats_guessing
    ]
    return f"A network can cheat: {'; '.join(told)}" if told else "What a simple classifier tells from parts of a slice"


def within_title(findings: Findings) -> str:
    """Say in how many sources a view without lungs tells the class."""
    best = [findings.audit.best_without_lungs(CLASS, one.source) for one in findings.lungs]
    asked = [row for row in best if row is not None]
    if not asked:
        return "What a simple classifier tells inside one source"
    cheated = sum(row.beats_guessing for row in asked)
    return f"Inside {cheated} of {len(asked)} sources with whole bodies a view without lungs tells the class"


def _kept_inside(findings: Findings) -> tuple[int, int]:
    """Return how many pairs inside sources differ, surely and in the direction that they have overall, of how many."""
    shown = {measure.name for measure in MEASURES}
    kept = asked = 0
    for one in findings.differences:
        overall = findings.difference(one.measure, EVERYWHERE)
        if one.stratum == EVERYWHERE or overall is None or one.measure not in shown:
            continue
        directions = {(pair.first, pair.second): pair for pair in overall.pairs}
        for pair in one.pairs:
            asked += 1
            kept += _agrees(pair, directions[pair.first, pair.second])
    return kept, asked


def _agrees(inside: Pair, overall: Pair) -> bool:
    return inside.p_holm < SURE_P and inside.cliffs_delta.value * overall.cliffs_delta.value > 0


def _row(findings: Findings, target: str, view: View) -> Row | None:
    """Return the view's row of the target's first block: on all slices, where they were asked."""
    return next((row for row in findings.audit.rows if (row.target, row.view) == (target, view)), None)
