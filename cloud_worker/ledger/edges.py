"""What each edge last said of itself."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import or_, select, update
from sqlalchemy.engine import Connection

from cloud_worker.ledger.database import Database, insert_once
from cloud_worker.ledger.records import EdgeRecord
from cloud_worker.ledger.tables import edges

NUMBERS = (
    "last_sequence",
    "outbox_depth",
    "waiting",
    "waiting_originals",
    "set_aside",
    "dropped_originals",
    "refused_frames",
)
"""What a status says of the numbers that its edge has given."""


class EdgeRows(Database):
    """The part of the ledger that remembers the fleet."""

    def record_status(self, site: str, edge: str, status: Mapping[str, Any], at: datetime) -> bool:
        """Remember an edge's status; return False when a newer one is known."""
        return self._record(site, edge, "status", status, at)

    def record_reported(self, site: str, edge: str, reported: Mapping[str, Any], at: datetime) -> bool:
        """Remember what an edge reports of its model; return False when a newer report is known."""
        return self._record(site, edge, "reported", reported, at)

    def edges(self) -> list[EdgeRecord]:
        """Return every edge that was heard of, by name."""
        return [EdgeRecord(**row) for row in self.rows(select(edges).order_by(edges.c.site, edges.c.edge))]

    def _record(
        self, site: str, edge: str, what: Literal["status", "reported"], value: Mapping[str, Any], at: datetime
    ) -> bool:
        with self.write() as connection:
            return insert_report(connection, site, edge, what, value, at)


def insert_report(
    connection: Connection,
    site: str,
    edge: str,
    what: Literal["status", "reported"],
    value: Mapping[str, Any],
    at: datetime,
) -> bool:
    """Remember what an edge says; return False when something newer is known."""
    known_at = edges.c[f"{what}_at"]
    of_edge = (edges.c.site == site) & (edges.c.edge == edge)
    insert_once(connection, edges, {"site": site, "edge": edge})
    if what == "status":
        known = connection.execute(select(edges.c.status).where(of_edge)).scalar_one()
        value = with_newest_numbers(known or {}, value)
    change = update(edges).where(of_edge, or_(known_at.is_(None), known_at <= at))
    return connection.execute(change.values({what: dict(value), f"{what}_at": at})).rowcount == 1


def with_newest_numbers(known: Mapping[str, Any], said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a status, of a will with the numbers of the last heartbeat: a will is written when the edge connects."""
    if said.get("state") != "lost" or said.get("boot_id") != known.get("boot_id"):
        return said
    return {**said, **{name: known[name] for name in NUMBERS if name in known}}
