"""Chunks go out once, in order, and no faster than the line may be used."""

from hypothesis import given
from hypothesis import strategies as st

from cloud_worker.chunk_queue import MAX_WAITING, ChunkQueue, Place
from cloud_worker.token_bucket import BURST_S, TokenBucket

CHUNK = Place("models/aa/file", 0, 1_000)


def test_what_waits_is_not_added_again() -> None:
    """Fifty edges that ask for one chunk make one publication; the order is that of the first asking."""
    queue = ChunkQueue(2.0, None)
    asked = [queue.add(topic, CHUNK, 0, for_all=True) for topic in ("a", "b", "a", "a")]
    assert (asked, len(queue)) == ([True, True, False, False], 2)
    assert queue.next(0) == ("a", CHUNK)
    queue.sent("a", 0)
    assert queue.next(0) == ("b", CHUNK)


def test_a_chunk_for_all_goes_out_again_only_after_the_interval() -> None:
    """Who asks too early has missed it, and asks again; by then it goes."""
    queue = ChunkQueue(2.0, None)
    queue.add("a", CHUNK, 0, for_all=True)
    queue.sent("a", 0)
    assert not queue.add("a", CHUNK, 1.9, for_all=True)
    assert queue.add("a", CHUNK, 2.0, for_all=True)


def test_a_chunk_for_one_edge_goes_out_whenever_it_asks() -> None:
    """Nobody else could have asked for it: it was lost."""
    queue = ChunkQueue(2.0, None)
    queue.add("a", CHUNK, 0, for_all=False)
    queue.sent("a", 0)
    assert queue.add("a", CHUNK, 0.1, for_all=False)


def test_the_queue_is_bounded() -> None:
    """What finds no room is asked for again: nothing grows without end."""
    queue = ChunkQueue(2.0, None)
    for number in range(MAX_WAITING):
        assert queue.add(str(number), CHUNK, 0, for_all=True)
    assert not queue.add("one more", CHUNK, 0, for_all=True)
    queue.give_up("0")
    assert queue.add("one more", CHUNK, 0, for_all=True)
    queue.clear()
    assert queue.next(0) is None


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
