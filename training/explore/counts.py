"""The paper's Figure 1: how many slices and patients of each class, by source and split."""

from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from protocol.labels import LABELS, Label
from training.data.slices import LabelledSlice


class Count(BaseModel):
    """The slices and patients of a class in a source's part of a split."""

    model_config = ConfigDict(frozen=True)
    split: str
    source: str
    label: Label
    n_slices: int
    n_patients: int


def count(rows: Sequence[LabelledSlice]) -> tuple[Count, ...]:
    """Count the rows, by split, source and class; a patient with slices of two classes counts in both."""
    slices: dict[tuple[str, str, Label], int] = defaultdict(int)
    patients: dict[tuple[str, str, Label], set[str]] = defaultdict(set)
    for row in rows:
        slices[row.split, row.source, row.label] += 1
        patients[row.split, row.source, row.label].add(row.patient_id)
    order = sorted(slices, key=lambda at: (at[0], at[1], LABELS.index(at[2])))
    return tuple(
        Count(split=at[0], source=at[1], label=at[2], n_slices=slices[at], n_patients=len(patients[at])) for at in order
    )


def most_tied(counts: Sequence[Count]) -> tuple[Label, str, float] | None:
    """Return the class that comes most from one source, that source, and its share; None where there is one source."""
    if len({one.source for one in counts}) < 2:
        return None
    by_source: dict[Label, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one in counts:
        by_source[one.label][one.source] += one.n_slices
    ties = [
        (n / sum(sources.values()), label, source)
        for label, sources in by_source.items()
        for source, n in sources.items()
    ]
    share, label, source = max(ties)
    return label, source, share
