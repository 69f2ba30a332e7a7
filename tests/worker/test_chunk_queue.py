"""Chunks go out once, in order, and no faster than the line may be used."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from cloud_worker.chunk_queue import MAX_LISTENERS, MAX_WAITING, ChunkQueue, Place
from cloud_worker.token_bucket import BURST_S, TokenBucket
from protocol.topics import fleet_chunk

CHUNK = Place("models/aa/file", 0, 1_000)


def sent_at(now_s: float) -> ChunkQueue:
    """Return a queue that published chunk "a" for all then, and repeats it after two seconds."""
    queue = ChunkQueue(2.0, None)
    queue.add("a", CHUNK, now_s, queue.listens("who asked first", now_s, fresh=True))
    queue.sent("a", now_s)
    return queue


def test_what_waits_is_not_added_again() -> None:
    """Fifty edges that ask for one chunk make one publication; the order is that of the first asking."""
    queue = ChunkQueue(2.0, None)
    edges = [queue.listens(f"edge-{number}", 0, fresh=True) for number in range(50)]
    asked = [queue.add(topic, CHUNK, 0, edge) for edge in edges for topic in ("a", "b", "a")]
    assert asked == [True, True] + [False] * 148
    assert queue.next(0) == ("a", CHUNK)
    queue.sent("a", 0)
    assert queue.next(0) == ("b", CHUNK)


def test_a_chunk_for_all_goes_out_again_only_after_the_interval() -> None:
    """Who began to listen too late missed it; once the interval is over it goes again, and nobody need ask for it."""
    queue = sent_at(0)
    for number in range(50):
        assert not queue.add("a", CHUNK, 1.0, queue.listens(f"late-{number}", 1.0, fresh=True))
    assert queue.next(1.9) is None
    assert queue.next(2.0) == ("a", CHUNK)
    queue.sent("a", 2.0)
    assert queue.next(10.0) is None


def test_a_chunk_that_an_edge_will_hear_is_not_sent_again_until_it_asks_twice() -> None:
    """On a slow line it is late and not lost, however long ago it went out; asked for again it has been lost."""
    queue = sent_at(5)
    queue.listens("slow", 0, fresh=True)
    assert not queue.add("a", CHUNK, 100, queue.listens("slow", 100, fresh=False))
    assert queue.add("a", CHUNK, 110, queue.listens("slow", 110, fresh=False))
    queue.sent("a", 111)
    assert not queue.add("a", CHUNK, 200, queue.listens("slow", 200, fresh=False))


def test_who_asks_twice_within_the_interval_is_served_after_it() -> None:
    """That a chunk was lost is not forgotten because it was said too early."""
    queue = sent_at(5)
    queue.listens("edge", 0, fresh=True)
    for now_s in (5.5, 6.0):
        assert not queue.add("a", CHUNK, now_s, queue.listens("edge", now_s, fresh=False))
    assert queue.next(6.9) is None
    assert queue.next(7.0) == ("a", CHUNK)


def test_a_chunk_that_waits_for_its_interval_is_forgotten_with_the_rest() -> None:
    """When the line to the broker is cut who still wants it asks again."""
    queue = sent_at(5)
    queue.add("a", CHUNK, 5.5, queue.listens("late", 5.5, fresh=True))
    queue.clear()
    assert queue.next(100) is None


def test_a_fresh_edge_hears_nothing_of_before() -> None:
    """After a stall or a cut line nothing is on its way any more: the first asking brings it."""
    queue = sent_at(5)
    queue.listens("edge", 0, fresh=True)
    assert queue.add("a", CHUNK, 10, queue.listens("edge", 10, fresh=True))


def test_one_edge_says_nothing_for_another() -> None:
    """That one will hear a chunk keeps it from nobody else, and two that ask once each have not lost it."""
    queue = sent_at(5)
    for edge in ("one", "two"):
        queue.listens(edge, 0, fresh=True)
    assert not queue.add("a", CHUNK, 10, queue.listens("one", 10, fresh=False))
    assert not queue.add("a", CHUNK, 10, queue.listens("two", 10, fresh=False))
    assert queue.add("a", CHUNK, 10, queue.listens("three", 10, fresh=False))


def test_a_chunk_for_one_edge_goes_out_whenever_it_asks() -> None:
    """Nobody else could have asked for it: it was lost."""
    queue = ChunkQueue(2.0, None)
    queue.add("a", CHUNK, 0)
    queue.sent("a", 0)
    assert queue.add("a", CHUNK, 0.1)


def test_the_queue_is_bounded() -> None:
    """What finds no room is asked for again, and edges that are forgotten begin anew: nothing grows without end."""
    queue = ChunkQueue(2.0, None)
    for number in range(MAX_WAITING):
        assert queue.add(str(number), CHUNK, 0)
    assert not queue.add("one more", CHUNK, 0)
    queue.give_up("0")
    assert queue.add("one more", CHUNK, 0)
    queue.clear()
    assert queue.next(0) is None
    first = queue.listens("first", 0, fresh=True)
    for number in range(MAX_LISTENERS - 1):
        queue.listens(f"edge-{number}", 0, fresh=True)
    assert queue.listens("first", 1, fresh=False) is first
    queue.listens("one more", 1, fresh=True)
    assert queue.listens("first", 1, fresh=False) is first
    for number in range(MAX_LISTENERS):
        queue.listens(f"other-{number}", 2, fresh=True)
    assert queue.listens("first", 3, fresh=False) is not first


def test_what_is_remembered_of_a_listener_is_small() -> None:
    """Of 700 chunks that are on their way to it, 50 KB: two thousand edges must not fill a worker's memory."""
    queue, edges, chunks = ChunkQueue(2.0, None), 20, 700
    for number in range(edges):
        queue.listens(f"edge-{number}", 0, fresh=True)
    for number in range(chunks):
        queue.add(fleet_chunk(f"{number:064x}"), CHUNK, 0)
        queue.sent(fleet_chunk(f"{number:064x}"), 1)
    tracemalloc.start()
    for edge in range(edges):
        listener = queue.listens(f"edge-{edge}", 5, fresh=False)
        for number in range(chunks):
            assert not queue.add(fleet_chunk(f"{number:064x}"), CHUNK, 5, listener)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown / edges < 50_000


@given(st.integers(1_000, 10_000_000), st.lists(st.integers(1, 65_536), min_size=20, max_size=200))
def test_the_bandwidth_is_kept(rate: int, sizes: list[int]) -> None:
    """Over any time no more goes than the rate allows, but for a burst and the chunk that ends it; nor much less."""
    bucket, now_s, spent = TokenBucket(rate), 0.0, 0
    for size in sizes:
        while not bucket.open(now_s):
            now_s += 0.01
        bucket.spend(size)
        spent += size
        assert spent <= rate * (now_s + BURST_S) + size + 1
    assert now_s <= spent / rate + 0.02 * len(sizes)


def test_without_a_bandwidth_all_goes_at_once() -> None:
    """None and 0 are without limit."""
    for none in (None, 0):
        bucket = TokenBucket(none)
        bucket.spend(10**12)
        assert bucket.open(0)
