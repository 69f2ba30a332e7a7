"""The chunks that wait to be published: each once, whoever asked for it, in the order in which they were asked for."""

from collections import OrderedDict
from sys import intern
from typing import NamedTuple

from cloud_worker.token_bucket import TokenBucket

MAX_WAITING = 20_000
"""Each is a topic and a place; what does not fit is asked for again."""
MAX_REMEMBERED = 40_000
"""Chunks for all whose last time is known."""
MAX_LISTENERS = 2_000


class Place(NamedTuple):
    """Where a run of bytes lies: an object, an offset in it, and how many."""

    key: str
    offset: int
    size: int


class Listener:
    """An edge that hears the chunks for all, since a moment on this machine's clock.

    What was published since then is on its way to it, perhaps behind much else on a slow line: only when it asks for
    the same chunk again has it been lost.
    """

    def __init__(self, since_s: float) -> None:
        """Begin to listen."""
        self._since_s = since_s
        self._asked: dict[str, float] = {}

    def will_hear(self, topic: str, sent_s: float) -> bool:
        """Tell whether a chunk that was published then is still on its way to this edge."""
        if sent_s < self._since_s:
            return False
        topic = intern(topic)  # one text for all listeners: it is most of what each of them takes
        lost = self._asked.get(topic) == sent_s
        self._asked[topic] = sent_s
        return not lost


class ChunkQueue:
    """What is to be published; a chunk for all goes out once in `repeat_after_s`, whoever asks meanwhile."""

    def __init__(self, repeat_after_s: float, max_bytes_per_s: int | None) -> None:
        """Begin empty."""
        self._repeat_after_s = repeat_after_s
        self._bucket = TokenBucket(max_bytes_per_s)
        self._waiting: OrderedDict[str, Place] = OrderedDict()
        self._later: dict[str, Place] = {}
        self._sent: OrderedDict[str, float] = OrderedDict()
        self._listeners: OrderedDict[str, Listener] = OrderedDict()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def listens(self, edge: str, now_s: float, *, fresh: bool) -> Listener:
        """Return an edge as a listener; `fresh` says that it has only begun, and what went out before passed it by."""
        if fresh or edge not in self._listeners:
            self._listeners[edge] = Listener(now_s)
        self._listeners.move_to_end(edge)
        while len(self._listeners) > MAX_LISTENERS:
            self._listeners.popitem(last=False)
        return self._listeners[edge]

    def add(self, topic: str, place: Place, now_s: float, listener: Listener | None = None) -> bool:
        """Let a chunk wait for its turn; with a listener it is one for all.

        Return False when it waits already, was sent just now, is on its way to the listener, or finds no room.
        """
        if topic in self._waiting or len(self._waiting) >= MAX_WAITING:
            return False
        sent_s = self._sent.get(topic)
        if listener is not None and sent_s is not None:
            if listener.will_hear(topic, sent_s):
                return False
            if now_s - sent_s < self._repeat_after_s:  # others begin to listen too: once more for all of them, then
                self._later[topic] = place
                return False
        self._waiting[topic] = place
        return True

    def next(self, now_s: float) -> tuple[str, Place] | None:
        """Return whose turn it is; None where nothing waits, or the bandwidth is used up for now."""
        for topic in [topic for topic in self._later if now_s - self._sent[topic] >= self._repeat_after_s]:
            self._waiting.setdefault(topic, self._later.pop(topic))
        if not self._waiting or not self._bucket.open(now_s):
            return None
        return next(iter(self._waiting.items()))

    def sent(self, topic: str, now_s: float) -> None:
        """Take out what was published."""
        self._bucket.spend(self._waiting.pop(topic).size)
        self._later.pop(topic, None)
        self._sent[topic] = now_s
        self._sent.move_to_end(topic)
        while len(self._sent) > MAX_REMEMBERED:
            self._later.pop(self._sent.popitem(last=False)[0], None)

    def give_up(self, topic: str) -> None:
        """Take out what cannot be published."""
        del self._waiting[topic]

    def clear(self) -> None:
        """Forget all that waits: who still wants it asks again."""
        self._waiting.clear()
        self._later.clear()
