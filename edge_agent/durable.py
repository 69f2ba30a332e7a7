"""Write a file so that a crash leaves the old one or the new one, whole."""

import contextlib
import os
from pathlib import Path


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that after a power cut it is there whole, or the old one is."""
    _replace(path, data, mode, sync=True)
    with contextlib.suppress(OSError):  # not every file system lets a folder be synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_whole(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that nobody ever sees half of, without waiting for the disk: a power cut may lose or damage it."""
    _replace(path, data, mode, sync=False)


def _replace(path: Path, data: bytes, mode: int, *, sync: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
