"""Count what an edge that holds one release fetches of the next: chunks and pieces of index that it does not have."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from protocol.manifest import GOLDEN_FILE, MODEL_FILE
from training.layout import chunks_at, cut_points, even_cut_points, golden_cut_points

INDEX_PIECE_ENTRIES = 113
"""A piece of a file's index is 4,068 bytes at most: 113 times a SHA-256 and a size."""
MANIFEST_BYTES = 4096
"""About, with its signatures and metrics."""
_CUTS = {MODEL_FILE: cut_points, GOLDEN_FILE: golden_cut_points}

Files = Mapping[str, bytes]
"""A release's files by name."""


@dataclass(frozen=True)
class Moved:
    """What one edge fetches: how many chunks, and bytes of chunks, of index and of the manifest."""

    chunks: int
    chunk_bytes: int
    index_bytes: int
    manifest_bytes: int = MANIFEST_BYTES

    @property
    def bytes(self) -> int:
        """Return all of them."""
        return self.chunk_bytes + self.index_bytes + self.manifest_bytes


def moved(held: Files, wanted: Files) -> Moved:
    """Return what an edge fetches that holds the files of one release and wants those of another."""
    had, needed = _by_hash(held), _by_hash(wanted)
    chunks = [data for sha256, data in needed.chunks.items() if sha256 not in had.chunks]
    pieces = [data for sha256, data in needed.pieces.items() if sha256 not in had.pieces]
    return Moved(len(chunks), sum(map(len, chunks)), sum(map(len, pieces)))


@dataclass(frozen=True)
class _ByHash:
    chunks: dict[bytes, bytes]
    pieces: dict[bytes, bytes]


def _by_hash(files: Files) -> _ByHash:
    found = _ByHash({}, {})
    for name, data in files.items():
        chunks = list(chunks_at(data, _CUTS.get(name, even_cut_points)(data)))
        found.chunks.update((_hash(chunk), chunk) for chunk in chunks)
        entries = [_hash(chunk) + struct.pack(">I", len(chunk)) for chunk in chunks]
        for start in range(0, len(entries), INDEX_PIECE_ENTRIES):
            piece = b"".join(entries[start : start + INDEX_PIECE_ENTRIES])
            found.pieces[_hash(piece)] = piece
    return found


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
