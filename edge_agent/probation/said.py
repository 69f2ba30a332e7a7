"""How often the incumbent said one label and the candidate another, where the incumbent was certain."""

from collections.abc import Iterable

from edge_agent.probation.evidence import Count
from protocol.labels import LABELS, Label

Said = dict[Label, dict[Label, int]]
"""By the incumbent's label the candidate's; what was never said is left out."""


def one_more(said: Said, given: Label, answer: Label) -> Said:
    """Return the counts after a slice in which the incumbent gave the first label and the candidate the second."""
    row = said.get(given, {})
    return {**said, given: {**row, answer: row.get(answer, 0) + 1}}


def times(said: Said, given: Iterable[Label], answer: Label) -> int:
    """Count the slices in which the incumbent said one of these labels and the candidate that one."""
    return sum(said.get(label, {}).get(answer, 0) for label in given)


def contradicted(said: Said, group: Iterable[Label] = LABELS) -> Count:
    """Count those to which the incumbent gave a label of the group, and how many of them got another one."""
    rows = [(label, said[label]) for label in group if label in said]
    trials = sum(sum(row.values()) for _, row in rows)
    return Count(trials=trials, events=trials - sum(row.get(label, 0) for label, row in rows))


def other_answers(said: Said, group: Iterable[Label]) -> list[Label]:
    """Return the labels that the candidate gave instead of a label of the group."""
    rows = {label: said.get(label, {}) for label in group}
    return [answer for answer in LABELS if any(answer in row for given, row in rows.items() if given is not answer)]
