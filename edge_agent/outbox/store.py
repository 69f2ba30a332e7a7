"""The outbox's files as one: opened, agreed with each other, locked, and renewed when they are damaged."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import structlog

from edge_agent.outbox import queue
from edge_agent.outbox.cipher import Cipher, Plain, cipher_of, frame_digest
from edge_agent.outbox.database import (
    BUSY_TIMEOUT_S,
    UNREADABLE,
    connect,
    damage,
    files_of,
    is_damage,
    open_database,
    remove,
    sync_folder,
    transaction,
)
from edge_agent.outbox.errors import OutboxDamagedError, OutboxError
from edge_agent.outbox.numbers import KEPT, NOBODY, PAST, SEALED, Known, Numbers, Record, lost_record, read_numbers
from edge_agent.outbox.salvage import rescue
from edge_agent.outbox.schema import SCHEMA_VERSION
from edge_agent.outbox.sealing import SEAL, check_key, check_seal, is_sealed, is_to_be_sealed, seal, seal_is_done
from edge_agent.outbox.sole_writer import locked
from protocol.ranges import outside, size

log = structlog.get_logger()

BUSY_LOOKS = 50
"""At an outbox that another process holds, in BUSY_TIMEOUT_S."""

TROUBLE_SAID_S = 3600.0
"""So long after a damage the status tells of it."""


class Store:
    """The database, the file of numbers beside it, and the key; threads share it, and take turns."""

    def __init__(self, path: Path, key_file: Path | None, clock: Callable[[], float]) -> None:
        """Remember where; `open` opens."""
        self._path, self._key_file, self._clock = path, key_file, clock
        self._lock = threading.RLock()
        self._owned: BinaryIO | None = None
        self._connection: sqlite3.Connection | None = None
        self._trouble, self._trouble_since = "", 0.0
        self.cipher: Cipher = Plain()
        self.numbers = Numbers(self._beside(".numbers"))
        self.renewed = 0
        """Counts how often a damaged database was set aside while it was in use."""

    def open(self) -> None:
        """Open or create the files; while another process writes them, to look at them alone.

        Raises `OutboxError` when they cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.cipher = cipher_of(self._key_file)
            if self._becomes_ours():
                self._open()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise OutboxError(
                f"outbox {self._path} cannot be opened ({error}); check the folder's rights and space"
            ) from error
        except BaseException:
            self.close()
            raise
        if self._connection is None:
            raise OutboxError(f"outbox {self._path} is used by another process; stop it first")

    def close(self) -> None:
        """Close all; everything stays."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self.numbers.close()
            if self._owned is not None:
                self._owned.close()
                self._owned = None

    def digest(self, key: str) -> bytes:
        """Return under what a frame is remembered."""
        return self.cipher.digest(frame_digest(key))

    @property
    def trouble(self) -> str:
        """Tell of a damage, for a while; empty when there was none."""
        return self._trouble if self._clock() - self._trouble_since < TROUBLE_SAID_S else ""

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the database; raises `OutboxError`, and `OutboxDamagedError` after a new one took its place."""
        assert self._connection is not None or self._owned is not None, "the outbox is used inside `with`"
        with self._lock:
            try:
                if self._connection is None:
                    self._open()
                assert self._connection is not None
                yield self._connection
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if self._owned is None or not is_damage(error):
                    raise OutboxError(f"outbox {self._path}: {error}; check the disk's space and rights") from error
                try:
                    self._renew_now(error)
                except (sqlite3.Error, OSError) as worse:
                    self._connection = None  # the next use opens it, and so sets it aside
                    raise OutboxError(
                        f"outbox {self._path} is damaged, and cannot be set aside yet ({worse}); free some space"
                    ) from error
                raise OutboxDamagedError(self._trouble) from error
            except OSError as error:
                raise OutboxError(f"outbox {self._path}: {error}; check the disk's space and rights") from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the database to change it; raises `OutboxError`, as `reading` does, and where another process writes."""
        with self.reading():
            if self._owned is None:
                if not self._own(BUSY_TIMEOUT_S):
                    raise OutboxError(f"outbox {self._path} is written by another process; stop it first")
                if self._connection is not None:
                    self._connection.close()
                self._open()
            assert self._connection is not None
            yield self._connection

    def records(self, connection: sqlite3.Connection) -> Iterator[Record]:
        """Yield what the database says of all numbers, and under which key their frames are known."""
        if is_sealed(connection):
            yield Record(SEALED, 0, self.cipher.digest(SEAL))
        rows = connection.execute(
            "SELECT sequence, digest, "
            "EXISTS (SELECT 1 FROM queue WHERE kind = 'slice' AND queue.sequence = captured.sequence) "
            "FROM captured WHERE sequence > 0 ORDER BY sequence"
        )
        sequence = 0
        for sequence, digest, waits in rows:
            yield Record(KEPT if waits else PAST, sequence, digest)
        yield from map(lost_record, queue.gaps(connection, "lost"))
        if sequence < (last := queue.counter(connection, "sequence")):
            yield Record(PAST, last)

    def say_trouble(self, text: str) -> None:
        """Log a damage, and tell of it for a while."""
        self._trouble, self._trouble_since = text, self._clock()
        log.error("outbox damaged", reason=text, next="check this box's disk")

    def _becomes_ours(self) -> bool:
        """Take the outbox, or look at it beside its owner, who may be about to make it."""
        for wait_s in (0.0, *[BUSY_TIMEOUT_S / BUSY_LOOKS] * BUSY_LOOKS):
            if self._own(wait_s):
                return True
            if self._look_beside():
                return False
        return False

    def _own(self, wait_s: float) -> bool:
        self._owned = locked(self._beside(".lock"), wait_s)
        return self._owned is not None

    def _look_beside(self) -> bool:
        """Open what another process writes, to look at it; False where there is nothing to look at yet."""
        if not self._path.exists():
            return False
        connection = connect(self._path)
        if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            connection.close()
            return False
        self._connection = connection
        check_key(connection, self.cipher, self._path)
        return True

    def _open(self) -> None:
        unfinished, known = self._beside(".new"), read_numbers(self._beside(".numbers"))
        if unfinished.exists() and not self._path.exists():  # killed between the two renames of `_renew`
            for stale in files_of(self._path):  # the WAL of what was set aside must not be read into the new one
                stale.unlink(missing_ok=True)
            unfinished.replace(self._path)
        remove(unfinished)
        try:
            if known is not None and known.last and (not self._path.exists() or not self._path.stat().st_size):
                raise FileNotFoundError(f"{self._path.name} is missing or empty beside its numbers")
            self._connection = open_database(self._path, check=True)
            if not queue.is_consistent(self._connection):
                self._connection.close()
                raise damage("rows and counters differ")
        except (*UNREADABLE, FileNotFoundError) as error:
            if not is_damage(error) and not isinstance(error, FileNotFoundError):
                raise
            check_seal(known, self.cipher, self._path)
            self._renew(error, known)
            known = None  # what it told is in the new database
        connection = self._connection
        assert connection is not None
        check_key(connection, self.cipher, self._path)
        self.numbers.open()
        self._agree(connection, known)
        if is_to_be_sealed(connection, self.cipher):
            seal(connection, self.cipher)
            self.numbers.rewrite(self.records(connection))
            seal_is_done(connection)

    def _agree(self, connection: sqlite3.Connection, known: Known | None) -> None:
        """Let the file of numbers say what the database says; what only the file knows of was lost with a WAL.

        One number beyond the database's that was never committed was never sent, and is given again.
        """
        last = queue.counter(connection, "sequence")
        known = known or Known(whole=False)
        uncommitted = known.last == last + 1 and known.kept <= last
        if known.last > last and not uncommitted:
            gone = {sequence: digest for sequence, digest in known.waiting.items() if sequence > last}
            gone |= {sequence: digest for digest, sequence in known.past.items() if sequence > last}
            lost = outside(known.done, (last + 1, known.last))
            with transaction(connection):
                for each in lost:
                    queue.add_gap(connection, "lost", each)
                queue.set_counter(connection, "sequence", known.last)
                for sequence, digest in gone.items():
                    connection.execute(
                        "INSERT OR IGNORE INTO captured VALUES (?, ?, NULL, NULL, ?)",
                        (digest, sequence, self._clock()),
                    )
            self.say_trouble(f"{size(lost)} of the outbox's last slices are gone: its WAL was damaged")
        frames = {digest: sequence for sequence, digest in known.waiting.items() if sequence <= last} | known.past
        with transaction(connection):  # a flipped digest is not noticed otherwise, and its frame would be read again
            connection.executemany(
                "INSERT OR IGNORE INTO captured VALUES (?, ?, NULL, NULL, ?)",
                [(digest, sequence, self._clock()) for digest, sequence in frames.items() if digest != NOBODY],
            )
        (waiting,) = connection.execute("SELECT count(*) FROM queue WHERE kind = 'slice'").fetchone()
        if not known.whole or known.last != known.kept or known.last != last or len(known.waiting) != waiting:
            self.numbers.rewrite(self.records(connection))

    def _renew(self, error: Exception, known: Known | None) -> None:
        """Set a damaged database aside, and go on with a new one that has what could be read of it."""
        now = self._clock()
        found = rescue(self._path, self._beside(".new"), known, self.cipher, now)
        aside = self._path.with_name(f"{self._path.name}.damaged-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}")
        if self._path.exists():
            for file in files_of(self._path):
                if file.exists():
                    file.replace(aside.with_name(file.name.replace(self._path.name, aside.name, 1)))
        self._beside(".new").replace(self._path)
        sync_folder(self._path.parent)
        self._connection = open_database(self._path, check=False)
        self.say_trouble(
            f"the outbox was damaged ({error}): set aside as {aside.name}; {found.saved} messages saved, "
            f"{size(found.lost)} slices gone or perhaps gone"
        )

    def _renew_now(self, error: Exception) -> None:
        """Do the same while running."""
        if self._connection is not None:
            self._connection.close()
        self.numbers.close()
        self._renew(error, read_numbers(self._beside(".numbers")))
        assert self._connection is not None
        check_key(self._connection, self.cipher, self._path)
        self.numbers.open()
        self.numbers.rewrite(self.records(self._connection))
        self.renewed += 1

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)
