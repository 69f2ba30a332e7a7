"""What goes over the session: a message out, its delivery, and a message in."""

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Outbound:
    """A message to publish."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    content_type: str | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    expiry_s: int | None = None


@dataclass(frozen=True)
class Inbound:
    """A message that arrived; `mid` is its packet id on `connection`, the number of the connection that brought it."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    content_type: str | None
    user_properties: tuple[tuple[str, str], ...]
    mid: int
    connection: int


class Delivery:
    """The fate of one published message: open, done (PUBACK came, or QoS 0 was sent) or failed, once and for good."""

    def __init__(self) -> None:
        self._settled = threading.Event()
        self._failure: str | None = None

    @property
    def done(self) -> bool:
        """Say whether the broker has taken the message."""
        return self._settled.is_set() and self._failure is None

    @property
    def failed(self) -> bool:
        """Say whether the connection was lost first, or the broker refused; send again, the receiver drops doubles."""
        return self._settled.is_set() and self._failure is not None

    @property
    def reason(self) -> str | None:
        """Say why the delivery failed; None while it has not."""
        return self._failure if self._settled.is_set() else None

    def wait(self, timeout_s: float) -> bool:
        """Wait until the message is settled; True only when the broker has taken it."""
        self._settled.wait(timeout_s)
        return self.done

    def settle(self, failure: str | None = None) -> None:
        """Record the fate; the session's network thread alone does this."""
        self._failure = failure
        self._settled.set()
