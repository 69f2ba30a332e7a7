"""The outbox: a queue on disk that survives kill -9, full disks and damaged files; rows leave it by receipts."""

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from edge_agent.outbox import queue
from edge_agent.outbox.database import shrink, transaction
from edge_agent.outbox.errors import OutboxFullError, OutboxNumberError
from edge_agent.outbox.message import HeldBack, OutboxLoad, OutboxMessage, WhenFull
from edge_agent.outbox.numbers import DONE, ISSUED, KEPT, PAST, Record, lost_record
from edge_agent.outbox.store import Store
from protocol.ranges import Range, at_most
from protocol.topics import Kind

log = structlog.get_logger()

SPARE_RECORDS = 10_000
"""The file of numbers is written anew when it has twice the records that it needs, and so many more."""


class Outbox:
    """One process writes it; others may look at it meanwhile. Threads share it."""

    def __init__(
        self,
        path: Path,
        *,
        max_rows: int,
        max_bytes: int,
        when_full: WhenFull = "refuse",
        max_wait_s: float = 3600.0,
        key_file: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Remember where and how much; `with` opens it. clock: Unix time, for the age of messages over restarts."""
        self._store = Store(path, key_file, clock)
        self._bounds = queue.Bounds(max_rows, max_bytes)
        self._when_full, self._max_wait_s, self._clock = when_full, max_wait_s, clock
        self._additions = self._turn = 0
        self._line_since = 0.0

    def __enter__(self) -> Self:
        """Open or create the database; a damaged one is set aside.

        Raises `OutboxError` when it cannot be written, `OutboxKeyError` when its key is missing or wrong,
        `OutboxSchemaError` when a newer software wrote it.
        """
        self._store.open()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close the database; everything in it stays."""
        self._store.close()

    @property
    def added(self) -> int:
        """Count what made messages ready to be sent; who found nothing to send need not look before it changes."""
        return self._additions + self._store.renewed

    def add(
        self, key: str, slice_id: str, sequence: int, messages: Sequence[OutboxMessage], *, priority: int = 0
    ) -> None:
        """Keep a slice's messages and mark its frame as captured; when this returns, that is on the disk.

        Raises `OutboxFullError` when a bound would be passed, `OutboxNumberError` for a number that was given before,
        and `OutboxError` when the disk does not take it; then nothing of the slice is kept,
        and it can be offered again.
        """
        digest, now = self._store.digest(key), self._clock()
        with self._store.writing() as connection:
            with transaction(connection):
                if sequence <= (last := queue.counter(connection, "sequence")):
                    raise OutboxNumberError(f"number {sequence} was given before: the last one is {last}")
                if self._when_full == "refuse":
                    self._check_room(connection, len(messages), sum(len(message.payload) for message in messages))
                queue.insert(connection, self._store.cipher, sequence, priority, now, messages)
                dropped = self._make_room(connection)
                connection.execute("INSERT INTO captured VALUES (?, ?, ?, NULL, ?)", (digest, sequence, slice_id, now))
                queue.set_counter(connection, "sequence", sequence)
                self._note_peak(connection)
                self._store.numbers.append([Record(ISSUED, sequence, digest)], durable=True)
            kinds = {Kind(message.kind) for message in messages}
            done = KEPT if Kind.SLICE in kinds else PAST
            self._additions += 1
            self._note([Record(done, sequence, digest)])
        if dropped:
            log.warning("originals dropped", reason="outbox full", sequences=dropped[:10], count=len(dropped))

    def refuse(self, key: str, reason: str) -> None:
        """Mark a frame as refused for good, with the reason; `refused` lists them."""
        digest = self._store.digest(key)
        named = self._store.cipher.seal(json.dumps([key, reason]).encode(), digest.hex())
        with self._store.writing() as connection, transaction(connection):
            known = connection.execute("SELECT refused FROM captured WHERE digest = ?", (digest,)).fetchone()
            connection.execute(
                "INSERT INTO captured VALUES (?, 0, NULL, ?, ?) ON CONFLICT DO UPDATE SET refused = excluded.refused",
                (digest, named, self._clock()),
            )
            if known is None or known[0] is None:
                queue.set_counter(connection, "refused", queue.counter(connection, "refused") + 1)

    def delete(self, message_ids: Collection[str]) -> int:
        """Delete what receipts name; return how many messages that were.

        Not synced by itself: a delete that a power cut undoes only has the message sent again, and stored once.
        """
        if not message_ids:
            return 0
        with self._store.writing() as connection:
            positions = queue.positions_of(connection, message_ids)
            if not positions:
                return 0
            with _without_sync(connection), transaction(connection):
                taken = queue.take_out(connection, positions)
            self._note([Record(DONE, place.sequence) for place in taken if place.kind == Kind.SLICE])
        return len(taken)

    def pending(
        self,
        limit: int,
        *,
        besides: Collection[str] = (),
        max_bytes: int | None = None,
        whole: int | None = None,
    ) -> list[OutboxMessage]:
        """Return what is to be sent next, besides what is in flight or kept back.

        Slices before originals, each by priority, then by age. With a backlog the new slices and what waited longest,
        beyond `max_wait_s`, take turns with these, over calls too. max_bytes: of all payloads together; where that is
        `whole`, a single message that is larger is given too.
        """
        room, chosen, damaged = max_bytes, list[OutboxMessage](), list[queue.Place]()
        seen = set(besides)
        with self._store.reading() as connection:
            for place in queue.due(connection, self._clock(), self._line_since, self._max_wait_s, self._turn):
                if len(chosen) >= limit:
                    break
                if place.message_id in seen:
                    continue
                if room is not None and place.size > room and (chosen or room != whole):
                    break
                seen.add(place.message_id)
                try:
                    chosen.append(queue.load(connection, self._store.cipher, place.position))
                except queue.DamagedMessageError:
                    damaged.append(place)
                    continue
                room = None if room is None else room - place.size
        self._turn += len(chosen)
        for place in damaged:
            self._lose(place)
        return chosen

    def line_is_back(self) -> None:
        """Hear that there is a connection again: what was captured until now is its backlog."""
        self._line_since = self._clock()

    def hold(self, message_id: str, reason: str) -> None:
        """Keep a message back, since this broker does not take it; those behind it go on."""
        with self._store.writing() as connection, _without_sync(connection), transaction(connection):
            queue.hold(connection, message_id, reason)

    def release_held(self) -> int:
        """Let what was kept back be tried again; return how many messages that are."""
        with self._store.writing() as connection:
            if not queue.held(connection).count:
                return 0
            with _without_sync(connection), transaction(connection):
                released = queue.release_held(connection)
            self._additions += 1
            return released

    def held(self) -> HeldBack:
        """Tell what is kept back."""
        with self._store.reading() as connection:
            return queue.held(connection)

    def is_captured(self, key: str) -> bool:
        """Tell whether a frame was captured or refused, in this life or an earlier one."""
        with self._store.reading() as connection:
            row = connection.execute("SELECT 1 FROM captured WHERE digest = ?", (self._store.digest(key),)).fetchone()
            return row is not None

    def refused(self) -> list[tuple[str, str]]:
        """List the refused frames as key and reason; for the technician at the box, since keys may name patients."""
        with self._store.reading() as connection:
            rows = connection.execute("SELECT digest, refused FROM captured WHERE refused IS NOT NULL").fetchall()
        listed = (json.loads(self._store.cipher.open(refused, digest.hex())) for digest, refused in rows)
        return sorted((str(key), str(reason)) for key, reason in listed)

    def refused_count(self) -> int:
        """Count the refused frames."""
        return self._counter("refused")

    def depth(self) -> int:
        """Count the messages without a receipt."""
        return self._counter("rows")

    def load(self) -> OutboxLoad:
        """Tell how much waits."""
        with self._store.reading() as connection:
            counters = dict(connection.execute("SELECT name, value FROM counters").fetchall())
        rows, size = int(counters["rows"]), int(counters["bytes"])
        return OutboxLoad(rows, size, self._bounds.fullness(rows, size), min(1.0, counters["peak"] / 1e6))

    def last_sequence(self) -> int:
        """Return the highest sequence number that was given or may have been, 0 before the first."""
        return self._counter("sequence")

    def waiting_ranges(self, limit: int, kind: Kind = Kind.SLICE) -> tuple[Range, ...]:
        """Return the numbers of a kind's messages without a receipt; beyond so many ranges the last are joined."""
        with self._store.reading() as connection:
            return at_most(queue.waiting_ranges(connection, kind), limit)

    def lost_ranges(self) -> tuple[Range, ...]:
        """Return the numbers that were given, or may have been, and whose slices are gone with a damaged file."""
        with self._store.reading() as connection:
            return tuple(queue.gaps(connection, "lost"))

    def dropped_frames(self) -> tuple[Range, ...]:
        """Return the numbers of the slices whose originals gave way to others in a full outbox, or were damaged."""
        with self._store.reading() as connection:
            return tuple(queue.gaps(connection, "dropped"))

    @property
    def trouble(self) -> str:
        """Tell of a damage, for a while; empty when there was none."""
        return self._store.trouble

    def tidy(self) -> None:
        """Give the disk back what an outage took, where that is little work; to be called now and then."""
        with self._store.writing() as connection:
            shrink(connection)
            (captured,) = connection.execute("SELECT count(*) FROM captured WHERE sequence > 0").fetchone()
            if self._store.numbers.records > 2 * captured + SPARE_RECORDS:
                self._store.numbers.rewrite(self._store.records(connection))

    def _check_room(self, connection: sqlite3.Connection, new_rows: int, new_bytes: int) -> None:
        rows, size = queue.counter(connection, "rows"), queue.counter(connection, "bytes")
        if rows + new_rows > self._bounds.rows:
            raise OutboxFullError(
                f"outbox full ({rows} of {self._bounds.rows} rows): new slice refused until receipts come"
            )
        if size + new_bytes > self._bounds.bytes:
            raise OutboxFullError(f"outbox full ({size:,} of {self._bounds.bytes:,} bytes): new slice refused")

    def _make_room(self, connection: sqlite3.Connection) -> list[int]:
        """Drop originals until the bound holds; return whose. Raises `OutboxFullError` where slices alone pass it."""
        dropped = []
        while self._is_over(connection):
            position = queue.least_valuable_frame(connection)
            if position is None:
                self._check_room(connection, 0, 0)
            else:
                (place,) = queue.take_out(connection, [position])
                queue.add_gap(connection, "dropped", (place.sequence, place.sequence))
                dropped.append(place.sequence)
        return dropped

    def _is_over(self, connection: sqlite3.Connection) -> bool:
        rows, size = queue.counter(connection, "rows"), queue.counter(connection, "bytes")
        return rows > self._bounds.rows or size > self._bounds.bytes

    def _note_peak(self, connection: sqlite3.Connection) -> None:
        full = self._bounds.fullness(queue.counter(connection, "rows"), queue.counter(connection, "bytes"))
        connection.execute("UPDATE counters SET value = max(value, ?) WHERE name = 'peak'", (int(full * 1e6),))

    def _lose(self, place: queue.Place) -> None:
        """Take out a message that is not what was added, and write down that it is gone."""
        is_slice = place.kind == Kind.SLICE
        with self._store.writing() as connection:
            with transaction(connection):
                queue.take_out(connection, [place.position])
                queue.add_gap(connection, "lost" if is_slice else "dropped", (place.sequence, place.sequence))
            if is_slice:
                self._note([Record(DONE, place.sequence), lost_record((place.sequence, place.sequence))])
        self._store.say_trouble(f"the {place.kind} of number {place.sequence} was damaged in the outbox, and is gone")

    def _note(self, records: Sequence[Record]) -> None:
        """Write down what is committed already; where the disk is full, the next start does."""
        with suppress(OSError):
            self._store.numbers.append(records, durable=False)

    def _counter(self, name: str) -> int:
        with self._store.reading() as connection:
            return queue.counter(connection, name)


@contextmanager
def _without_sync(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous = FULL")
