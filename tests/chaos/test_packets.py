"""MQTT as bytes, and messages spoiled on purpose."""

import random

import pytest

from sliceloop.chaos.mutate import mutated
from sliceloop.chaos.packets import (
    Published,
    connect,
    first_packet,
    publish,
    published,
    read_user_properties,
    split,
    user_properties,
)

PAIRS = [("id", "1"), ("type", "ü")]
MESSAGE = Published("sliceloop/v1/a/b/slice", b"payload" * 100, user_properties(PAIRS), 1, 7)


def test_a_message_is_read_as_it_was_written_byte_by_byte() -> None:
    """A stream that comes in pieces gives the same message, properties and all."""
    stream, found = bytearray(), []
    for byte in publish(MESSAGE) + publish(MESSAGE):
        stream.append(byte)
        found += [published(packet) for packet in split(stream)]
    assert found == [MESSAGE, MESSAGE]
    assert read_user_properties(found[0].properties) == PAIRS


def test_the_first_packet_is_known_when_it_is_whole() -> None:
    """A CONNECT is cut off from what follows it."""
    hello = connect("someone", 60)
    assert first_packet(hello + b"more") == hello
    assert first_packet(hello[:-1]) is None


@pytest.mark.parametrize("payload", [b'{"a": 1, "b": {"c": 2}}', bytes.fromhex("a2616101616202"), b"\x89PNG", b""])
def test_spoiling_never_fails_and_is_the_same_for_a_seed(payload: bytes) -> None:
    """Whatever a payload is, two thousand spoiled ones can be written; the same seed spoils alike."""
    message = Published("t", payload, user_properties(PAIRS))
    spoiled = [mutated(message, random.Random(seed)) for seed in range(2_000)]
    assert spoiled == [mutated(message, random.Random(seed)) for seed in range(2_000)]
    assert all(publish(each) for each in spoiled)
