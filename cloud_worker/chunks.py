"""The files of recent releases, cut into chunks and kept at hand for the edges that ask for them."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore
from protocol.manifest import cut, sha256_of
from protocol.messages import MAX_CHUNK_BYTES

RELEASES_AT_HAND = 2


class ChunkShelf:
    """Loads a release's files from the object store at the first request and forgets the least recently used."""

    def __init__(self, store: ObjectStore, ledger: Ledger) -> None:
        """Remember where releases are."""
        self._store, self._ledger = store, ledger
        self._releases: OrderedDict[int, dict[str, bytes]] = OrderedDict()

    def chunks(self, version: int, wanted: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield those of the wanted chunks (by SHA-256) that belong to the release; unknown ones are passed over."""
        known = self._load(version)
        for sha256 in wanted:
            if sha256 in known:
                yield sha256, known[sha256]

    def _load(self, version: int) -> dict[str, bytes]:
        if version not in self._releases:
            keys = [
                key
                for release in self._ledger.releases()
                if release.version == version
                for key in release.files.values()
            ]
            files = [self._store.get(key) for key in keys]
            if not files:
                return {}
            self._releases[version] = {
                sha256_of(chunk): chunk for data in files for chunk in cut(data, MAX_CHUNK_BYTES)
            }
            while len(self._releases) > RELEASES_AT_HAND:
                self._releases.popitem(last=False)
        self._releases.move_to_end(version)
        return self._releases[version]
