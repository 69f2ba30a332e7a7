"""Sequence numbers as ranges: first and last, both included; kept ascending, apart from one another."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile

Range = tuple[int, int]


def ranges_of(numbers: Iterable[int]) -> Iterator[Range]:
    """Join ascending numbers into ranges, one after the other; a number may come twice."""
    return _joined((number, number) for number in numbers)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return what the ranges cover, whatever their order; those that end before they begin cover nothing."""
    return list(_joined(sorted(each for each in ranges if each[0] <= each[1])))


def at_most(ranges: Iterable[Range], limit: int) -> tuple[Range, ...]:
    """Return at most so many ranges: those beyond are joined, with the gaps between them, into the last one."""
    kept = tuple(ranges)
    if len(kept) <= limit:
        return kept
    return *kept[: limit - 1], (kept[limit - 1][0], kept[-1][1])


def size(ranges: Iterable[Range]) -> int:
    """Count the numbers."""
    return sum(last - first + 1 for first, last in ranges)


def within(ranges: Sequence[Range], window: Range) -> list[Range]:
    """Return the numbers of the ranges that lie in the window, looking at these ranges alone."""
    begin = bisect_left(ranges, window[0], key=lambda each: each[1])
    inside = takewhile(lambda each: each[0] <= window[1], islice(ranges, begin, None))
    return [(max(first, window[0]), min(last, window[1])) for first, last in inside]


def without(ranges: Iterable[Range], taken: Sequence[Range]) -> list[Range]:
    """Return the numbers of the ranges that are in none of those taken."""
    left = []
    for first, last in ranges:
        for taken_first, taken_last in within(taken, (first, last)):
            if first < taken_first:
                left.append((first, taken_first - 1))
            first = taken_last + 1
        if first <= last:
            left.append((first, last))
    return left


def outside(ranges: Iterable[Range], whole: Range) -> list[Range]:
    """Return what of the whole range none of the ranges covers, whatever their order."""
    return without([whole], merged(ranges))


def common(some: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """Return what both cover, whatever their order."""
    these = merged(others)
    return [both for each in merged(some) for both in within(these, each)]


def _joined(ascending: Iterable[Range]) -> Iterator[Range]:
    current: Range | None = None
    for first, last in ascending:
        if current is None:
            current = first, last
        elif first <= current[1] + 1:
            current = current[0], max(last, current[1])
        else:
            yield current
            current = first, last
    if current is not None:
        yield current
