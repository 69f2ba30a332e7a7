"""Publish mutated messages, many in one write: QoS 0, so that nothing is waited for."""

import random
from collections.abc import Sequence
from dataclasses import replace

from sliceloop.chaos.bare_client import BareClient
from sliceloop.chaos.mutate import mutated
from sliceloop.chaos.packets import Published, publish

BATCH = 50
BIG_BYTES, BIG_SHARE = 4_000, 0.1
"""Messages with pixels are drawn less often than others: they cost the broker most."""


class FuzzClient:
    """Connects when it must; a broker that hangs up is counted, and connected to again."""

    def __init__(self, port: int, captured: Sequence[Published], rng: random.Random) -> None:
        """Remember what to spoil."""
        self._port, self._rng = port, rng
        self._big = [each for each in captured if len(each.payload) > BIG_BYTES]
        self._small = [each for each in captured if len(each.payload) <= BIG_BYTES]
        self._client: BareClient | None = None
        self.sent, self.hung_up = 0, 0

    def send(self, count: int) -> None:
        """Publish so many mutated messages."""
        batch = b"".join(publish(replace(self._draw(), qos=0)) for _ in range(count))
        try:
            if self._client is None:
                self._client = BareClient(self._port, f"fuzz-{self._rng.getrandbits(32):08x}").__enter__()
            self._client.send(batch)
            list(self._client.heard(0))
        except OSError:
            self.hung_up += 1
            self.close()
        self.sent += count

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.__exit__(None, None, None)
            self._client = None

    def _draw(self) -> Published:
        pool = self._big if self._big and self._rng.random() < BIG_SHARE else self._small
        return mutated(self._rng.choice(pool), self._rng)
