"""What a run says at its end: the table, the JSON, and the command that repeats it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sliceloop.chaos.schedule import Fault
from sliceloop.chaos.verdict import Verdict

SHOWN_FAULTS = 10


@dataclass(frozen=True)
class ChaosResult:
    """One run: what was done, what came of it, and how the bare publisher beside it fared."""

    seed: int
    ledger: str
    broker: str
    disk: str
    command: str
    verdict: Verdict
    schedule: tuple[Fault, ...]
    applied: tuple[Fault, ...]
    not_applied: tuple[tuple[Fault, str], ...]
    unavailable: tuple[str, ...]
    twice: int
    read_once: int
    """Slices without a second reading: stored, so not lost, but nobody compared."""
    baseline_given: int
    baseline_lost: int
    baseline_doubled: int
    stream_s: float
    drain_s: float
    recovery_s: float
    """Longest time in the run without a new slice in the ledger."""

    @property
    def clean(self) -> bool:
        """Tell whether nothing was lost, doubled or spoiled."""
        return self.verdict.clean

    def json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {**asdict(self), "clean": self.clean, "applied_by_kind": dict(by_kind(self.applied))}


def by_kind(faults: Sequence[Fault]) -> Counter[str]:
    """Count faults by kind."""
    return Counter(str(fault.kind) for fault in faults)


def summary(result: ChaosResult) -> Group:
    """Return what a terminal shows."""
    return Group(_faults(result), _outcome(result), *_lines(result))


def _faults(result: ChaosResult) -> Table:
    table = Table("fault", "planned", "applied", title=f"seed {result.seed}: {len(result.applied)} faults applied")
    planned, applied = by_kind(result.schedule), by_kind(result.applied)
    for kind in sorted(planned):
        table.add_row(kind, str(planned[kind]), str(applied[kind]))
    return table


def _outcome(result: ChaosResult) -> Table:
    verdict = result.verdict
    table = Table("", "sliceloop", "bare paho, QoS 1")
    table.add_row("given", str(verdict.given), str(result.baseline_given))
    table.add_row("stored", str(verdict.stored), str(result.baseline_given - result.baseline_lost))
    table.add_row("lost", str(len(verdict.lost)), str(result.baseline_lost))
    table.add_row("doubled", str(len(verdict.doubled)), str(result.baseline_doubled))
    table.add_row("hash mismatches", str(len(verdict.mismatches)), "")
    table.add_row("came twice, stored once", str(result.twice), "")
    table.add_row("without a second reading", str(result.read_once), "")
    return table


def _lines(result: ChaosResult) -> list[Text]:
    verdict = result.verdict
    said = [
        f"streamed in {result.stream_s:.1f} s, drained {result.drain_s:.1f} s after the last fault; "
        f"longest without a new slice {result.recovery_s:.1f} s",
        f"broker {result.broker}; ledger {result.ledger}; disk full is {result.disk}",
        *(f"not available here: {each}" for each in result.unavailable),
        *(f"not applied: {fault.kind}, {fault.target}: {why}" for fault, why in result.not_applied),
        *(f"lost: {each}" for each in verdict.lost[:SHOWN_FAULTS]),
        *(f"doubled: {each}" for each in verdict.doubled[:SHOWN_FAULTS]),
        *(f"stored but never given: {each}" for each in verdict.foreign[:SHOWN_FAULTS]),
        *verdict.mismatches[:SHOWN_FAULTS],
        *verdict.gaps,
        *verdict.others[:SHOWN_FAULTS],
    ]
    if not result.clean:
        said.append(f"again: {result.command}")
    return [Text(line) for line in said]
