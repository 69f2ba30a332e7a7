"""Sequence numbers as ranges: first and last, both included."""

from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def ranges_of(numbers: Iterable[int]) -> list[Range]:
    """Return the numbers as ascending ranges that neither touch nor overlap."""
    return merged((number, number) for number in numbers)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return what the ranges cover as ascending ranges that neither touch nor overlap; one that ends before it begins
    covers nothing.
    """
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if last < first:
            continue
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def count(ranges: Iterable[Range]) -> int:
    """Count the numbers of ranges that do not overlap."""
    return sum(last - first + 1 for first, last in ranges)


def limited(ranges: Sequence[Range], limit: int) -> tuple[Range, ...]:
    """Return at most so many ranges: those beyond are joined, with the gaps between them, into the last."""
    if len(ranges) <= limit:
        return tuple(ranges)
    return *ranges[: limit - 1], (ranges[limit - 1][0], ranges[-1][1])


def outside(ranges: Iterable[Range], whole: Range) -> list[Range]:
    """Return what of the whole range none of the ranges covers."""
    left, next_free = [], whole[0]
    for first, last in merged(ranges):
        if first > next_free:
            left.append((next_free, min(first - 1, whole[1])))
        next_free = max(next_free, last + 1)
        if next_free > whole[1]:
            break
    if next_free <= whole[1]:
        left.append((next_free, whole[1]))
    return [(first, last) for first, last in left if first <= last]


def common(some: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """Return what both cover."""
    found, left, right = [], merged(some), merged(others)
    while left and right:
        first, last = max(left[0][0], right[0][0]), min(left[0][1], right[0][1])
        if first <= last:
            found.append((first, last))
        (left if left[0][1] <= right[0][1] else right).pop(0)
    return found
