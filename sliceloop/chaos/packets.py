"""As much of MQTT 5 as bytes as a bare client and a proxy need: split a stream, say hello, subscribe, publish."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 1, 2, 3, 4, 8, 9, 12
USER_PROPERTY, RECEIVE_MAXIMUM = 0x26, 0x21
PING = bytes((PINGREQ << 4, 0))
WINDOW = 65_535


@dataclass(frozen=True)
class Published:
    """A PUBLISH: its properties are kept as the bytes that they came as."""

    topic: str
    payload: bytes
    properties: bytes = b""
    qos: int = 0
    packet_id: int = 0


@dataclass(frozen=True)
class Packet:
    """Any packet: type, flags, and what follows the fixed header."""

    type: int
    flags: int
    body: bytes


def split(stream: bytearray) -> Iterator[Packet]:
    """Take the whole packets from the beginning of a stream, and leave the rest in it."""
    while (found := _header(stream)) is not None:
        length, begin = found
        if len(stream) < begin + length:
            return
        packet = Packet(stream[0] >> 4, stream[0] & 15, bytes(stream[begin : begin + length]))
        del stream[: begin + length]
        yield packet


def first_packet(stream: bytes) -> bytes | None:
    """Return the first packet of a stream with its header, None while it is not whole."""
    found = _header(stream)
    if found is None or len(stream) < sum(found):
        return None
    return bytes(stream[: sum(found)])


def connect(client_id: str, keepalive_s: int) -> bytes:
    """Say hello with a clean start (MQTT 5, 3.1)."""
    properties = bytes((RECEIVE_MAXIMUM,)) + WINDOW.to_bytes(2)
    body = text("MQTT") + bytes((5, 2)) + keepalive_s.to_bytes(2) + length_of(properties) + properties + text(client_id)
    return _packet(CONNECT << 4, body)


def subscribe(filters: Sequence[str]) -> bytes:
    """Ask for QoS 1 on every filter (MQTT 5, 3.8)."""
    return _packet(SUBSCRIBE << 4 | 2, (1).to_bytes(2) + b"\0" + b"".join(text(each) + b"\1" for each in filters))


def publish(message: Published) -> bytes:
    """Publish; a message of QoS 1 names its packet id (MQTT 5, 3.3)."""
    packet_id = message.packet_id.to_bytes(2) if message.qos else b""
    properties = length_of(message.properties) + message.properties
    return _packet(PUBLISH << 4 | message.qos << 1, text(message.topic) + packet_id + properties + message.payload)


def puback(packet_id: int) -> bytes:
    """Acknowledge (MQTT 5, 3.4)."""
    return _packet(PUBACK << 4, packet_id.to_bytes(2))


def published(packet: Packet) -> Published:
    """Read a PUBLISH that a broker sent, which is trusted to be well formed."""
    body, qos = packet.body, packet.flags >> 1 & 3
    at = 2 + int.from_bytes(body[:2])
    topic, packet_id = body[2:at].decode(), 0
    if qos:
        packet_id, at = int.from_bytes(body[at : at + 2]), at + 2
    length, width = _varint(body, at) or (0, 1)
    begin = at + width
    return Published(topic, body[begin + length :], body[begin : begin + length], qos, packet_id)


def user_properties(pairs: Sequence[tuple[str, str]]) -> bytes:
    """Write user properties as the bytes of a PUBLISH's properties."""
    return b"".join(bytes((USER_PROPERTY,)) + text(name) + text(value) for name, value in pairs)


def read_user_properties(properties: bytes) -> list[tuple[str, str]]:
    """Read the user properties of a PUBLISH that holds these and the properties of the table below alone."""
    pairs, at = [], 0
    while at < len(properties):
        identifier, at = properties[at], at + 1
        if identifier == USER_PROPERTY:
            name, at = _text(properties, at)
            value, at = _text(properties, at)
            pairs.append((name, value))
        else:
            at += _WIDTHS[identifier] or 2 + int.from_bytes(properties[at : at + 2])
    return pairs


_WIDTHS = {0x01: 1, 0x02: 4, 0x03: 0, 0x08: 0, 0x09: 0, 0x23: 2}
"""Other properties of a PUBLISH, and how long their values are; 0 is a length of two bytes and so many bytes."""


def text(value: str) -> bytes:
    """Write a string with its length."""
    data = value.encode()
    return len(data).to_bytes(2) + data


def length_of(data: bytes) -> bytes:
    """Write how many bytes follow, as a variable byte integer (MQTT 5, 1.5.5)."""
    left, written = len(data), bytearray()
    while True:
        left, digit = divmod(left, 128)
        written.append(digit | (128 if left else 0))
        if not left:
            return bytes(written)


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + length_of(body) + body


def _header(stream: bytes | bytearray) -> tuple[int, int] | None:
    """Return how long the first packet's body is and where it begins."""
    found = _varint(stream, 1)
    return None if found is None else (found[0], 1 + found[1])


def _varint(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Return a variable byte integer and how many bytes it takes; None when it is not whole."""
    value = 0
    for width in range(1, 5):
        if len(data) < at + width:
            return None
        value |= (data[at + width - 1] & 127) << 7 * (width - 1)
        if data[at + width - 1] < 128:
            return value, width
    return None


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + int.from_bytes(data[at : at + 2])
    return data[at + 2 : end].decode(), end
