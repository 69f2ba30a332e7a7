"""Fetch chunks of a release by URL, where its assignment offers one; each is checked before anybody sees it."""

import queue
import threading
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException

import structlog

from protocol.chunks import Chunk, check_chunk
from protocol.errors import TrustError

log = structlog.get_logger()

TIMEOUT_S = 20.0
WAITING_CHUNKS = 32
PARTIAL_CONTENT = 206


@dataclass(frozen=True)
class Run:
    """Chunks that lie one after another in the file of a URL, which may be a credential: it is not logged."""

    url: str = field(repr=False)
    offset: int
    chunks: Sequence[Chunk]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A presigned address is that of one server: one that points elsewhere is answered as an error."""

    def http_error_302(self, *_: object) -> None:
        """Follow nothing."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]


class UrlFetch:
    """A thread that fetches runs of chunks until the first fault; what it lacks then comes by MQTT."""

    def __init__(self, runs: Sequence[Run], max_bytes_per_s: float | None) -> None:
        """Remember what is wanted."""
        self._runs, self._max_bytes_per_s = runs, max_bytes_per_s
        self._came: queue.Queue[tuple[str, bytes]] = queue.Queue(WAITING_CHUNKS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge-url", daemon=True)

    def start(self) -> None:
        """Start to fetch."""
        self._thread.start()

    def close(self) -> None:
        """Let go of what is not here; a read that waits for the server ends by its own time limit."""
        self._stop.set()

    @property
    def alive(self) -> bool:
        """Tell whether more may come."""
        return self._thread.is_alive() or not self._came.empty()

    def take(self) -> tuple[str, bytes] | None:
        """Return a chunk that came, by its hash; None when none waits."""
        try:
            return self._came.get_nowait()
        except queue.Empty:
            return None

    def _run(self) -> None:
        try:
            for run in self._runs:
                self._fetch(run)
        except (OSError, HTTPException, TrustError, ValueError) as error:
            log.warning("not fetched by URL", reason=_told(error), next="fetched over MQTT")

    def _fetch(self, run: Run) -> None:
        """Read just the bytes of a run: a server that sends more, or without end, is not listened to."""
        last = run.offset + sum(chunk.size for chunk in run.chunks) - 1
        request = urllib.request.Request(run.url, headers={"Range": f"bytes={run.offset}-{last}"})  # noqa: S310
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_S) as answer:
            if answer.status != PARTIAL_CONTENT and run.offset:
                raise OSError(f"the server answers {answer.status} to a range")
            for chunk in run.chunks:
                data = answer.read(chunk.size)
                check_chunk(chunk, data)
                self._hand_over(chunk, data)
                if self._stop.is_set():
                    return

    def _hand_over(self, chunk: Chunk, data: bytes) -> None:
        while not self._stop.is_set():
            try:
                self._came.put((chunk.sha256, data), timeout=0.1)
            except queue.Full:
                continue
            break
        if self._max_bytes_per_s is not None:
            self._stop.wait(chunk.size / self._max_bytes_per_s)


def _told(error: Exception) -> str:
    """Say an error; of one that may quote the URL the name alone."""
    return f"{type(error).__name__}: {error}" if isinstance(error, OSError | TrustError) else type(error).__name__
