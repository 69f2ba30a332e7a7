"""Record what edges say, by a plain subscription, and say it again in another order: duplicates that come late."""

import random
import threading
from collections import deque
from dataclasses import replace
from types import TracebackType
from typing import Self

from protocol.topics import Kind, every_edge
from sliceloop.chaos.bare_client import BareClient
from sliceloop.chaos.packets import Published, publish

KEPT = 60
SAID_AGAIN = 24
LISTEN_S = 0.2
RETRY_S = 0.3


class Echo:
    """Listens on a thread of its own, from `with` to its end."""

    def __init__(self, port: int) -> None:
        """Remember where the broker is."""
        self._port = port
        self._heard: deque[Published] = deque(maxlen=KEPT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="echo", daemon=True)

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join(LISTEN_S * 10)

    def heard(self) -> list[Published]:
        """Return the messages kept, oldest first."""
        return list(self._heard)

    def say_again(self, rng: random.Random) -> int:
        """Publish some of the kept messages, shuffled, properties and all; return how many; raises OSError."""
        heard = self.heard()
        chosen = rng.sample(heard, min(SAID_AGAIN, len(heard)))
        with BareClient(self._port, f"echo-{rng.getrandbits(32):08x}") as client:
            client.send(b"".join(publish(replace(each, qos=0)) for each in chosen))
            list(client.heard(0))
        return len(chosen)

    def _listen(self) -> None:
        filters = [every_edge(Kind.SLICE), every_edge(Kind.FRAME)]
        while not self._stop.is_set():
            try:
                with BareClient(self._port, "echo", filters) as client:
                    while not self._stop.is_set():
                        self._heard.extend(client.heard(LISTEN_S))
            except OSError:  # the broker is one of those that are struck
                self._stop.wait(RETRY_S)
