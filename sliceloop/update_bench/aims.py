"""What updates have to reach, and what was measured beside it."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from sliceloop.update_bench.behaviour_report import WITHIN, ground_of, name_of
from sliceloop.update_bench.behaviour_result import SIGNED, BehaviourResult, Course
from sliceloop.update_bench.bytes_moved import CHUNKS, DELTA, FLOAT16, FLOAT32, UpdateBytes
from sliceloop.update_bench.cut_line import CutLineResult
from sliceloop.update_bench.fifty import FiftyResult
from sliceloop.update_bench.fine_tunings import FineTunings
from sliceloop.update_bench.swaps import SwapsResult
from sliceloop.update_bench.update_pairs import HEAD, SGD

MAX_HEAD_SHARE = 0.002
"""Of the float32 file: what a new head may move."""
MAX_SGD_SHARE = 0.25
"""Of the float16 file: what a fine-tuning with SGD may move."""
MAX_REPEATED = 0.05
"""Of the bytes needed, over a line that is cut every 5 s."""
MAX_GAP = 1.5
"""Median intervals between the last reading of one version and the first of the next."""
MAX_GROWTH = 0.05
"""Of the edge's memory over all swaps."""
MAX_INBOUND = 1.3
"""Artefacts into the broker, however many edges fetch it."""
MIN_CAUGHT, MAX_WRONGED = 0.99, 0.01
"""Of the runs with a bad candidate, found in time; of those with a good one, rolled back."""


class Aim(BaseModel):
    """One figure, what it was to be, and whether it is."""

    model_config = ConfigDict(frozen=True)
    what: str
    aim: str
    measured: str
    met: bool


def of_bytes(result: UpdateBytes) -> list[Aim]:
    """Judge a new head by chunks in the float32 layout, and SGD's fine-tuning by delta in float16."""
    head = result.find(HEAD, FLOAT32, CHUNKS).share_of_float32
    sgd = result.find(SGD, FLOAT16, DELTA).share_of_float16
    return [
        _at_most("head-only update, of the full artefact", head, MAX_HEAD_SHARE, ".2%"),
        _at_most("fine-tuning with SGD by delta, of float16", sgd, MAX_SGD_SHARE, ".1%"),
    ]


def of_fine_tunings(result: FineTunings) -> list[Aim]:
    """Judge the largest delta of a fine-tuning with SGD."""
    largest = result.largest_of_sgd
    what = (
        f"largest of {len(result.rows) - 1} deltas of SGD on {result.data} ({largest.steps} steps at {largest.rate:g})"
    )
    return [_at_most(f"{what}, of float16", largest.share, MAX_SGD_SHARE, ".1%")]


def of_line(result: CutLineResult) -> list[Aim]:
    """Judge what came more than once, and, harder, all that was sent more than once."""
    often = f"line cut every {result.every_s:g} s, {result.cuts} times"
    return [
        _at_most(f"{often}: repeated over the line", result.repeated, MAX_REPEATED, ".2%"),
        _at_most(f"{often}: sent again by the worker", result.sent_again, MAX_REPEATED, ".2%"),
    ]


def of_gap(result: SwapsResult, architecture: str) -> list[Aim]:
    """Judge the longest gap at a swap."""
    what = f"longest of {result.swaps} swap gaps, {architecture}, in median intervals"
    return [_at_most(what, result.worst_swap_gap, MAX_GAP, ".2f")]


def of_swaps(result: SwapsResult, architecture: str) -> list[Aim]:
    """Judge memory and readings of many swaps."""
    bad = result.missing + result.doubled + result.wrong
    swaps = f"{result.swaps} swaps of {architecture}"
    return [
        Aim(
            what=f"{swaps}: growth of memory",
            aim=f"< {MAX_GROWTH:.0%}",
            measured=f"{result.memory_growth:+.2%}",
            met=result.memory_growth < MAX_GROWTH,
        ),
        Aim(
            what=f"{swaps}, {result.readings:,} readings: lost, doubled or wrong",
            aim="0",
            measured=f"{result.missing}, {result.doubled}, {result.wrong}",
            met=not bad,
        ),
        *of_gap(result, architecture),
    ]


def of_fleet(result: FiftyResult) -> list[Aim]:
    """Judge what goes into the broker."""
    return [_at_most(f"{result.edges} edges: artefacts into the broker", result.inbound, MAX_INBOUND, ".3f")]


def of_behaviour(result: BehaviourResult) -> list[Aim]:
    """Judge, on every ground, the bad kind that is found least often and the good one that is wronged most."""
    grounds: dict[tuple[str, bool, str], list[Course]] = {}
    for course in result.courses:
        if course.good and course.worse_here:
            continue
        grounds.setdefault((course.held_to, course.kept, course.mix), []).append(course)
    return [_good(courses) if held_to == SIGNED else _bad(courses) for (held_to, *_), courses in grounds.items()]


def _bad(courses: Sequence[Course]) -> Aim:
    worst = min(courses, key=lambda course: course.share(WITHIN).value)
    share = worst.share(WITHIN)
    return Aim(
        what=f"worst bad candidate, {ground_of(worst)}: back within {WITHIN} slices",
        aim=f">= {MIN_CAUGHT:.0%}",
        measured=f"{share.hits} of {share.of}: {name_of(worst)}",
        met=share.value >= MIN_CAUGHT,
    )


def _good(courses: Sequence[Course]) -> Aim:
    worst = max(courses, key=lambda course: course.share(course.slices).value)
    share = worst.share(worst.slices)
    return Aim(
        what=f"worst good candidate, {ground_of(worst)}: rolled back ever",
        aim=f"<= {MAX_WRONGED:.0%}",
        measured=f"{share.hits} of {share.of}: {name_of(worst)}",
        met=share.value <= MAX_WRONGED,
    )


def _at_most(what: str, value: float, limit: float, form: str) -> Aim:
    return Aim(what=what, aim=f"<= {limit:{form}}", measured=f"{value:{form}}", met=value <= limit)
