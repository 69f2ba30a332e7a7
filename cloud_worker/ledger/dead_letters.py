"""Messages that could not be taken in: why, whose they are, and what became of them."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, exists, func, insert, or_, select, update
from sqlalchemy.engine import Connection

from cloud_worker.ledger.database import Database, insert_once
from cloud_worker.ledger.errors import DeadLetterClosedError, UnknownDeadLetterError
from cloud_worker.ledger.records import DeadLetter, DeadLetterState
from cloud_worker.ledger.tables import dead_letters, frames, quarantined, slices
from protocol.codec import stated_id, stated_sequence
from protocol.errors import ProtocolError
from protocol.topics import Address, Kind, parse

MAX_DEAD_LETTERS = 1_000
MAX_NUMBERED_LETTERS = 100_000
MAX_DEAD_LETTER_BYTES = 1024 * 1024
MAX_DEAD_LETTER_TEXT = 2_000
MAX_USER_PROPERTIES = 64
NUMBERED = (Kind.SLICE, Kind.FRAME)
"""What an edge numbers, and keeps until its receipt."""


class DeadLetterRows(Database):
    """The part of the ledger that remembers what could not be taken in."""

    def dead_letter(
        self,
        topic: str,
        payload: bytes,
        reason: str,
        at: datetime,
        user_properties: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Keep what could not be taken in: the newest `MAX_DEAD_LETTERS`, each cut to `MAX_DEAD_LETTER_BYTES`.

        Of slices and originals, which the object store has whole, the newest `MAX_NUMBERED_LETTERS`, the older of them
        without their payload: what a replay needs besides stays.

        A message that comes again is the same letter, tried once more. The number of a slice or an original stays
        when its letter has gone.
        """
        row = _letter_row(topic, payload, reason, at, user_properties)
        with self.write() as connection:
            if not _tried_again(connection, row):
                added = connection.execute(insert(dead_letters).values(row).returning(dead_letters.c.id)).scalar_one()
                _let_old_ones_go(connection, added)
            _keep_number(connection, row)

    def dead_letters(
        self,
        limit: int = 100,
        *,
        state: DeadLetterState | None = None,
        site: str | None = None,
        edge: str | None = None,
        reason: str = "",
    ) -> list[DeadLetter]:
        """Return the newest dead letters that are so, newest first; `reason` is a part of theirs."""
        query = select(dead_letters).order_by(dead_letters.c.id.desc()).limit(limit)
        for column, value in ((dead_letters.c.state, state), (dead_letters.c.site, site), (dead_letters.c.edge, edge)):
            if value is not None:
                query = query.where(column == value)
        if reason:
            query = query.where(dead_letters.c.reason.icontains(reason, autoescape=True))
        return [_letter(row) for row in self.rows(query)]

    def find_dead_letter(self, letter_id: int) -> DeadLetter:
        """Return one dead letter; raises `UnknownDeadLetterError`."""
        found = self.rows(select(dead_letters).where(dead_letters.c.id == letter_id))
        if not found:
            raise UnknownDeadLetterError(letter_id)
        return _letter(found[0])

    def close_dead_letter(
        self, letter_id: int, state: Literal["replayed", "discarded"], why: str, at: datetime
    ) -> None:
        """Say what became of an open letter; raises `UnknownDeadLetterError` or `DeadLetterClosedError`."""
        is_open = (dead_letters.c.id == letter_id) & (dead_letters.c.state == "open")
        change = update(dead_letters).where(is_open).values(state=state, why=_text(why), closed_at=at)
        with self.write() as connection:
            if connection.execute(change).rowcount == 1:
                return
        raise DeadLetterClosedError(letter_id, self.find_dead_letter(letter_id).state)

    def died_again(self, letter: DeadLetter) -> DeadLetter | None:
        """Return the letter that a message has become since, when it could not be taken in once more."""
        same = (dead_letters.c.topic == letter.topic) & (dead_letters.c.sha256 == letter.sha256)
        since = (dead_letters.c.id > letter.id) | (
            (dead_letters.c.id == letter.id) & (dead_letters.c.tries > letter.tries)
        )
        found = self.rows(select(dead_letters).where(same, since).order_by(dead_letters.c.id.desc()).limit(1))
        return _letter(found[0]) if found else None

    def holds(self, kind: Kind, message_id: str, slice_id: str) -> bool:
        """Return whether the slice, or the original of this message, is stored."""
        of_slice = or_(slices.c.message_id == message_id, slices.c.slice_id == slice_id)
        stored = exists().where(of_slice if kind is Kind.SLICE else frames.c.message_id == message_id)
        return bool(self.scalar(select(stored)))


def _letter_row(
    topic: str, payload: bytes, reason: str, at: datetime, user_properties: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    address, message_id = _address(topic), stated_id(user_properties)
    return {
        "at": at,
        "topic": _text(topic),
        "reason": _text(reason),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "size": len(payload),
        "payload": payload[:MAX_DEAD_LETTER_BYTES],
        "site": (address.site or None) if address else None,
        "edge": (address.edge or None) if address else None,
        "kind": str(address.kind) if address else None,
        "message_id": message_id,
        "sequence": stated_sequence(user_properties),
        "user_properties": [[_text(name), _text(value)] for name, value in user_properties[:MAX_USER_PROPERTIES]],
    }


def _let_old_ones_go(connection: Connection, newest: int) -> None:
    """Delete what is beyond the bounds; slices and originals lose their payload first, which the object store has."""
    old = dead_letters.c.id <= newest - MAX_DEAD_LETTERS
    numbered = func.coalesce(dead_letters.c.kind, "").in_(NUMBERED)
    connection.execute(delete(dead_letters).where(old, ~numbered))
    connection.execute(delete(dead_letters).where(dead_letters.c.id <= newest - MAX_NUMBERED_LETTERS))
    just_old = dead_letters.c.id == newest - MAX_DEAD_LETTERS  # those before were emptied in their turn
    connection.execute(update(dead_letters).where(just_old).values(payload=b""))


def _tried_again(connection: Connection, row: dict[str, Any]) -> bool:
    """Count another try where the same message, known by its id, is an open letter already."""
    if row["message_id"] is None:
        return False
    same = [dead_letters.c[name] == row[name] for name in ("topic", "message_id", "sha256")]
    again = {"at": row["at"], "reason": row["reason"], "tries": dead_letters.c.tries + 1}
    change = update(dead_letters).where(*same, dead_letters.c.state == "open").values(again)
    return connection.execute(change).rowcount > 0


def _keep_number(connection: Connection, row: dict[str, Any]) -> None:
    if row["kind"] in NUMBERED and row["sequence"] is not None:
        insert_once(connection, quarantined, {name: row[name] for name in quarantined.c.keys()})  # noqa: SIM118 - no dict


def _letter(row: dict[str, Any]) -> DeadLetter:
    pairs = tuple((str(name), str(value)) for name, value in row["user_properties"])
    return DeadLetter(**{**row, "user_properties": pairs})


def _address(topic: str) -> Address | None:
    try:
        return parse(topic)
    except ProtocolError:
        return None


def _text(value: str) -> str:
    """Return text that every database takes: a dead letter must not die of its own topic."""
    return value[:MAX_DEAD_LETTER_TEXT].replace("\0", "").encode("utf-8", "replace").decode("utf-8")
