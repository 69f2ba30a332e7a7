"""A box that is updated with rows waiting goes on where it was."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import cbor2
import pytest
from outbox_parts import ids, message, outbox_at

from edge_agent.outbox import OutboxError, OutboxMessage
from edge_agent.outbox.schema import SCHEMA_VERSION
from protocol.codec import EventContext, encode_frame
from protocol.messages import Frame
from protocol.topics import Kind

SCHEMA_1 = """
PRAGMA journal_mode = WAL;
CREATE TABLE messages (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL,
    content_type TEXT NOT NULL,
    user_properties TEXT NOT NULL
);
CREATE TABLE captured (key TEXT PRIMARY KEY, slice_id TEXT, refused TEXT);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
PRAGMA user_version = 1;
"""


def slice_message(number: int) -> OutboxMessage:
    said = cbor2.dumps({"slice_id": f"slice-{number}", "sequence": number, "image": bytes(1000)})
    return message(f"s{number}", said)


def frame_message(number: int) -> OutboxMessage:
    context = EventContext(id=f"f{number}", source="/edges/a/b", time=datetime.now(UTC), subject=f"slice-{number}")
    original = Frame(slice_id=f"slice-{number}", sha256="0" * 64, media_type="image/png", data=b"original")
    encoded = encode_frame(original, context)
    return OutboxMessage(f"f{number}", Kind.FRAME, encoded.payload, encoded.content_type, encoded.user_properties)


def write_schema_1(path: Path, waiting: Sequence[OutboxMessage], captured: int, refused: dict[str, str]) -> None:
    """Write what release 0.1 wrote: tables, rows and the last number."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(SCHEMA_1)
        for number in range(1, captured + 1):
            database.execute("INSERT INTO captured VALUES (?, ?, NULL)", (f"{number}.png", f"slice-{number}"))
        database.executemany("INSERT INTO captured VALUES (?, NULL, ?)", refused.items())
        database.executemany(
            "INSERT INTO messages (message_id, kind, payload, content_type, user_properties) VALUES (?, ?, ?, ?, ?)",
            [(m.message_id, m.kind, m.payload, m.content_type, json.dumps(m.user_properties)) for m in waiting],
        )
        database.execute("INSERT INTO counters VALUES ('sequence', ?)", (captured,))


def test_rows_that_wait_are_numbered_and_go_out(tmp_path: Path) -> None:
    """Every message of schema 1 is sent as it was; numbers, counters and frames are what they would have been."""
    path = tmp_path / "o"
    waiting = [slice_message(4), frame_message(4), slice_message(5), frame_message(5)]
    write_schema_1(path, waiting, captured=5, refused={"bad.png": "no slice"})
    for _ in range(2):
        with outbox_at(path) as outbox:
            assert outbox.pending(9) == [waiting[0], waiting[2], waiting[1], waiting[3]]
            assert outbox.waiting_ranges(9) == ((4, 5),)
            assert outbox.last_sequence() == 5
            assert outbox.lost_ranges() == ()
            assert outbox.load().bytes == sum(len(each.payload) for each in waiting)
            assert all(outbox.is_captured(f"{number}.png") for number in range(1, 6))
            assert outbox.refused() == [("bad.png", "no slice")]
            assert outbox.refused_count() == 1
    with outbox_at(path) as outbox:
        outbox.add("6.png", "slice-6", 6, [slice_message(6)])
        assert outbox.delete(["s4", "f4", "s5", "f5"]) == 4
        assert ids(outbox) == ["s6"]
    path.write_bytes(b"garbage")
    with outbox_at(path) as outbox:
        assert outbox.lost_ranges() == ((6, 6),)
        assert outbox.is_captured("3.png")


def test_an_empty_box_is_updated_too(tmp_path: Path) -> None:
    """A box that has not read anything yet."""
    with closing(sqlite3.connect(tmp_path / "o", isolation_level=None)) as database:
        database.executescript(SCHEMA_1)
    with outbox_at(tmp_path / "o") as outbox:
        assert outbox.depth() == outbox.last_sequence() == 0


def test_what_cannot_be_read_by_this_software_waits_as_it_is(tmp_path: Path) -> None:
    """A slice of schema 1 that tells no number has the last one, and is sent as it was."""
    write_schema_1(tmp_path / "o", [message("odd", b"\xff\xff")], captured=3, refused={})
    with outbox_at(tmp_path / "o") as outbox:
        assert outbox.pending(1) == [message("odd", b"\xff\xff")]
        assert outbox.waiting_ranges(1) == ((3, 3),)


def test_a_migration_that_is_cut_off_starts_again(tmp_path: Path) -> None:
    """It is one transaction: until it is done the file has schema 1."""
    path = tmp_path / "o"
    write_schema_1(path, [slice_message(1)], captured=1, refused={})
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE gaps (in_the_way INTEGER)")
    with pytest.raises(OutboxError, match="cannot be opened"), outbox_at(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        database.execute("DROP TABLE gaps")
    with outbox_at(path) as outbox:
        assert ids(outbox) == ["s1"]
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
