"""How to reach the broker, and every limit that holds on the way."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_PAYLOAD_BYTES = 1_000_000
"""EMQX's default; AWS IoT Core takes 131,072."""


class BrokerSettings(BaseModel):
    """Settings of one session; the password itself is never in a configuration, only the path of its file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    """Name or address of the broker."""
    port: int = Field(default=1883, ge=1, le=65_535)
    """8883 is usual with TLS."""
    username: str | None = None
    """Where the broker wants a password instead of a certificate."""
    password_file: Path | None = None
    """Holds the password; it never stands in a configuration."""
    tls_ca_file: Path | None = Field(
        default=None, description="set it to use TLS; the broker's certificate must be from this CA"
    )
    tls_cert_file: Path | None = None
    """This client's certificate; `sliceloop certificates client` makes one."""
    tls_key_file: Path | None = None
    """The certificate's key."""
    keepalive_s: int = Field(default=30, ge=1, le=65_535)
    """A dead connection is noticed after one and a half times this."""
    max_payload_bytes: int = Field(default=MAX_PAYLOAD_BYTES, ge=1, le=200_000_000)
    """Larger messages are found before publishing; AWS IoT Core takes 131072."""
    max_inflight: int = Field(
        default=50, ge=1, le=1_000, description="window of unacknowledged QoS 1 messages, each way"
    )
    max_queued_messages: int = Field(default=1_000, ge=2, description="bound of the inbox")
    connect_timeout_s: float = Field(default=10.0, gt=0)
    """For a connection."""
    drain_timeout_s: float = Field(default=5.0, ge=0, description="how long a stop waits for the last PUBACKs")
    reconnect_min_s: float = Field(default=0.5, gt=0)
    """First pause after a lost connection; it doubles, with jitter."""
    reconnect_max_s: float = Field(default=30.0, gt=0)
    """Longest pause."""
    session_expiry_s: int = Field(
        default=86_400, ge=0, le=4_294_967_295, description="how long the broker keeps a lost session"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reconnect_max_s < self.reconnect_min_s:
            raise ValueError("reconnect_max_s must not be less than reconnect_min_s")
        if self.max_queued_messages < 2 * self.max_inflight:
            raise ValueError(
                "max_queued_messages must be at least twice max_inflight, since half of the inbox is kept for QoS 1"
            )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together: set both or none")
        if self.tls_cert_file is not None and self.tls_ca_file is None:
            raise ValueError("tls_cert_file needs tls_ca_file: a client certificate only travels over TLS")
        return self
