"""The SQLite file of the outbox: opened in WAL with fsync, checked, used in transactions, and made small again."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import stamina

from edge_agent.outbox.errors import OutboxSchemaError
from edge_agent.outbox.schema import SCHEMA_VERSION, create, migrate

BUSY_TIMEOUT_S = 10.0
KIB = 1024
MAX_WAL_BYTES = 16 * KIB * KIB
"""What a large transaction left of the WAL beyond this is given back at the next checkpoint."""
SHRINK_BYTES = 16 * KIB * KIB
"""Where so much of the file is free, and no more than that is used, it is worth making small."""
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_DAMAGED_READS = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS, sqlite3.SQLITE_IOERR_DATA})
_DAMAGED_SCHEMA = ("unsupported file format", "no such table", "no such column", "no such index")
"""Said of statements that are right: where SQLite does not know what they name, what it reads is damaged."""

UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What SQLite's module raises over a damaged file: the latter where the damage is in a name that its error tells."""


def is_damage(error: BaseException) -> bool:
    """Tell damage from what a moment, some space or other rights may mend."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_ERROR:
        return str(error).startswith(_DAMAGED_SCHEMA)
    return code is not None and (code & 0xFF in _DAMAGE or code in _DAMAGED_READS)


def damage(text: str) -> sqlite3.DatabaseError:
    """Return the error that SQLite raises over damage, for what it does not see itself."""
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def open_database(path: Path, *, check: bool) -> sqlite3.Connection:
    """Open or create the file, and bring an older schema up to date; raises `sqlite3.Error`, `OutboxSchemaError`.

    check: look through the whole file first; unlike quick_check this compares indexes with rows too.
    """
    connection = connect(path)
    try:
        if check:
            _check(connection)
        _turn_to_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}")
        _bring_up_to_date(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """Connect for all threads; text that is damaged is text with replacement characters, which no check takes."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda data: data.decode(errors="replace")
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done within, or roll all of it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def shrink(connection: sqlite3.Connection) -> bool:
    """Give free space back to the disk where it is much and little is to be moved; tell whether that was done."""
    page, pages, free = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_size", "page_count", "freelist_count")
    )
    worth_it = free * page >= SHRINK_BYTES >= (pages - free) * page
    if worth_it:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return worth_it


def files_of(path: Path) -> list[Path]:
    """List the files that SQLite keeps for a database."""
    return [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]


def remove(path: Path) -> None:
    """Remove a database with its WAL."""
    for file in files_of(path):
        file.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder durable, where the file system lets it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _check(connection: sqlite3.Connection) -> None:
    faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(1)")]
    if faults != ["ok"]:
        raise damage(faults[0].splitlines()[-1])


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found not in (0, 1, SCHEMA_VERSION):
        raise OutboxSchemaError(f"it has schema {found}, this software knows {SCHEMA_VERSION}; update the software")
    if found == 0:
        create(connection)
    elif found == 1:
        migrate(connection)


def _turn_to_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not always wait for its lock when two processes switch a new file at once."""
    for attempt in stamina.retry_context(
        on=_is_locked, attempts=None, timeout=BUSY_TIMEOUT_S, wait_initial=0.02, wait_max=0.2
    ):
        with attempt:
            connection.execute("PRAGMA journal_mode = WAL")


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY
