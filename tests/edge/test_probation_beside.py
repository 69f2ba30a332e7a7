"""The silent network beside the reading loop: it delays nobody, and whatever it does ends nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from edge_parts import body, large, network, wait_until
from numpy.typing import NDArray
from probation_parts import Said

from edge_agent.probation import Beside, KeptReading, KeptSlice, Paired, Role, SilentReader
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
    kept: list[tuple[str, Paired]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def reading(self, slices: Iterator[KeptSlice], incumbent: SilentReader) -> KeptReading:
        """Return kept slices with their second reader."""
        return KeptReading(slices, incumbent, lambda name, pair: self.kept.append((name, pair)))

    def beside(self, read: Callable[[NDArray[np.uint8]], Reading], **options: float) -> Beside:
        """Return a silent network that reads so."""
        return self.network(_Reader(read), **options)

    def network(
        self,
        reader: SilentReader,
        role: Role = Role.CANDIDATE,
        kept: KeptReading | None = None,
        **options: float,
    ) -> Beside:
        """Return the silent network."""
        return Beside(reader, role, self.pairs.append, self.faults.append, kept, **{"duty": 1.0, **options})


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


# Kept slices.


def kept_slices(count: int) -> Iterator[KeptSlice]:
    """Yield slices that differ in one pixel each."""
    for number in range(count):
        pixels = PIXELS.copy()
        pixels[0, 0] = number
        yield f"kept-{number}", pixels


def saying(label: Label) -> _Reader:
    return _Reader(lambda _: Reading(label, False, {label: 1.0}))


def test_both_networks_read_each_kept_slice() -> None:
    """Real ones, no live slice needed; each comes once, with both answers, and then it is done."""
    heard = Heard()
    kept = heard.reading(kept_slices(3), OnnxReader(network((5, 0, 0)), Calibration()))
    with heard.network(OnnxReader(network((0, 0, 5)), Calibration()), kept=kept):
        wait_until(lambda: kept.done, "the last one")
    assert [name for name, _ in heard.kept] == ["kept-0", "kept-1", "kept-2"]
    assert {(pair.incumbent.label, pair.candidate.label) for _, pair in heard.kept} == {(Label.NORMAL, Label.COVID_19)}
    assert heard.pairs == []


def test_live_slices_and_kept_ones_take_turns() -> None:
    """What came while a kept slice was read goes first, then one of them: a loop that never rests keeps none off."""
    heard, inside, go_on = Heard(), threading.Event(), threading.Event()
    order: list[int] = []

    def read(pixels: NDArray[np.uint8]) -> Reading:
        order.append(int(pixels[0, 0]))
        inside.set()
        assert go_on.wait(20)
        return COVID

    kept = heard.reading(kept_slices(3), saying(Label.NORMAL))
    with heard.network(_Reader(read), kept=kept) as beside:
        assert inside.wait(20)
        live = np.full_like(PIXELS, 200)
        beside.offer(live, LOOP_SAID, 7.0)
        beside.offer(live, LOOP_SAID, 7.0)
        go_on.set()
        wait_until(lambda: kept.done, "the last one")
    assert order == [0, 200, 1, 200, 2]
    assert len(heard.pairs) == 2


@pytest.mark.parametrize("stuck", ["disk", "incumbent", "candidate"])
def test_the_loop_never_waits_on_kept_slices(stuck: str) -> None:
    """Whatever they hang in, a slice is offered at once: the loop's thread and that which reads them share no lock."""
    heard, inside, go_on = Heard(), threading.Event(), threading.Event()

    def hang_in(part: str) -> None:
        if part == stuck:
            inside.set()
            assert go_on.wait(20)

    def slices() -> Iterator[KeptSlice]:
        hang_in("disk")
        yield from kept_slices(1)

    def read_by(part: str) -> _Reader:
        def read(pixels: NDArray[np.uint8]) -> Reading:
            hang_in(part)
            return COVID

        return _Reader(read)

    kept = heard.reading(slices(), read_by("incumbent"))
    with heard.network(read_by("candidate"), kept=kept) as beside:
        assert inside.wait(20)
        assert [beside.offer(PIXELS, LOOP_SAID, 7.0) for _ in range(DEPTH + 1)] == [True] * DEPTH + [False]
        go_on.set()
        wait_until(lambda: len(heard.pairs) == DEPTH and kept.done, "what waited")
    assert len(heard.kept) == 1


def test_a_kept_slice_on_which_the_candidate_fails_is_a_fault_and_one_of_the_incumbent_is_none() -> None:
    """The incumbent's failure says nothing of the candidate: the slice is passed over."""
    heard = Heard()
    dark = np.zeros_like(PIXELS)
    kept = heard.reading(iter([("a", dark), ("b", PIXELS)]), OnnxReader(network(fault="dark"), Calibration()))
    with heard.network(OnnxReader(network(), Calibration()), kept=kept):
        wait_until(lambda: kept.done, "the last one")
    assert (heard.faults, [name for name, _ in heard.kept]) == ([], ["b"])
    kept = heard.reading(iter([("c", dark)]), OnnxReader(network(), Calibration()))
    with heard.network(OnnxReader(network(fault="dark"), Calibration()), kept=kept):
        wait_until(lambda: kept.done, "the last one")
    assert heard.faults[0].startswith("NotFiniteError: the logits are")


def test_a_candidate_that_hangs_on_a_kept_slice_is_reported() -> None:
    """As on a live one."""
    heard, inside, go_on = Heard(), threading.Event(), threading.Event()

    def hang(pixels: NDArray[np.uint8]) -> Reading:
        inside.set()
        go_on.wait(20)
        return COVID

    kept = heard.reading(kept_slices(1), saying(Label.NORMAL))
    with heard.network(_Reader(hang), kept=kept, overdue_s=30) as beside:
        assert inside.wait(20)
        beside.step(time.monotonic() + 31)
        assert heard.faults == ["no answer to a slice within 30 s"]
        go_on.set()


def test_kept_slices_that_cannot_be_read_on_are_done() -> None:
    """Whatever is raised where they come from, the live ones are compared."""
    heard = Heard()

    def broken() -> Iterator[KeptSlice]:
        yield from kept_slices(1)
        raise MemoryError

    kept = heard.reading(broken(), saying(Label.NORMAL))
    with heard.network(saying(Label.NORMAL), kept=kept) as beside:
        wait_until(lambda: kept.done, "the end")
        beside.offer(PIXELS, LOOP_SAID, 7.0)
        wait_until(lambda: bool(heard.pairs), "the live pair")
    assert len(heard.kept) == 1


def test_two_threads_may_read_with_one_network_at_once() -> None:
    """The incumbent reads kept slices in one thread while it reads live ones in another: both get their own answers."""
    reader = OnnxReader(large(seed=1), Calibration())
    slices = [body(INPUT_PX, INPUT_PX, seed) for seed in range(4)]
    alone = [reader.read(each).probabilities for each in slices]

    def all_of_them(_: int) -> list[dict[Label, float]]:
        return [reader.read(each).probabilities for _ in range(50) for each in slices]

    with ThreadPoolExecutor(4) as threads:
        for read in threads.map(all_of_them, range(4)):
            assert read == alone * 50
