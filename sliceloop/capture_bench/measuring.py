"""The loop: show a part of the cases, take what the camera source gives, look at it, keep it, and go on."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2

from sliceloop.capture_bench.cases import Case
from sliceloop.capture_bench.feed import Arrived, Feed
from sliceloop.capture_bench.kept import KeptFrames
from sliceloop.capture_bench.look import FrameResult, look_at, refused_look
from sliceloop.capture_bench.path import Paths
from sliceloop.capture_bench.render import Shown, render
from sliceloop.capture_bench.slices import BenchSlices, BenchStoppedError, Networks

PART_FRAMES = 16
"""Frames in memory at once: 44 MB of 1280x720."""


@dataclass(frozen=True)
class Bench:
    """What stays the same for all frames; the stages are switched off one at a time at the severity `ablated`."""

    slices: BenchSlices
    networks: Networks
    paths: Paths
    ablated: float


def measure(
    todo: Sequence[Case],
    bench: Bench,
    feed: Feed,
    kept: KeptFrames,
    stop: threading.Event,
    on_frame: Callable[[int, int], None],
) -> list[FrameResult]:
    """Return the results of the cases in their order, those that are kept already among them.

    Raises `BenchStoppedError` when the stop event is set; `on_frame` hears how many of how many are done.
    """
    done = kept.read()
    missing = [case for case in todo if case not in done]
    for start in range(0, len(missing), PART_FRAMES):
        on_frame(len(todo) - len(missing) + start, len(todo))
        part = missing[start : start + PART_FRAMES]
        shown = [_render(case, bench.slices, stop) for case in part]
        results = [
            _look(case, one, arrived, bench, stop)
            for case, one, arrived in zip(part, shown, feed.take([one.frame for one in shown]), strict=True)
        ]
        kept.add(results)
        done |= {result.case: result for result in results}
    on_frame(len(todo), len(todo))
    return [done[case] for case in todo]


@contextmanager
def one_core() -> Iterator[None]:
    """Let OpenCV use one thread, as times are told for one core."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _render(case: Case, slices: BenchSlices, stop: threading.Event) -> Shown:
    _check(stop)
    return render(case, None if case.scene is not None else slices.picture(case.at))


def _look(case: Case, shown: Shown, arrived: Arrived, bench: Bench, stop: threading.Event) -> FrameResult:
    _check(stop)
    if arrived.jpeg is None:
        return refused_look(case, shown.page, shown.quad, arrived.refusal)
    is_ablated = case.kind == "slice" and case.severity == bench.ablated
    paths = bench.paths if is_ablated else Paths(bench.paths.whole, {})
    return look_at(case, shown.page, shown.quad, arrived.jpeg, paths, bench.networks)


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise BenchStoppedError("stopped: what was measured is kept, and the same command goes on")
