"""The table of the search, best first, as the paper's Figure 3."""

import csv
import io
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from training.evaluate import Estimate
from training.plan import Progress

HEADER = (
    "rank",
    "kernels",
    "maps",
    "hidden",
    "optimizer",
    "parameters",
    "train_loss",
    "validation_loss",
    "validation_balanced_accuracy",
    "low",
    "high",
    "seconds",
    "epochs",
    "end",
)


class TuneRow(BaseModel):
    """One combination and what became of it; the figures are those of its best epoch, or of the one it was stopped at.

    The interval is over validation patients. A dead run has a fault and no figures.
    """

    model_config = ConfigDict(frozen=True)
    kernels: str
    maps: str
    hidden: str
    optimizer: str
    parameters: int
    epochs: int
    seconds: float
    figures: Progress | None = None
    balanced_accuracy: Estimate | None = None
    by_epoch: tuple[float, ...] = ()
    """Balanced accuracy on validation after each epoch."""
    stopped: bool = False
    """By halving, before its last epoch."""
    fault: str = ""


def best_first(rows: Sequence[TuneRow]) -> list[TuneRow]:
    """Sort by balanced accuracy on validation, among equals by loss; dead runs last."""
    return sorted(rows, key=_worth, reverse=True)


def as_csv(rows: Sequence[TuneRow], leaked_patients: int = 0) -> str:
    """Return the rows, best first; a leaked table has a column that says so."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*HEADER, *(["leaked_patients"] if leaked_patients else [])])
    for rank, row in enumerate(best_first(rows), start=1):
        writer.writerow([*cells(rank, row), *([leaked_patients] if leaked_patients else [])])
    return text.getvalue()


def cells(rank: int, row: TuneRow) -> list[object]:
    """Return the row under HEADER."""
    figures, estimate = row.figures, row.balanced_accuracy
    return [
        rank,
        row.kernels,
        row.maps,
        row.hidden,
        row.optimizer,
        row.parameters,
        round(figures.train_loss, 4) if figures else "",
        round(figures.validation_loss, 4) if figures else "",
        *((round(n, 4) for n in (estimate.value, estimate.low, estimate.high)) if estimate else ("", "", "")),
        round(row.seconds, 1),
        row.epochs,
        row.fault or ("stopped" if row.stopped else "finished"),
    ]


def _worth(row: TuneRow) -> tuple[float, float]:
    if row.figures is None:
        return (-1.0, 0.0)
    return (row.figures.validation_balanced_accuracy, -row.figures.validation_loss)
