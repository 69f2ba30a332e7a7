"""What an audit's row means, in a sentence that a reader of the report can act on."""

from training.explore.shortcuts import SOURCE, Row
from training.explore.views import View

MUCH, SOME = 0.5, 0.2
"""Skill (0 guessing, 1 always right) from which a view tells most of it, or part of it; ours, to have words for it."""

_SUBJECTS = {
    View.SOURCE: "Knowing the source, without any picture,",
    View.CUT_OUT: "One bit (are the surroundings black?)",
    View.BORDER: "The border alone",
    View.NO_LUNGS: "The slice with its lungs blacked out",
    View.HISTOGRAM: "The histogram alone",
    View.LUNGS: "The picture of the lungs alone",
    View.WHOLE: "The small whole slice",
}


def verdict(row: Row, rival: Row | None) -> str:
    """Say what the row means for a network; `rival` is the best row without lungs in the same block."""
    subject = _SUBJECTS[row.view]
    if not row.beats_guessing:
        return f"{subject} does not surely tell the {row.target} better than guessing: {row.balanced_accuracy}."
    return (
        f"{subject} tells the {row.target} {_how_well(row)} with {row.balanced_accuracy}: {_consequence(row, rival)}."
    )


def _how_well(row: Row) -> str:
    return "largely" if row.skill >= MUCH else "in part" if row.skill >= SOME else "a little"


def _consequence(row: Row, rival: Row | None) -> str:
    if row.target == SOURCE:
        return "a network can cheat wherever class and source go together"
    if row.view is View.SOURCE:
        return "so much is class and source being tied worth, and a network has to beat it"
    if not row.holds_lung:
        return "a network can cheat, for there is no lung in it"
    if row.view is View.BORDER:
        return "where lungs were cut out their own rim is in it, so this is cheating or disease"
    return _beside(row, rival) if rival else "disease, or window, crop and style: nothing here tells which"


def _beside(row: Row, rival: Row) -> str:
    more = row.balanced_accuracy.value - rival.balanced_accuracy.value
    without = f'"{rival.view}" ({rival.balanced_accuracy.value:.3f}), where there is no lung'
    if row.balanced_accuracy.low <= rival.balanced_accuracy.high:
        return f"not surely more than {without}"
    return f"{more:.3f} more than {without}; disease can be in that, and so can window and crop"
