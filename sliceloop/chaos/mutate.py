"""Spoil messages: bits flipped, cut, lengths blown up, fields of a wrong type, foreign user properties."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cbor2

from sliceloop.chaos.packets import Published, read_user_properties, user_properties

MAX_FLIPS = 8
LENGTH_HEADS = (
    b"\x5b" + b"\xff" * 8,
    b"\x9b\x7f" + b"\xff" * 7,
    b"\xbb\x00\x00\x00\x01\x00\x00\x00\x00",
    b"\xc5\x82\x1b",
)
"""Of CBOR: 2^64 bytes, 2^63 items, 2^32 pairs, and a bigfloat that would be computed."""
WRONG_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**63,
    1e308,
    "",
    "\u202e" * 40,
    "../../etc",
    [],
    {},
    [[[]]],
    {"a": {}},
)
WRONG_TEXTS = ("", "0", "-1", "x" * 300, "tag:sliceloop,2026:slice:999999", "\u202e", "9" * 40, "sliceloop.slice")
PADDING_BYTES = 100_000
PADDED_SHARE = 0.01
"""Of the blown-up messages: these are really long."""

Mutation = Callable[[Published, random.Random], Published]


def mutated(message: Published, rng: random.Random) -> Published:
    """Return the message spoiled in one way, or in two; its topic stays."""
    spoiled = rng.choice(MUTATIONS)(message, rng)
    return rng.choice(MUTATIONS)(spoiled, rng) if rng.random() < 0.2 else spoiled


def _flipped(message: Published, rng: random.Random) -> Published:
    payload = bytearray(message.payload or b"\0")
    for _ in range(rng.randint(1, MAX_FLIPS)):
        payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
    return replace(message, payload=bytes(payload))


def _cut(message: Published, rng: random.Random) -> Published:
    return replace(message, payload=message.payload[: rng.randrange(len(message.payload) + 1)])


def _blown_up(message: Published, rng: random.Random) -> Published:
    """Let a length in the payload promise more than there is, or make it really long."""
    if rng.random() < PADDED_SHARE:
        return replace(message, payload=message.payload + rng.randbytes(PADDING_BYTES))
    at = rng.randrange(min(len(message.payload), 200) + 1)
    return replace(message, payload=message.payload[:at] + rng.choice(LENGTH_HEADS) + message.payload[at + 9 :])


def _wrong_type(message: Published, rng: random.Random) -> Published:
    """Put a value of another type, an unknown field, or none at all into the message's fields."""
    fields, write = _fields(message.payload)
    if not fields:
        return _flipped(message, rng)
    _spoil(fields, rng)
    return replace(message, payload=write(fields))


def _foreign_properties(message: Published, rng: random.Random) -> Published:
    pairs = read_user_properties(message.properties)
    for _ in range(rng.randint(1, 4)):
        action = rng.randrange(3)
        if action == 0 and pairs:
            del pairs[rng.randrange(len(pairs))]
        elif action == 1 and pairs:
            at = rng.randrange(len(pairs))
            pairs[at] = (pairs[at][0], rng.choice(WRONG_TEXTS))
        else:
            pairs.append((rng.choice(["id", "type", "dataschema", "sliceid", "x" * 50]), rng.choice(WRONG_TEXTS)))
    return replace(message, properties=user_properties(pairs))


def _noise(message: Published, rng: random.Random) -> Published:
    return replace(message, payload=rng.randbytes(rng.randrange(300)))


MUTATIONS: Sequence[Mutation] = (_flipped, _cut, _blown_up, _wrong_type, _foreign_properties, _noise)


def _fields(payload: bytes) -> tuple[dict[str, Any], Callable[[Any], bytes]]:
    """Read a valid message's fields and how they are written; none when it is something else or spoiled already."""
    if payload[:1] == b"{":
        try:
            return json.loads(payload), lambda fields: json.dumps(fields, default=str).encode()
        except ValueError:
            return {}, bytes
    try:
        loaded = cbor2.loads(payload, max_depth=8) if payload[:1] >= b"\xa0" and payload[:1] < b"\xc0" else {}
    except Exception:  # noqa: BLE001  the decoder raises more than it documents
        loaded = {}
    return (loaded if isinstance(loaded, dict) else {}), cbor2.dumps


def _spoil(fields: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(list(fields))
    inner = fields[name]
    if isinstance(inner, dict) and inner and rng.random() < 0.5:
        _spoil(inner, rng)
    elif rng.random() < 0.2:
        del fields[name]
    else:
        fields[name] = rng.choice(WRONG_VALUES)
