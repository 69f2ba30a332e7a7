"""A bad line to the object store: slow, refusing, or cut in the middle of a request or of its answer.

Requests pass byte by byte as they came, so that their signatures (which cover the Host header) hold: clients are told
the proxy's address.
"""

import select
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
READ_BYTES = 1 << 16
SLOW_S = 1.5
UPSTREAM_TIMEOUT_S = 30.0
MAX_HEAD_BYTES = 256 * 1024
STATUS_BYTES = len("HTTP/1.1 ")
"""An answer is cut here, then in its first header, which http.client takes for no header, then in its body."""
NO_BODY = frozenset({204, 304})
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Mood(StrEnum):
    """How the store seems to be."""

    GOOD = "good"
    SLOW = "slow"
    ERROR_500 = "500"
    ERROR_503 = "503"
    CUT_REQUEST = "cut request"
    CUT_ANSWER = "cut answer"


ERRORS = {Mood.ERROR_500: (500, "InternalError"), Mood.ERROR_503: (503, "SlowDown")}


class BrokenLineError(ConnectionError):
    """One side closed, or was made to."""


@dataclass(frozen=True)
class Head:
    """First line and headers, names in lower case, and the bytes that they were."""

    raw: bytes
    first: str
    headers: Mapping[str, str]

    @property
    def length(self) -> int:
        """Return how many bytes the body has, as far as it is said."""
        return int(self.headers.get("content-length", "0"))

    @property
    def status(self) -> int:
        """Return an answer's status."""
        return int(self.first.split(" ", 2)[1])


class Wire:
    """A socket with the bytes that were read ahead."""

    def __init__(self, connection: socket.socket) -> None:
        """Remember the connection."""
        self.socket = connection
        self.ahead = bytearray()

    def head(self) -> Head | None:
        """Read a head; None when the other side closed instead."""
        while (end := self.ahead.find(b"\r\n\r\n")) < 0:
            if len(self.ahead) > MAX_HEAD_BYTES:
                raise BrokenLineError("no head")
            if not self.more():
                return None
        raw = bytes(self.ahead[: end + 4])
        del self.ahead[: end + 4]
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Head(raw, first, headers)

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        while len(self.ahead) < size:
            if not self.more():
                raise BrokenLineError("closed in a body")
        data = bytes(self.ahead[:size])
        del self.ahead[:size]
        return data

    def line(self) -> bytes:
        """Read a line."""
        while (end := self.ahead.find(b"\r\n")) < 0:
            if not self.more():
                raise BrokenLineError("closed in a line")
        return self.take(end + 2)

    def more(self) -> bool:
        """Read what is there; False at the end."""
        data = self.socket.recv(READ_BYTES)
        self.ahead += data
        return bool(data)


class S3Proxy:
    """The door to the store that all clients use, from `with` to its end; a thread for each connection."""

    def __init__(self, port: int, store_port: int) -> None:
        """Remember where to listen, and where the store is."""
        self.port, self._store_port = port, store_port
        self._mood = Mood.GOOD
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._hits = 0

    def __enter__(self) -> Self:
        """Listen."""
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, name="s3-proxy", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; open connections end with their clients."""
        self._changed.set()
        self._listener.close()

    def set(self, mood: Mood) -> None:
        """Seem so from now on; counts the hits anew."""
        with self._lock:
            self._mood, self._hits = mood, 0
            self._changed.set()
            self._changed = threading.Event()

    @property
    def hits(self) -> int:
        """Count the requests that met the present mood."""
        return self._hits

    def _hit(self) -> tuple[Mood, int, threading.Event]:
        with self._lock:
            self._hits += self._mood is not Mood.GOOD
            return self._mood, self._hits, self._changed

    # The proxy's own threads.

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), name="s3-line", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        client = Wire(connection)
        store: Wire | None = None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := client.head()) is not None:
                mood, hit, changed = self._hit()
                if mood in ERRORS:
                    _refuse(client, request, *ERRORS[mood])
                    continue
                if mood is Mood.SLOW:
                    changed.wait(SLOW_S)
                store = store or self._store()
                _pass_on(client, store, request, mood, hit)
        except (OSError, ValueError):
            pass  # either side broke, or was made to: both end, and the client tries again
        finally:
            connection.close()
            if store is not None:
                store.socket.close()

    def _store(self) -> Wire:
        connection = socket.create_connection((HOST, self._store_port), UPSTREAM_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Wire(connection)


def _refuse(client: Wire, request: Head, status: int, code: str) -> None:
    """Answer as an overloaded store does, the body having been taken."""
    if "100-continue" in request.headers.get("expect", ""):
        client.socket.sendall(CONTINUE)
    client.take(request.length)
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made by the chaos run</Message></Error>".encode()
    if request.first.startswith("HEAD "):
        body = b""
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    client.socket.sendall(head.encode() + body)


def _pass_on(client: Wire, store: Wire, request: Head, mood: Mood, hit: int) -> None:
    store.socket.sendall(request.raw)
    early = _early_answer(client, store) if "100-continue" in request.headers.get("expect", "") else None
    if early is None:
        if mood is Mood.CUT_REQUEST:
            store.socket.sendall(client.take(request.length // 2))
            raise BrokenLineError("cut in the request")
        _copy(client, store, request.length)
    answer = early or _answer(store)
    body = _body(store, request, answer)
    if mood is Mood.CUT_ANSWER:
        places = STATUS_BYTES, len(answer.first) + 4, len(answer.raw) + len(body) // 2
        client.socket.sendall((answer.raw + body)[: places[hit % len(places) - 1]])
        raise BrokenLineError("cut in the answer")
    client.socket.sendall(answer.raw + body)
    if answer.headers.get("connection", "").lower() == "close":
        raise BrokenLineError("the store closes")


def _early_answer(client: Wire, store: Wire) -> Head | None:
    """Wait for `100 Continue`, or for the body of a client that does not wait; return an answer that came instead."""
    while not client.ahead:
        ready = select.select([client.socket, store.socket], [], [], UPSTREAM_TIMEOUT_S)[0]
        if store.socket in ready:
            answer = _head(store)
            if answer.status != 100:
                return answer
            client.socket.sendall(answer.raw)
            return None
        if not ready or not client.more():
            raise BrokenLineError("no body")
    return None


def _answer(store: Wire) -> Head:
    """Read the final answer; a `100 Continue` that comes late is let go."""
    while (answer := _head(store)).status == 100:
        pass
    return answer


def _head(store: Wire) -> Head:
    head = store.head()
    if head is None:
        raise BrokenLineError("the store closed")
    return head


def _copy(source: Wire, sink: Wire, size: int) -> None:
    while size:
        data = source.take(min(size, READ_BYTES))
        sink.socket.sendall(data)
        size -= len(data)


def _body(store: Wire, request: Head, answer: Head) -> bytes:
    if request.first.startswith("HEAD ") or answer.status in NO_BODY:
        return b""
    if answer.headers.get("transfer-encoding", "").lower() == "chunked":
        return _chunks(store)
    return store.take(answer.length)


def _chunks(store: Wire) -> bytes:
    taken = bytearray()
    while True:
        line = store.line()
        size = int(line.split(b";")[0], 16)
        taken += line + (store.take(size + 2) if size else store.line())
        if not size:
            return bytes(taken)
