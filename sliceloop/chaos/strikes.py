"""Do to the loop what the schedule says: begin each fault at its moment, and mend it when its time is over."""

import contextlib
import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sliceloop.chaos import clock, mosquitto, postgresql
from sliceloop.chaos.ground import BROKER, POSTGRESQL, Ground
from sliceloop.chaos.mqtt_proxy import Line
from sliceloop.chaos.s3_proxy import Mood
from sliceloop.chaos.schedule import Fault, Kind
from sliceloop.demo.stage import EDGES

MEETING_S = 15.0
"""So long does a fault that needs a request, or a session, wait for one to strike."""

LINES = {
    Kind.MQTT_CUT: Line.CUT,
    Kind.MQTT_DELAY: Line.DELAYED,
    Kind.MQTT_NARROW: Line.NARROW,
    Kind.MQTT_BLACK_HOLE: Line.BLACK_HOLE,
}
MOODS = {
    Kind.S3_SLOW: Mood.SLOW,
    Kind.S3_500: Mood.ERROR_500,
    Kind.S3_503: Mood.ERROR_503,
    Kind.S3_CUT_REQUEST: Mood.CUT_REQUEST,
    Kind.S3_CUT_ANSWER: Mood.CUT_ANSWER,
}
CLOCKS = {Kind.CLOCK_FORWARD: clock.HOUR_S, Kind.CLOCK_BACK: -clock.HOUR_S}


class NotAppliedError(RuntimeError):
    """A fault found nothing to strike; the message says why."""


@dataclass(frozen=True)
class Struck:
    """A fault at work: how it is mended, and whether it has met anything yet."""

    mend: Callable[[], None]
    met: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class Active:
    """A fault at work and its end."""

    fault: Fault
    struck: Struck
    until_s: float


class Strikes:
    """Every fault of a schedule, one at a time for each target; `step` begins and mends what is due."""

    def __init__(self, ground: Ground, schedule: Sequence[Fault], seed: int) -> None:
        """Remember whom to strike and when."""
        self._ground, self._waiting = ground, list(schedule)
        self._rng = random.Random(seed)  # noqa: S311  which messages come again, not a secret
        self._active: list[Active] = []
        self.applied: list[Fault] = []
        self.not_applied: list[tuple[Fault, str]] = []

    @property
    def finished(self) -> bool:
        """Tell whether every fault has come and gone."""
        return not self._waiting and not self._active

    @property
    def active(self) -> list[Fault]:
        """Return the faults at work."""
        return [each.fault for each in self._active]

    @property
    def down(self) -> set[str]:
        """Return the processes that do not run because of a fault."""
        names = {each.fault.target for each in self._active}
        return names | {self._ground.publisher(name) for name in names if name in EDGES}

    def step(self, given: int, now_s: float) -> None:
        """Mend what has lasted long enough, then begin what is due and whose target is free."""
        for each in list(self._active):
            if now_s >= each.until_s and (each.struck.met() or now_s >= each.until_s + MEETING_S):
                self._mend(each)
        for fault in list(self._waiting):
            if fault.at_slice > given:
                break
            if fault.target not in {each.fault.target for each in self._active}:
                self._waiting.remove(fault)
                self._begin(fault, now_s)

    def mend_all(self) -> None:
        """Mend everything now, met or not; what waits is not applied."""
        for each in list(self._active):
            self._mend(each)
        self.not_applied += [(fault, "the run ended before it") for fault in self._waiting]
        self._waiting.clear()

    def _begin(self, fault: Fault, now_s: float) -> None:
        try:
            struck = self._strike(fault)
        except (NotAppliedError, OSError) as error:
            self.not_applied.append((fault, str(error)))
        else:
            self._active.append(Active(fault, struck, now_s + fault.seconds))

    def _mend(self, active: Active) -> None:
        met = active.struck.met()
        self._active.remove(active)
        active.struck.mend()
        if met:
            self.applied.append(active.fault)
        else:
            self.not_applied.append((active.fault, f"it met nobody within {MEETING_S:g} s"))

    def _strike(self, fault: Fault) -> Struck:
        match fault.kind:
            case Kind.KILL:
                return self._kill(fault.target)
            case Kind.STOP:
                return self._stop(fault.target)
            case Kind.BROKER_RESTART:
                self._ground.processes.stop(BROKER)
                return Struck(lambda: self._ground.processes.restart(BROKER))
            case Kind.BROKER_WIPE:
                self._ground.processes.kill(BROKER)
                mosquitto.forget(self._ground.broker_data)
                return Struck(lambda: self._ground.processes.restart(BROKER))
            case Kind.MQTT_TAKEOVER:
                return self._take_over(fault.target)
            case Kind.DISK_FULL:
                return self._fill(fault.target)
            case Kind.AGAIN:
                return self._again()
        if fault.kind in LINES:
            line = self._ground.lines[fault.target]
            line.set(LINES[fault.kind])
            return Struck(lambda: line.set(Line.GOOD))
        if fault.kind in MOODS:
            self._ground.s3.set(MOODS[fault.kind])
            return Struck(lambda: self._ground.s3.set(Mood.GOOD), lambda: self._ground.s3.hits > 0)
        file = self._ground.clock_file(fault.target)
        clock.set_clock(file, CLOCKS[fault.kind])
        return Struck(lambda: clock.set_clock(file, 0))

    def _kill(self, target: str) -> Struck:
        processes = self._ground.processes
        if target == POSTGRESQL:
            return self._kill_backend()
        names = self._with_publisher(target)
        for name in names:
            processes.kill(name)

        def start_again() -> None:
            for name in names:
                processes.restart(name)

        return Struck(start_again)

    def _kill_backend(self) -> Struck:
        """Kill one backend: the server ends all others, recovers, and goes on by itself."""
        found = postgresql.backends(self._ground.processes.pid(POSTGRESQL))
        if not found:
            raise NotAppliedError("no backend serves a client")
        os.kill(self._rng.choice(found), signal.SIGKILL)
        return Struck(lambda: None)

    def _stop(self, target: str) -> Struck:
        processes, names = self._ground.processes, self._with_publisher(target)
        for name in names:
            processes.signal(name, signal.SIGSTOP)

        def go_on() -> None:
            for name in names:
                processes.signal(name, signal.SIGCONT)

        return Struck(go_on)

    def _with_publisher(self, target: str) -> list[str]:
        """Return the target's processes: the bare publisher shares the fate of the edge beside it."""
        return [target, *([self._ground.publisher(target)] if target in EDGES else [])]

    def _take_over(self, target: str) -> Struck:
        """Take over who is connected, or whoever is next."""
        line, taken = self._ground.lines[target], 0

        def met() -> bool:
            nonlocal taken
            with contextlib.suppress(OSError):  # the broker is down as well
                taken = taken or line.take_over()
            return taken > 0

        met()
        return Struck(line.give_back, met)

    def _fill(self, target: str) -> Struck:
        disk, pid = self._ground.disks[target], self._ground.processes.pid(target)
        disk.fill(pid)
        return Struck(lambda: disk.empty(pid))

    def _again(self) -> Struck:
        if not self._ground.echo.say_again(self._rng):
            raise NotAppliedError("nothing was heard yet")
        return Struck(lambda: None)
