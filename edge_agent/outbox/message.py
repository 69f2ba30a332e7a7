"""A message as the outbox keeps it."""

from dataclasses import dataclass
from typing import Literal

from protocol.codec import UserProperties
from protocol.topics import Kind

WhenFull = Literal["refuse", "drop-frames"]
"""What gives way when the bound is reached: the new slice, or waiting originals."""


@dataclass(frozen=True)
class OutboxMessage:
    """A message as it will be published."""

    message_id: str
    kind: Kind
    payload: bytes
    content_type: str
    user_properties: UserProperties


@dataclass(frozen=True)
class HeldBack:
    """How many messages this broker does not take, and why the first of them is kept back."""

    count: int
    reason: str


@dataclass(frozen=True)
class OutboxLoad:
    """How much waits: messages, their bytes, the larger share of the bounds, and the largest since it was empty."""

    rows: int
    bytes: int
    fullness: float
    high_water: float
