"""How a file travels: cut into chunks that are named by their hash, and an index that lists them, cut into pieces."""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple, Self

from pydantic import Field, StringConstraints, model_validator

from protocol.errors import HashMismatchError, LengthMismatchError, TamperedChunkError, TruncatedChunkError
from protocol.messages import MAX_CHUNK_BYTES, MAX_CHUNKS, Part, Sha256

ENTRY_BYTES = 36
"""A chunk's SHA-256 and its size, big-endian."""
ENTRIES_A_PIECE = 113
"""4 KiB a piece: a chunk that changes costs one more piece of the index, and not the whole of it."""
MAX_MODEL_BYTES = 256 * 1024 * 1024
_HASH_BYTES = 32

FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]


class Chunk(NamedTuple):
    """A run of a file's bytes, named by the SHA-256 of them in hexadecimal."""

    sha256: str
    size: int


class ManifestFile(Part):
    """One file of a release: its bytes, and the SHA-256 of each piece of the index that lists its chunks.

    A manifest of major 1 listed the chunks themselves; it has no index, and can be run but not fetched any more.
    """

    sha256: Sha256
    size: int = Field(ge=1, le=MAX_MODEL_BYTES)
    chunk_count: int = Field(default=0, ge=0, le=MAX_CHUNKS)
    index: Annotated[tuple[Sha256, ...], Field(max_length=-(-MAX_CHUNKS // ENTRIES_A_PIECE))] = ()

    @model_validator(mode="after")
    def _can_hold_the_file(self) -> Self:
        if len(self.index) != -(-self.chunk_count // ENTRIES_A_PIECE):
            raise ValueError(f"{len(self.index)} pieces of index do not list {self.chunk_count} chunks")
        if self.index and not self.chunk_count <= self.size <= self.chunk_count * MAX_CHUNK_BYTES:
            raise ValueError(f"{self.chunk_count} chunks do not make {self.size} bytes")
        return self


@dataclass(frozen=True)
class Described:
    """A file as a manifest lists it, with its chunks and the pieces of its index."""

    file: ManifestFile
    chunks: tuple[Chunk, ...]
    pieces: tuple[bytes, ...]


def describe(data: bytes, cuts: Sequence[int] = ()) -> Described:
    """Describe a file that is cut where `cuts` say (offsets, rising), and wherever a chunk would grow too large."""
    chunks = tuple(Chunk(sha256_of(part), len(part)) for part in cut(data, cuts))
    entries = [bytes.fromhex(chunk.sha256) + chunk.size.to_bytes(4, "big") for chunk in chunks]
    pieces = tuple(b"".join(entries[at : at + ENTRIES_A_PIECE]) for at in range(0, len(entries), ENTRIES_A_PIECE))
    file = ManifestFile(
        sha256=sha256_of(data), size=len(data), chunk_count=len(chunks), index=tuple(map(sha256_of, pieces))
    )
    return Described(file, chunks, pieces)


def cut(data: bytes, cuts: Sequence[int] = ()) -> Iterable[bytes]:
    """Cut a file into its chunks, in order."""
    borders = sorted({0, len(data), *(at for at in cuts if 0 < at < len(data))})
    for start, end in pairwise(borders):
        for at in range(start, end, MAX_CHUNK_BYTES):
            yield data[at : min(at + MAX_CHUNK_BYTES, end)]


def read_index(file: ManifestFile, pieces: Sequence[bytes]) -> tuple[Chunk, ...]:
    """Return the chunks that the pieces of an index list.

    Raises `HashMismatchError` for pieces of another index, `LengthMismatchError` when the chunks do not make the file.
    """
    if tuple(map(sha256_of, pieces)) != file.index:
        raise HashMismatchError("the index has other hashes than the manifest says")
    listed = b"".join(pieces)
    if len(listed) != file.chunk_count * ENTRY_BYTES:
        raise LengthMismatchError(f"the index has {len(listed):,} bytes for {file.chunk_count:,} chunks")
    chunks = tuple(_entry(listed[at : at + ENTRY_BYTES]) for at in range(0, len(listed), ENTRY_BYTES))
    if not all(0 < chunk.size <= MAX_CHUNK_BYTES for chunk in chunks):
        raise LengthMismatchError(f"the index lists a chunk that is empty or larger than {MAX_CHUNK_BYTES:,} bytes")
    if sum(chunk.size for chunk in chunks) != file.size:
        raise LengthMismatchError(f"the chunks of the index do not make {file.size:,} bytes")
    return chunks


def check_chunk(chunk: Chunk, data: bytes) -> None:
    """Raise `TruncatedChunkError` or `TamperedChunkError` unless these are the chunk's bytes."""
    if len(data) != chunk.size:
        raise TruncatedChunkError(f"chunk {chunk.sha256[:12]} has {len(data):,} bytes, not {chunk.size:,}")
    if sha256_of(data) != chunk.sha256:
        raise TamperedChunkError(f"chunk {chunk.sha256[:12]} has another hash; it is asked for again")


def check_file(name: str, described: ManifestFile, data: bytes) -> None:
    """Raise `LengthMismatchError` or `HashMismatchError` unless these are the file's bytes."""
    if len(data) != described.size:
        raise LengthMismatchError(f"{name} has {len(data):,} bytes, the manifest says {described.size:,}")
    if sha256_of(data) != described.sha256:
        raise HashMismatchError(f"{name} has another SHA-256 than the manifest says")


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def to_bitmap(places: Iterable[int]) -> str:
    """Say a set of places (from 0) as bits, the lowest first, in base64."""
    bits = 0
    for place in places:
        bits |= 1 << place
    return base64.b64encode(bits.to_bytes(-(-bits.bit_length() // 8), "little")).decode()


def from_bitmap(text: str, count: int) -> tuple[int, ...]:
    """Return the places below `count` that the bitmap holds, rising; raises `LengthMismatchError`."""
    try:
        bits = int.from_bytes(base64.b64decode(text, validate=True), "little")
    except (binascii.Error, ValueError):
        raise LengthMismatchError("a bitmap is not in base64") from None
    if bits.bit_length() > count:
        raise LengthMismatchError(f"a bitmap names place {bits.bit_length() - 1} of {count}")
    return tuple(place for place in range(count) if bits >> place & 1)


def _entry(data: bytes) -> Chunk:
    return Chunk(data[:_HASH_BYTES].hex(), int.from_bytes(data[_HASH_BYTES:], "big"))
