"""Put many small objects: obstore signs and sends them outside Python's lock, at a fifth of boto3's CPU time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential

CREDENTIALS_HOLD = timedelta(minutes=10)
"""After this time the keys are asked for again; those of a role change."""


class FrozenKeys(Protocol):
    """What AWS's chain of credentials gives."""

    access_key: str
    secret_key: str
    token: str | None


class QuickObjects:
    """A bucket, thread-safe; keys are whole keys, prefix included."""

    def __init__(
        self,
        bucket: str,
        region: str,
        endpoint_url: str | None,
        keys: Callable[[], FrozenKeys],
        connect_timeout: timedelta,
        timeout: timedelta,
    ) -> None:
        """Remember the address and where the keys come from; nothing is sent. `timeout` is of a whole request."""
        address: S3Config = {"region": region, "virtual_hosted_style_request": endpoint_url is None}
        self._store = S3Store(
            bucket,
            config={**address, "endpoint": endpoint_url} if endpoint_url else address,
            client_options={
                "allow_http": (endpoint_url or "").startswith("http://"),
                "connect_timeout": connect_timeout,
                "timeout": timeout,
            },
            retry_config={"max_retries": 0},  # boto3's turn comes then, with its own tries
            credential_provider=lambda: _credential(keys()),
        )

    def put(self, key: str, data: bytes, content_type: str) -> bool:
        """Store the bytes where the key is not there yet; False when that did not work, for whatever reason."""
        try:
            obstore.put(
                self._store,
                key,
                data,
                mode="create",  # If-None-Match: *
                use_multipart=False,
                attributes={"Content-Type": content_type},
            )
        except (BaseError, OSError, ValueError):  # one that exists too: obstore says so of 409, "busy", as well
            return False
        return True


def _credential(keys: FrozenKeys) -> "S3Credential":
    return {
        "access_key_id": keys.access_key,
        "secret_access_key": keys.secret_key,
        "token": keys.token,
        "expires_at": datetime.now(UTC) + CREDENTIALS_HOLD,
    }
