"""The outbox's tables, and how those of an earlier software become these, with rows waiting."""

import json
import sqlite3
import time
import zlib

import cbor2

from edge_agent.outbox.cipher import frame_digest
from protocol.topics import Kind

SCHEMA_VERSION = 2
_MESSAGES = """
CREATE TABLE IF NOT EXISTS messages (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL,
    content_type TEXT NOT NULL,
    user_properties TEXT NOT NULL
)"""
_TABLES = (
    """
CREATE TABLE queue (
    position INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    size INTEGER NOT NULL,
    added_at REAL NOT NULL,
    checksum INTEGER NOT NULL,
    sealed INTEGER NOT NULL,
    held TEXT NOT NULL DEFAULT ''
)""",
    "CREATE INDEX queue_by_rank ON queue (rank, position) WHERE held = ''",
    "CREATE INDEX queue_by_age ON queue (added_at, position) WHERE held = ''",
    "CREATE INDEX queue_held ON queue (position) WHERE held != ''",
    "CREATE INDEX queue_slices ON queue (sequence) WHERE kind = 'slice'",
    "CREATE INDEX queue_frames ON queue (priority, position) WHERE kind = 'frame'",
    """
CREATE TABLE captured (
    digest BLOB PRIMARY KEY,
    sequence INTEGER NOT NULL,
    slice_id TEXT,
    refused BLOB,
    added_at REAL NOT NULL
) WITHOUT ROWID""",
    "CREATE INDEX captured_refused ON captured (digest) WHERE refused IS NOT NULL",
    "CREATE INDEX captured_by_sequence ON captured (sequence) WHERE sequence > 0",
    "CREATE TABLE gaps (kind TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (kind, first))",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO counters VALUES ('sequence', 0), ('rows', 0), ('bytes', 0), ('refused', 0), ('peak', 0)",
)
"""What is ordered and counted stands in `queue`, apart from the payloads, so that no scan reads these.

`captured` has a row for each frame, `refused` with its name and reason where it was not read; `peak` is the highest
fullness since the outbox was empty, in millionths.
"""
FRAMES_LAST = 1_000
"""The rank of an original begins here; a slice's is above it whatever its priority."""


def rank(kind: str, priority: int) -> int:
    """Return the place in the order of sending, the lowest first: slices before originals, then by priority."""
    return FRAMES_LAST * (kind == Kind.FRAME) - priority


def checksum(sequence: int, content_type: str, user_properties: bytes, payload: bytes) -> int:
    """Return what tells whether a message is still what was added; SQLite itself checks no content."""
    return zlib.crc32(payload, zlib.crc32(user_properties, zlib.crc32(f"{sequence} {content_type}".encode())))


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of a new outbox, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_MESSAGES)
    _create_others(connection)
    connection.execute("COMMIT")


def migrate(connection: sqlite3.Connection) -> None:
    """Make of schema 1 this one, in one transaction: payloads stay where they are, the rest is added beside them."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ALTER TABLE captured RENAME TO captured_1")
    _create_others(connection)
    _queue_what_waits(connection)
    _remember_captured(connection)
    connection.execute("DROP TABLE captured_1")
    connection.execute("COMMIT")


def _create_others(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _queue_what_waits(connection: sqlite3.Connection) -> None:
    """Number what waits: a slice says its number itself, an original has that of its slice."""
    (last,) = connection.execute("SELECT value FROM counters WHERE name = 'sequence'").fetchone()
    now, numbers = time.time(), dict[str, int]()
    rows = connection.execute(
        "SELECT position, message_id, kind, payload, content_type, user_properties FROM messages ORDER BY position"
    )
    for position, message_id, kind, payload, content_type, properties in rows:
        sequence = sequence_of(kind, payload, properties, numbers) or last
        check = checksum(sequence, content_type, properties.encode(), payload)
        values = (position, message_id, kind, sequence, 0, rank(kind, 0), len(payload), now, check, 0)
        connection.execute(f"INSERT INTO queue VALUES ({','.join('?' * len(values))}, '')", values)  # noqa: S608
    connection.execute(
        "UPDATE counters SET value = CASE name WHEN 'rows' THEN (SELECT count(*) FROM queue) "
        "ELSE (SELECT coalesce(sum(size), 0) FROM queue) END WHERE name IN ('rows', 'bytes')"
    )


def sequence_of(kind: str, payload: bytes, properties: str, numbers: dict[str, int]) -> int:
    """Return the number that a message tells, 0 when it tells none; `numbers` keeps them by slice id for originals."""
    if kind != Kind.SLICE:
        return numbers.get(dict(json.loads(properties)).get("sliceid", ""), 0)
    try:
        said = cbor2.loads(payload)
        sequence = numbers[said["slice_id"]] = int(said["sequence"])
    except (cbor2.CBORDecodeError, KeyError, TypeError, ValueError):
        return 0
    return sequence


def _remember_captured(connection: sqlite3.Connection) -> None:
    now = time.time()
    (last,) = connection.execute("SELECT value FROM counters WHERE name = 'sequence'").fetchone()
    rows = connection.execute("SELECT key, slice_id, refused FROM captured_1 ORDER BY rowid DESC").fetchall()
    for key, slice_id, refused in rows:  # backwards from the last number: a slice took one after the other
        sequence, last = (0, last) if refused is not None else (max(last, 1), last - 1)
        named = None if refused is None else json.dumps([key, refused]).encode()
        connection.execute(
            "INSERT OR REPLACE INTO captured VALUES (?, ?, ?, ?, ?)",
            (frame_digest(key), sequence, slice_id, named, now),
        )
    connection.execute(
        "UPDATE counters SET value = (SELECT count(*) FROM captured WHERE refused IS NOT NULL) WHERE name = 'refused'"
    )
