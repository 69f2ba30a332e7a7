"""Whatever happens in whatever order: no slice is unaccounted for, and no number is given twice."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from outbox_parts import Clock, message, outbox_at

from edge_agent.outbox import OutboxError, OutboxFullError
from protocol.ranges import Range
from protocol.topics import Kind

MAX_ROWS = 14


def covered(ranges: tuple[Range, ...]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


class OutboxMachine(RuleBasedStateMachine):
    """A box with its source, its cloud, and its bad luck."""

    @initialize(when_full=st.sampled_from(["refuse", "drop-frames"]), sealed=st.booleans())
    def start(self, when_full: str, sealed: bool) -> None:
        """Open a new outbox."""
        self.folder = Path(tempfile.mkdtemp())
        self.path, self.clock = self.folder / "o", Clock()
        key = None
        if sealed:
            key = self.folder / "key"
            key.write_text("ab" * 32)
            key.chmod(0o600)
        self.chosen = {"max_rows": MAX_ROWS, "when_full": when_full, "key_file": key, "clock": self.clock}
        self.outbox = outbox_at(self.path, **self.chosen).__enter__()
        self.added: set[int] = set()
        self.receipted: set[int] = set()
        self.frames = 0

    @rule(with_original=st.booleans(), priority=st.integers(0, 99))
    def add(self, with_original: bool, priority: int) -> None:
        """Read a slice; a full outbox refuses it whole."""
        number, self.frames = self.outbox.last_sequence() + 1, self.frames + 1
        originals = [message(f"f{number}", bytes(300), Kind.FRAME)] if with_original else []
        try:
            self.outbox.add(
                f"{self.frames}",
                f"{number}",
                number,
                [message(f"s{number}", bytes(200)), *originals],
                priority=priority,
            )
        except OutboxFullError:
            assert not self.outbox.is_captured(f"{self.frames}")
            self.frames -= 1
        else:
            assert number not in self.added, "no number twice"
            self.added.add(number)
        self.clock.now += 1

    @rule(count=st.integers(1, 5))
    def publish_and_receive(self, count: int) -> None:
        """Send some and get their receipts."""
        try:
            sent = [each.message_id for each in self.outbox.pending(count)]
            self.outbox.delete(sent)
        except OutboxError:
            return
        self.receipted |= {int(name[1:]) for name in sent if name[0] == "s"}

    @rule()
    def crash(self) -> None:
        """End without closing, as kill -9 does: another life begins with what is on the disk."""
        copy = Path(tempfile.mkdtemp(dir=self.folder, prefix="life-"))
        for file in self.folder.glob("o*"):
            shutil.copy(file, copy / file.name)
        self.outbox.__exit__()
        for file in self.folder.glob("o*"):
            file.unlink()
        for file in copy.iterdir():
            file.rename(self.folder / file.name)
        self.outbox = outbox_at(self.path, **self.chosen).__enter__()

    @rule(place=st.floats(0, 1), size=st.integers(1, 9000))
    def damage(self, place: float, size: int) -> None:
        """Write garbage somewhere into the database, between two lives."""
        self.outbox.__exit__()
        content = self.path.read_bytes()
        start = int(place * max(0, len(content) - size))
        self.path.write_bytes(content[:start] + os.urandom(min(size, len(content))) + content[start + size :])
        self.clock.now += 1
        self.outbox = outbox_at(self.path, **self.chosen).__enter__()

    @invariant()
    def all_is_accounted_for(self) -> None:
        """Every slice is waiting, receipted or lost; every frame that was read is known."""
        waiting, lost = covered(self.outbox.waiting_ranges(10_000)), covered(self.outbox.lost_ranges())
        assert self.added <= waiting | self.receipted | lost
        assert not waiting & lost
        assert self.outbox.last_sequence() >= max(self.added, default=0)
        assert all(self.outbox.is_captured(f"{number}") for number in range(1, self.frames + 1))
        assert self.outbox.depth() <= MAX_ROWS

    def teardown(self) -> None:
        """Clean up."""
        if hasattr(self, "outbox"):
            self.outbox.__exit__()
            shutil.rmtree(self.folder)


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
