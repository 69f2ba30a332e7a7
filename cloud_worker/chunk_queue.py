"""The chunks that wait to be published: each once, whoever asked for it, in the order in which they were asked for."""

from collections import OrderedDict
from typing import NamedTuple

from cloud_worker.token_bucket import TokenBucket

MAX_WAITING = 20_000
"""Each is a topic and a place; what does not fit is asked for again."""


class Place(NamedTuple):
    """Where a run of bytes lies: an object, an offset in it, and how many."""

    key: str
    offset: int
    size: int


class ChunkQueue:
    """What is to be published; a chunk for all goes out once in `repeat_after_s`, whoever asks meanwhile."""

    def __init__(self, repeat_after_s: float, max_bytes_per_s: int | None) -> None:
        """Begin empty."""
        self._repeat_after_s = repeat_after_s
        self._bucket = TokenBucket(max_bytes_per_s)
        self._waiting: OrderedDict[str, Place] = OrderedDict()
        self._sent: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def add(self, topic: str, place: Place, now_s: float, *, for_all: bool) -> bool:
        """Let a chunk wait for its turn; return False when it waits already, was sent just now, or finds no room."""
        self._forget(now_s)
        if topic in self._waiting or (for_all and topic in self._sent) or len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[topic] = place
        return True

    def next(self, now_s: float) -> tuple[str, Place] | None:
        """Return whose turn it is; None where nothing waits, or the bandwidth is used up for now."""
        if not self._waiting or not self._bucket.open(now_s):
            return None
        return next(iter(self._waiting.items()))

    def sent(self, topic: str, now_s: float) -> None:
        """Take out what was published."""
        self._bucket.spend(self._waiting.pop(topic).size)
        self._sent[topic] = now_s
        self._sent.move_to_end(topic)

    def give_up(self, topic: str) -> None:
        """Take out what cannot be published."""
        del self._waiting[topic]

    def clear(self) -> None:
        """Forget all that waits: who still wants it asks again."""
        self._waiting.clear()

    def _forget(self, now_s: float) -> None:
        while self._sent and now_s - next(iter(self._sent.values())) >= self._repeat_after_s:
            self._sent.popitem(last=False)
