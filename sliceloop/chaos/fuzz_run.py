"""`sliceloop chaos --fuzz N`: N mutated messages to the running loop, with valid slices among them, then judge."""

import json
import random
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from sqlalchemy import func, select

from cloud_worker.ledger import LedgerUnavailableError
from cloud_worker.ledger.dead_letters import MAX_DEAD_LETTERS
from cloud_worker.ledger.tables import dead_letters
from sliceloop.chaos.facts import collect, dead_letters_ever, stored_frames, waiting
from sliceloop.chaos.feed import Stream
from sliceloop.chaos.fuzz_client import BATCH, FuzzClient
from sliceloop.chaos.ground import DASHBOARD, TRAINER, WORKERS, Ground
from sliceloop.chaos.materials import make_materials
from sliceloop.chaos.run import Order, first_are_stored
from sliceloop.chaos.samples import capture
from sliceloop.chaos.screen import ChaosScreen
from sliceloop.chaos.verdict import Facts, Verdict, judge
from sliceloop.demo.processes import exit_on_signals
from sliceloop.demo.stage import EDGES

VALID_SLICES = 40
"""Given while the fuzz goes on, evenly."""
CAPTURED_SLICES = 4
SETTLE_TIMEOUT_S = 600.0
"""Until what the workers have taken in is dealt with, and all valid slices are stored."""
TICK_S = 0.1
RATE = 1_500.0
"""Messages a second: a million in eleven minutes. mosquitto keeps what connected clients are too slow for, in memory
and without a bound (QoS 0): five times as fast, it grew by 1.4 GiB."""
WATCHED = (*WORKERS, *EDGES, TRAINER, DASHBOARD, "broker")


@dataclass(frozen=True)
class FuzzResult:
    """What was sent, what became of it, and what it cost each process."""

    seed: int
    command: str
    sent: int
    seconds: float
    settle_s: float
    broker_hung_up: int
    verdict: Verdict
    dead_letters_written: int
    dead_letters_kept: int
    quarantined: int
    refused_by_edges: int
    frames_twice: int
    """Frames that came whole but under another id, which nobody can tell from another original of the slice."""
    rss_before_mib: dict[str, float]
    rss_after_mib: dict[str, float]

    @property
    def clean(self) -> bool:
        """Tell whether all held: nothing ended, nothing valid lost, nothing else stored, dead letters bounded."""
        return self.verdict.clean and self.dead_letters_kept <= MAX_DEAD_LETTERS

    def json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {**asdict(self), "clean": self.clean}


def run_fuzz(order: Order, packets: int, json_file: Path | None) -> int:
    """Run it, print what came of it, and return the exit code."""
    exit_on_signals()
    order = replace(order, slices=VALID_SLICES + CAPTURED_SLICES)
    materials = make_materials(order.folder / "materials")
    stream = Stream(order.run_folder, [materials.of_edge(e) for e in EDGES], order.slices, order.seed)
    with Ground(order.run_folder, materials, order.ledger, order.slices) as ground:
        stream.name_patients()
        with ChaosScreen(f"fuzz, seed {order.seed}", order.slices, packets) as screen:
            ground.start(baseline=False, dashboard=True)
            ground.wait("the first slices are stored", lambda: first_are_stored(ground, stream))
            result = Fuzz(order, packets, ground, stream, screen).run()
    screen.console.print(_table(result))
    for line in (
        *result.verdict.lost,
        *result.verdict.gaps,
        *result.verdict.foreign,
        *result.verdict.mismatches,
        *result.verdict.others,
    ):
        screen.say(line)
    if not result.clean:
        screen.say(f"again: {result.command}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(result.json(), indent=1) + "\n")
    return 0 if result.clean else 1


class Fuzz:
    """One run: capture, spoil and send, settle, judge."""

    def __init__(self, order: Order, packets: int, ground: Ground, stream: Stream, screen: ChaosScreen) -> None:
        """Remember the parts."""
        self._order, self._packets, self._ground, self._stream, self._screen = order, packets, ground, stream, screen
        self._stored: set[str] = set()
        self._ended: list[str] = []
        self._next_look_s = 0.0

    def run(self) -> FuzzResult:
        """Do it."""
        captured = capture(self._ground.broker_port, self._still_capturing)
        before, started_s, never = self._memory(), time.monotonic(), threading.Event()
        client = FuzzClient(self._ground.broker_port, captured, random.Random(self._order.seed))  # noqa: S311
        while client.sent < self._packets and not self._ended:
            client.send(min(BATCH, self._packets - client.sent))
            if self._stream.given < CAPTURED_SLICES + VALID_SLICES * client.sent // self._packets:
                self._stream.step(time.monotonic(), 0.0)
            self._look(client.sent)
            never.wait(max(0.0, started_s + client.sent / RATE - time.monotonic()))
        client.close()
        sent_s = time.monotonic()
        self._settle(client.sent)
        return self._result(client, before, sent_s - started_s, time.monotonic() - sent_s)

    def _still_capturing(self) -> bool:
        if self._stream.given < CAPTURED_SLICES:
            self._stream.step(time.monotonic(), 0.0)
        self._look(0)
        return len(self._stored) < CAPTURED_SLICES

    def _settle(self, sent: int) -> None:
        """Give what is left, and wait until it is stored and no more dead letters come."""
        never, until_s, written = threading.Event(), time.monotonic() + SETTLE_TIMEOUT_S, -1
        while time.monotonic() < until_s and not self._ended:
            self._stream.step(time.monotonic(), 0.0)
            self._look(sent)
            done = self._stream.finished and len(self._stored) >= self._stream.given
            if done and not any(waiting(self._ground).values()):
                known, written = written, dead_letters_ever(self._ground)
                if known == written:
                    return
                never.wait(2.0)
            never.wait(TICK_S)

    def _look(self, sent: int) -> None:
        if time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + 0.5
        self._ended = [f"{each.name}: {each.last_words(12)}" for each in self._ground.processes.ended()]
        try:
            self._stored = stored_frames(self._ground)
        except LedgerUnavailableError:
            return  # busy: looked at again
        self._screen.show(self._stream.given, len(self._stored), sent, "mutated messages are counted as faults")

    def _memory(self) -> dict[str, float]:
        return {name: _rss_mib(self._ground.processes.pid(name)) for name in WATCHED}

    def _result(self, client: FuzzClient, before: dict[str, float], send_s: float, settle_s: float) -> FuzzResult:
        ground = self._ground
        facts = collect(ground, {feed.edge: feed.given for feed in self._stream.feeds}, self._ended)
        kept = int(ground.ledger.scalar(select(func.count()).select_from(dead_letters)))
        return FuzzResult(
            seed=self._order.seed,
            command=f"sliceloop chaos --fuzz {self._packets} --seed {self._order.seed}",
            sent=client.sent,
            seconds=round(send_s, 1),
            settle_s=round(settle_s, 1),
            broker_hung_up=client.hung_up,
            verdict=judge(_as_meant(facts)),
            dead_letters_written=dead_letters_ever(ground),
            dead_letters_kept=kept,
            quarantined=sum(ground.log(name).count("message quarantined") for name in WORKERS),
            refused_by_edges=sum(ground.log(edge).count("message refused") for edge in EDGES),
            frames_twice=sum(len(row.frames) - len(set(row.frames)) for row in facts.slices),
            rss_before_mib=before,
            rss_after_mib=before if self._ended else self._memory(),
        )


def _as_meant(facts: Facts) -> Facts:
    """Leave out what the fuzz causes on purpose: dead letters, and frames that came under another id too."""
    once = [replace(row, frames=tuple(dict.fromkeys(row.frames))) for row in facts.slices]
    return replace(facts, slices=once, dead_letters=())


def _rss_mib(pid: int) -> float:
    """Return a process's resident memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)


def _table(result: FuzzResult) -> Table:
    verdict = result.verdict
    table = Table("fuzz", f"seed {result.seed}")
    rows = {
        "mutated messages sent": f"{result.sent:,} in {result.seconds:.0f} s, settled {result.settle_s:.0f} s later",
        "broker hung up": result.broker_hung_up,
        "quarantined by workers": result.quarantined,
        "dead letters written, kept": f"{result.dead_letters_written:,}, {result.dead_letters_kept:,}",
        "refused by edges": result.refused_by_edges,
        "frames under another id": result.frames_twice,
        "valid slices given, stored": f"{verdict.given}, {verdict.stored}",
        "lost, doubled, spoiled": f"{len(verdict.lost)}, {len(verdict.doubled)}, {len(verdict.mismatches)}",
        "stored but never given": len(verdict.foreign),
        "ended by itself": len(verdict.others),
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    for name, before in result.rss_before_mib.items():
        table.add_row(f"memory of {name}", f"{before:.0f} to {result.rss_after_mib[name]:.0f} MiB")
    return table
