"""The silent network beside the reading loop: it delays nobody, and whatever it does ends nothing."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from edge_parts import body, network, wait_until
from numpy.typing import NDArray
from probation_parts import Said

from edge_agent.probation import Beside, Paired, Role, SilentReader
from edge_agent.probation.beside import DEPTH
from edge_agent.probation.cost import reading_clock
from protocol.labels import Label
from training.model.preprocess import INPUT_PX
from training.model.reader import Calibration, OnnxReader, Reading

PIXELS = body(INPUT_PX, INPUT_PX)
LOOP_SAID = Said(Label.NORMAL)
COVID = Reading(Label.COVID_19, False, {Label.COVID_19: 1.0})


@dataclass
class Heard:
    """What the thread told."""

    pairs: list[Paired] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def beside(self, read: Callable[[NDArray[np.uint8]], Reading], **options: float) -> Beside:
        """Return a silent network that reads so."""
        return self.network(_Reader(read), **options)

    def network(self, reader: SilentReader, role: Role = Role.CANDIDATE, **options: float) -> Beside:
        """Return the silent network."""
        return Beside(reader, role, self.pairs.append, self.faults.append, **{"duty": 1.0, **options})


@dataclass(frozen=True)
class _Reader:
    read: Callable[[NDArray[np.uint8]], Reading]


def test_each_offered_slice_comes_back_as_a_pair() -> None:
    """A real network reads the very slice, and both answers and costs are handed on."""
    heard = Heard()
    with heard.network(OnnxReader(network((0, 0, 5)), Calibration())) as beside:
        assert beside.offer(PIXELS, LOOP_SAID, 7.0)
        wait_until(lambda: bool(heard.pairs), "the pair")
    (pair,) = heard.pairs
    assert (pair.incumbent, pair.incumbent_ms) == (LOOP_SAID, 7.0)
    assert pair.candidate.label is Label.COVID_19
    assert pair.candidate_ms > 0


def test_on_probation_the_silent_network_is_the_incumbent() -> None:
    """The role says whose answer is whose."""
    heard = Heard()
    with heard.network(_Reader(lambda _: COVID), Role.INCUMBENT) as beside:
        beside.offer(PIXELS, LOOP_SAID, 7.0)
        wait_until(lambda: bool(heard.pairs), "the pair")
    assert (heard.pairs[0].candidate, heard.pairs[0].candidate_ms) == (LOOP_SAID, 7.0)
    assert heard.pairs[0].incumbent == COVID


def test_a_slow_silent_network_delays_no_slice() -> None:
    """While it is stuck in one slice a few wait, further ones are not compared, and no offer takes time."""
    heard, inside, go_on = Heard(), threading.Event(), threading.Event()

    def stuck(pixels: NDArray[np.uint8]) -> Reading:
        inside.set()
        go_on.wait(20)
        return COVID

    with heard.beside(stuck) as beside:
        beside.offer(PIXELS, LOOP_SAID, 7.0)
        assert inside.wait(20)
        started_s = time.perf_counter()
        taken = [beside.offer(PIXELS, LOOP_SAID, 7.0) for _ in range(1000)]
        took_s = time.perf_counter() - started_s
        assert sum(taken) == DEPTH
        assert beside.skipped == 1000 - DEPTH
        assert took_s < 1
        go_on.set()
        wait_until(lambda: len(heard.pairs) == 1 + DEPTH, "those that waited")


def test_a_fault_is_told_and_the_next_slice_is_read() -> None:
    """NaN, and whatever else a network raises, is reported in words; nothing is raised."""
    heard = Heard()
    with heard.network(OnnxReader(network(fault="dark"), Calibration())) as beside:
        beside.offer(np.zeros_like(PIXELS), LOOP_SAID, 7.0)
        wait_until(lambda: bool(heard.faults), "the fault")
        beside.offer(PIXELS, LOOP_SAID, 7.0)
        wait_until(lambda: bool(heard.pairs), "the pair")
    assert heard.faults[0].startswith("NotFiniteError: the logits are")


def test_a_hanging_network_is_left_behind() -> None:
    """Leaving returns within the limit, the thread keeps no process, and nobody hears of it when it wakes."""
    heard, inside, go_on, woke = Heard(), threading.Event(), threading.Event(), threading.Event()

    def hang(pixels: NDArray[np.uint8]) -> Reading:
        inside.set()
        go_on.wait(20)
        woke.set()
        return COVID

    with heard.beside(hang, join_timeout_s=0.05) as beside:
        beside.offer(PIXELS, LOOP_SAID, 7.0)
        assert inside.wait(20)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 5
    (thread,) = [each for each in threading.enumerate() if each.name == "silent-candidate"]
    assert thread.daemon
    go_on.set()
    thread.join(20)
    assert woke.is_set()
    assert (heard.pairs, heard.faults) == ([], [])
    assert not beside.offer(PIXELS, LOOP_SAID, 7.0)


def test_a_reading_that_hangs_is_reported_once() -> None:
    """Whoever steps the update learns that the silent network does not answer."""
    heard, inside, go_on = Heard(), threading.Event(), threading.Event()

    def hang(pixels: NDArray[np.uint8]) -> Reading:
        inside.set()
        go_on.wait(20)
        return COVID

    with heard.beside(hang, overdue_s=30) as beside:
        beside.offer(PIXELS, LOOP_SAID, 7.0)
        assert inside.wait(20)
        now_s = time.monotonic()
        beside.step(now_s)
        assert heard.faults == []
        beside.step(now_s + 31)
        beside.step(now_s + 32)
        assert heard.faults == ["no answer to a slice within 30 s"]
        go_on.set()


def test_the_silent_network_rests_between_two_slices() -> None:
    """With a duty of a tenth, slices that take 20 ms each are 200 ms apart."""
    heard, times = Heard(), []

    def twenty_ms(pixels: NDArray[np.uint8]) -> Reading:
        times.append(time.monotonic())
        threading.Event().wait(0.02)
        return COVID

    with heard.beside(twenty_ms, duty=0.1) as beside:
        for _ in range(3):
            beside.offer(PIXELS, LOOP_SAID, 7.0)
        wait_until(lambda: len(times) == 3, "three readings")
    assert times[2] - times[0] >= 0.36


def test_whoever_hears_may_fail() -> None:
    """An error in the callback ends no thread."""
    pairs: list[Paired] = []

    def hear(pair: Paired) -> None:
        pairs.append(pair)
        raise RuntimeError("disk full")

    with Beside(_Reader(lambda _: COVID), Role.CANDIDATE, hear, lambda _: None, duty=1.0) as beside:
        beside.offer(PIXELS, LOOP_SAID, 7.0)
        beside.offer(PIXELS, LOOP_SAID, 7.0)
        wait_until(lambda: len(pairs) == 2, "both")


def test_costs_are_processor_time_on_a_processor_and_wall_clock_time_elsewhere() -> None:
    """On an accelerator the thread only waits, so its processor time would say nothing."""
    assert reading_clock(["CPUExecutionProvider"]) is time.thread_time
    assert reading_clock(["CUDAExecutionProvider", "CPUExecutionProvider"]) is time.perf_counter
