"""From slices to the labels that taught a network, and why somebody was asked for them."""

from typing import Any

from sqlalchemy import func, select

from cloud_worker.ledger.database import Database
from cloud_worker.ledger.records import Teacher
from cloud_worker.ledger.tables import disagreements, labels, slices
from protocol.labels import Label


class LineageRows(Database):
    """The part of the ledger that says what a retraining had to learn from."""

    def teachers(self, up_to_label_id: int) -> list[Teacher]:
        """Return every slice that was labelled by then, with the label that counted then, and its disagreement."""
        newest = (
            select(func.max(labels.c.id).label("id"))
            .where(labels.c.id <= up_to_label_id)
            .group_by(labels.c.slice_id)
            .subquery()
        )
        query = (
            select(
                slices.c.slice_id,
                slices.c.site,
                slices.c.edge,
                slices.c.image_sha256,
                slices.c.patient_key,
                slices.c.source,
                labels.c.label,
                labels.c.id.label("label_id"),
                labels.c.reviewer,
                labels.c.at.label("labelled_at"),
                disagreements.c.kind.label("disagreement"),
                disagreements.c.reasons,
            )
            .join(labels, labels.c.slice_id == slices.c.slice_id)
            .join(newest, newest.c.id == labels.c.id)
            .outerjoin(disagreements, disagreements.c.slice_id == slices.c.slice_id)
            .order_by(labels.c.id)
        )
        return [_teacher(row) for row in self.rows(query)]


def _teacher(row: dict[str, Any]) -> Teacher:
    return Teacher(**{**row, "label": Label(row["label"]), "reasons": tuple(row["reasons"] or ())})
