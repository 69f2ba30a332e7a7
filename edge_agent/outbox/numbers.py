"""Which numbers were given, to which frame, and which are receipted: a small file beside the database, for its damage.

Records of 32 bytes are appended, each with its own checksum: `ISSUED`, synced before the slice is committed; `KEPT`
after it; `DONE` with the receipt. A database that is found damaged is renewed by it: no number is given twice, no
frame is read twice, and what is gone can be named.
"""

import errno
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.durable import write_durably
from protocol.ranges import Range, common, merged, outside

_RECORD = struct.Struct(">B3xQ16s")
RECORD_BYTES = _RECORD.size + 4
BLOCK_RECORDS = 2048
"""The file grows by 64 KiB."""
ISSUED, KEPT, DONE, PAST, SEALED, LOST = 1, 2, 3, 4, 5, 6
"""PAST is KEPT and DONE in one, for the file that is written anew; SEALED names the key of the digests.

LOST are the numbers from its sequence to the one in the place of its digest.
"""
NOBODY = bytes(16)
"""In the place of a frame's digest where it does not matter."""


@dataclass(frozen=True)
class Record:
    """What happened to a number; `digest` is its frame's."""

    kind: int
    sequence: int
    digest: bytes = NOBODY


def lost_record(lost: Range) -> Record:
    """Return the record of numbers that are gone."""
    return Record(LOST, lost[0], lost[1].to_bytes(len(NOBODY), "big"))


@dataclass
class Known:
    """What the file tells of all numbers."""

    last: int = 0
    """The highest number that was given or may have been."""
    kept: int = 0
    """The highest number whose slice was committed for certain."""
    waiting: dict[int, bytes] = field(default_factory=dict)
    """Numbers without a receipt and their frames' digests."""
    past: dict[bytes, int] = field(default_factory=dict)
    """Digests of frames whose slice is receipted."""
    lost: list[Range] = field(default_factory=list)
    """Numbers that went with an earlier damage."""
    seal: bytes = b""
    """A digest under the key by which the frames are known; empty without encryption."""
    whole: bool = True
    """Whether every record can be read."""

    @property
    def done(self) -> list[Range]:
        """Return the numbers that are receipted."""
        past = merged((number, number) for number in self.past.values())
        return common(past, outside(self.lost, (1, self.last))) if self.lost else past

    def take(self, record: Record) -> None:
        """Take in the next record."""
        if record.kind == SEALED:
            self.seal = record.digest
            return
        if record.kind == LOST:
            self.lost.append((record.sequence, int.from_bytes(record.digest, "big")))
            return
        self.last = max(self.last, record.sequence)
        if record.kind in (ISSUED, KEPT):
            self.waiting[record.sequence] = record.digest
        elif (digest := self.waiting.pop(record.sequence, record.digest)) != NOBODY:
            self.past[digest] = record.sequence
        if record.kind != ISSUED:
            self.kept = max(self.kept, record.sequence)


class Numbers:
    """The open file; it grows by blocks of zeros, since a sync is cheaper where the length stays."""

    def __init__(self, path: Path) -> None:
        """Remember where."""
        self._path = path
        self._descriptor: int | None = None
        self._room = 0
        self.records = 0

    def open(self) -> None:
        """Open it for writing behind its last record."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        data = self._path.read_bytes()
        self._room = len(data) // RECORD_BYTES
        self.records = -(-len(data.rstrip(b"\0")) // RECORD_BYTES)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, records: Iterable[Record], *, durable: bool) -> None:
        """Write records behind the others; raises `OSError` where the disk does not take them."""
        packed = [_packed(record) for record in records]
        if not packed:
            return
        if self.records + len(packed) + durable > self._room:  # after what is durable, one more finds room
            self._grow(len(packed) + BLOCK_RECORDS)
        self._write(b"".join(packed), self.records)
        if durable:
            os.fdatasync(self._open_descriptor)
        self.records += len(packed)

    def rewrite(self, records: Iterable[Record]) -> None:
        """Put other records in the place of all; after a crash the old or the new ones are there."""
        write_durably(self._path, b"".join(_packed(record) for record in records), mode=0o600)
        self.close()
        self.open()

    @property
    def _open_descriptor(self) -> int:
        assert self._descriptor is not None, "numbers are written between open and close"
        return self._descriptor

    def _grow(self, records: int) -> None:
        self._write(bytes(records * RECORD_BYTES), self._room)
        os.fsync(self._open_descriptor)
        self._room += records

    def _write(self, data: bytes, place: int) -> None:
        written = os.pwrite(self._open_descriptor, data, place * RECORD_BYTES)
        if written != len(data):  # a full disk takes a part; the next attempt writes over it
            raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes written", str(self._path))


def read_numbers(path: Path) -> Known | None:
    """Return what the file tells, None where there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    known = Known()
    for record in _unpacked(data):
        if record is None:
            known.whole = False
        else:
            known.take(record)
    return known


def _packed(record: Record) -> bytes:
    body = _RECORD.pack(record.kind, record.sequence, record.digest)
    return body + zlib.crc32(body).to_bytes(4, "big")


def _unpacked(data: bytes) -> Iterator[Record | None]:
    """Yield the records before the free room, None for each that cannot be read."""
    for start in range(0, len(data.rstrip(b"\0")), RECORD_BYTES):
        if start + RECORD_BYTES > len(data):
            yield None
            return
        body, check = data[start : start + _RECORD.size], data[start + _RECORD.size : start + RECORD_BYTES]
        kind, sequence, digest = _RECORD.unpack(body)
        readable = zlib.crc32(body).to_bytes(4, "big") == check and ISSUED <= kind <= LOST
        yield Record(kind, sequence, digest) if readable else None
