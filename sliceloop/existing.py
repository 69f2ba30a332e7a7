"""Open only what is there: who reads or reviews must not get an answer from an empty file that was just made."""

from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


class MissingDataError(RuntimeError):
    """The ledger or outbox that the settings name does not exist; the message says where it was looked for."""


def existing_ledger(url: str, config: Path | None) -> str:
    """Return the ledger's URL; raises `MissingDataError` for a SQLite file that is not there."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return url  # the ledger's own error says it better, without the password
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        existing(Path(parsed.database), config)
    return url


def existing(path: Path, config: Path | None) -> Path:
    """Return the path; raises `MissingDataError` when there is no such file."""
    if path.is_file():
        return path
    if config is None:
        raise MissingDataError(f"{path} does not exist; did you forget -c?")
    raise MissingDataError(
        f"{path.absolute()} does not exist; {config} names it: a path that is relative starts where you call this"
    )
