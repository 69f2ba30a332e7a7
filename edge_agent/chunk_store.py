"""Chunks of a release on its way, a file each, beside those that the releases on this edge have already."""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from protocol.chunks import Chunk, sha256_of


class DamagedChunkError(ValueError):
    """A chunk on this disk is not what it was any more; it is forgotten, and fetched again."""


class Place(NamedTuple):
    """Where a chunk lies in a file of a release that is kept."""

    path: Path
    offset: int


class ChunkStore:
    """Knows chunks by their SHA-256; nothing is synced, since each is hashed again before it is used."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder for what comes in."""
        self._folder = folder
        self._incoming: set[str] = set()
        self._kept: dict[str, Place] = {}

    def open(self, max_bytes: int) -> None:
        """Take up what an earlier life fetched; damaged chunks and unfinished files are deleted, too many are all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if sum(path.stat().st_size for path in self._folder.iterdir()) > max_bytes:
            self.clear()
            return
        for path in self._folder.iterdir():
            if path.name not in self._incoming:
                if sha256_of(path.read_bytes()) == path.name:
                    self._incoming.add(path.name)
                else:
                    path.unlink()

    def know(self, path: Path, chunks: Iterable[Chunk]) -> None:
        """Learn which chunks a file of a kept release has."""
        offset = 0
        for chunk in chunks:
            self._kept.setdefault(chunk.sha256, Place(path, offset))
            offset += chunk.size

    def __contains__(self, sha256: object) -> bool:
        """Tell whether a chunk is here."""
        return sha256 in self._incoming or sha256 in self._kept

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a chunk that was checked; raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f"{sha256}.part"
        temporary.write_bytes(data)
        temporary.replace(self._folder / sha256)
        self._incoming.add(sha256)

    def get(self, chunk: Chunk) -> bytes:
        """Return a chunk's bytes; raises `DamagedChunkError`, after which it is not here any more."""
        try:
            data = self._read(chunk)
        except OSError:  # gone, or on a part of the disk that fails: fetched again it lies elsewhere
            data = b""
        if sha256_of(data) == chunk.sha256:
            return data
        if chunk.sha256 in self._incoming:
            with contextlib.suppress(OSError):
                (self._folder / chunk.sha256).unlink()
        self._incoming.discard(chunk.sha256)
        self._kept.pop(chunk.sha256, None)
        raise DamagedChunkError(f"chunk {chunk.sha256[:12]} was damaged on the disk")

    def clear(self) -> None:
        """Delete what came in, and forget what is kept elsewhere."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._incoming.clear()
        self._kept.clear()

    def _read(self, chunk: Chunk) -> bytes:
        if chunk.sha256 in self._incoming:
            return (self._folder / chunk.sha256).read_bytes()
        place = self._kept.get(chunk.sha256)
        if place is None:
            return b""
        with place.path.open("rb") as file:
            file.seek(place.offset)
            return file.read(chunk.size)
