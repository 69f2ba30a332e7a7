"""What a demo came to: the fields of its JSON, whether all is well, and the table at its end."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

MAX_GAP_MEDIANS = 2
LEARNT_FROM_PHANTOMS = "The readers learn from phantoms, not from slices like these: what they read here means nothing."


class Part(BaseModel):
    """A part of the result."""

    model_config = ConfigDict(frozen=True)


class ReleaseRow(Part):
    """One release, and why it went out."""

    version: int
    sha256: str
    gate: dict[str, Any]


class EdgeRow(Part):
    """One edge, and the version that it ran at the end."""

    id: str
    version: int


class Accuracy(Part):
    """Balanced accuracy with its 95 % interval (patient bootstrap) on patients that no training saw.

    It counts the most probable label of every slice; `uncertain_share` (0..1) says how many of these readings the
    edge calls uncertain, because that label's calibrated probability is below the release's threshold.
    """

    balanced_accuracy: float
    low: float
    high: float
    n_patients: int
    n_slices: int
    uncertain_share: float


class SourcePair(Part):
    """One source alone; balanced over the classes that it has. Class and source are often tied: see both."""

    before: Accuracy
    after: Accuracy


class AccuracyPair(Part):
    """The first release and the last on the same patients; the difference has its own, paired interval."""

    before: Accuracy
    after: Accuracy
    difference: tuple[float, float, float]
    data: str
    by_source: dict[str, SourcePair]


class Swap(Part):
    """Intervals between diagnoses on an edge around its swap, in ms; the worst edge."""

    max_gap_ms: float
    median_interval_ms: float


class DemoResult(Part):
    """Everything that `--json` writes."""

    notice: str = "research use only; not for diagnosis"
    images: str
    captured: int
    refused: int
    stored: int
    lost: int
    duplicates: int
    disagreements: int
    audits: int
    labelled: int
    retrain_requests: int
    gate_refusals: int = 0
    releases: tuple[ReleaseRow, ...]
    edges: tuple[EdgeRow, ...]
    accuracy: AccuracyPair | None
    swap: Swap | None
    stopped_at_review: bool
    setup_seconds: float
    loop_seconds: float
    seconds: float

    def faults(self) -> list[str]:
        """List what did not arrive as it should; an empty list is a good demo."""
        faults = []
        if self.lost:
            faults.append(f"{self.lost} slices were lost")
        if self.duplicates:
            faults.append(f"{self.duplicates} slices were stored twice")
        if self.stored != self.captured:
            faults.append(f"{self.captured} slices were captured, {self.stored} stored")
        if not self.stopped_at_review:
            faults += self._loop_faults()
        return faults

    def shortfalls(self) -> list[str]:
        """List what was aimed at and not reached, though everything arrived."""
        short = []
        if self.accuracy is not None and self.accuracy.difference[0] <= 0:
            short.append("the last release is not better than the first on the evaluation patients")
        if self.swap is not None and self.swap.max_gap_ms > MAX_GAP_MEDIANS * self.swap.median_interval_ms:
            short.append(f"the gap at the swap is longer than {MAX_GAP_MEDIANS} median intervals")
        newest = max((release.version for release in self.releases), default=0)
        if any(1 < edge.version < newest for edge in self.edges):
            short.append(f"release {newest} came when too few slices were left to prove it on every edge")
        return short

    def _loop_faults(self) -> list[str]:
        faults = []
        newest = max((release.version for release in self.releases), default=0)
        if newest < 2:
            faults.append("no candidate was released (see `sliceloop history`)")
        behind = [edge.id for edge in self.edges if edge.version < 2]
        if newest >= 2 and behind:
            faults.append(f"nothing that was learnt here runs on {', '.join(behind)}")
        return faults


def summary(result: DemoResult) -> RenderableType:
    """Return the table that ends a demo."""
    table = Table(
        title=f"sliceloop demo on {result.images} — research use only", title_justify="left", show_header=False
    )
    table.add_column(style="bold")
    table.add_column()
    refused = f", {result.refused} unreadable" if result.refused else ""
    table.add_row("slices", f"{result.captured} captured, {result.stored} stored{refused}")
    table.add_row("lost / duplicates", f"{result.lost} / {result.duplicates}")
    table.add_row(
        "review", f"{result.disagreements} disagreements and {result.audits} audits, {result.labelled} labelled"
    )
    table.add_row(
        "retraining",
        f"{result.retrain_requests} requested, {result.gate_refusals} refused by the gate, "
        f"{len(result.releases)} releases",
    )
    for release in result.releases:
        table.add_row(f"  release {release.version}", f"{release.sha256[:12]}  {_gate_words(release.gate)}")
    table.add_row("edges", ", ".join(f"{edge.id} runs {edge.version}" for edge in result.edges))
    for name, text in _figures(result):
        table.add_row(name, text)
    faults = result.faults()
    verdict = (
        Text("FAILED: " + "; ".join(faults), style="bold red") if faults else Text("all arrived", style="bold green")
    )
    for shortfall in result.shortfalls():
        verdict.append(f"\nnot reached: {shortfall}", "yellow")
    if result.stopped_at_review:
        verdict.append("\nThe loop stopped at the review: there is no labels.csv to take labels from.", "yellow")
        verdict.append(f"\n{LEARNT_FROM_PHANTOMS}", "yellow")
    return Group(table, verdict)


def _figures(result: DemoResult) -> list[tuple[str, str]]:
    rows = []
    if result.accuracy is not None:
        before, after = result.accuracy.before, result.accuracy.after
        rows.append(("balanced accuracy before", _accuracy_words(before)))
        rows.append(("balanced accuracy after", _accuracy_words(after)))
        value, low, high = result.accuracy.difference
        rows.append(("difference, paired", f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"))
        shares = f"{before.uncertain_share:.0%} → {after.uncertain_share:.0%} of these readings"
        rows.append(("called uncertain", shares))
        rows.append(("measured on", result.accuracy.data))
        rows += [(f"  {source}", _pair_words(pair)) for source, pair in result.accuracy.by_source.items()]
    if result.swap is not None:
        swap = result.swap
        rows.append(("gap at the swap", f"{swap.max_gap_ms:.0f} ms (median interval {swap.median_interval_ms:.0f} ms)"))
    rows.append(("time", f"{result.setup_seconds:.0f} s to prepare, {result.loop_seconds:.0f} s in the loop"))
    return rows


def _accuracy_words(accuracy: Accuracy) -> str:
    return (
        f"{accuracy.balanced_accuracy:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}] "
        f"({accuracy.n_patients} patients, {accuracy.n_slices} slices)"
    )


def _pair_words(pair: SourcePair) -> str:
    after = pair.after
    return (
        f"{pair.before.balanced_accuracy:.3f} → {after.balanced_accuracy:.3f} [{after.low:.3f}, {after.high:.3f}] "
        f"({after.n_patients} patients)"
    )


def _gate_words(gate: dict[str, Any]) -> str:
    if "by hand" in gate:
        return f"by hand: {gate['by hand']}"
    return "gate: " + "; ".join(gate.get("reasons", ()))
