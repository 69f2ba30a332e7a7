"""Encryption of the outbox as a whole: is the key the right one, and what is plain becomes sealed in place."""

import sqlite3
from pathlib import Path

import structlog

from edge_agent.outbox import queue
from edge_agent.outbox.cipher import CHECKED, Cipher, Plain, TamperedError, frame_digest
from edge_agent.outbox.database import transaction
from edge_agent.outbox.errors import OutboxKeyError
from edge_agent.outbox.numbers import Known

log = structlog.get_logger()

SEAL = frame_digest("sliceloop outbox")
"""Hidden by the key it tells the file of numbers by which key the frames in it are known."""
SEALED_AT_ONCE = 50
"""Messages that are encrypted in one transaction when encryption is turned on."""


def is_sealed(connection: sqlite3.Connection) -> bool:
    """Tell whether the database was sealed with a key."""
    return _fact(connection, "check") is not None


def check_key(connection: sqlite3.Connection, cipher: Cipher, path: Path) -> None:
    """Raise `OutboxKeyError` where the database was sealed with another key, or is sealed and there is none."""
    sealed = _fact(connection, "check")
    if sealed is None:
        return
    if isinstance(cipher, Plain):
        raise OutboxKeyError(f"outbox {path} is encrypted: set edge.outbox_key_file to its key")
    try:
        cipher.open(sealed, "check")
    except TamperedError:
        raise OutboxKeyError(
            f"outbox {path} is encrypted with another key than that of edge.outbox_key_file; bring back the right one, "
            "or move the outbox aside (what waits in it is lost without its key)"
        ) from None


def check_seal(known: Known | None, cipher: Cipher, path: Path) -> None:
    """Raise `OutboxKeyError` where the file of numbers knows another key, before anything is set aside."""
    if known is not None and known.seal and known.seal != cipher.digest(SEAL):
        raise OutboxKeyError(
            f"outbox {path} is damaged, and what is left of it needs its key: set edge.outbox_key_file to it"
        )


def is_to_be_sealed(connection: sqlite3.Connection, cipher: Cipher) -> bool:
    """Tell whether encryption is to be turned on, or that was interrupted."""
    return not isinstance(cipher, Plain) and (not is_sealed(connection) or _fact(connection, "sealing") is not None)


def seal(connection: sqlite3.Connection, cipher: Cipher) -> None:
    """Encrypt what is there already; `seal_is_done` follows when the file of numbers has been written anew too.

    The file is packed afterwards, so that no plain page is left in it; what a disk keeps of overwritten blocks stays.
    """
    if not is_sealed(connection):
        with transaction(connection):
            _seal_captured(connection, cipher)
            connection.execute(
                "INSERT INTO facts VALUES ('check', ?), ('sealing', x'01')", (cipher.seal(CHECKED, "check"),)
            )
    while positions := connection.execute(
        "SELECT position FROM queue WHERE NOT sealed LIMIT ?", (SEALED_AT_ONCE,)
    ).fetchall():
        with transaction(connection):
            for (position,) in positions:
                _seal_message(connection, cipher, position)
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def seal_is_done(connection: sqlite3.Connection) -> None:
    """Note that nothing plain is left."""
    connection.execute("DELETE FROM facts WHERE name = 'sealing'")
    log.info("outbox encrypted", waiting=queue.counter(connection, "rows"))


def _seal_captured(connection: sqlite3.Connection, cipher: Cipher) -> None:
    rows = connection.execute("SELECT digest, refused FROM captured").fetchall()
    for digest, refused in rows:
        hidden = cipher.digest(digest)
        sealed = None if refused is None else cipher.seal(refused, hidden.hex())
        connection.execute("UPDATE captured SET digest = ?, refused = ? WHERE digest = ?", (hidden, sealed, digest))


def _seal_message(connection: sqlite3.Connection, cipher: Cipher, position: int) -> None:
    message_id, payload, properties = connection.execute(
        "SELECT message_id, payload, user_properties FROM messages WHERE position = ?", (position,)
    ).fetchone()
    name = message_id + queue.PROPERTIES
    connection.execute(
        "UPDATE messages SET payload = ?, user_properties = ? WHERE position = ?",
        (
            cipher.seal(payload, message_id),
            cipher.seal(queue.as_bytes(properties), name),
            position,
        ),
    )
    connection.execute("UPDATE queue SET sealed = 1 WHERE position = ?", (position,))


def _fact(connection: sqlite3.Connection, name: str) -> bytes | None:
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else bytes(row[0])
