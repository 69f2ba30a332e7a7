"""An MQTT 5 client of a socket and nothing more: it says what no decent client says."""

import select
import socket
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from sliceloop.chaos.packets import (
    CONNACK,
    PING,
    PUBLISH,
    SUBACK,
    Packet,
    Published,
    connect,
    puback,
    published,
    split,
    subscribe,
)

HOST = "127.0.0.1"
KEEPALIVE_S = 60
PING_EVERY_S = 15.0
ANSWER_TIMEOUT_S = 5.0
READ_BYTES = 1 << 18


class NoAnswerError(ConnectionError):
    """The broker did not answer as a broker does."""


class BareClient:
    """One connection, from `with` to its end; every fault of it is an OSError."""

    def __init__(self, port: int, client_id: str, filters: Sequence[str] = ()) -> None:
        """Remember where to, under which name, and what to listen to."""
        self._port, self._client_id, self._filters = port, client_id, filters
        self._stream = bytearray()
        self._next_ping_s = 0.0

    def __enter__(self) -> Self:
        """Connect and subscribe."""
        self._socket = socket.create_connection((HOST, self._port), ANSWER_TIMEOUT_S)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.send(connect(self._client_id, KEEPALIVE_S))
            self._expect(CONNACK)
            if self._filters:
                self.send(subscribe(self._filters))
                self._expect(SUBACK)
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._socket.sendall(data)

    def heard(self, timeout_s: float) -> Iterator[Published]:
        """Yield the messages that come within the time, acknowledged."""
        for packet in self._packets(timeout_s):
            if packet.type == PUBLISH:
                message = published(packet)
                if message.qos:
                    self.send(puback(message.packet_id))
                yield message

    def _packets(self, timeout_s: float) -> list[Packet]:
        if time.monotonic() > self._next_ping_s:
            self._next_ping_s = time.monotonic() + PING_EVERY_S
            self.send(PING)
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return []
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise NoAnswerError("the broker closed the connection")
        self._stream += data
        return list(split(self._stream))

    def _expect(self, packet_type: int) -> None:
        """Wait for an answer; a CONNACK or SUBACK that refuses is no answer."""
        until_s = time.monotonic() + ANSWER_TIMEOUT_S
        self._next_ping_s = time.monotonic() + PING_EVERY_S
        while time.monotonic() < until_s:
            for packet in self._packets(until_s - time.monotonic()):
                if packet.type == packet_type:
                    if packet.type == CONNACK and packet.body[1]:
                        raise NoAnswerError(f"the broker refuses: reason code {packet.body[1]:#x}")
                    return
        raise NoAnswerError("no answer in time")
