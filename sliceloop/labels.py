"""The reviewer's desk in the terminal: list open disagreements, set labels by hand or from a CSV file."""

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from cloud_worker.dashboard.picture import half_blocks
from cloud_worker.ledger import Ledger, OpenDisagreement, StoredSlice, UnknownSliceError, VerdictParts
from cloud_worker.object_store import ObjectStore
from protocol.labels import LABELS, Label
from protocol.messages import NetworkReading
from training.model.decode import decode_image

MAX_NAME_CHARACTERS = 200
LINES_BESIDE_PICTURE = 8
MINUTES_A_DAY = 24 * 60
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
    table = Table(
        title=f"{total} open disagreements — research use only",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for column in ("slice", "source", "edge reads", "second reader", "kind", "since"):
        is_free = column == "source"  # everything else fits into 80 columns
        table.add_column(column, no_wrap=not is_free, overflow="ellipsis" if is_free else "crop")
    for row in rows:
        table.add_row(*_cells(row))
    Console().print(table)
    Console().print("? is uncertain; `sliceloop label show ID` draws a slice", style="dim", highlight=False)


def show_slice(ledger_url: str, store: ObjectStore, slice_id: str, image: Path | None) -> None:
    """Draw a slice with both readings, and write its PNG where asked; raises the ledger's and the store's errors."""
    with Ledger(ledger_url) as ledger:
        stored = ledger.find_slice(slice_id)
        parts = ledger.verdict_parts(stored.slice_id)
    png = store.get(stored.image_key)
    if image is not None:
        image.write_bytes(png)
    console = Console(highlight=False)
    if console.color_system and not console.no_color:
        pixels = decode_image(png)
        room = 2 * max(1, console.height - LINES_BESIDE_PICTURE) * pixels.shape[1] // pixels.shape[0]
        console.print(half_blocks(pixels, max(1, min(console.width, room))))
    elif image is None:
        console.print("no picture without colours: give --image FILE, and look at that")
    for line in _story(stored, parts):
        console.print(line, markup=False)


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
    minutes = row.age(datetime.now(UTC)).total_seconds() / 60
    since = f"{minutes:.0f} min" if minutes < MINUTES_A_DAY else f"{minutes / MINUTES_A_DAY:.0f} d"
    readings = _brief(row.first), _brief(row.second)
    return row.slice.slice_id[:12], row.slice.source, *readings, row.disagreement.kind, since


def _story(stored: StoredSlice, parts: VerdictParts) -> list[str]:
    lines = [
        f"{stored.slice_id} from {stored.source}, {stored.captured_at:%F %T} UTC — research use only",
        f"edge reads     {_words(parts.first)}",
        f"second reader  {_words(parts.second)}",
    ]
    if parts.disagreement is not None:
        lines.append(f"{parts.disagreement.kind:<14} {'; '.join(parts.disagreement.reasons)}")
    if parts.review is not None:
        lines.append(f"label          {parts.review.label}, says {parts.review.reviewer}")
    return lines


def _brief(reading: NetworkReading | None) -> str:
    return "—" if reading is None else f"{reading.label} {reading.confidence:.2f}{'?' if reading.uncertain else ''}"


def _words(reading: NetworkReading | None) -> str:
    if reading is None:
        return "—"
    return f"{'uncertain, ' if reading.uncertain else ''}{reading.label} {reading.confidence:.2f}"
