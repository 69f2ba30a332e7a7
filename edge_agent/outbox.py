"""Keep what the edge has to say, in SQLite, until a receipt says that the cloud has it for good."""

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import stamina

from protocol.codec import UserProperties, stated_sequence
from protocol.ranges import at_most, ranges_of
from protocol.topics import Kind

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL,
    content_type TEXT NOT NULL,
    user_properties TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS captured (key TEXT PRIMARY KEY, slice_id TEXT, refused TEXT);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
_BUSY_TIMEOUT_S = 10.0


class OutboxError(RuntimeError):
    """The outbox cannot take or give messages; the message says why and what to do."""


class OutboxFullError(OutboxError):
    """The bound is reached: the new slice is refused and stays with its source."""


@dataclass(frozen=True)
class OutboxMessage:
    """A message as it will be published."""

    message_id: str
    kind: Kind
    payload: bytes
    content_type: str
    user_properties: UserProperties


class Outbox:
    """A queue on disk (WAL, fsync) that survives kill -9; rows leave it only by `delete`."""

    def __init__(self, path: Path, *, max_rows: int, max_bytes: int) -> None:
        """Remember where and how much; `with` opens it."""
        self._path = path
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        """Open or create the database; raises `OutboxError` when the file is no outbox or cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _open(self._path)
        except (sqlite3.Error, OSError) as error:
            raise OutboxError(
                f"outbox {self._path} cannot be opened ({error}); check the folder's rights and space, "
                "and move a damaged file aside (it holds what was not sent yet)"
            ) from error
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close the database; everything in it stays."""
        if self._connection is not None:
            self._connection.close()

    def add(self, key: str, slice_id: str, sequence: int, messages: Sequence[OutboxMessage]) -> None:
        """Keep a slice's messages and mark its frame as captured, in one transaction.

        Raises `OutboxFullError` when a bound would be passed and `OutboxError` when the disk does not take it; then
        nothing of the slice is kept, and it can be offered again.
        """
        with self._transaction() as connection:
            self._check_room(connection, sum(len(message.payload) for message in messages), len(messages))
            connection.executemany(
                "INSERT INTO messages (message_id, kind, payload, content_type, user_properties) "
                "VALUES (?, ?, ?, ?, ?)",
                [(m.message_id, m.kind, m.payload, m.content_type, json.dumps(m.user_properties)) for m in messages],
            )
            connection.execute("INSERT INTO captured (key, slice_id) VALUES (?, ?)", (key, slice_id))
            connection.execute("INSERT OR REPLACE INTO counters VALUES ('sequence', ?)", (sequence,))

    def refuse(self, key: str, reason: str) -> None:
        """Mark a frame as refused for good, with the reason; `refused` lists them."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO captured (key, refused) VALUES (?, ?)", (key, reason))

    def delete(self, message_ids: Collection[str]) -> int:
        """Delete what a receipt names; return how many messages that were."""
        with self._transaction() as connection:
            deleted = connection.executemany(
                "DELETE FROM messages WHERE message_id = ?", [(message_id,) for message_id in message_ids]
            )
            return deleted.rowcount

    def pending(self, limit: int, *, besides: Collection[str] = ()) -> list[OutboxMessage]:
        """Return the oldest messages that are not in flight, in the order in which they were added."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT message_id, kind, payload, content_type, user_properties FROM messages "
                "WHERE message_id NOT IN (SELECT value FROM json_each(?)) ORDER BY position LIMIT ?",
                (json.dumps(list(besides)), limit),
            ).fetchall()
        return [_message(*row) for row in rows]

    def is_captured(self, key: str) -> bool:
        """Tell whether a frame was captured or refused, in this life or an earlier one."""
        with self._reading() as connection:
            return connection.execute("SELECT 1 FROM captured WHERE key = ?", (key,)).fetchone() is not None

    def refused(self) -> list[tuple[str, str]]:
        """List the refused frames as key and reason; for the technician at the box, since keys may name patients."""
        with self._reading() as connection:
            rows = connection.execute("SELECT key, refused FROM captured WHERE refused IS NOT NULL ORDER BY key")
            return [(str(key), str(reason)) for key, reason in rows]

    def depth(self) -> int:
        """Count the messages without a receipt."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])

    def last_sequence(self) -> int:
        """Return the sequence number of the last slice that was kept, 0 before the first."""
        with self._reading() as connection:
            row = connection.execute("SELECT value FROM counters WHERE name = 'sequence'").fetchone()
        return int(row[0]) if row else 0

    def waiting_ranges(self, limit: int, kind: Kind = Kind.SLICE) -> tuple[tuple[int, int], ...]:
        """Return the numbers of the messages that wait, as at most so many ranges: the last ones are joined."""
        with self._reading() as connection:
            rows = connection.execute("SELECT user_properties FROM messages WHERE kind = ?", (kind,)).fetchall()
        numbers = {stated_sequence(json.loads(properties)) for (properties,) in rows} - {None}
        return at_most(ranges_of(sorted(number for number in numbers if number)), limit)

    def lost_ranges(self) -> tuple[tuple[int, int], ...]:
        """Return the numbers of slices that this outbox knows to have lost."""
        return ()

    def dropped_frames(self) -> tuple[tuple[int, int], ...]:
        """Return the numbers of slices whose originals gave way."""
        return ()

    def refused_count(self) -> int:
        """Count the frames that were refused for good."""
        with self._reading() as connection:
            query = "SELECT count(*) FROM captured WHERE refused IS NOT NULL"
            return int(connection.execute(query).fetchone()[0])

    def _check_room(self, connection: sqlite3.Connection, new_bytes: int, new_rows: int) -> None:
        rows, size = connection.execute("SELECT count(*), coalesce(sum(length(payload)), 0) FROM messages").fetchone()
        if rows + new_rows > self._max_rows:
            raise OutboxFullError(
                f"outbox full ({rows} of {self._max_rows} rows): new slice refused until receipts come"
            )
        if size + new_bytes > self._max_bytes:
            raise OutboxFullError(f"outbox full ({size:,} of {self._max_bytes:,} bytes): new slice refused")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        assert self._connection is not None, "the outbox is used inside `with`"
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise OutboxError(f"outbox {self._path}: {error}; check the disk's space and rights") from error


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    _turn_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found not in (0, SCHEMA_VERSION):
        raise sqlite3.DatabaseError(f"it has schema {found}, this software knows {SCHEMA_VERSION}")
    connection.executescript(_SCHEMA)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return connection


def _turn_to_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not always wait for its lock when two processes switch a new file at once."""
    for attempt in stamina.retry_context(
        on=_is_locked, attempts=None, timeout=_BUSY_TIMEOUT_S, wait_initial=0.02, wait_max=0.2
    ):
        with attempt:
            connection.execute("PRAGMA journal_mode = WAL")


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY


def _message(message_id: str, kind: str, payload: bytes, content_type: str, user_properties: str) -> OutboxMessage:
    pairs = tuple((str(name), str(value)) for name, value in json.loads(user_properties))
    return OutboxMessage(message_id, Kind(kind), payload, content_type, pairs)
