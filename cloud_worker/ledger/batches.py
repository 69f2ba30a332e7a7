"""Many messages in one transaction: what a receiver has ready when the one before is on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, assert_never

from sqlalchemy.engine import Connection

from cloud_worker.ledger.database import Database
from cloud_worker.ledger.edges import insert_report
from cloud_worker.ledger.slices import insert_frame, insert_slice
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
class FrameEntry:
    """A captured original that is in the object store."""

    message_id: str
    slice_id: str
    sha256: str
    frame_key: str
    media_type: str
    received_at: datetime


@dataclass(frozen=True)
class ReportEntry:
    """What an edge says of itself."""

    site: str
    edge: str
    report: Status | ModelReported
    received_at: datetime


Entry = SliceEntry | FrameEntry | ReportEntry


class BatchRows(Database):
    """The part of the ledger that a receiver writes."""

    def take_in(self, entries: Sequence[Entry]) -> list[bool]:
        """Store all of them or none; return for each whether it was new, which is False for what comes again.

        Raises `RefusedByLedgerError` when one of them will never go: give them singly then.
        """
        new = [False] * len(entries)
        with self.write() as connection:
            # the same order everywhere: of two workers with the same messages none waits for the other for ever
            for place in sorted(range(len(entries)), key=lambda place: _rank(entries[place])):
                new[place] = _insert(connection, entries[place])
        return new


def _rank(entry: Entry) -> tuple[int, str, datetime]:
    match entry:
        case SliceEntry():
            return 0, entry.message_id, entry.received_at
        case FrameEntry():
            return 1, entry.message_id, entry.received_at
        case ReportEntry():
            return 2, f"{entry.site}/{entry.edge}", entry.received_at
        case _:
            assert_never(entry)


def _insert(connection: Connection, entry: Entry) -> bool:
    match entry:
        case SliceEntry():
            return insert_slice(
                connection, entry.message_id, entry.site, entry.edge, entry.slice, entry.image_key, entry.received_at
            )
        case FrameEntry():
            return insert_frame(connection, vars(entry))
        case ReportEntry():
            what: Literal["status", "reported"] = "status" if isinstance(entry.report, Status) else "reported"
            said = entry.report.model_dump(mode="json")
            return insert_report(connection, entry.site, entry.edge, what, said, entry.received_at)
        case _:
            assert_never(entry)
