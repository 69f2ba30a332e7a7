"""Prepared slices, decoded once: a file of pixels that is mapped into memory, and an index of what lies where.

The pixels of a slice are keyed by their content: the file's sha256, the box, and the version of the preprocessing. The
index also remembers each file's size and time of change, so that an unchanged file is not even read. Pixels reach the
disk before the index names them; what lies behind the last named row is debris of a kill, and is written over.
"""

import errno
import hashlib
import os
import shutil
import sqlite3
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import UnreadableSliceError, prepared, read_file
from training.data.slices import LabelledSlice, Pixels, SliceSet, slice_set
from training.model.preprocess import INPUT_PX, PREPROCESSING_VERSION

OnSlice = Callable[[int, int], None]
OnUnreadable = Callable[[LabelledSlice, UnreadableSliceError], None]

SLICE_BYTES = INPUT_PX * INPUT_PX
BATCH = 256
"""Slices that are decoded between two commits (16 MiB): as many a kill can cost."""
INDEX_FILE = "index-1.sqlite"
PIXELS_FILE = "pixels-1.u8"
"""The names' number grows with the format, so that an older version leaves a newer one's files alone."""
_PROBES = 64
"""As many rows, evenly spread, are compared with their checksum when a cache is opened."""
_BUSY_S = 120.0
"""How long a process waits for another one that is writing its batch."""
_MAX_WORKERS = 8
_MB, _GB = 1e6, 1e9
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TABLES = """
    CREATE TABLE IF NOT EXISTS slices (key BLOB PRIMARY KEY, at INTEGER NOT NULL UNIQUE, crc INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS files (
        path TEXT NOT NULL, box TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, key BLOB NOT NULL,
        PRIMARY KEY (path, box)
    ) WITHOUT ROWID;
"""


class CacheError(Exception):
    """A cache that cannot be used; the message says why and what to do."""


class CacheFullError(CacheError):
    """The disk, a quota or a file's limit leaves no room; what is cached stays."""


class CachingStoppedError(Exception):
    """Reading was stopped after `done` of `total` slices; with a cache, the next time goes on from there."""

    def __init__(self, done: int, total: int, *, kept: bool = True) -> None:
        again = "start it again to go on from there" if kept else "nothing is kept: a --cache would go on from there"
        super().__init__(f"stopped after {done} of {total} slices; {again}")
        self.done = done
        self.total = total


class CacheRebuiltWarning(UserWarning):
    """What a cache held was damaged, so that it is made again."""


class MappedPixels:
    """Slices uint8 [n, 256, 256] that lie in a file; only what is indexed is read into memory."""

    def __init__(self, file: NDArray[np.uint8], at: NDArray[np.intp], identity: tuple[int, int]) -> None:
        """Take the rows `at` of a mapped file [rows, 256, 256]; `identity` is its device and inode."""
        self._file = file
        self._at = at
        self._identity = identity

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._at), INPUT_PX, INPUT_PX)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, at: NDArray[np.intp] | slice) -> NDArray[np.uint8]:
        return np.asarray(self._file[self._at[at]])

    def take(self, at: NDArray[np.intp]) -> "MappedPixels":
        """Return the slices at the indices, still in the file."""
        return MappedPixels(self._file, self._at[at], self._identity)

    def join(self, other: Pixels) -> "MappedPixels | None":
        """Return these slices and the other's, still in the file, or None where the other's lie elsewhere."""
        if not isinstance(other, MappedPixels) or other._identity != self._identity:
            return None
        longer = max(self._file, other._file, key=len)  # one may have been mapped before the file grew
        return MappedPixels(longer, np.concatenate([self._at, other._at]), self._identity)


class SliceCache:
    """A folder with the pixels and their index; several processes may fill and read it at once."""

    def __init__(self, folder: Path, *, workers: int | None = None, batch: int = BATCH) -> None:
        """Remember where; `workers` threads decode (default: one a core)."""
        self._folder = folder
        self._workers = workers or min(os.cpu_count() or 1, _MAX_WORKERS)
        self._batch = batch

    def load(
        self,
        folder: Path,
        rows: Sequence[LabelledSlice],
        *,
        on_slice: OnSlice | None = None,
        on_unreadable: OnUnreadable | None = None,
        stop: threading.Event | None = None,
    ) -> SliceSet:
        """Return the rows' slices, after decoding those that are not cached; see `load_split` for the rest.

        Raises `UnreadableSliceError`, `CacheError`, `CacheFullError`, and `CachingStoppedError` when `stop` is set.
        """
        with self._named_faults(), closing(self._open()) as index:
            run = _Run(index, self._pixels, folder, rows, on_slice, on_unreadable)
            run.recall()
            run.refuse_small_disk()
            with ThreadPoolExecutor(self._workers, thread_name_prefix="decode") as pool:
                run.decode(pool, self._batch, stop or threading.Event())
            kept = np.flatnonzero(run.places >= 0)
            return slice_set(self._map(run.places[kept]), [rows[i] for i in kept.tolist()])

    @property
    def _pixels(self) -> Path:
        return self._folder / PIXELS_FILE

    def _open(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            index = _connect(self._folder / INDEX_FILE)
            fault = _fault(index, self._pixels)
            if fault is None:
                return index
            index.close()
        except sqlite3.OperationalError:
            raise  # locked, full, unreadable: the index itself may be sound
        except sqlite3.DatabaseError as error:
            fault = f"the index is damaged ({error})"
        warnings.warn(f"{self._folder}: {fault}; the cache is made again", CacheRebuiltWarning, stacklevel=4)
        for path in self._folder.glob(f"{INDEX_FILE}*"):
            path.unlink()
        self._pixels.unlink(missing_ok=True)  # a new file, so that who has mapped the old one keeps it
        return _connect(self._folder / INDEX_FILE)

    def _map(self, at: NDArray[np.intp]) -> MappedPixels:
        if not len(at):
            return MappedPixels(np.empty((0, INPUT_PX, INPUT_PX), np.uint8), at, (0, 0))
        with self._pixels.open("rb") as file:
            about = os.fstat(file.fileno())
            mapped = np.memmap(file, np.uint8, mode="r", shape=(int(at.max()) + 1, INPUT_PX, INPUT_PX))
        return MappedPixels(mapped, at, (about.st_dev, about.st_ino))

    @contextmanager
    def _named_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise self._full(str(error.strerror)) from error
            raise CacheError(f"the cache in {self._folder} cannot be used ({error}); check the path") from error
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise self._full(str(error)) from error
            raise CacheError(
                f"the cache's index in {self._folder} cannot be used ({error}); check the path and its rights, and "
                "whether another process holds it"
            ) from error

    def _full(self, reason: str) -> CacheFullError:
        where = f"no room for the cache in {self._folder} ({reason})"
        return CacheFullError(f"{where}; free some, or give another folder: what is cached stays")


@dataclass(frozen=True)
class _Found:
    """A file as it lies on the disk now; `number` is its place among the rows."""

    number: int
    row: LabelledSlice
    path: str
    size: int
    mtime_ns: int

    @property
    def box(self) -> str:
        box = self.row.box
        return f"{box.top} {box.left} {box.bottom} {box.right}" if box else ""


@dataclass(frozen=True)
class _Decoded:
    """A file's key, and its pixels where the cache does not have them; or why it cannot be read."""

    found: _Found
    key: bytes = b""
    pixels: NDArray[np.uint8] | None = None
    error: UnreadableSliceError | None = None


class _Run:
    """One loading: finds for each row its place in the pixel file, decoding where there is none yet."""

    def __init__(
        self,
        index: sqlite3.Connection,
        pixels: Path,
        folder: Path,
        rows: Sequence[LabelledSlice],
        on_slice: OnSlice | None,
        on_unreadable: OnUnreadable | None,
    ) -> None:
        self.places = np.full(len(rows), -1, np.intp)
        self._index = index
        self._pixels = pixels
        self._folder = folder
        self._rows = rows
        self._on_slice = on_slice
        self._on_unreadable = on_unreadable
        self._missing: list[_Found] = []
        self._done = 0

    def recall(self) -> None:
        """Find the rows whose file has not changed since it was cached."""
        base = self._folder.resolve()
        for number, row in enumerate(self._rows):
            path = base / row.file
            try:
                about = path.stat()
            except OSError as error:
                self._report(row, UnreadableSliceError(row.file, f"cannot be read ({error.strerror})"))
                continue
            found = _Found(number, row, str(path), about.st_size, about.st_mtime_ns)
            at = _recalled(self._index, found)
            if at is None:
                self._missing.append(found)
            else:
                self.places[number] = at
                self._done += 1
        self._tell()

    def refuse_small_disk(self) -> None:
        """Raise ENOSPC now when the missing slices cannot fit, and not in an hour."""
        needed, free = len(self._missing) * SLICE_BYTES, shutil.disk_usage(self._pixels.parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{_size(needed)} are needed, {_size(free)} are free")

    def decode(self, pool: ThreadPoolExecutor, batch: int, stop: threading.Event) -> None:
        """Decode the missing ones, a commit a batch."""
        if not self._missing:
            return
        known = {key for (key,) in self._index.execute("SELECT key FROM slices")}
        for start in range(0, len(self._missing), batch):
            if stop.is_set():
                raise CachingStoppedError(self._done, len(self._rows))
            decoded = []
            for one in pool.map(partial(_decode, self._folder, known), self._missing[start : start + batch]):
                decoded.append(one)
                self._done += 1
                self._tell()
            self._keep([one for one in decoded if one.error is None])
            known.update(one.key for one in decoded if one.error is None)
            for one in decoded:
                if one.error is not None:
                    self._report(one.found.row, one.error, counted=True)

    def _keep(self, decoded: Sequence[_Decoded]) -> None:
        """Write the pixels, wait until they are on the disk, and only then name them."""
        with _transaction(self._index):
            (first,) = self._index.execute("SELECT COALESCE(MAX(at), -1) + 1 FROM slices").fetchone()
            new = {one.key: one.pixels for one in decoded if one.pixels is not None}
            for key in [key for key in new if _at(self._index, key) is not None]:
                del new[key]  # another process was faster
            _write(self._pixels, first, list(new.values()))
            self._index.executemany(
                "INSERT INTO slices (key, at, crc) VALUES (?, ?, ?)",
                [(key, first + i, zlib.crc32(pixels.tobytes())) for i, (key, pixels) in enumerate(new.items())],
            )
            self._index.executemany(
                "INSERT OR REPLACE INTO files (path, box, size, mtime_ns, key) VALUES (?, ?, ?, ?, ?)",
                [(one.found.path, one.found.box, one.found.size, one.found.mtime_ns, one.key) for one in decoded],
            )
        for one in decoded:
            at = _at(self._index, one.key)
            self.places[one.found.number] = -1 if at is None else at

    def _report(self, row: LabelledSlice, error: UnreadableSliceError, *, counted: bool = False) -> None:
        if self._on_unreadable is None:
            raise error
        self._on_unreadable(row, error)
        self._done += not counted

    def _tell(self) -> None:
        if self._on_slice is not None:
            self._on_slice(self._done, len(self._rows))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / _GB:.1f} GB" if n_bytes >= _GB else f"{n_bytes / _MB:.1f} MB"


def _connect(path: Path) -> sqlite3.Connection:
    index = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        index.executescript(_TABLES)
    except BaseException:
        index.close()
        raise
    return index


def _fault(index: sqlite3.Connection, pixels: Path) -> str | None:
    """Return what is wrong with the cache; rows that were cut off are forgotten, and the rest may stay."""
    (verdict,) = index.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        return f"the index is damaged ({verdict})"
    rows = index.execute("SELECT at, crc FROM slices ORDER BY at").fetchall()
    held = pixels.stat().st_size // SLICE_BYTES if pixels.exists() else 0
    if rows and rows[-1][0] >= held:
        warnings.warn(
            f"{pixels} was cut off after {held} of {rows[-1][0] + 1} slices; the others are decoded again",
            CacheRebuiltWarning,
            stacklevel=6,
        )
        index.execute("DELETE FROM slices WHERE at >= ?", (held,))
        rows = [row for row in rows if row[0] < held]
    probes = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, _PROBES).astype(int))] if rows else []
    broken = [at for at, crc in probes if zlib.crc32(_read(pixels, at)) != crc]
    return f"slice {broken[0]} of {pixels.name} is not what was written" if broken else None


def _read(pixels: Path, at: int) -> bytes:
    with pixels.open("rb") as file:
        file.seek(at * SLICE_BYTES)
        return file.read(SLICE_BYTES)


def _recalled(index: sqlite3.Connection, found: _Found) -> int | None:
    row = index.execute(
        "SELECT at FROM files JOIN slices USING (key) WHERE path = ? AND box = ? AND size = ? AND mtime_ns = ?",
        (found.path, found.box, found.size, found.mtime_ns),
    ).fetchone()
    return None if row is None else int(row[0])


def _at(index: sqlite3.Connection, key: bytes) -> int | None:
    row = index.execute("SELECT at FROM slices WHERE key = ?", (key,)).fetchone()
    return None if row is None else int(row[0])


def _decode(folder: Path, known: set[bytes], found: _Found) -> _Decoded:
    try:
        data = read_file(folder, found.row)
        key = _key(data, found.box)
        return _Decoded(found, key, None if key in known else prepared(data, found.row))
    except UnreadableSliceError as error:
        return _Decoded(found, error=error)


def _key(data: bytes, box: str) -> bytes:
    facts = f"{hashlib.sha256(data).hexdigest()} {box} {PREPROCESSING_VERSION} {INPUT_PX}"
    return hashlib.sha256(facts.encode()).digest()


def _write(path: Path, first: int, slices: Sequence[NDArray[np.uint8]]) -> None:
    """Write slices to the file's rows from `first` on, durably."""
    if not slices:
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        left, at = memoryview(np.stack(slices).tobytes()), first * SLICE_BYTES
        while left:
            written = os.pwrite(handle, left, at)
            left, at = left[written:], at + written
        os.fdatasync(handle)
    finally:
        os.close(handle)


@contextmanager
def _transaction(index: sqlite3.Connection) -> Iterator[None]:
    """Hold the index against other writers; what fails inside leaves no trace in it."""
    index.execute("BEGIN IMMEDIATE")
    try:
        yield
        index.execute("COMMIT")
    except BaseException:
        if index.in_transaction:
            index.execute("ROLLBACK")
        raise
