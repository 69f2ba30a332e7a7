"""What the edge has to say, kept on disk until a receipt says that the cloud has it for good."""

from edge_agent.outbox.errors import (
    OutboxDamagedError,
    OutboxError,
    OutboxFullError,
    OutboxKeyError,
    OutboxNumberError,
    OutboxSchemaError,
)
from edge_agent.outbox.message import HeldBack, OutboxLoad, OutboxMessage, WhenFull
from edge_agent.outbox.outbox import Outbox

__all__ = [
    "HeldBack",
    "Outbox",
    "OutboxDamagedError",
    "OutboxError",
    "OutboxFullError",
    "OutboxKeyError",
    "OutboxLoad",
    "OutboxMessage",
    "OutboxNumberError",
    "OutboxSchemaError",
    "WhenFull",
]
