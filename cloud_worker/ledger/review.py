"""Open disagreements and the labels that people set."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Subquery, and_, func, insert, select, true, update

from cloud_worker.ledger.database import Database
from cloud_worker.ledger.records import LabelledSlice, OpenDisagreement, StoredLabel, StoredSlice
from cloud_worker.ledger.slices import lock_slice, readings_of
from cloud_worker.ledger.tables import disagreements, labels, retrain_requests, slices
from protocol.labels import Label
from protocol.messages import Disagreement


class ReviewRows(Database):
    """The part of the ledger that `sliceloop label` and the retrain policy read and write."""

    def open_disagreements(self, limit: int | None = None) -> list[OpenDisagreement]:
        """Return the slices that wait for a person, longest waiting first."""
        query = (
            select(slices, disagreements.c.kind, disagreements.c.reasons, disagreements.c.opened_at)
            .join(disagreements, disagreements.c.slice_id == slices.c.slice_id)
            .where(disagreements.c.closed_at.is_(None))
            .order_by(disagreements.c.opened_at, slices.c.slice_id)
            .limit(limit)
        )
        with self.read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
            return [_open_disagreement(row, readings_of(connection, row["slice_id"])) for row in rows]

    def set_label(self, slice_id: str, label: Label, reviewer: str, why: str, at: datetime) -> bool:
        """Set a person's word and close the disagreement; return False when this reviewer's newest word says the same.

        Raises `UnknownSliceError`.
        """
        with self.write() as connection:
            lock_slice(connection, slice_id)
            newest = connection.execute(
                select(labels).where(labels.c.slice_id == slice_id).order_by(labels.c.id.desc()).limit(1)
            ).one_or_none()
            if newest is not None and (newest.label, newest.reviewer) == (label.value, reviewer):
                return False
            row = {"slice_id": slice_id, "label": label.value, "reviewer": reviewer, "why": why, "at": at}
            connection.execute(insert(labels).values(row))
            waiting = and_(disagreements.c.slice_id == slice_id, disagreements.c.closed_at.is_(None))
            connection.execute(update(disagreements).where(waiting).values(closed_at=at))
            return True

    def labels_of(self, slice_id: str) -> list[StoredLabel]:
        """Return the history of a slice's labels, newest first."""
        query = _with_edge().where(labels.c.slice_id == slice_id).order_by(labels.c.id.desc())
        return [_label(row) for row in self.rows(query)]

    def labels_to_publish(self, limit: int = 100) -> list[StoredLabel]:
        """Return the newest label of each slice whose edge was not told, oldest first."""
        newest = _newest()
        query = (
            _with_edge()
            .join(newest, newest.c.id == labels.c.id)
            .where(labels.c.published_at.is_(None))
            .order_by(labels.c.id)
            .limit(limit)
        )
        return [_label(row) for row in self.rows(query)]

    def mark_published(self, label_id: int, at: datetime) -> None:
        """Remember that the edge was told of this label."""
        told = and_(labels.c.id == label_id, labels.c.published_at.is_(None))
        with self.write() as connection:
            connection.execute(update(labels).where(told).values(published_at=at))

    def labelled_slices(self, up_to_label_id: int | None = None) -> list[LabelledSlice]:
        """Return every labelled slice with its newest label, of those up to an id if one is given."""
        newest = _newest(true() if up_to_label_id is None else labels.c.id <= up_to_label_id)
        query = (
            select(
                slices.c.slice_id,
                slices.c.image_key,
                slices.c.image_sha256,
                slices.c.patient_key,
                slices.c.source,
                labels.c.label,
                labels.c.id.label("label_id"),
            )
            .join(labels, labels.c.slice_id == slices.c.slice_id)
            .join(newest, newest.c.id == labels.c.id)
            .order_by(labels.c.id)
        )
        return [LabelledSlice(**{**row, "label": Label(row["label"])}) for row in self.rows(query)]

    def newest_label_id(self) -> int:
        """Return the highest label id, 0 when there is none."""
        return int(self.scalar(select(func.coalesce(func.max(labels.c.id), 0))))

    def new_labels(self) -> int:
        """Return how many slices were labelled since the last retrain request that did not fail."""
        used = (
            select(func.coalesce(func.max(retrain_requests.c.labels_used), 0))
            .where(retrain_requests.c.state != "failed")
            .scalar_subquery()
        )
        return int(self.scalar(select(func.count(labels.c.slice_id.distinct())).where(labels.c.id > used)))


def _newest(condition: ColumnElement[bool] | None = None) -> Subquery:
    """Select the id of each slice's newest label among those that meet the condition."""
    query = select(func.max(labels.c.id).label("id")).group_by(labels.c.slice_id)
    return (query if condition is None else query.where(condition)).subquery()


def _with_edge() -> Any:
    return select(labels, slices.c.site, slices.c.edge).join(slices, slices.c.slice_id == labels.c.slice_id)


def _label(row: dict[str, Any]) -> StoredLabel:
    return StoredLabel(**{**row, "label": Label(row["label"])})


def _open_disagreement(row: dict[str, Any], readings: dict[str, Any]) -> OpenDisagreement:
    return OpenDisagreement(
        slice=StoredSlice(**{column.name: row[column.name] for column in slices.columns}),
        first=readings["edge"],
        second=readings.get("second"),
        disagreement=Disagreement(kind=row["kind"], reasons=tuple(row["reasons"])),
        opened_at=row["opened_at"],
    )
