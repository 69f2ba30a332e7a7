"""A stream while the line to the broker is cut: what waits, how fast it goes then, and what new slices feel."""

import threading
import time
from dataclasses import dataclass

from sliceloop.chaos.mqtt_proxy import Line, MqttProxy
from sliceloop.fleet.edge import Pace
from sliceloop.fleet.report import latency_of
from sliceloop.fleet.run import Fleet, FleetPlan
from sliceloop.pipeline.result import Moment, Outage
from sliceloop.pipeline.stage import Stage

EDGES = 4
STREAM_SHARE = 0.25
"""Of full speed, so that there is room to catch up."""
CAUGHT_UP_S = 0.5
"""Of the stream's slices: when no more wait, the backlog is gone."""
SAMPLE_S = 0.5
POLL_S = 0.02
RECONNECT_S = 60.0
"""Longest wait for the first receipt after the line is mended."""
LIMIT_FACTOR = 3.0


class _Course:
    """Looks at a fleet until something is so, and keeps what it saw."""

    def __init__(self, fleet: Fleet, stop: threading.Event) -> None:
        self._fleet, self._stop = fleet, stop
        self.begun_s = time.monotonic()
        self.moments: list[Moment] = []

    def watch(self, seconds: float, until_waiting: float = -1.0) -> int:
        """Look until the seconds have passed, or no more than so many wait; return how many wait."""
        until_s = time.monotonic() + seconds
        while True:
            captured, waiting = self._fleet.counts()
            at_s = time.monotonic() - self.begun_s
            self.moments.append(Moment(at_s=at_s, waiting=waiting, receipted=captured - waiting))
            if self._stop.is_set() or time.monotonic() >= until_s or waiting <= until_waiting:
                return waiting
            self._stop.wait(min(SAMPLE_S, max(0.0, until_s - time.monotonic())))

    def wait_for_receipt(self, seconds: float) -> float:
        """Wait for the next receipt; return when it came."""
        until_s, before = time.monotonic() + seconds, self.moments[-1].receipted
        while time.monotonic() < until_s:
            captured, waiting = self._fleet.counts()
            if captured - waiting > before or self._stop.wait(POLL_S):
                break
        return time.monotonic()


@dataclass(frozen=True)
class Stream:
    """What goes over the line: the pipeline's full speed, how long it is cut, and how long it is calm around that."""

    full_per_s: float
    cut_s: float
    calm_s: float
    with_frames: bool


def measure_outage(stage: Stage, stream: Stream, stop: threading.Event) -> Outage:
    """Stream, cut the line, mend it, and wait until the backlog is gone and everything has its receipt."""
    rate, cut_s, calm_s = STREAM_SHARE * stream.full_per_s, stream.cut_s, stream.calm_s
    lasts_s = calm_s + cut_s * (1 + LIMIT_FACTOR) + calm_s
    pace = Pace(EDGES / rate, round(rate * lasts_s / EDGES), 0)
    with MqttProxy(stage.broker.port) as line:
        broker = stage.broker.model_copy(update={"port": line.port})
        fleet = Fleet(FleetPlan(EDGES, pace, stream.with_frames, lasts_s), broker, stage.folder / "fleet")
        halt = threading.Event()
        with fleet.running(halt):
            course = _Course(fleet, stop)
            course.watch(calm_s)
            cut_at_s = time.monotonic()
            line.set(Line.CUT)
            backlog = course.watch(cut_s)
            mended_at_s = time.monotonic()
            receipted_before = course.moments[-1].receipted
            line.set(Line.GOOD)
            back_at_s = course.wait_for_receipt(RECONNECT_S)
            course.watch(LIMIT_FACTOR * cut_s, until_waiting=CAUGHT_UP_S * rate)
            caught_up_at_s = time.monotonic()
            receipted = course.moments[-1].receipted - receipted_before
            course.watch(calm_s)
            for edge in fleet.edges:
                edge.enough()
            unreceipted = course.watch(calm_s, until_waiting=0)
            refused = fleet.report().refused
    seconds = caught_up_at_s - mended_at_s
    taken = _taken(fleet)
    return Outage(
        edges=EDGES,
        cut_s=mended_at_s - cut_at_s,
        stream_per_s=rate,
        backlog=backlog,
        back_after_s=back_at_s - mended_at_s,
        catch_up_s=seconds,
        catch_up_per_s=receipted / seconds,
        before=latency_of([lasted for begun, lasted in taken if begun + lasted < cut_at_s]),
        during_catch_up=latency_of([lasted for begun, lasted in taken if back_at_s <= begun < caught_up_at_s]),
        after=latency_of([lasted for begun, lasted in taken if begun >= caught_up_at_s]),
        refused=refused,
        unreceipted=unreceipted,
        course=tuple(course.moments),
    )


def _taken(fleet: Fleet) -> list[tuple[float, float]]:
    """Return of each receipted slice when it was captured, and how long it took."""
    times = [edge.outbox.latencies() for edge in fleet.edges]
    return [(ended - lasted, lasted) for each, ends in times for lasted, ended in zip(each, ends, strict=True)]
