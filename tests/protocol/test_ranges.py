"""Ranges of numbers are sets of numbers: every operation is compared with Python's own sets."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from protocol.ranges import Range, at_most, common, merged, outside, ranges_of, size, within, without

numbers = st.frozensets(st.integers(1, 60))


def of(members: frozenset[int]) -> list[Range]:
    return list(ranges_of(sorted(members)))


def members(ranges: list[Range] | tuple[Range, ...]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def is_tidy(ranges: list[Range] | tuple[Range, ...]) -> bool:
    apart = all(before[1] + 1 < after[0] for before, after in pairwise(ranges))
    return apart and all(first <= last for first, last in ranges)


@given(numbers)
def test_ranges_hold_the_numbers_that_they_were_made_of(some: frozenset[int]) -> None:
    """Numbers become as few ranges as hold exactly them."""
    assert members(of(some)) == some
    assert is_tidy(of(some))
    assert size(of(some)) == len(some)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=10))
def test_any_ranges_become_tidy_ones(ranges: list[Range]) -> None:
    """Ranges in any order, that overlap or end before they begin, become those that hold the same numbers."""
    assert members(merged(ranges)) == members(ranges)
    assert is_tidy(merged(ranges))


@given(numbers, numbers)
def test_without_is_the_difference(some: frozenset[int], taken: frozenset[int]) -> None:
    """What is left are the numbers of the first that are not among the second."""
    assert members(without(of(some), of(taken))) == some - taken


@given(numbers, st.integers(1, 60), st.integers(1, 60))
def test_within_is_the_part_in_the_window(some: frozenset[int], first: int, last: int) -> None:
    """What lies in a window are the numbers from its first to its last."""
    assert members(within(of(some), (first, last))) == {number for number in some if first <= number <= last}


@given(numbers, st.integers(1, 5))
def test_a_limit_over_states_and_never_leaves_out(some: frozenset[int], limit: int) -> None:
    """Cut to a number of ranges, they hold all the numbers still; what is added lies behind the last whole range."""
    few = at_most(of(some), limit)
    assert len(few) <= limit
    assert members(few) >= some
    assert few[: limit - 1] == tuple(of(some)[: limit - 1])


@given(numbers, numbers, st.integers(1, 60), st.integers(1, 60))
def test_what_lies_outside_and_what_is_common(
    some: frozenset[int], others: frozenset[int], first: int, last: int
) -> None:
    """Outside are the numbers of the whole range that are in none; common those that are in both."""
    assert members(outside(reversed(of(some)), (first, last))) == set(range(first, last + 1)) - some
    assert members(common(of(some), of(others))) == some & others
