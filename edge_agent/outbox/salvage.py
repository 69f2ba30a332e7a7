"""Save from a damaged database what can be read, row by row, into a new one, and name what cannot."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.outbox import queue
from edge_agent.outbox.cipher import CHECKED, Cipher, Plain, TamperedError, frame_digest
from edge_agent.outbox.database import UNREADABLE, connect, open_database, remove, transaction
from edge_agent.outbox.numbers import NOBODY, Known
from edge_agent.outbox.schema import FRAMES_LAST, checksum, rank, sequence_of
from protocol.ranges import Range, common, outside

MAX_FAULTS = 5_000
"""So many failed reads of one table are enough: nothing more of it will come."""
MOST_POSITIONS = 1 << 32
_QUEUE = "position, message_id, kind, sequence, priority, rank, size, added_at, checksum, sealed, held"
_MESSAGES = "position, message_id, kind, payload, content_type, user_properties"

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Rescue:
    """What became of the outbox: how many messages were saved, and which numbers are gone."""

    saved: int
    lost: tuple[Range, ...]


def rescue(damaged: Path, new: Path, known: Known | None, cipher: Cipher, now: float) -> Rescue:
    """Build a new database from what the damaged one and the file of numbers tell.

    now: Unix time; where neither tells the last number, numbers go on from it: no edge reads a slice a second for so
    long, so none is given twice.
    """
    remove(new)
    with closing(open_database(new, check=False)) as connection:
        saved, seen = _copy(damaged, connection, known, cipher, now)
        with transaction(connection):
            _restore_check(connection, known, cipher)
            last = _restore_numbers(connection, known, seen, now)
            lost = _lost(connection, known, last)
            for each in lost:
                queue.add_gap(connection, "lost", each)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Rescue(saved, tuple(lost))


def _copy(
    damaged: Path, connection: sqlite3.Connection, known: Known | None, cipher: Cipher, now: float
) -> tuple[int, int | None]:
    """Copy what can be read; return how many messages that were, and the last number if the damaged file tells it."""
    if not damaged.exists():
        return 0, None
    numbers: dict[str, int] = {}
    saved = 0
    with closing(connect(damaged)) as old:
        places = {row[0]: row for row in _by_position(old, "queue", _QUEUE)}
        with transaction(connection):
            for row in _by_position(old, "messages", _MESSAGES):
                place = places.get(row[0]) or _placed(row, cipher, numbers, now)
                saved += place is not None and _save(connection, cipher, row, _mended(place, now))
            _copy_captured(old, connection, known, now)
            for table, marks in (("gaps", "?, ?, ?"), ("facts", "?, ?")):
                for row in _from_both_ends(old, table, "*", "1"):
                    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)  # noqa: S608
            for name, value in _from_both_ends(old, "counters", "name, value", "name"):
                if name == "sequence":
                    return saved, value if isinstance(value, int) else None
    return saved, None


def _by_position(old: sqlite3.Connection, table: str, columns: str) -> Iterator[Row]:
    """Yield the rows that can be read, in order: what fails is halved until the row that fails is alone."""
    faults, spans = 0, [(0, _last_position(old))]
    while spans and faults < MAX_FAULTS:
        first, last = spans.pop()
        try:
            for row in old.execute(
                f"SELECT {columns} FROM {table} WHERE position BETWEEN ? AND ? ORDER BY position",  # noqa: S608
                (first, last),
            ):
                yield row
                first = row[0] + 1
        except UNREADABLE:
            faults += 1
            if first < last:
                middle = (first + last) // 2
                spans += [(middle + 1, last), (first, middle)]


def _last_position(old: sqlite3.Connection) -> int:
    """Return beyond which there are no positions, as far as that can be read; each table tells it."""
    found = 0
    for table, column in (("sqlite_sequence", "seq"), ("messages", "position"), ("queue", "position")):
        with suppress(*UNREADABLE):
            (last,) = old.execute(f"SELECT max({column}) FROM {table}").fetchone()  # noqa: S608
            found = max(found, last if isinstance(last, int) else 0)
    return found if 0 < found < MOST_POSITIONS else MOST_POSITIONS


def _from_both_ends(old: sqlite3.Connection, table: str, columns: str, order: str) -> Iterator[Row]:
    """Yield the rows before the first fault, and those behind the last one."""
    seen: set[Row] = set()
    for direction in ("ASC", "DESC"):
        try:
            for row in old.execute(f"SELECT {columns} FROM {table} ORDER BY {order} {direction}"):  # noqa: S608
                if row not in seen:
                    seen.add(row)
                    yield row
            return
        except UNREADABLE:
            continue


def _placed(row: Row, cipher: Cipher, numbers: dict[str, int], now: float) -> Row | None:
    """Find a message's place anew from what it says itself, where the queue has lost it."""
    position, message_id, kind, payload, _, properties = row
    for opener in (cipher, Plain()):
        with suppress(TamperedError, ValueError, TypeError, AttributeError):
            plain = opener.open(payload, message_id)
            pairs = opener.open(queue.as_bytes(properties), message_id + queue.PROPERTIES)
            sequence = sequence_of(kind, plain, pairs.decode(), numbers)
            sealed = not isinstance(opener, Plain)
            size, check = len(plain), checksum(sequence, row[4], pairs, plain)
            if sequence:
                return (position, message_id, kind, sequence, 0, rank(kind, 0), size, now, check, sealed, "")
    return None


def _mended(place: Row, now: float) -> Row:
    """Put sound values where no checksum tells damage: order, size and age are worth less than the message."""
    position, message_id, kind, sequence, priority, _, size, added_at, check, sealed, _ = place
    urgency = priority if isinstance(priority, int) and 0 <= priority < FRAMES_LAST else 0
    since = added_at if isinstance(added_at, float) and 0 < added_at <= now else now
    length = size if isinstance(size, int) else 0
    return (position, message_id, kind, sequence, urgency, rank(kind, urgency), length, since, check, sealed, "")


def _save(connection: sqlite3.Connection, cipher: Cipher, row: Row, place: Row) -> bool:
    """Copy a message and its place, unless it is not what was added."""
    connection.execute("SAVEPOINT message")
    try:
        connection.execute(f"INSERT INTO messages ({_MESSAGES}) VALUES (?, ?, ?, ?, ?, ?)", row)  # noqa: S608
        marks = ", ".join("?" * len(place))
        connection.execute(f"INSERT INTO queue ({_QUEUE}) VALUES ({marks})", place)  # noqa: S608
        message = queue.load(connection, cipher, row[0])
        connection.execute("UPDATE queue SET size = ? WHERE position = ?", (len(message.payload), row[0]))
        sound = bool(message.kind == place[2] and message.message_id == place[1])
    except (sqlite3.Error, queue.DamagedMessageError, TypeError, ValueError):
        sound = False
    if sound:
        queue.count(connection, 1, len(message.payload))
    else:
        connection.execute("ROLLBACK TO message")
    connection.execute("RELEASE message")
    return sound


def _copy_captured(old: sqlite3.Connection, connection: sqlite3.Connection, known: Known | None, now: float) -> None:
    """Copy which frames are known; their numbers are believed where the file of numbers does not tell all."""
    for row in _from_both_ends(old, "captured", "digest, sequence, slice_id, refused, added_at", "digest"):
        digest, sequence, *others = row
        believed = sequence if known is None or not known.whole else 0
        with suppress(sqlite3.Error):
            connection.execute("INSERT OR IGNORE INTO captured VALUES (?, ?, ?, ?, ?)", (digest, believed, *others))
    for (key,) in _from_both_ends(old, "captured", "key", "key"):  # of schema 1
        _remember(connection, frame_digest(str(key)), 0, now)


def _remember(connection: sqlite3.Connection, digest: bytes, sequence: int, now: float) -> None:
    connection.execute(
        "INSERT INTO captured VALUES (?, ?, NULL, NULL, ?) ON CONFLICT DO UPDATE SET sequence = excluded.sequence",
        (digest, sequence, now),
    )


def _restore_check(connection: sqlite3.Connection, known: Known | None, cipher: Cipher) -> None:
    """Remember that all is sealed, where the damaged file does not tell it any more."""
    (sealed,) = connection.execute("SELECT EXISTS (SELECT 1 FROM queue WHERE sealed)").fetchone()
    if not isinstance(cipher, Plain) and (sealed or (known is not None and known.seal)):
        connection.execute("INSERT OR IGNORE INTO facts VALUES ('check', ?)", (cipher.seal(CHECKED, "check"),))


def _restore_numbers(connection: sqlite3.Connection, known: Known | None, seen: int | None, now: float) -> int:
    """Remember the frames that the file of numbers knows, and set the last number; return it."""
    for digest, sequence in _frames(known):
        _remember(connection, digest, sequence, now)
    refused = connection.execute("SELECT count(*) FROM captured WHERE refused IS NOT NULL").fetchone()[0]
    queue.set_counter(connection, "refused", refused)
    (highest,) = connection.execute("SELECT max(sequence) FROM captured").fetchone()
    (waiting,) = connection.execute("SELECT max(sequence) FROM queue").fetchone()
    last = max(known.last if known else 0, highest or 0, waiting or 0)
    if known is None or not known.whole:
        last = max(last, min(seen, int(now)) if isinstance(seen, int) else int(now))
    queue.set_counter(connection, "sequence", last)
    return last


def _frames(known: Known | None) -> Iterator[tuple[bytes, int]]:
    if known is not None:
        yield from known.past.items()
        yield from ((digest, sequence) for sequence, digest in known.waiting.items() if digest != NOBODY)


def _lost(connection: sqlite3.Connection, known: Known | None, last: int) -> list[Range]:
    """Name the numbers that had no receipt, or may have had none, and are not waiting any more."""
    here = [*queue.waiting_ranges(connection), *queue.gaps(connection, "lost")]
    left = outside(here, (1, last))
    if known is None:
        return left
    if not known.whole:
        return common(outside(known.done, (1, last)), left)
    return common([*known.lost, *((number, number) for number in known.waiting), (known.last + 1, last)], left)
