"""The reviewer's desk in the terminal: list open disagreements, set labels by hand or from a CSV file."""

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cloud_worker.ledger import Ledger, OpenDisagreement, UnknownSliceError
from protocol.labels import LABELS, Label
from protocol.messages import NetworkReading

MAX_NAME_CHARACTERS = 200
CSV_COLUMNS = ("slice_id", "label", "reviewer", "why")


class LabelInputError(ValueError):
    """A label that cannot be set; for a file the message names the line, and nothing of the file was set."""


@dataclass(frozen=True)
class LabelEntry:
    """A person's word on a slice, as typed; `line` is where it stands in the file."""

    slice_id: str
    label: Label
    reviewer: str
    why: str
    line: int


def show_open(ledger_url: str, limit: int) -> None:
    """Print the open disagreements, oldest first."""
    with Ledger(ledger_url) as ledger:
        rows = ledger.open_disagreements(limit)
        total = len(ledger.open_disagreements())
    table = Table(title=f"{total} open disagreements — research use only", title_justify="left")
    for column in ("slice", "source", "edge reads", "second reader", "kind", "why", "since"):
        table.add_column(column)
    for row in rows:
        table.add_row(*_cells(row))
    Console().print(table)


def export_open(ledger_url: str, path: Path) -> int:
    """Write the open disagreements as a CSV to fill in; return how many there are."""
    with Ledger(ledger_url) as ledger, path.open("w", newline="") as file:
        rows = ledger.open_disagreements()
        writer = csv.writer(file)
        writer.writerow([*CSV_COLUMNS, "source", "edge_reads", "second_reads", "image_key"])
        for row in rows:
            read = _words(row.first), _words(row.second)
            writer.writerow([row.slice.slice_id, "", "", "", row.slice.source, *read, row.slice.image_key])
    return len(rows)


def set_one(ledger_url: str, slice_id: str, label: str, reviewer: str, why: str) -> str:
    """Set one slice's label; return its full id. Raises `LabelInputError` and the ledger's errors."""
    with Ledger(ledger_url) as ledger:
        found = ledger.find_slice(slice_id).slice_id
        ledger.set_label(found, parse_label(label), _required_reviewer(reviewer), why, datetime.now(UTC))
    return found


def import_labels(ledger_url: str, path: Path, reviewer: str) -> int:
    """Set the labels of a CSV file, all or none; return how many. Raises `LabelInputError` naming the line."""
    entries = read_entries(path, reviewer)
    with Ledger(ledger_url) as ledger:
        for entry in entries:
            try:
                ledger.slice(entry.slice_id)
            except UnknownSliceError as error:
                raise LabelInputError(f"{path}, line {entry.line}: {error}; nothing was set") from None
        for entry in entries:
            ledger.set_label(entry.slice_id, entry.label, entry.reviewer, entry.why, datetime.now(UTC))
    return len(entries)


def read_entries(path: Path, reviewer: str) -> list[LabelEntry]:
    """Read the filled-in rows of a CSV file; raises `LabelInputError` naming the line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"slice_id", "label"} - set(reader.fieldnames or ())
            if missing:
                raise LabelInputError(f"{path}, line 1: no column {', '.join(sorted(missing))}")
            return [_entry(path, reader.line_num, row, reviewer) for row in reader if (row["label"] or "").strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelInputError(f"{path} cannot be read ({error}); save it as CSV in UTF-8") from error


def parse_label(text: str) -> Label:
    """Return the label of this name; raises `LabelInputError` naming the ones that exist."""
    try:
        return Label(text.strip())
    except ValueError:
        raise LabelInputError(f"label '{text}' is none of {', '.join(LABELS)}") from None


def _entry(path: Path, line: int, row: dict[str, str | None], reviewer: str) -> LabelEntry:
    try:
        return LabelEntry(
            slice_id=(row["slice_id"] or "").strip(),
            label=parse_label(row["label"] or ""),
            reviewer=_required_reviewer((row.get("reviewer") or "").strip() or reviewer),
            why=(row.get("why") or "").strip(),
            line=line,
        )
    except LabelInputError as error:
        raise LabelInputError(f"{path}, line {line}: {error}; nothing was set") from None


def _required_reviewer(reviewer: str) -> str:
    if not reviewer.strip():
        raise LabelInputError("no reviewer: fill the column, or give --reviewer")
    if len(reviewer.strip()) > MAX_NAME_CHARACTERS:
        raise LabelInputError(f"the reviewer's name has over {MAX_NAME_CHARACTERS} characters")
    return reviewer.strip()


def _cells(row: OpenDisagreement) -> tuple[str, ...]:
    since = f"{row.age(datetime.now(UTC)).total_seconds() / 60:.0f} min"
    kind = row.disagreement.kind
    reasons = "; ".join(row.disagreement.reasons)
    return row.slice.slice_id[:12], row.slice.source, _words(row.first), _words(row.second), kind, reasons, since


def _words(reading: NetworkReading | None) -> str:
    if reading is None:
        return "—"
    return f"{'uncertain, ' if reading.uncertain else ''}{reading.label} {reading.confidence:.2f}"
