"""Many messages in one transaction: what a receiver has ready when the one before is on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from sqlalchemy.engine import Connection

from cloud_worker.ledger.database import Database, insert_many
from cloud_worker.ledger.edges import insert_report
from cloud_worker.ledger.records import StoredFrame
from cloud_worker.ledger.slices import reading_row, slice_row
from cloud_worker.ledger.tables import frames, readings, slices
from protocol.messages import ModelReported, SliceRead, Status


@dataclass(frozen=True)
class SliceEntry:
    """A slice whose image is in the object store."""

    message_id: str
    site: str
    edge: str
    slice: SliceRead
    image_key: str
    received_at: datetime


@dataclass(frozen=True)
class ReportEntry:
    """What an edge says of itself."""

    site: str
    edge: str
    report: Status | ModelReported
    received_at: datetime


Entry = SliceEntry | StoredFrame | ReportEntry
MessageEntry = TypeVar("MessageEntry", SliceEntry, StoredFrame)


class BatchRows(Database):
    """The part of the ledger that a receiver writes."""

    def take_in(self, entries: Sequence[Entry]) -> set[str]:
        """Store all of them or none; return the message ids that were new, so without those of what came again.

        Raises `RefusedByLedgerError` when one of them will never go: give them singly then.
        """
        read = [entry for entry in entries if isinstance(entry, SliceEntry)]
        captured = [entry for entry in entries if isinstance(entry, StoredFrame)]
        reports = [entry for entry in entries if isinstance(entry, ReportEntry)]
        with self.write() as connection:
            new = insert_many(connection, slices.c.message_id, [_slice(entry) for entry in _ordered(read)])
            insert_many(connection, readings.c.slice_id, [_reading(entry) for entry in _ordered(read)])
            new |= insert_many(connection, frames.c.message_id, [vars(entry) for entry in _ordered(captured)])
            for report in sorted(reports, key=lambda entry: (entry.site, entry.edge, entry.received_at)):
                _insert_report(connection, report)
        return new


def _ordered(entries: Sequence[MessageEntry]) -> list[MessageEntry]:
    """Return the same order everywhere: of two workers with the same messages none waits for the other for ever."""
    return sorted(entries, key=lambda entry: entry.message_id)


def _slice(entry: SliceEntry) -> dict[str, Any]:
    return slice_row(entry.message_id, entry.site, entry.edge, entry.slice, entry.image_key, entry.received_at)


def _reading(entry: SliceEntry) -> dict[str, Any]:
    return reading_row(entry.slice.slice_id, "edge", entry.slice.reading, entry.received_at)


def _insert_report(connection: Connection, entry: ReportEntry) -> None:
    what: Literal["status", "reported"] = "status" if isinstance(entry.report, Status) else "reported"
    said = entry.report.model_dump(mode="json")
    insert_report(connection, entry.site, entry.edge, what, said, entry.received_at)
