"""What counts as lost, doubled or spoiled."""

from dataclasses import replace

import pytest

from sliceloop.chaos.baseline import lost_and_doubled
from sliceloop.chaos.verdict import Facts, SliceFact, judge

FIRST = SliceFact("edge-1", 1, "f1", "i1", "i1", (("f1", "f1"),))
SECOND = SliceFact("edge-1", 2, "f2", "i2", "i2", (("f2", "f2"),))
GOOD = Facts({"edge-1": ["f1", "f2"]}, [FIRST, SECOND], {"edge-1": 0}, {"edge-1": 0})


def test_everything_given_and_stored_once_is_clean() -> None:
    """Nothing is wrong with two files that have their rows, objects and frames."""
    verdict = judge(GOOD)
    assert verdict.clean
    assert (verdict.given, verdict.stored) == (2, 2)


def test_a_file_without_a_row_is_lost() -> None:
    """It is named, and its number is missing too."""
    verdict = judge(replace(GOOD, slices=[FIRST]))
    assert verdict.lost == ("f2",)
    assert "missing [2]" in verdict.gaps[0]


def test_a_file_with_two_rows_is_doubled() -> None:
    """Another number does not make it another file."""
    assert judge(replace(GOOD, slices=[FIRST, SECOND, replace(SECOND, sequence=3)])).doubled == ("f2",)


def test_a_row_that_nobody_gave_is_foreign() -> None:
    """Something else was taken for a slice."""
    stranger = SliceFact("edge-1", 3, "f9", "i9", "i9", (("f9", "f9"),))
    assert judge(replace(GOOD, slices=[FIRST, SECOND, stranger])).foreign == ("f9",)


@pytest.mark.parametrize(
    "spoiled",
    [
        replace(SECOND, object_sha256="other"),
        replace(SECOND, object_sha256=""),
        replace(SECOND, frames=()),
        replace(SECOND, frames=(("f2", "other"),)),
        replace(SECOND, frames=(("f2", "f2"), ("f2", "f2"))),
    ],
)
def test_objects_and_frames_must_be_what_the_ledger_says(spoiled: SliceFact) -> None:
    """Another hash, no object, no frame and two frames are mismatches."""
    verdict = judge(replace(GOOD, slices=[FIRST, spoiled]))
    assert verdict.mismatches
    assert not verdict.clean


@pytest.mark.parametrize(
    "facts",
    [
        replace(GOOD, waiting={"edge-1": 1}),
        replace(GOOD, refused={"edge-1": 1}),
        replace(GOOD, dead_letters=["why"]),
        replace(GOOD, ended=["worker-1"]),
    ],
)
def test_what_is_left_over_is_not_clean(facts: Facts) -> None:
    """A message in an outbox, a refused file, a dead letter and a process that ended are findings."""
    assert not judge(facts).clean


def test_the_bare_publishers_messages_are_counted_alike() -> None:
    """Of three, one never came and one came twice."""
    assert lost_and_doubled({"e": 3}, ["baseline/e/0", "baseline/e/2", "baseline/e/2"]) == (1, 1)
