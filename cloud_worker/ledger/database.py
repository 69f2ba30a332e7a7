"""The database under the ledger: opened, migrated, and written in short explicit transactions."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import stamina
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Column, Connection, Engine, Select, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloud_worker.ledger.errors import (
    LedgerError,
    LedgerTooNewError,
    LedgerUnavailableError,
    RefusedByLedgerError,
)

BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for another process's transaction on the same SQLite file."""

SERVER_LIMITS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""For libpq, where the URL says nothing else: a server that does not answer is noticed within a minute."""
SESSION_LIMITS = ("SET lock_timeout = '10s'", "SET idle_in_transaction_session_timeout = '60s'")
"""A worker that stops in the midst of a transaction must not hold up the others for hours."""

MIGRATION_LOCK_ID = 0x51_1CE_100
"""PostgreSQL's advisory lock under which one process migrates."""

_migrating = threading.Lock()
"""Alembic's environment is global to the process."""


class Database:
    """A connection pool and its transactions; the constructor only remembers."""

    def __init__(self, url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Remember where the ledger is: `sqlite:///path` or `postgresql+psycopg://...`."""
        self.url = url
        self._busy_timeout_s = busy_timeout_s
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        """Open the database and migrate it to the newest revision; safe when two processes do so at once."""
        self._engine = self._make_engine()
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections; does nothing when they are closed."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @property
    def safe_url(self) -> str:
        """The URL without its password."""
        try:
            return make_url(self.url).render_as_string(hide_password=True)
        except ArgumentError:
            return "(not a database URL)"

    @property
    def on_server(self) -> bool:
        """Say whether a server keeps it, which may come back; a file is there or not."""
        try:
            return make_url(self.url).get_backend_name() != "sqlite"
        except ArgumentError:
            return False

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run one transaction that writes; when it returns, what it wrote is on the disk."""
        with self._faults_named(), self._opened().connect() as connection:
            connection = connection.execution_options(sliceloop_begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run one transaction that reads a consistent state."""
        with self._faults_named(), self._opened().connect() as connection:
            yield connection

    def rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        """Return what a query finds, as a dict a row."""
        with self.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def scalar(self, query: Select[Any]) -> Any:
        """Return the first column of the first row, or None."""
        with self.read() as connection:
            return connection.execute(query).scalar()

    def _opened(self) -> Engine:
        if self._engine is None:
            raise LedgerUnavailableError(self.safe_url, "not open: use it in a `with` block")
        return self._engine

    def _make_engine(self) -> Engine:
        try:
            url = make_url(self.url)
            if url.get_backend_name() == "sqlite":
                return _sqlite_engine(url, self._busy_timeout_s)
            return _server_engine(url)
        except (SQLAlchemyError, ModuleNotFoundError) as fault:
            raise LedgerUnavailableError(self.safe_url, _first_line(fault)) from fault

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", "cloud_worker:migrations")
        try:
            with _migrating, self.write() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": MIGRATION_LOCK_ID})
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as fault:
            raise LedgerTooNewError(self.safe_url, _first_line(fault)) from fault

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, DataError, OverflowError, UnicodeEncodeError) as fault:
            raise RefusedByLedgerError(_first_line(fault)) from fault
        except ProgrammingError:
            raise  # our own mistake, not the database's state
        except (DBAPIError, PoolTimeoutError) as fault:
            raise LedgerUnavailableError(self.safe_url, _first_line(fault)) from fault
        except StatementError as fault:
            if isinstance(fault.orig, LedgerError):
                raise fault.orig from None
            if isinstance(fault.orig, OverflowError):  # a time at the calendar's end has no UTC
                raise RefusedByLedgerError(_first_line(fault)) from fault
            raise


def insert_once(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Insert unless a row with one of the same unique values is there; return whether it was new."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    key = next(iter(table.primary_key.columns))
    inserted = connection.execute(insert(table).values(row).on_conflict_do_nothing().returning(key))
    return inserted.first() is not None


def insert_many(connection: Connection, key: Column[str], rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Insert rows into the table of `key`, but for those whose unique values are there; return the keys of the new."""
    if not rows:
        return set()
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(key.table).on_conflict_do_nothing().returning(key)
    return set(connection.execute(statement, rows).scalars())


def _server_engine(url: URL) -> Engine:
    limits = {name: value for name, value in SERVER_LIMITS.items() if name not in url.query}
    engine = create_engine(url, pool_pre_ping=True, connect_args=limits)

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for statement in SESSION_LIMITS:
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    return engine


def _sqlite_engine(url: URL, busy_timeout_s: float) -> Engine:
    engine = create_engine(url, connect_args={"timeout": busy_timeout_s})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy says BEGIN, below, and not the driver
        _use_write_ahead_log(connection, busy_timeout_s)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that begins by reading and then writes can fail at once, whatever the busy timeout.
        connection.exec_driver_sql(connection.get_execution_options().get("sliceloop_begin", "BEGIN"))

    return engine


def _use_write_ahead_log(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Switch to WAL; SQLite does not always wait for its lock when two processes switch a new file at once."""
    for attempt in stamina.retry_context(
        on=sqlite3.OperationalError, attempts=None, timeout=timeout_s, wait_initial=0.02, wait_max=0.2
    ):
        with attempt:
            connection.execute("PRAGMA journal_mode=WAL")


def _first_line(fault: BaseException) -> str:
    origin = getattr(fault, "orig", None) or fault
    return (str(origin).strip().splitlines() or [type(origin).__name__])[0]
