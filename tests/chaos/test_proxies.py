"""The bad lines, to a broker and to an object store."""

import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from sliceloop.chaos.mqtt_proxy import Line, MqttProxy
from sliceloop.chaos.packets import connect
from sliceloop.chaos.s3_proxy import Mood, S3Proxy

TIMEOUT_S = 5.0
SOON_S = 0.2
BODY = b"x" * 50_000


class Store(BaseHTTPRequestHandler):
    """Keeps what is put, as an object store does."""

    protocol_version = "HTTP/1.1"
    kept: ClassVar[dict[str, bytes]] = {}
    hosts: ClassVar[list[str]] = []

    def do_PUT(self) -> None:
        """Take the body whole, or not at all."""
        size = int(self.headers["Content-Length"])
        data = self.rfile.read(size)
        if len(data) == size:
            self.kept[self.path] = data
            self.hosts.append(self.headers["Host"])
            self._answer(b"")

    def do_GET(self) -> None:
        """Answer with what was put."""
        self._answer(self.kept[self.path])

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def store() -> Iterator[S3Proxy]:
    Store.kept, Store.hosts = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with S3Proxy(port, server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()


@pytest.fixture
def echo() -> Iterator[int]:
    """Answer with what was heard."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve_echo, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


def _serve_echo(listener: socket.socket) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(client,), daemon=True).start()


def _echo(client: socket.socket) -> None:
    try:
        while data := client.recv(4096):
            client.sendall(data)
    except OSError:
        pass


def put(proxy: S3Proxy) -> int:
    """Put an object by the proxy and return the status; raises what http.client raises."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=TIMEOUT_S)
    try:
        connection.request("PUT", "/bucket/key", BODY, {"Expect": "100-continue"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_requests_pass_unchanged_to_the_store_under_the_proxys_name(store: S3Proxy) -> None:
    """The Host header, which signatures cover, is the proxy's own; bodies come whole, both ways."""
    assert put(store) == 200
    assert Store.hosts == [f"127.0.0.1:{store.port}"]
    connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=TIMEOUT_S)
    connection.request("GET", "/bucket/key")
    assert connection.getresponse().read() == BODY


@pytest.mark.parametrize(("mood", "status"), [(Mood.ERROR_500, 500), (Mood.ERROR_503, 503)])
def test_an_error_is_answered_without_the_store(store: S3Proxy, mood: Mood, status: int) -> None:
    """Nothing is stored, and the request counts as a hit."""
    store.set(mood)
    assert put(store) == status
    assert store.hits == 1
    assert not Store.kept


def test_a_cut_answer_leaves_the_object_stored(store: S3Proxy) -> None:
    """The client hears of no success, though there was one."""
    store.set(Mood.CUT_ANSWER)
    with pytest.raises((http.client.HTTPException, OSError)):
        put(store)
    assert Store.kept == {"/bucket/key": BODY}


def test_a_cut_request_leaves_nothing_stored(store: S3Proxy) -> None:
    """Half a body is no object."""
    store.set(Mood.CUT_REQUEST)
    with pytest.raises((http.client.HTTPException, OSError)):
        put(store)
    store.set(Mood.GOOD)
    assert not Store.kept
    assert put(store) == 200


def test_a_black_hole_holds_bytes_back_and_lets_them_through_afterwards(echo: int) -> None:
    """As TCP does when a line comes back."""
    with MqttProxy(echo) as proxy, socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT_S) as client:
        client.sendall(b"before")
        assert client.recv(100) == b"before"
        proxy.set(Line.BLACK_HOLE)
        client.sendall(b"within")
        client.settimeout(SOON_S)
        with pytest.raises(TimeoutError):
            client.recv(100)
        client.settimeout(TIMEOUT_S)
        proxy.set(Line.GOOD)
        assert client.recv(100) == b"within"


def test_a_cut_ends_connections_and_refuses_new_ones_until_it_is_mended(echo: int) -> None:
    """Both sides see the end; afterwards a new connection works."""
    with MqttProxy(echo) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT_S) as client:
            client.sendall(b"before")
            assert client.recv(100) == b"before"
            proxy.set(Line.CUT)
            assert _ended(client)
        assert _is_refused(proxy.port)
        proxy.set(Line.GOOD)
        with socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT_S) as client:
            client.sendall(b"after")
            assert client.recv(100) == b"after"


def test_a_takeover_says_the_clients_own_connect_again(echo: int) -> None:
    """A client whose CONNECT has passed is taken over; one that has said nothing is not."""
    with MqttProxy(echo) as proxy, socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT_S) as client:
        hello = connect("somebody", 60)
        assert proxy.take_over() == 0
        client.sendall(hello + b"more")
        assert client.recv(100)
        assert proxy.take_over() == 1


def _is_refused(port: int) -> bool:
    """Tell whether a new connection ends at once; its reset may come before it is seen as open."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
            return _ended(client)
    except ConnectionError:
        return True


def _ended(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionError:
        return True
