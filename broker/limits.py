"""What the broker takes: learnt on connecting and checked before anything is sent, because paho checks none of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from broker.errors import InvalidMessageError, OversizeError, UnsupportedByBrokerError
from broker.messages import Outbound

MAX_TEXT_BYTES = 65_535
"""A UTF-8 string carries a two-byte length (MQTT 5, 1.5.4)."""

MAX_FIXED_HEADER_BYTES = 5
"""One byte of type and flags, up to four of remaining length (MQTT 5, 2.1)."""

MAX_TOPIC_LEVELS = 200
"""mosquitto's bound (TOPIC_HIERARCHY_LIMIT); AWS IoT Core takes 8."""

SHOWN_CHARACTERS = 80
"""How much of a faulty topic an error shows."""

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufeff\ufffe\uffff]")

INBOUND_HEADROOM_BYTES = 65_536
"""Room beside the payload that we grant for topic and properties of what we receive."""


@dataclass(frozen=True)
class Limits:
    """The limits in force on a connection: ours, tightened by what the CONNACK says (MQTT 5, 3.2.2.3)."""

    max_payload_bytes: int
    window: int
    max_packet_bytes: int | None = None
    max_qos: int = 1
    retain_available: bool = True

    def tightened(self, connack: Mapping[str, int]) -> "Limits":
        """Return the limits after the broker's word; the names in `connack` are those of the standard."""
        return Limits(
            max_payload_bytes=self.max_payload_bytes,
            window=min(self.window, connack.get("ReceiveMaximum", self.window)),
            max_packet_bytes=connack.get("MaximumPacketSize"),
            max_qos=min(self.max_qos, connack.get("MaximumQoS", self.max_qos)),
            retain_available=bool(connack.get("RetainAvailable", 1)),
        )

    def payload_bytes(self, topic_bytes: int, properties_bytes: int) -> int:
        """Return how many bytes of payload fit beside the encoded topic and properties; below 0 not even none."""
        if self.max_packet_bytes is None:
            return self.max_payload_bytes
        header = MAX_FIXED_HEADER_BYTES + 2 + topic_bytes + 2 + properties_bytes
        return min(self.max_payload_bytes, self.max_packet_bytes - header)


def check(outbound: Outbound, limits: Limits, properties_bytes: int) -> None:
    """Raise the error that names why this message cannot be sent under these limits; do nothing if it can.

    properties_bytes: size of the encoded properties with their length, as they go into the packet.
    """
    check_topic(outbound.topic)
    if outbound.qos not in (0, 1):
        raise InvalidMessageError(outbound.topic, f"QoS {outbound.qos}: we use 0 and 1")
    limit = limits.payload_bytes(len(outbound.topic.encode()), properties_bytes)
    if len(outbound.payload) > limit:
        raise OversizeError(outbound.topic, len(outbound.payload), max(0, limit))
    if outbound.qos > limits.max_qos:
        raise UnsupportedByBrokerError(outbound.topic, f"QoS {outbound.qos}")
    if outbound.retain and not limits.retain_available:
        raise UnsupportedByBrokerError(outbound.topic, "retained messages")


def check_topic(topic: str) -> None:
    """Raise InvalidMessageError for a topic that a broker would close the connection over."""
    fault = text_fault(topic)
    if fault is not None:
        raise InvalidMessageError(topic[:SHOWN_CHARACTERS], f"the topic {fault}")
    if not topic or "+" in topic or "#" in topic:
        raise InvalidMessageError(topic, "a topic to publish on is not empty and has no wildcard")
    if topic.count("/") >= MAX_TOPIC_LEVELS:
        raise InvalidMessageError(topic[:SHOWN_CHARACTERS], f"the topic has more than {MAX_TOPIC_LEVELS} levels")


def check_topic_filter(topic_filter: str) -> None:
    """Raise InvalidMessageError for a topic filter that no broker accepts (MQTT 5, 4.7.1)."""
    levels = topic_filter.split("/")
    fault = text_fault(topic_filter)
    if fault is not None or not topic_filter:
        raise InvalidMessageError(topic_filter[:SHOWN_CHARACTERS], f"the topic filter {fault or 'is empty'}")
    if any(len(level) > 1 and ("+" in level or "#" in level) for level in levels) or "#" in levels[:-1]:
        raise InvalidMessageError(topic_filter, "in a topic filter '+' is a level of its own, and '#' the last one")


def text_fault(text: str) -> str | None:
    """Say why this text cannot travel as a UTF-8 string of MQTT (MQTT 5, 1.5.4); None when it can.

    Stricter than the standard must be: mosquitto closes the connection over control characters, and paho over U+FEFF.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    if size > MAX_TEXT_BYTES:
        return f"has more than {MAX_TEXT_BYTES} bytes"
    if _FORBIDDEN.search(text):
        return "holds a control character, a non-character or U+FEFF"
    return None
