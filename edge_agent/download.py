"""One release on its way: which pieces of index and which chunks are missing, what to ask for next, what to make of it.

First the indices come, then it is known what the edge has already, and whether a delta is the shorter way; then the
chunks. A broken line costs what was in flight: a fifth of a second at the line's own speed.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path

import structlog

from edge_agent.by_url import Run
from edge_agent.chunk_store import ChunkStore, DamagedChunkError
from protocol.chunks import (
    ENTRIES_A_PIECE,
    ENTRY_BYTES,
    Chunk,
    check_chunk,
    check_file,
    read_index,
    sha256_of,
    to_bitmap,
)
from protocol.errors import EndlessDataError, ExtraChunkError, ForeignChunkError, TrustError
from protocol.manifest import MODEL_FILE, Delta, Manifest
from protocol.messages import MAX_CHUNK_BYTES, MAX_INDEX_PIECES, ChunkRequest

log = structlog.get_logger()

LEAST_WINDOW_BYTES = 2 * MAX_CHUNK_BYTES
MOST_WINDOW_BYTES = 32 * MAX_CHUNK_BYTES
FIRST_WINDOW_BYTES = 8 * MAX_CHUNK_BYTES
IN_FLIGHT_S = 0.2
"""So much time's worth of bytes is asked for at once: more than a round trip, little to lose with the line."""
SPEED_OVER_S = 1.0
FOLLOW = 0.2
"""Of the time that a chunk may take: so long after one that another edge asked for, this edge asks for nothing.

What it lacks is probably on its way behind it."""
STALLS_TILL_ALONE = 2
"""So often chunks for all did not come in time; then they are asked for by this edge alone."""
ENDLESS = 4
"""Times the release's size: whoever sends so much that nobody wants is not serving it."""

ApplyDelta = Callable[[bytes, bytes, int], bytes]
"""Makes of base, delta and the result's size the result; raises `ValueError`."""


@dataclass(frozen=True)
class Way:
    """How a release may be fetched: shared chunks or an edge's own, and at most how fast."""

    chunk_timeout_s: float
    max_bytes_per_s: float | None = None

    @property
    def shared(self) -> bool:
        """Tell whether chunks for all may be heard: an edge that must go slowly hears its own alone."""
        return self.max_bytes_per_s is None


@dataclass
class Flow:
    """How much may be asked for now, by what came lately and by the limit."""

    limit_bytes_per_s: float | None
    window_bytes: int = FIRST_WINDOW_BYTES
    _since_s: float = -math.inf
    _came: int = 0
    _allowance: float = LEAST_WINDOW_BYTES
    _refilled_s: float | None = None

    def came(self, size: int, now_s: float) -> None:
        """Hear of bytes that came, and fit the window to their speed."""
        self._came += size
        lasted_s = now_s - self._since_s
        if lasted_s > 2 * SPEED_OVER_S:  # the first, or after a pause: no speed to be told
            self._since_s, self._came = now_s, 0
        elif lasted_s >= SPEED_OVER_S:
            fitting = int(self._came / lasted_s * IN_FLIGHT_S)
            grown = min(fitting, 2 * self.window_bytes) if fitting > self.window_bytes else fitting
            self.window_bytes = min(MOST_WINDOW_BYTES, max(LEAST_WINDOW_BYTES, grown))
            self._since_s, self._came = now_s, 0

    def allow(self, now_s: float) -> float:
        """Return how many bytes the limit lets be asked for now."""
        if self.limit_bytes_per_s is None:
            return math.inf
        passed_s = 0.0 if self._refilled_s is None else now_s - self._refilled_s
        self._refilled_s = now_s
        most = max(LEAST_WINDOW_BYTES, self.limit_bytes_per_s)
        self._allowance = min(most, self._allowance + passed_s * self.limit_bytes_per_s)
        return self._allowance

    def spend(self, size: int) -> None:
        """Count bytes that were asked for."""
        self._allowance -= size


@dataclass
class Download:
    """A verified manifest on its way; `store` holds what has come."""

    envelope: bytes
    manifest: Manifest
    store: ChunkStore
    bases: Mapping[str, Path]
    """Networks on this edge from which a delta may lead to this one, by their SHA-256."""
    way: Way
    tried_url: bool = False
    _flow: Flow = field(init=False)
    _asked_at_s: dict[str, float] = field(default_factory=dict)
    _chunks: dict[str, tuple[Chunk, ...]] = field(default_factory=dict)
    _delta: Delta | None = None
    _delta_failed: bool = False
    _chosen: bool = False
    _all: dict[str, Chunk] | None = None
    _stalls: int = 0
    _heard_shared: bool = False
    _unasked_at_s: float = -math.inf
    _came_at_s: float = -math.inf
    _fresh: bool = True
    _unwanted_bytes: int = 0
    _early_bytes: int = 0

    def __post_init__(self) -> None:
        """Start with the window of a line that nothing is known of."""
        self._flow = Flow(self.way.max_bytes_per_s)

    @property
    def version(self) -> int:
        """Return the release's version."""
        return self.manifest.version

    @property
    def shared(self) -> bool:
        """Tell whether chunks are asked for that are published for all."""
        return self.way.shared and self._stalls < STALLS_TILL_ALONE

    @property
    def complete(self) -> bool:
        """Tell whether all that is needed is here."""
        return not self.missing()

    @property
    def progress(self) -> tuple[int, int]:
        """Return how many of the chunks that are needed are here, of how many."""
        needed = self._needed()
        return sum(sha256 in self.store for sha256 in needed), len(needed)

    def missing(self) -> dict[str, Chunk]:
        """Return what is needed and not here, by its hash: pieces of index first, then chunks in their order."""
        return {sha256: chunk for sha256, chunk in self._needed().items() if sha256 not in self.store}

    def request(self, now_s: float) -> ChunkRequest | None:
        """Return what to ask for now; None while enough is on its way."""
        if self.shared and now_s - self._unasked_at_s < FOLLOW * self.way.chunk_timeout_s:
            return None
        self._forget_late(now_s)
        missing = self.missing()
        in_flight = sum(missing[sha256].size for sha256 in self._asked_at_s if sha256 in missing)
        if in_flight * 2 > self._flow.window_bytes:
            return None
        due = self._next(missing, min(self._flow.window_bytes - in_flight, self._flow.allow(now_s)))
        if not due:
            return None
        self._asked_at_s.update(dict.fromkeys(due, now_s))
        self._flow.spend(sum(chunk.size for chunk in due.values()))
        return self._asking(due)

    def take(self, sha256: str, data: bytes, now_s: float, *, shared: bool = False) -> None:
        """Keep a chunk that is missing; `shared` are those that were published for all.

        Raises `ForeignChunkError`, `ExtraChunkError`, `EndlessDataError`, `TruncatedChunkError`, `TamperedChunkError`,
        or `OSError`; a chunk that was refused is still missing.
        """
        chunk = self._needed().get(sha256)
        if chunk is None and shared and self._may_be_ours(sha256, data):
            self._early_bytes += len(data)
            self.store.put(sha256, data)
            self._heard_shared = True
            return
        if chunk is None or sha256 in self.store:
            self._refuse_unwanted(sha256, data, known=chunk is not None)
            return
        check_chunk(chunk, data)
        self.store.put(sha256, data)
        self._heard_shared = self._heard_shared or shared
        if self._asked_at_s.pop(sha256, None) is not None:
            if self._heard_shared:  # else its own came where none for all ever did: it goes on alone
                self._stalls = 0
        elif shared:
            self._unasked_at_s = now_s
        self._came_at_s = now_s
        self._flow.came(len(data), now_s)

    def runs(self, urls: Mapping[str, str]) -> list[Run] | None:
        """Return what is missing of the files that have a URL, in runs; None while the indices are not here."""
        missing = self.missing()
        if self._all is None:
            return None
        runs: list[Run] = []
        for name in set(urls) & set(self._chunks) & set(self._named()):
            if name != MODEL_FILE or self._delta is None:
                runs += _runs(urls[name], self._chunks[name], missing)
        return runs

    def line_was_cut(self) -> None:
        """Ask again at once for what was on its way: each connection starts with empty hands."""
        self._asked_at_s.clear()
        self._fresh = True

    def files(self, apply_delta: ApplyDelta) -> dict[str, bytes]:
        """Put the files together; raises `DamagedChunkError`, `TrustError` or `OSError`.

        A delta that leads elsewhere is given up, and the chunks of the network are missing then.
        """
        files = {}
        for name in self.manifest.fetched:
            if name == MODEL_FILE and self._delta is not None:
                made = self._made_by_delta(self._delta, apply_delta)
                if made is None:
                    return {}
                files[name] = made
            else:
                files[name] = self._joined(name)
            check_file(name, self.manifest.files[name], files[name])
        return files

    def indices(self) -> dict[str, bytes]:
        """Return the whole index of each file, to be kept with it: the next release is compared with it."""
        return {name: b"".join(self.store.get(piece) for piece in self._pieces(name)) for name in self.manifest.fetched}

    def _needed(self) -> dict[str, Chunk]:
        """Return the pieces of index and the chunks that are needed, as far as they are known."""
        if self._all is not None:
            return self._all
        needed: dict[str, Chunk] = {}
        listed = True
        for name in self.manifest.fetched:
            needed.update((piece.sha256, piece) for piece in self._pieces(name))
            listed = self._list(name) and listed
        if not listed:
            return needed
        self._choose()
        for name in reversed(self.manifest.fetched):
            if name != MODEL_FILE or self._delta is None:
                needed.update((chunk.sha256, chunk) for chunk in self._chunks[name])
        if self._delta is not None:
            needed.update((piece.sha256, piece) for piece in self._pieces(self._delta.file))
            if not self._list(self._delta.file):
                return needed
            needed.update((chunk.sha256, chunk) for chunk in self._chunks[self._delta.file])
        self._all = needed
        return needed

    def _pieces(self, name: str) -> list[Chunk]:
        file = self.manifest.files[name]
        sizes = [ENTRIES_A_PIECE * ENTRY_BYTES] * len(file.index)
        sizes[-1:] = [file.chunk_count * ENTRY_BYTES - sum(sizes[:-1])]
        return [Chunk(sha256, size) for sha256, size in zip(file.index, sizes, strict=True)]

    def _list(self, name: str) -> bool:
        """Read a file's index when all of its pieces are here; say whether it is known."""
        if name not in self._chunks:
            pieces = self._pieces(name)
            if not all(piece.sha256 in self.store for piece in pieces):
                return False
            try:
                found = [self.store.get(piece) for piece in pieces]
            except DamagedChunkError:  # it is missing now
                return False
            self._chunks[name] = read_index(self.manifest.files[name], found)
        return True

    def _choose(self) -> None:
        """Take a delta when it is the shorter way, once: what is said of progress shall not change its mind."""
        if self._chosen:
            return
        self._chosen = True
        whole = {chunk.sha256: chunk.size for chunk in self._chunks[MODEL_FILE] if chunk.sha256 not in self.store}
        possible = [delta for delta in self.manifest.deltas if delta.base_sha256 in self.bases]
        shortest = min(possible, key=lambda delta: self.manifest.files[delta.file].size, default=None)
        if self._delta_failed or shortest is None:
            return
        if self.manifest.files[shortest.file].size < sum(whole.values()):
            self._delta = shortest
            log.info("release comes as a delta", version=self.version, base=shortest.base_sha256[:12])

    def _forget_late(self, now_s: float) -> None:
        """Take what did not come in time for lost.

        What came last counts: on a slow line chunks are not lost, but late, and asked for again they would be later.
        """
        timeout_s, asked = self.way.chunk_timeout_s, self._asked_at_s
        late = [sha256 for sha256, at_s in asked.items() if now_s - max(at_s, self._came_at_s) >= timeout_s]
        if late:
            self._stalls += 1
            self._fresh = True
            self._flow.window_bytes = LEAST_WINDOW_BYTES
        for sha256 in late:
            del asked[sha256]

    def _next(self, missing: Mapping[str, Chunk], room: float) -> dict[str, Chunk]:
        """Return the first of what is missing and not on its way, as far as it fits."""
        due: dict[str, Chunk] = {}
        for sha256, chunk in missing.items():
            if sha256 in self._asked_at_s:
                continue
            if chunk.size > room or len(due) >= MAX_INDEX_PIECES:
                break
            due[sha256], room = chunk, room - chunk.size
        return due

    def _asking(self, due: Mapping[str, Chunk]) -> ChunkRequest:
        pieces = {piece.sha256 for name in self._named() for piece in self._pieces(name)}
        wanted = {}
        for name, chunks in self._chunks.items():
            places = {place for place, chunk in enumerate(chunks) if chunk.sha256 in due}
            if places:
                wanted[name] = to_bitmap(places)
        asked = tuple(sha256 for sha256 in due if sha256 in pieces)
        fresh, self._fresh = self._fresh, False
        return ChunkRequest(version=self.version, pieces=asked, wanted=wanted, shared=self.shared, fresh=fresh)

    def _named(self) -> list[str]:
        return [*self.manifest.fetched, *([self._delta.file] if self._delta else [])]

    def _may_be_ours(self, sha256: str, data: bytes) -> bool:
        """Tell whether to keep a chunk for all that came before the indices: others are ahead, and it comes once."""
        room = self._early_bytes + len(data) <= self._size
        return self._all is None and room and sha256 not in self.store and sha256_of(data) == sha256

    @property
    def _size(self) -> int:
        return sum(file.size for file in self.manifest.files.values())

    def _refuse_unwanted(self, sha256: str, data: bytes, *, known: bool) -> None:
        self._unwanted_bytes += len(data)
        limit = ENDLESS * self._size + MOST_WINDOW_BYTES
        if self._unwanted_bytes > limit:
            self._stalls, self._heard_shared = STALLS_TILL_ALONE, False
            self._unwanted_bytes = 0
            raise EndlessDataError(f"more than {limit:,} bytes came that nobody asked for", self.version)
        if known:
            raise ExtraChunkError(f"chunk {sha256[:12]} is here already", self.version)
        raise ForeignChunkError(f"chunk {sha256[:12]} is none of version {self.version}", self.version)

    def _joined(self, name: str) -> bytes:
        return b"".join(self.store.get(chunk) for chunk in self._chunks[name])

    def _made_by_delta(self, delta: Delta, apply_delta: ApplyDelta) -> bytes | None:
        described = self.manifest.files[MODEL_FILE]
        try:
            base = self.bases[delta.base_sha256].read_bytes()
            data = self._joined(delta.file)
            check_file(delta.file, self.manifest.files[delta.file], data)
            made = apply_delta(base, data, described.size)
            check_file(MODEL_FILE, described, made)
        except DamagedChunkError:
            raise
        except (TrustError, ValueError, OSError) as error:
            log.warning("delta given up", version=self.version, reason=str(error), next="the whole network is fetched")
            self._delta, self._delta_failed, self._all = None, True, None
            return None
        return made


def _runs(url: str, chunks: Sequence[Chunk], missing: Mapping[str, Chunk]) -> Iterator[Run]:
    places = zip(chunks, accumulate((chunk.size for chunk in chunks), initial=0), strict=False)
    for wanted, run in groupby(places, key=lambda place: place[0].sha256 in missing):
        if wanted:
            found = list(run)
            yield Run(url, found[0][1], [chunk for chunk, _ in found])
