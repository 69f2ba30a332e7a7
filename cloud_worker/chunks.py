"""Where the chunks of releases lie, and the files of the last ones, kept at hand for the edges that ask for them."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from cloud_worker.chunk_queue import Place
from cloud_worker.ledger import Ledger, Release, UnknownReleaseError
from cloud_worker.object_store import ObjectStore, index_key
from protocol.chunks import ENTRIES_A_PIECE, ENTRY_BYTES, Chunk, ManifestFile, from_bitmap, read_index, sha256_of
from protocol.errors import HashMismatchError
from protocol.manifest import shown_manifest
from protocol.messages import ChunkRequest

RELEASES_AT_HAND = 4
"""Indices of so many: some 30 KB each."""
BYTES_AT_HAND = 128 * 1024 * 1024
"""Of files; a single one may have more."""
_PIECE_BYTES = ENTRIES_A_PIECE * ENTRY_BYTES


@dataclass(frozen=True)
class _Shelved:
    """The chunks of a release's files by file name, and where each of them and each piece of an index lies."""

    chunks: dict[str, tuple[tuple[str, Place], ...]]
    pieces: dict[str, Place]


class ChunkShelf:
    """Finds what edges ask for; loads files from the object store and forgets the least recently used."""

    def __init__(self, store: ObjectStore, ledger: Ledger) -> None:
        """Remember where releases are."""
        self._store, self._ledger = store, ledger
        self._releases: OrderedDict[int, _Shelved] = OrderedDict()
        self._files: OrderedDict[str, bytes] = OrderedDict()

    def find(self, request: ChunkRequest) -> Iterator[tuple[str, Place]]:
        """Yield the hash of all that is wanted, and where it lies; what no release has is passed over.

        Raises `LengthMismatchError` for a bitmap that names more than there is, and what the store raises.
        """
        shelved = self._load(request.version)
        if shelved is None:
            return
        for sha256 in request.pieces:
            if sha256 in shelved.pieces:
                yield sha256, shelved.pieces[sha256]
        for name, bitmap in request.wanted.items():
            chunks = shelved.chunks.get(name, ())
            for place in from_bitmap(bitmap, len(chunks)) if chunks else ():
                yield chunks[place]

    def read(self, sha256: str, place: Place) -> bytes:
        """Return the bytes that lie there; raises `HashMismatchError` where the store has others."""
        if place.key not in self._files:
            self._files[place.key] = self._store.get(place.key)
            while len(self._files) > 1 and sum(map(len, self._files.values())) > BYTES_AT_HAND:
                self._files.popitem(last=False)
        self._files.move_to_end(place.key)
        data = self._files[place.key][place.offset : place.offset + place.size]
        if sha256_of(data) != sha256:
            del self._files[place.key]
            raise HashMismatchError(f"{place.key} in the object store is not what was released")
        return data

    def _load(self, version: int) -> _Shelved | None:
        if version not in self._releases:
            try:
                release = self._ledger.release(version)
            except UnknownReleaseError:
                return None
            self._releases[version] = self._shelve(release)
            while len(self._releases) > RELEASES_AT_HAND:
                self._releases.popitem(last=False)
        self._releases.move_to_end(version)
        return self._releases[version]

    def _shelve(self, release: Release) -> _Shelved:
        """Read the indices as they were when the release was signed: a later sliceloop may cut otherwise."""
        shelved = _Shelved({}, {})
        for name, file in shown_manifest(release.envelope).files.items():
            if not file.index:  # of manifest major 1: it can be run, and not fetched any more
                continue
            key = index_key(file.sha256, file.index)
            index = self._store.get(key)
            pieces = [index[at : at + _PIECE_BYTES] for at in range(0, len(index), _PIECE_BYTES)]
            shelved.chunks[name] = _places(read_index(file, pieces), release.files[name])
            shelved.pieces.update(_piece_places(file, pieces, key))
        return shelved


def _places(chunks: tuple[Chunk, ...], key: str) -> tuple[tuple[str, Place], ...]:
    starts = accumulate((chunk.size for chunk in chunks), initial=0)
    return tuple((chunk.sha256, Place(key, start, chunk.size)) for chunk, start in zip(chunks, starts, strict=False))


def _piece_places(file: ManifestFile, pieces: list[bytes], key: str) -> dict[str, Place]:
    return {
        sha256: Place(key, number * _PIECE_BYTES, len(piece))
        for number, (sha256, piece) in enumerate(zip(file.index, pieces, strict=True))
    }
