"""What waits in the outbox's database: put in, given in the order of sending, taken out, and counted with that.

All functions work inside the caller's transaction.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from edge_agent.outbox.cipher import Cipher, Plain, TamperedError
from edge_agent.outbox.message import HeldBack, OutboxMessage
from edge_agent.outbox.schema import checksum, rank
from protocol.ranges import Range
from protocol.topics import Kind

BACKLOG_S = 5.0
"""What waits longer is a backlog: an outage's, or of more slices than the line takes."""
PROPERTIES = "/properties"
"""Behind the message's id: under this name its user properties are sealed."""


@dataclass(frozen=True)
class Bounds:
    """How much may wait."""

    rows: int
    bytes: int

    def fullness(self, rows: int, size: int) -> float:
        """Return the larger share of rows and bytes, 1 when nothing more has room."""
        return min(1.0, max(rows / self.rows, size / self.bytes))


@dataclass(frozen=True)
class Place:
    """Where a message stands, and what it is without its payload."""

    position: int
    message_id: str
    kind: str
    sequence: int
    size: int


class DamagedMessageError(ValueError):
    """What is kept of a message is not what was added."""


def counter(connection: sqlite3.Connection, name: str) -> int:
    """Return a counter's value."""
    return int(connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()[0])


def set_counter(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Set a counter."""
    connection.execute("UPDATE counters SET value = ? WHERE name = ?", (value, name))


def is_consistent(connection: sqlite3.Connection) -> bool:
    """Tell whether counters and rows say the same: SQLite checks structure, not content."""
    counted = dict(connection.execute("SELECT name, value FROM counters").fetchall())
    rows, size = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM queue").fetchone()
    (bodies,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    (matching,) = connection.execute(
        "SELECT count(*) FROM queue AS q JOIN messages AS m USING (position) "
        "WHERE q.message_id = m.message_id AND q.kind = m.kind"
    ).fetchone()
    (last,) = connection.execute("SELECT max(sequence) FROM captured").fetchone()
    (refused,) = connection.execute("SELECT count(*) FROM captured WHERE refused IS NOT NULL").fetchone()
    values = [counted.get(name) for name in ("rows", "bytes", "refused")]
    sequence, peak = counted.get("sequence"), counted.get("peak")
    sane = isinstance(sequence, int) and isinstance(peak, int) and sequence >= (last or 0)
    return sane and rows == bodies == matching and values == [rows, size, refused]


def insert(
    connection: sqlite3.Connection,
    cipher: Cipher,
    sequence: int,
    priority: int,
    now: float,
    messages: Sequence[OutboxMessage],
) -> None:
    """Put a slice's messages behind the others."""
    for message in messages:
        name = message.message_id
        pairs = json.dumps(message.user_properties).encode()
        properties = cipher.seal(pairs, name + PROPERTIES)
        position = connection.execute(
            "INSERT INTO messages (message_id, kind, payload, content_type, user_properties) VALUES (?, ?, ?, ?, ?)",
            (name, message.kind, cipher.seal(message.payload, name), message.content_type, properties),
        ).lastrowid
        connection.execute(
            "INSERT INTO queue (position, message_id, kind, sequence, priority, rank, size, added_at, checksum, sealed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                position,
                name,
                message.kind,
                sequence,
                priority,
                rank(message.kind, priority),
                len(message.payload),
                now,
                checksum(sequence, message.content_type, pairs, message.payload),
                not isinstance(cipher, Plain),
            ),
        )
    count(connection, len(messages), sum(len(message.payload) for message in messages))


def take_out(connection: sqlite3.Connection, positions: Iterable[int]) -> list[Place]:
    """Delete what stands there; return what that was."""
    taken = []
    for position in positions:
        row = connection.execute(
            "DELETE FROM queue WHERE position = ? RETURNING position, message_id, kind, sequence, size", (position,)
        ).fetchone()
        connection.execute("DELETE FROM messages WHERE position = ?", (position,))
        if row is not None:
            taken.append(Place(*row))
    if taken:
        count(connection, -len(taken), -sum(place.size for place in taken))
        if counter(connection, "rows") == 0:
            set_counter(connection, "peak", 0)
    return taken


def positions_of(connection: sqlite3.Connection, message_ids: Collection[str]) -> list[int]:
    """Find messages by their ids, in the order of positions; strangers are left out."""
    found = (
        connection.execute("SELECT position FROM messages WHERE message_id = ?", (message_id,)).fetchone()
        for message_id in dict.fromkeys(message_ids)
    )
    return sorted(int(row[0]) for row in found if row is not None)


def due(connection: sqlite3.Connection, now: float, line_since: float, max_wait_s: float, turn: int) -> Iterator[Place]:
    """Yield what may be sent, some of it more than once: by rank, and with a backlog in turns.

    Then slices that are new since the line is there, the first by rank, and what has waited longest (beyond
    `max_wait_s`) take turns, so that a new slice does not wait behind the backlog, nor a doubtful one behind the sure,
    and none waits for ever.
    turn: how many were sent so far.
    """
    columns = "SELECT position, message_id, kind, sequence, size FROM queue WHERE held = ''"
    by_rank = connection.execute(f"{columns} ORDER BY rank, position")
    (oldest,) = connection.execute("SELECT min(added_at) FROM queue WHERE held = ''").fetchone()
    if oldest is None or oldest > now - BACKLOG_S:
        yield from (Place(*row) for row in by_rank)
        return
    lanes = (
        connection.execute(
            f"{columns} AND added_at > ? AND kind = 'slice' ORDER BY added_at, position",
            (max(now - BACKLOG_S, min(line_since, now)),),
        ),
        by_rank,
        connection.execute(f"{columns} AND added_at <= ? ORDER BY added_at, position", (now - max_wait_s,)),
    )
    first = turn % len(lanes)
    for rows in zip_longest(*lanes[first:], *lanes[:first]):
        yield from (Place(*row) for row in rows if row is not None)


def load(connection: sqlite3.Connection, cipher: Cipher, position: int) -> OutboxMessage:
    """Read a message; raises `DamagedMessageError` when it is not what was added."""
    row = connection.execute(
        "SELECT m.message_id, m.kind, payload, content_type, user_properties, "
        "q.message_id, q.kind, sequence, checksum, sealed "
        "FROM queue AS q LEFT JOIN messages AS m USING (position) WHERE position = ?",
        (position,),
    ).fetchone()
    message_id, kind, payload, content_type, properties, queued_id, queued_kind, sequence, check, sealed = row
    opener = cipher if sealed else Plain()
    try:
        pairs = opener.open(as_bytes(properties), message_id + PROPERTIES)
        body = opener.open(payload, message_id)
        found = message_id, kind, checksum(sequence, content_type, pairs, body)
        if found != (queued_id, queued_kind, check):
            raise DamagedMessageError(position)
        named = tuple((str(name), str(value)) for name, value in json.loads(pairs))
        return OutboxMessage(message_id, Kind(kind), body, content_type, named)
    except (TamperedError, ValueError, TypeError, AttributeError) as error:
        raise DamagedMessageError(position) from error


def least_valuable_frame(connection: sqlite3.Connection) -> int | None:
    """Return the position of the original that is missed least: of the lowest priority the oldest."""
    row = connection.execute(
        "SELECT position FROM queue WHERE kind = 'frame' ORDER BY priority, position LIMIT 1"
    ).fetchone()
    return None if row is None else int(row[0])


def hold(connection: sqlite3.Connection, message_id: str, reason: str) -> None:
    """Keep a message back, with the reason."""
    for position in positions_of(connection, [message_id]):
        connection.execute("UPDATE queue SET held = ? WHERE position = ?", (reason, position))


def release_held(connection: sqlite3.Connection) -> int:
    """Let everything that was kept back be sent again; return how many messages that are."""
    return connection.execute("UPDATE queue SET held = '' WHERE held != ''").rowcount


def held(connection: sqlite3.Connection) -> HeldBack:
    """Count what is kept back."""
    (count,) = connection.execute("SELECT count(*) FROM queue WHERE held != ''").fetchone()
    first = connection.execute("SELECT held FROM queue WHERE held != '' ORDER BY position LIMIT 1").fetchone()
    return HeldBack(int(count), str(first[0]) if first else "")


def waiting_ranges(connection: sqlite3.Connection, kind: Kind = Kind.SLICE) -> list[Range]:
    """Return the numbers of the messages of a kind that wait, as ranges."""
    return [
        (int(first), int(last))
        for first, last in connection.execute(
            "SELECT min(sequence), max(sequence) FROM ("
            "SELECT sequence, sequence - row_number() OVER (ORDER BY sequence) AS island "
            "FROM queue WHERE kind = ?) GROUP BY island ORDER BY 1",
            (kind,),
        )
    ]


def gaps(connection: sqlite3.Connection, kind: str) -> list[Range]:
    """Return the numbers that were written down as `lost` or `dropped`, as ranges."""
    rows = connection.execute("SELECT first, last FROM gaps WHERE kind = ? ORDER BY first", (kind,))
    return [(int(first), int(last)) for first, last in rows]


def add_gap(connection: sqlite3.Connection, kind: str, new: Range) -> None:
    """Write numbers down, in one range with those that they touch or overlap."""
    row = connection.execute(
        "SELECT min(first), max(last) FROM gaps WHERE kind = ? AND first <= ? AND last >= ?",
        (kind, new[1] + 1, new[0] - 1),
    ).fetchone()
    first, last = (new[0], new[1]) if row[0] is None else (min(new[0], row[0]), max(new[1], row[1]))
    connection.execute("DELETE FROM gaps WHERE kind = ? AND first >= ? AND last <= ?", (kind, first, last))
    connection.execute("INSERT INTO gaps VALUES (?, ?, ?)", (kind, first, last))


def count(connection: sqlite3.Connection, rows: int, size: int) -> None:
    """Add to the number of messages and of their bytes."""
    connection.execute("UPDATE counters SET value = value + ? WHERE name = 'rows'", (rows,))
    connection.execute("UPDATE counters SET value = value + ? WHERE name = 'bytes'", (size,))


def as_bytes(text: bytes | str) -> bytes:
    """Return bytes, also of the text that an earlier software wrote."""
    return text.encode() if isinstance(text, str) else text
