"""What the tests of the outbox share: messages, and outboxes whose clock the test turns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.outbox import Outbox, OutboxMessage
from protocol.topics import Kind


class Clock:
    """Unix time that stands still until it is turned."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def outbox_at(path: Path, max_rows: int = 1000, max_bytes: int = 1_000_000, **chosen: Any) -> Outbox:
    """Return an outbox that is not yet open."""
    return Outbox(path, max_rows=max_rows, max_bytes=max_bytes, **chosen)


def message(name: str, payload: bytes = b"payload", kind: Kind = Kind.SLICE) -> OutboxMessage:
    """Return a message with this id."""
    return OutboxMessage(name, kind, payload, "application/cbor", (("id", name), ("source", "/edges/a/b")))


def pair(number: int, size: int = 10) -> list[OutboxMessage]:
    """Return a slice and its original."""
    return [message(f"s{number}", bytes(size)), message(f"f{number}", bytes(size), Kind.FRAME)]


def fill(
    outbox: Outbox,
    count: int,
    first: int = 1,
    messages: Callable[[int], list[OutboxMessage]] = lambda number: [message(f"s{number}")],
) -> None:
    """Add so many slices, numbered from `first`."""
    for number in range(first, first + count):
        outbox.add(f"{number}.png", f"slice-{number}", number, messages(number))


def ids(outbox: Outbox, limit: int = 10_000, **options: Any) -> list[str]:
    """Return what would be sent, in its order."""
    return [each.message_id for each in outbox.pending(limit, **options)]
