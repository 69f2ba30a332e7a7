"""The release that is on its way now: asks for its chunks over MQTT or by URL, and keeps those that come."""

from collections.abc import Callable, Mapping

import structlog

from edge_agent.by_url import UrlFetch
from edge_agent.chunk_store import ChunkStore
from edge_agent.download import Download, Way
from edge_agent.model_slot import ModelSlot
from protocol.chunks import MAX_MODEL_BYTES
from protocol.errors import EndlessDataError, TrustError
from protocol.manifest import Manifest
from protocol.messages import MAX_CHUNK_BYTES, ChunkRequest

log = structlog.get_logger()

MAX_INCOMING_BYTES = 2 * MAX_MODEL_BYTES
"""Of chunks that came for releases which were given up; above it they are deleted."""
PATIENCE_S = 60.0
"""A server that hands out no whole chunk for so long is left: meanwhile nothing is asked for over MQTT."""


class Delivery:
    """One release at a time; chunks of one that was given up stay, since the next may have them too."""

    def __init__(
        self,
        slot: ModelSlot,
        way: Way,
        request: Callable[[ChunkRequest], None],
        hear_shared: Callable[[bool], None],
    ) -> None:
        """Remember what is here already, and how to ask."""
        self._slot, self._way, self._request, self._tell_shared = slot, way, request, hear_shared
        self._store = ChunkStore(slot.folder / "incoming")
        self._by_url: UrlFetch | None = None
        self._url_came_s = 0.0
        self._hears_shared = False
        self.download: Download | None = None

    def begin(self, envelope: bytes, manifest: Manifest) -> None:
        """Go for a verified release."""
        try:
            self._store.open(MAX_INCOMING_BYTES)
        except OSError as error:
            log.error("chunks of before not taken up", reason=str(error), next="they are fetched again")
        for path, chunks in self._slot.chunks():
            self._store.know(path, chunks)
        self.download = Download(envelope, manifest, self._store, self._slot.bases(), self._way)

    def go_on(self, download: Download | None) -> None:
        """Take up one that turned out to lack something."""
        self.download = download

    def give_up(self) -> None:
        """Let go of it, or hand it over when it is complete."""
        self.download = None
        self.close()

    def clear(self) -> None:
        """Delete what came in."""
        self._store.clear()

    def close(self) -> None:
        """Stop to fetch by URL."""
        if self._by_url is not None:
            self._by_url.close()
            self._by_url = None

    def line_was_cut(self) -> None:
        """Hear that a new connection begins."""
        if self.download is not None:
            self.download.line_was_cut()

    def chunk(self, sha256: str, data: bytes, now_s: float, *, shared: bool = False) -> None:
        """Keep a chunk that is missing; anything else is dropped. Raises `EndlessDataError` when that is too much."""
        if self.download is None:
            return
        try:
            self.download.take(sha256, data, now_s, shared=shared)
        except EndlessDataError:
            raise
        except TrustError as error:  # chunks for all are no news: others missed them
            speak = log.debug if shared else log.warning
            speak("chunk refused", sha256=sha256[:12], reason=f"{type(error).__name__}: {error}")
        except OSError as error:
            log.error("chunk not kept", reason=str(error), next="it is asked for again; free some space")

    def step(self, now_s: float, urls: Mapping[str, str]) -> bool:
        """Ask for what is due; say whether all is here. Raises `TrustError` for an index that makes no file."""
        download = self.download
        if download is None:
            return False
        self._follow_url(download, urls, now_s)
        if download.complete:
            return True
        self.settle()  # first hear, then ask
        if self._by_url is None and (request := download.request(now_s)) is not None:
            self._request(request)
        return False

    def settle(self) -> None:
        """Hear the chunks for all while they are wanted: other edges' releases would fill a narrow line."""
        wanted = self.download is not None and self.download.shared
        if wanted != self._hears_shared:
            self._hears_shared = wanted
            self._tell_shared(wanted)

    def _follow_url(self, download: Download, urls: Mapping[str, str], now_s: float) -> None:
        if self._by_url is None:
            runs = download.runs(urls) if urls and not download.tried_url else None
            if runs:
                download.tried_url = True
                self._by_url = UrlFetch(runs, self._way.max_bytes_per_s)
                self._by_url.start()
                self._url_came_s = now_s
            return
        alive = self._by_url.alive
        while (came := self._by_url.take()) is not None:
            self._url_came_s = now_s
            self.chunk(*came, now_s)
        if not alive or now_s - self._url_came_s > self._patience_s:
            self.close()

    @property
    def _patience_s(self) -> float:
        limit = self._way.max_bytes_per_s
        return PATIENCE_S + (MAX_CHUNK_BYTES / limit if limit is not None else 0.0)
