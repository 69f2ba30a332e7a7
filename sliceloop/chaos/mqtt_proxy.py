"""A bad line to the broker: TCP that is cut, delayed, narrowed, swallowed, or whose session somebody takes over."""

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

from sliceloop.chaos.packets import first_packet

HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16
DELAY_S = 0.3
"""For each chunk that is read."""
MIN_RATE = 20_000.0
"""Bytes a second at the narrowest."""
MAX_HELLO_BYTES = 64 * 1024
UPSTREAM_TIMEOUT_S = 3.0
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close by RST, as a line that breaks."""


class Line(StrEnum):
    """How the line is."""

    GOOD = "good"
    CUT = "cut"
    DELAYED = "delayed"
    NARROW = "narrow"
    BLACK_HOLE = "black hole"


@dataclass(eq=False)
class Pair:
    """One client's connection and ours to the broker; `hello` is its CONNECT."""

    client: socket.socket
    broker: socket.socket
    hello: bytes = b""
    beginning: bytearray = field(default_factory=bytearray)

    def close(self, *, reset: bool = False) -> None:
        """Close both."""
        for each in (self.client, self.broker):
            with contextlib.suppress(OSError):  # closed meanwhile, by the other side's thread
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                # wakes the thread that reads; of a line that breaks, the other side hears by the RST of the close alone
                each.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
            each.close()


class MqttProxy:
    """The line of one client, or of several that share its fate, from `with` to its end."""

    def __init__(self, broker_port: int) -> None:
        """Remember where the broker is."""
        self._broker_port = broker_port
        self._changed = threading.Condition()
        self._line, self._since_s, self._passed, self._rate = Line.GOOD, time.monotonic(), 0, MIN_RATE
        self.to_broker = self.to_clients = 0
        """Bytes so far."""
        self._pairs: set[Pair] = set()
        self._usurpers: list[socket.socket] = []
        self._closed = False

    def __enter__(self) -> Self:
        """Listen on a free port."""
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name=f"mqtt-proxy-{self.port}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._listener.close()
        self.give_back()
        for pair in list(self._pairs):
            pair.close()

    def narrow_to(self, bytes_per_s: float) -> None:
        """Let so much through, each way, until the line is set otherwise."""
        with self._changed:
            self._line, self._rate = Line.NARROW, bytes_per_s
            self._changed.notify_all()

    def cut_once(self) -> None:
        """Break what is open; the line is as it was for the next connection."""
        for pair in list(self._pairs):
            pair.close(reset=True)

    def set(self, line: Line) -> None:
        """Let the line be so from now on; `CUT` also closes what is open."""
        with self._changed:
            lasted_s = max(time.monotonic() - self._since_s, 0.1)
            self._rate = max(MIN_RATE, self._passed / lasted_s / 2)
            self._line, self._since_s, self._passed = line, time.monotonic(), 0
            self._changed.notify_all()
        if line is Line.CUT:
            for pair in list(self._pairs):
                pair.close(reset=True)

    def take_over(self) -> int:
        """Say every client's CONNECT again on a second connection; return how many were taken over."""
        hellos = [pair.hello for pair in list(self._pairs) if pair.hello]
        for hello in hellos:
            usurper = socket.create_connection((HOST, self._broker_port), UPSTREAM_TIMEOUT_S)
            usurper.sendall(hello)
            self._usurpers.append(usurper)
        return len(hellos)

    def give_back(self) -> None:
        """End the second connections."""
        while self._usurpers:
            self._usurpers.pop().close()

    # The proxy's own threads.

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), name="mqtt-line", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._wait_out_black_hole()
        try:
            if self._line is Line.CUT:
                raise ConnectionError("cut")
            broker = socket.create_connection((HOST, self._broker_port), UPSTREAM_TIMEOUT_S)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        broker.settimeout(None)
        pair = Pair(client, broker)
        for each in (client, broker):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.add(pair)
        back = threading.Thread(target=self._pump, args=(pair, broker, client), name="mqtt-line-back", daemon=True)
        back.start()
        self._pump(pair, client, broker)
        back.join()
        self._pairs.discard(pair)

    def _pump(self, pair: Pair, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(CHUNK_BYTES):
                if source is pair.client and not pair.hello and len(pair.beginning) < MAX_HELLO_BYTES:
                    pair.beginning += data
                    pair.hello = first_packet(bytes(pair.beginning)) or b""
                self._hold(len(data))
                sink.sendall(data)
                with self._changed:
                    if source is pair.client:
                        self.to_broker += len(data)
                    else:
                        self.to_clients += len(data)
        except OSError:
            pass  # either side broke: both end
        pair.close()

    def _hold(self, size: int) -> None:
        self._wait_out_black_hole()
        with self._changed:
            self._passed += size
            line, rate = self._line, self._rate
            wait_s = DELAY_S if line is Line.DELAYED else size / rate if line is Line.NARROW else 0.0
            if wait_s:
                self._changed.wait_for(lambda: self._closed or self._line is not line, wait_s)

    def _wait_out_black_hole(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._line is not Line.BLACK_HOLE)
