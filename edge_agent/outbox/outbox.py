"""The outbox: a queue on disk that survives kill -9, full disks and damaged files; rows leave it by receipts."""

import fcntl
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import structlog

from edge_agent.outbox import queue
from edge_agent.outbox.cipher import CHECKED, Cipher, Plain, Sealed, TamperedError, frame_digest, read_key
from edge_agent.outbox.database import (
    BUSY_TIMEOUT_S,
    files_of,
    is_damage,
    open_database,
    remove,
    shrink,
    sync_folder,
    transaction,
)
from edge_agent.outbox.errors import (
    OutboxDamagedError,
    OutboxError,
    OutboxFullError,
    OutboxKeyError,
    OutboxNumberError,
)
from edge_agent.outbox.message import HeldBack, OutboxLoad, OutboxMessage, WhenFull
from edge_agent.outbox.numbers import DONE, ISSUED, KEPT, PAST, SEALED, Known, Numbers, Record, read_numbers
from edge_agent.outbox.ranges import Range, limited
from edge_agent.outbox.salvage import rescue
from edge_agent.outbox.schema import SCHEMA_VERSION
from protocol.topics import Kind

log = structlog.get_logger()

LOCK_POLL_S = 0.05
SEAL = "sliceloop outbox"
"""Its digest tells the file of numbers by which key the frames in it are known."""
TROUBLE_SAID_S = 3600.0
"""So long after a damage the status tells of it."""
SEALED_AT_ONCE = 50
"""Messages that are encrypted in one transaction when encryption is turned on."""
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
        self._path = path
        self._bounds = queue.Bounds(max_rows, max_bytes)
        self._when_full, self._max_wait_s, self._key_file, self._clock = when_full, max_wait_s, key_file, clock
        self._cipher: Cipher = Plain()
        self._lock = threading.RLock()
        self._numbers = Numbers(path.with_name(path.name + ".numbers"))
        self._owned: BinaryIO | None = None
        self._connection: sqlite3.Connection | None = None
        self._trouble, self._trouble_since = "", 0.0
        self.added = 0
        """Counts what made messages ready to be sent; who found nothing to send need not look before it changes."""

    def __enter__(self) -> Self:
        """Open or create the database; a damaged one is set aside.

        Raises `OutboxError` when it cannot be written, `OutboxKeyError` when its key is missing or wrong,
        `OutboxSchemaError` when a newer software wrote it.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._cipher = Sealed(read_key(self._key_file)) if self._key_file else Plain()
            if self._own(0.0) or (not self._look_beside() and self._own(BUSY_TIMEOUT_S)):
                self._open()
        except (sqlite3.Error, OSError) as error:
            self._close()
            raise OutboxError(
                f"outbox {self._path} cannot be opened ({error}); check the folder's rights and space"
            ) from error
        except BaseException:
            self._close()
            raise
        if self._connection is None:
            raise OutboxError(f"outbox {self._path} is used by another process; stop it first")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close the database; everything in it stays."""
        with self._lock:
            self._close()

    def add(
        self, key: str, slice_id: str, sequence: int, messages: Sequence[OutboxMessage], *, priority: int = 0
    ) -> None:
        """Keep a slice's messages and mark its frame as captured; when this returns, that is on the disk.

        Raises `OutboxFullError` when a bound would be passed, `OutboxNumberError` for a number that was given before,
        and `OutboxError` when the disk does not take it; then nothing of the slice is kept,
        and it can be offered again.
        """
        digest, now = self._digest(key), self._clock()
        with self._writing() as connection:
            with transaction(connection):
                if sequence <= (last := queue.counter(connection, "sequence")):
                    raise OutboxNumberError(f"number {sequence} was given before: the last one is {last}")
                if self._when_full == "refuse":
                    self._check_room(connection, len(messages), sum(len(message.payload) for message in messages))
                queue.insert(connection, self._cipher, sequence, priority, now, messages)
                dropped = self._make_room(connection)
                connection.execute("INSERT INTO captured VALUES (?, ?, ?, NULL, ?)", (digest, sequence, slice_id, now))
                queue.set_counter(connection, "sequence", sequence)
                self._note_peak(connection)
                self._numbers.append([Record(ISSUED, sequence, digest)], durable=True)
            kinds = {Kind(message.kind) for message in messages}
            done = KEPT if Kind.SLICE in kinds else PAST
            self._numbers.append([Record(done, sequence, digest)], durable=False)
            self.added += 1
        if dropped:
            log.warning("originals dropped", reason="outbox full", sequences=dropped[:10], count=len(dropped))

    def refuse(self, key: str, reason: str) -> None:
        """Mark a frame as refused for good, with the reason; `refused` lists them."""
        digest = self._digest(key)
        named = self._cipher.seal(json.dumps([key, reason]).encode(), digest.hex())
        with self._writing() as connection, transaction(connection):
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
        with self._writing() as connection:
            positions = queue.positions_of(connection, message_ids)
            if not positions:
                return 0
            with _without_sync(connection), transaction(connection):
                taken = queue.take_out(connection, positions)
            self._numbers.append(
                [Record(DONE, place.sequence) for place in taken if place.kind == Kind.SLICE], durable=False
            )
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

        What waited longer than `max_wait_s` comes first, the oldest before all; then slices before originals, each by
        priority, then by age. max_bytes: of all payloads together; where that is `whole`, a single message that is
        larger is given too.
        """
        room, chosen, damaged = max_bytes, list[OutboxMessage](), list[queue.Place]()
        seen = set(besides)
        with self._reading() as connection:
            for place in queue.due(connection, self._clock() - self._max_wait_s):
                if len(chosen) >= limit:
                    break
                if place.message_id in seen:
                    continue
                if room is not None and place.size > room and (chosen or room != whole):
                    break
                seen.add(place.message_id)
                try:
                    chosen.append(queue.load(connection, self._cipher, place.position))
                except queue.DamagedMessageError:
                    damaged.append(place)
                    continue
                room = None if room is None else room - place.size
        for place in damaged:
            self._lose(place)
        return chosen

    def hold(self, message_id: str, reason: str) -> None:
        """Keep a message back, since this broker does not take it; those behind it go on."""
        with self._writing() as connection, _without_sync(connection), transaction(connection):
            queue.hold(connection, message_id, reason)

    def release_held(self) -> int:
        """Let what was kept back be tried again; return how many messages that are."""
        with self._writing() as connection:
            if not queue.held(connection).count:
                return 0
            with _without_sync(connection), transaction(connection):
                released = queue.release_held(connection)
            self.added += 1
            return released

    def held(self) -> HeldBack:
        """Tell what is kept back."""
        with self._reading() as connection:
            return queue.held(connection)

    def is_captured(self, key: str) -> bool:
        """Tell whether a frame was captured or refused, in this life or an earlier one."""
        with self._reading() as connection:
            row = connection.execute("SELECT 1 FROM captured WHERE digest = ?", (self._digest(key),)).fetchone()
            return row is not None

    def refused(self) -> list[tuple[str, str]]:
        """List the refused frames as key and reason; for the technician at the box, since keys may name patients."""
        with self._reading() as connection:
            rows = connection.execute("SELECT digest, refused FROM captured WHERE refused IS NOT NULL").fetchall()
        listed = (json.loads(self._cipher.open(refused, digest.hex())) for digest, refused in rows)
        return sorted((str(key), str(reason)) for key, reason in listed)

    def refused_count(self) -> int:
        """Count the refused frames."""
        return self._counter("refused")

    def depth(self) -> int:
        """Count the messages without a receipt."""
        return self._counter("rows")

    def load(self) -> OutboxLoad:
        """Tell how much waits."""
        with self._reading() as connection:
            counters = dict(connection.execute("SELECT name, value FROM counters").fetchall())
        rows, size = int(counters["rows"]), int(counters["bytes"])
        return OutboxLoad(rows, size, self._bounds.fullness(rows, size), min(1.0, counters["peak"] / 1e6))

    def last_sequence(self) -> int:
        """Return the highest sequence number that was given or may have been, 0 before the first."""
        return self._counter("sequence")

    def waiting_ranges(self, limit: int) -> tuple[Range, ...]:
        """Return the numbers of the slices without a receipt; beyond so many ranges the last are joined into one."""
        with self._reading() as connection:
            return limited(queue.waiting_ranges(connection), limit)

    def lost_ranges(self) -> tuple[Range, ...]:
        """Return the numbers that were given, or may have been, and whose slices are gone with a damaged file."""
        with self._reading() as connection:
            return tuple(queue.gaps(connection, "lost"))

    def dropped_frames(self) -> tuple[Range, ...]:
        """Return the numbers of the slices whose originals gave way to others in a full outbox, or were damaged."""
        with self._reading() as connection:
            return tuple(queue.gaps(connection, "dropped"))

    @property
    def trouble(self) -> str:
        """Tell of a damage, for a while; empty when there was none."""
        return self._trouble if self._clock() - self._trouble_since < TROUBLE_SAID_S else ""

    def tidy(self) -> None:
        """Give the disk back what an outage took, where that is little work; to be called now and then."""
        with self._writing() as connection:
            shrink(connection)
            (captured,) = connection.execute("SELECT count(*) FROM captured WHERE sequence > 0").fetchone()
            if self._numbers.records > 2 * captured + SPARE_RECORDS:
                self._numbers.rewrite(self._records(connection))

    # Who opens it.

    def _own(self, wait_s: float) -> bool:
        """Become the one process that writes, if no other is in that time."""
        lock = self._path.with_name(self._path.name + ".lock").open("ab")
        until_s = time.monotonic() + wait_s
        while True:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= until_s:
                    lock.close()
                    return False
                time.sleep(LOCK_POLL_S)
            else:
                self._owned = lock
                return True

    def _look_beside(self) -> bool:
        """Open what another process writes, to look at it; False where there is nothing to look at yet."""
        if not self._path.exists():
            return False
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            connection.close()
            return False
        self._connection = connection
        self._check_key(connection)
        return True

    def _open(self) -> None:
        unfinished, known = self._new_path, read_numbers(self._numbers_path)
        if unfinished.exists() and not self._path.exists():  # killed between the two renames of `_renew`
            unfinished.replace(self._path)
        remove(unfinished)
        try:
            if not self._path.exists() and known is not None and known.last:
                raise FileNotFoundError(f"{self._path.name} is missing beside its numbers")
            self._connection = open_database(self._path, check=True)
        except (sqlite3.DatabaseError, FileNotFoundError) as error:
            if not is_damage(error) and not isinstance(error, FileNotFoundError):
                raise
            self._check_seal(known)
            self._renew(error, known)
        connection = self._connection
        assert connection is not None
        self._check_key(connection)
        self._numbers.open()
        self._agree(connection, known)
        self._seal_what_is_plain(connection)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._numbers.close()
        if self._owned is not None:
            self._owned.close()
            self._owned = None

    # What a bound says.

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

    # Encryption.

    def _digest(self, key: str) -> bytes:
        return self._cipher.digest(frame_digest(key))

    def _check_key(self, connection: sqlite3.Connection) -> None:
        """Raise `OutboxKeyError` where the database was sealed with another key, or is sealed and there is none."""
        sealed = _fact(connection, "check")
        if sealed is None:
            return
        if isinstance(self._cipher, Plain):
            raise OutboxKeyError(f"outbox {self._path} is encrypted: set edge.outbox_key_file to its key")
        try:
            self._cipher.open(sealed, "check")
        except TamperedError:
            raise OutboxKeyError(
                f"outbox {self._path} is encrypted with another key than {self._key_file}; bring back the right one, "
                "or move the outbox aside (what waits in it is lost without its key)"
            ) from None

    def _check_seal(self, known: Known | None) -> None:
        """Raise `OutboxKeyError` where the file of numbers knows another key, before anything is set aside."""
        if known is not None and known.seal and known.seal != self._digest(SEAL):
            raise OutboxKeyError(
                f"outbox {self._path} is damaged, and what is left of it needs its key: set edge.outbox_key_file to it"
            )

    def _seal_what_is_plain(self, connection: sqlite3.Connection) -> None:
        """Turn encryption on for what is there already, or go on with that where it was interrupted."""
        if isinstance(self._cipher, Plain) or (_fact(connection, "check") and not _fact(connection, "sealing")):
            return
        if _fact(connection, "check") is None:
            with transaction(connection):
                self._seal_captured(connection)
                connection.execute(
                    "INSERT INTO facts VALUES ('check', ?), ('sealing', x'01')", (self._cipher.seal(CHECKED, "check"),)
                )
        while positions := connection.execute(
            "SELECT position FROM queue WHERE NOT sealed LIMIT ?", (SEALED_AT_ONCE,)
        ).fetchall():
            with transaction(connection):
                for (position,) in positions:
                    self._seal_message(connection, position)
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._numbers.rewrite(self._records(connection))
        connection.execute("DELETE FROM facts WHERE name = 'sealing'")
        log.info("outbox encrypted", waiting=self.depth())

    def _seal_captured(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT digest, refused FROM captured").fetchall()
        for digest, refused in rows:
            hidden = self._cipher.digest(digest)
            sealed = None if refused is None else self._cipher.seal(refused, hidden.hex())
            connection.execute("UPDATE captured SET digest = ?, refused = ? WHERE digest = ?", (hidden, sealed, digest))

    def _seal_message(self, connection: sqlite3.Connection, position: int) -> None:
        message_id, payload, properties = connection.execute(
            "SELECT message_id, payload, user_properties FROM messages WHERE position = ?", (position,)
        ).fetchone()
        name = message_id + queue.PROPERTIES
        connection.execute(
            "UPDATE messages SET payload = ?, user_properties = ? WHERE position = ?",
            (
                self._cipher.seal(payload, message_id),
                self._cipher.seal(queue.as_bytes(properties), name),
                position,
            ),
        )
        connection.execute("UPDATE queue SET sealed = 1 WHERE position = ?", (position,))

    # Damage.

    @property
    def _numbers_path(self) -> Path:
        return self._path.with_name(self._path.name + ".numbers")

    @property
    def _new_path(self) -> Path:
        return self._path.with_name(self._path.name + ".new")

    def _agree(self, connection: sqlite3.Connection, known: Known | None) -> None:
        """Let the file of numbers say what the database says; what only the file knows of was lost with a WAL.

        One number beyond the database's that was never committed was never sent, and is given again.
        """
        last = queue.counter(connection, "sequence")
        known = known or Known(whole=False)
        uncommitted = known.last == last + 1 and known.kept <= last
        if known.last > last and not uncommitted:
            frames = {sequence: digest for sequence, digest in known.waiting.items() if sequence > last}
            frames |= {sequence: digest for digest, sequence in known.past.items() if sequence > last}
            with transaction(connection):
                queue.add_gap(connection, "lost", (last + 1, known.last))
                queue.set_counter(connection, "sequence", known.last)
                for sequence, digest in frames.items():
                    connection.execute(
                        "INSERT OR IGNORE INTO captured VALUES (?, ?, NULL, NULL, ?)",
                        (digest, sequence, self._clock()),
                    )
            self._say_trouble(f"the outbox's last {known.last - last} slices are gone: its WAL was damaged")
        (waiting,) = connection.execute("SELECT count(*) FROM queue WHERE kind = 'slice'").fetchone()
        if not known.whole or known.last != known.kept or known.last != last or len(known.waiting) != waiting:
            self._numbers.rewrite(self._records(connection))

    def _renew(self, error: Exception, known: Known | None) -> None:
        """Set a damaged database aside, and go on with a new one that has what could be read of it."""
        now = self._clock()
        found = rescue(self._path, self._new_path, known, self._cipher, now)
        aside = self._path.with_name(f"{self._path.name}.damaged-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}")
        if self._path.exists():
            for file in files_of(self._path):
                if file.exists():
                    file.replace(aside.with_name(file.name.replace(self._path.name, aside.name, 1)))
        self._new_path.replace(self._path)
        sync_folder(self._path.parent)
        self._connection = open_database(self._path, check=False)
        self._say_trouble(
            f"the outbox was damaged ({error}): set aside as {aside.name}; {found.saved} messages saved, "
            f"{found.lost_count} slices gone or perhaps gone"
        )

    def _renew_now(self, error: Exception) -> None:
        """Do the same while running."""
        if self._connection is not None:
            self._connection.close()
        self._numbers.close()
        self._renew(error, read_numbers(self._numbers_path))
        assert self._connection is not None
        self._check_key(self._connection)
        self._numbers.open()
        self._numbers.rewrite(self._records(self._connection))
        self.added += 1

    def _lose(self, place: queue.Place) -> None:
        """Take out a message that is not what was added, and write down that it is gone."""
        is_slice = place.kind == Kind.SLICE
        with self._writing() as connection:
            with transaction(connection):
                queue.take_out(connection, [place.position])
                queue.add_gap(connection, "lost" if is_slice else "dropped", (place.sequence, place.sequence))
            if is_slice:
                self._numbers.append([Record(DONE, place.sequence)], durable=False)
        self._say_trouble(f"the {place.kind} of number {place.sequence} was damaged in the outbox, and is gone")

    def _say_trouble(self, text: str) -> None:
        self._trouble, self._trouble_since = text, self._clock()
        log.error("outbox damaged", reason=text, next="check this box's disk")

    def _records(self, connection: sqlite3.Connection) -> Iterator[Record]:
        """Yield what the database says of all numbers, and under which key their frames are known."""
        if _fact(connection, "check"):
            yield Record(SEALED, 0, self._digest(SEAL))
        rows = connection.execute(
            "SELECT sequence, digest, "
            "EXISTS (SELECT 1 FROM queue WHERE kind = 'slice' AND queue.sequence = captured.sequence) "
            "FROM captured WHERE sequence > 0 ORDER BY sequence"
        )
        sequence = 0
        for sequence, digest, waits in rows:
            yield Record(KEPT if waits else PAST, sequence, digest)
        if sequence < (last := queue.counter(connection, "sequence")):
            yield Record(PAST, last)

    # Access.

    def _counter(self, name: str) -> int:
        with self._reading() as connection:
            return queue.counter(connection, name)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading():
            if self._owned is None:
                if not self._own(BUSY_TIMEOUT_S):
                    raise OutboxError(f"outbox {self._path} is written by another process; stop it first")
                if self._connection is not None:
                    self._connection.close()
                self._open()
            assert self._connection is not None
            yield self._connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        assert self._connection is not None, "the outbox is used inside `with`"
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                if self._owned is None or not is_damage(error):
                    raise OutboxError(f"outbox {self._path}: {error}; check the disk's space and rights") from error
                self._renew_now(error)
                raise OutboxDamagedError(self._trouble) from error
            except OSError as error:
                raise OutboxError(f"outbox {self._path}: {error}; check the disk's space and rights") from error


@contextmanager
def _without_sync(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous = FULL")


def _fact(connection: sqlite3.Connection, name: str) -> bytes | None:
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else bytes(row[0])
