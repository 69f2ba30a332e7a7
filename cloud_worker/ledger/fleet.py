"""Rollouts, signed rollbacks, pins, what each edge is assigned, and the chain of key rotations."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from cloud_worker.ledger.database import Database, insert_once
from cloud_worker.ledger.errors import VersionTakenError
from cloud_worker.ledger.records import Pin, Rollback, Rollout, StoredAssignment
from cloud_worker.ledger.tables import assignments, key_rotations, pins, releases, rollbacks, rollouts


class FleetRows(Database):
    """The part of the ledger that says which edge shall run what, and why."""

    def rollouts(self) -> list[Rollout]:
        """Return every rollout, oldest version first."""
        return [Rollout(**row) for row in self.rows(select(rollouts).order_by(rollouts.c.version))]

    def save_rollout(self, rollout: Rollout, known: Rollout | None) -> bool:
        """Store what became of a rollout; return False when it is not what was `known` (None: not there) any more."""
        with self.write() as connection:
            if known is None:
                return insert_once(connection, rollouts, asdict(rollout))
            same = and_(
                rollouts.c.version == known.version,
                rollouts.c.state == known.state,
                rollouts.c.ring == known.ring,
                rollouts.c.ring_started_at == known.ring_started_at,
            )
            return connection.execute(update(rollouts).where(same).values(asdict(rollout))).rowcount == 1

    def rollbacks(self) -> list[Rollback]:
        """Return every signed rollback, oldest first."""
        rows = self.rows(select(rollbacks).order_by(rollbacks.c.id))
        return [Rollback(**{**row, "returns_from": tuple(row["returns_from"])}) for row in rows]

    def withdraw(self, withdrawn: Rollout, rollback: Rollback | None) -> None:
        """Enter that a version is withdrawn, and the way back; both or none. The rollback's id is given here."""
        with self.write() as connection:
            _upsert(connection, rollouts, asdict(withdrawn))
            if rollback is not None:
                row = {**asdict(rollback), "returns_from": list(rollback.returns_from)}
                del row["id"]
                connection.execute(insert(rollbacks).values(row))

    def replace_release_envelope(self, version: int, known: bytes, envelope: bytes) -> bool:
        """Store an envelope with further signatures; return False when another one came in between."""
        same = and_(releases.c.version == version, releases.c.envelope == known)
        with self.write() as connection:
            return connection.execute(update(releases).where(same).values(envelope=envelope)).rowcount == 1

    def replace_rollback_envelope(self, rollback_id: int, known: bytes, envelope: bytes) -> bool:
        """Store an envelope with further signatures; return False when another one came in between."""
        same = and_(rollbacks.c.id == rollback_id, rollbacks.c.envelope == known)
        with self.write() as connection:
            return connection.execute(update(rollbacks).where(same).values(envelope=envelope)).rowcount == 1

    def pins(self) -> list[Pin]:
        """Return the edges that are pinned, by name."""
        return [Pin(**row) for row in self.rows(select(pins).order_by(pins.c.site, pins.c.edge))]

    def pin(self, pin: Pin) -> None:
        """Pin an edge to a version, whatever it was pinned to before."""
        with self.write() as connection:
            _upsert(connection, pins, asdict(pin))

    def unpin(self, site: str, edge: str) -> bool:
        """Let an edge follow the rollouts again; return False when it was not pinned."""
        with self.write() as connection:
            return connection.execute(delete(pins).where(pins.c.site == site, pins.c.edge == edge)).rowcount == 1

    def assignments(self) -> list[StoredAssignment]:
        """Return the newest assignment of each edge, by name."""
        query = select(assignments).order_by(assignments.c.site, assignments.c.edge)
        return [StoredAssignment(**row) for row in self.rows(query)]

    def save_assignments(self, changed: Sequence[tuple[StoredAssignment, int]]) -> list[StoredAssignment]:
        """Store new assignments, each with the sequence that it follows (0: none); return those that were taken.

        One that another worker outran is left out: two of the same number must never be said.
        """
        with self.write() as connection:
            return [each for each, follows in changed if _save_assignment(connection, each, follows)]

    def record_progress(self, progress: Sequence[StoredAssignment]) -> None:
        """Remember what edges report of their way, and since when; of an assignment that is not the newest, nothing."""
        with self.write() as connection:
            for each in progress:
                values = {"progress": each.progress, "progress_at": each.progress_at}
                connection.execute(update(assignments).where(_numbered(each, each.sequence)).values(values))

    def key_rotations(self) -> list[bytes]:
        """Return the chain of key rotations, oldest first."""
        query = select(key_rotations.c.envelope).order_by(key_rotations.c.version)
        return [row["envelope"] for row in self.rows(query)]

    def add_key_rotation(self, version: int, envelope: bytes, at: datetime) -> None:
        """Append a rotation to the chain; raises `VersionTakenError`."""
        with self.write() as connection:
            if not insert_once(connection, key_rotations, {"version": version, "envelope": envelope, "at": at}):
                raise VersionTakenError(version)


def _save_assignment(connection: Connection, assignment: StoredAssignment, follows: int) -> bool:
    if not follows:
        return insert_once(connection, assignments, asdict(assignment))
    change = update(assignments).where(_numbered(assignment, follows)).values(asdict(assignment))
    return connection.execute(change).rowcount == 1


def _numbered(assignment: StoredAssignment, sequence: int) -> ColumnElement[bool]:
    return and_(
        assignments.c.site == assignment.site,
        assignments.c.edge == assignment.edge,
        assignments.c.sequence == sequence,
    )


def _upsert(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    dialect_insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    key = list(table.primary_key.columns)
    rest = {name: value for name, value in row.items() if name not in {column.name for column in key}}
    connection.execute(dialect_insert(table).values(row).on_conflict_do_update(index_elements=key, set_=rest))
