"""`sliceloop chaos`: stream slices through the real loop while a seeded schedule of faults strikes it, then judge."""

import json
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloud_worker.ledger import LedgerUnavailableError
from sliceloop.chaos.baseline import lost_and_doubled
from sliceloop.chaos.facts import collect, stored_frames, waiting
from sliceloop.chaos.feed import Stream
from sliceloop.chaos.ground import Ground, LedgerKind
from sliceloop.chaos.materials import make_materials
from sliceloop.chaos.result import ChaosResult, summary
from sliceloop.chaos.schedule import Fault, draw
from sliceloop.chaos.screen import ChaosScreen
from sliceloop.chaos.strikes import Strikes
from sliceloop.chaos.verdict import judge
from sliceloop.demo.processes import exit_on_signals
from sliceloop.demo.stage import EDGES

INTERVAL_S = 0.25
"""Between two slices on an edge."""
TICK_S = 0.02
LOOK_EVERY_S = 0.5
DRAIN_TIMEOUT_S = 180.0
BASELINE_GRACE_S = 5.0
"""What the bare publisher has more than the drain to bring its last messages over."""


@dataclass(frozen=True)
class Order:
    """What a person asks for."""

    seed: int
    slices: int
    faults: int
    ledger: LedgerKind
    folder: Path

    @property
    def run_folder(self) -> Path:
        """Return where this run keeps everything."""
        return self.folder / f"seed-{self.seed}"

    @property
    def command(self) -> str:
        """Return the command that repeats it."""
        options = ["--seed", self.seed, "--slices", self.slices, "--faults", self.faults, "--ledger", self.ledger]
        return shlex.join(["sliceloop", "chaos", *map(str, options), "--folder", str(self.folder)])


@dataclass
class Watch:
    """What is seen of the loop from outside, now and then."""

    stored: set[str] = field(default_factory=set)
    waiting: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    next_look_s: float = 0.0
    last_new_s: float = 0.0
    longest_s: float = 0.0


def run_chaos(order: Order, json_file: Path | None) -> int:
    """Run it, print what came of it, and return the exit code."""
    exit_on_signals()
    materials = make_materials(order.folder / "materials")
    stream = Stream(order.run_folder, [materials.of_edge(e) for e in EDGES], order.slices, order.seed)
    with Ground(order.run_folder, materials, order.ledger, order.slices) as ground:
        stream.name_patients()
        kinds, missing = ground.available()
        schedule = draw(order.seed, order.slices, order.faults, kinds)
        with ChaosScreen(f"chaos, seed {order.seed}", order.slices, order.faults) as screen:
            for each in missing:
                screen.say(f"not available: {', '.join(each.kinds)} ({each.why})")
            ground.start()
            ground.wait("the first slices are stored", lambda: first_are_stored(ground, stream))
            result = Chaos(order, ground, stream, schedule, screen).run()
    screen.console.print(summary(result))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(result.json(), indent=1) + "\n")
    return 0 if result.clean else 1


class Chaos:
    """The stream and the strikes of one run, in one loop: time and progress are looked at here alone."""

    def __init__(
        self, order: Order, ground: Ground, stream: Stream, schedule: list[Fault], screen: ChaosScreen
    ) -> None:
        """Remember the parts."""
        self._order, self._ground, self._stream, self._screen = order, ground, stream, screen
        self._schedule, self._strikes = schedule, Strikes(ground, schedule, order.seed)
        self._watch = Watch()

    def run(self) -> ChaosResult:
        """Stream and strike, mend and drain, collect and judge."""
        started_s = self._watch.last_new_s = time.monotonic()
        for now_s in _ticks():
            self._stream.step(now_s, INTERVAL_S)
            self._strikes.step(self._stream.given, now_s)
            self._look(now_s)
            if self._stream.finished and self._strikes.finished:
                break
        mended_s = time.monotonic()
        self._strikes.mend_all()
        for now_s in _ticks():
            self._look(now_s)
            if self._is_drained() or now_s > mended_s + DRAIN_TIMEOUT_S:
                break
        drained_s = time.monotonic()
        return self._judge(mended_s - started_s, drained_s - mended_s)

    def _look(self, now_s: float) -> None:
        self._start_what_ended()
        watch = self._watch
        if now_s >= watch.next_look_s:
            watch.next_look_s = now_s + LOOK_EVERY_S
            self._look_at_ledger(now_s)
            if self._strikes.finished and self._stream.finished:
                watch.waiting = waiting(self._ground)
        active = ", ".join(f"{fault.kind} ({fault.target})" for fault in self._strikes.active)
        self._screen.show(self._stream.given, len(watch.stored), len(self._strikes.applied), active or "all is well")

    def _look_at_ledger(self, now_s: float) -> None:
        watch = self._watch
        try:
            stored = stored_frames(self._ground)
        except LedgerUnavailableError:
            return  # it is one of those that are struck
        if len(stored) > len(watch.stored) or len(watch.stored) == self._stream.given:
            watch.longest_s = max(watch.longest_s, now_s - watch.last_new_s)
            watch.last_new_s = now_s
        watch.stored = stored

    def _start_what_ended(self) -> None:
        """A process that ends by itself is a finding; the run goes on with it started again."""
        for managed in self._ground.processes.ended():
            if managed.name not in self._strikes.down:
                code = managed.process.returncode if managed.process else None
                if not managed.name.startswith("baseline"):  # what ends there is the bare publisher's own loss
                    self._watch.ended.append(f"{managed.name}, exit code {code}: {managed.last_words()}")
                self._ground.processes.restart(managed.name)

    def _is_drained(self) -> bool:
        given = {sha256 for feed in self._stream.feeds for sha256 in feed.given}
        depths = self._watch.waiting
        return self._watch.stored >= given and bool(depths) and not any(depths.values())

    def _judge(self, stream_s: float, drain_s: float) -> ChaosResult:
        threading.Event().wait(BASELINE_GRACE_S)
        ground, given = self._ground, {feed.edge: feed.given for feed in self._stream.feeds}
        facts = collect(ground, given, self._watch.ended)
        counts = {edge: len(files) for edge, files in given.items()}
        lost, doubled = lost_and_doubled(counts, ground.baseline_file.read_text().split())
        _, missing = ground.available()
        return ChaosResult(
            seed=self._order.seed,
            ledger=self._order.ledger,
            broker="mosquitto" if ground.mosquitto else "embedded",
            disk=next(iter(ground.disks.values())).words,
            command=self._order.command,
            verdict=judge(facts),
            schedule=tuple(self._schedule),
            applied=tuple(self._strikes.applied),
            not_applied=tuple(self._strikes.not_applied),
            unavailable=tuple(f"{', '.join(each.kinds)} ({each.why})" for each in missing),
            twice=ground.twice(),
            read_once=len(ground.ledger.slices_without("second", self._order.slices)),
            baseline_given=sum(counts.values()),
            baseline_lost=lost,
            baseline_doubled=doubled,
            stream_s=round(stream_s, 1),
            drain_s=round(drain_s, 1),
            recovery_s=round(self._watch.longest_s, 1),
        )


def first_are_stored(ground: Ground, stream: Stream) -> bool:
    """Give each edge its first slice, and tell whether they have come through."""
    stream.step(0.0, INTERVAL_S)
    return len(stored_frames(ground)) == stream.given


def _ticks() -> Iterator[float]:
    """Yield the time, again and again."""
    never = threading.Event()
    while True:
        yield time.monotonic()
        never.wait(TICK_S)
