"""Slices, frames and readings: what comes in."""

from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.engine import Connection

from cloud_worker.ledger.database import Database, insert_once
from cloud_worker.ledger.errors import AmbiguousSliceError, UnknownSliceError
from cloud_worker.ledger.records import Gap, Reader, StoredFrame, StoredSlice, VerdictParts
from cloud_worker.ledger.tables import disagreements, frames, labels, metadata, readings, slices
from protocol.messages import Disagreement, ModelRef, NetworkReading, Review, SliceRead


class SliceRows(Database):
    """The part of the ledger that a receiver and a second reader write."""

    def store_slice(
        self, *, message_id: str, site: str, edge: str, slice: SliceRead, image_key: str, received_at: datetime
    ) -> bool:
        """Store a slice and its edge's reading; return False when either id is stored already."""
        row = slice_row(message_id, site, edge, slice, image_key, received_at)
        with self.write() as connection:
            new = insert_once(connection, slices, row)
            if new:
                insert_once(connection, readings, reading_row(slice.slice_id, "edge", slice.reading, received_at))
            return new

    def store_frame(
        self, *, message_id: str, slice_id: str, sha256: str, frame_key: str, media_type: str, received_at: datetime
    ) -> bool:
        """Store where a captured original is; return False when it is stored already."""
        row = {
            "message_id": message_id,
            "slice_id": slice_id,
            "sha256": sha256,
            "frame_key": frame_key,
            "media_type": media_type,
            "received_at": received_at,
        }
        with self.write() as connection:
            return insert_once(connection, frames, row)

    def slice(self, slice_id: str) -> StoredSlice:
        """Return the slice of this id; raises `UnknownSliceError`."""
        found = self.rows(select(slices).where(slices.c.slice_id == slice_id))
        if not found:
            raise UnknownSliceError(slice_id)
        return StoredSlice(**found[0])

    def find_slice(self, prefix: str) -> StoredSlice:
        """Return the one slice whose id begins like this; raises `UnknownSliceError`, `AmbiguousSliceError`."""
        begins = slices.c.slice_id.startswith(prefix, autoescape=True)
        found = self.rows(select(slices).where(begins).order_by(slices.c.slice_id).limit(2))
        if not found or not prefix:
            raise UnknownSliceError(prefix)
        if len(found) > 1 and found[0]["slice_id"] != prefix:
            raise AmbiguousSliceError(prefix)
        return StoredSlice(**found[0])

    def frames_of(self, slice_id: str) -> list[StoredFrame]:
        """Return the captured originals that came for a slice."""
        query = select(frames).where(frames.c.slice_id == slice_id).order_by(frames.c.received_at)
        return [StoredFrame(**row) for row in self.rows(query)]

    def slices_without(
        self, reader: Reader = "second", limit: int = 100, since: datetime | None = None
    ) -> list[StoredSlice]:
        """Return the slices that this reader has not read, oldest first; `since` spares the search of older ones."""
        read = exists().where(readings.c.slice_id == slices.c.slice_id, readings.c.reader == reader)
        query = select(slices).where(~read).order_by(slices.c.received_at, slices.c.slice_id).limit(limit)
        if since is not None:
            query = query.where(slices.c.received_at >= since)
        return [StoredSlice(**row) for row in self.rows(query)]

    def add_second_reading(
        self, slice_id: str, reading: NetworkReading, disagreement: Disagreement | None, at: datetime
    ) -> bool:
        """Store the second reading and its disagreement; return False when there is a second reading already."""
        with self.write() as connection:
            lock_slice(connection, slice_id)
            new = insert_once(connection, readings, reading_row(slice_id, "second", reading, at))
            if new and disagreement:
                labelled = connection.execute(select(labels.c.id).where(labels.c.slice_id == slice_id)).first()
                row = {
                    "slice_id": slice_id,
                    "kind": disagreement.kind,
                    "reasons": list(disagreement.reasons),
                    "opened_at": at,
                    "closed_at": at if labelled else None,
                }
                insert_once(connection, disagreements, row)
            return new

    def verdict_parts(self, slice_id: str) -> VerdictParts:
        """Return what is known of a slice, for its verdict; raises `UnknownSliceError`."""
        with self.read() as connection:
            found = connection.execute(
                select(slices.c.site, slices.c.edge).where(slices.c.slice_id == slice_id)
            ).one_or_none()
            if found is None:
                raise UnknownSliceError(slice_id)
            by_reader = readings_of(connection, slice_id)
            return VerdictParts(
                slice_id=slice_id,
                site=found.site,
                edge=found.edge,
                first=by_reader["edge"],
                second=by_reader.get("second"),
                disagreement=_disagreement_of(connection, slice_id),
                review=_review_of(connection, slice_id),
            )

    def gaps(self, site: str, edge: str) -> list[Gap]:
        """Return the sequence numbers missing between an edge's lowest and highest: numbers go on over its boots."""
        previous = func.lag(slices.c.sequence).over(order_by=slices.c.sequence)
        numbers = (
            select(slices.c.sequence, slices.c.boot_id, previous.label("previous"))
            .where(slices.c.site == site, slices.c.edge == edge)
            .subquery()
        )
        query = select(numbers).where(numbers.c.sequence > numbers.c.previous + 1).order_by(numbers.c.sequence)
        return [Gap(row["previous"] + 1, row["sequence"] - 1, row["boot_id"]) for row in self.rows(query)]

    def counts(self) -> dict[str, int]:
        """Return how many rows each table has; a slice that came twice is one row."""
        with self.read() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in metadata.sorted_tables
            }


def lock_slice(connection: Connection, slice_id: str) -> None:
    """Hold the slice's row until the transaction ends (SQLite holds the file); raises `UnknownSliceError`."""
    query = select(slices.c.slice_id).where(slices.c.slice_id == slice_id).with_for_update()
    if connection.execute(query).first() is None:
        raise UnknownSliceError(slice_id)


def readings_of(connection: Connection, slice_id: str) -> dict[str, NetworkReading]:
    """Return a slice's readings by reader."""
    rows = connection.execute(select(readings).where(readings.c.slice_id == slice_id)).mappings()
    return {row["reader"]: reading_from(dict(row)) for row in rows}


def reading_from(row: dict[str, Any]) -> NetworkReading:
    """Make the protocol's reading of a row of `readings`."""
    return NetworkReading(
        label=row["label"],
        uncertain=row["uncertain"],
        probabilities=row["probabilities"],
        model=ModelRef(name=row["model_name"], version=row["model_version"], sha256=row["model_sha256"]),
        latency_ms=row["latency_ms"],
    )


def _disagreement_of(connection: Connection, slice_id: str) -> Disagreement | None:
    row = connection.execute(select(disagreements).where(disagreements.c.slice_id == slice_id)).one_or_none()
    return Disagreement(kind=row.kind, reasons=tuple(row.reasons)) if row else None


def _review_of(connection: Connection, slice_id: str) -> Review | None:
    query = select(labels).where(labels.c.slice_id == slice_id).order_by(labels.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return Review(label=row.label, reviewer=row.reviewer, at=row.at) if row else None


def slice_row(
    message_id: str, site: str, edge: str, slice: SliceRead, image_key: str, received_at: datetime
) -> dict[str, Any]:
    """Make a row of `slices`."""
    return {
        "slice_id": slice.slice_id,
        "message_id": message_id,
        "site": site,
        "edge": edge,
        "boot_id": slice.boot_id,
        "sequence": slice.sequence,
        "captured_at": slice.captured_at,
        "received_at": received_at,
        "source": slice.source,
        "patient_key": slice.patient_key,
        "preprocessing_version": slice.preprocessing_version,
        "image_key": image_key,
        "image_sha256": slice.image_sha256,
        "frame_sha256": slice.frame_sha256,
        "frame_omitted": slice.frame_omitted,
    }


def reading_row(slice_id: str, reader: Reader, reading: NetworkReading, at: datetime) -> dict[str, Any]:
    """Make a row of `readings`."""
    return {
        "slice_id": slice_id,
        "reader": reader,
        "label": reading.label.value,
        "uncertain": reading.uncertain,
        "probabilities": {label.value: probability for label, probability in reading.probabilities.items()},
        "model_name": reading.model.name,
        "model_version": reading.model.version,
        "model_sha256": reading.model.sha256,
        "latency_ms": reading.latency_ms,
        "at": at,
    }
