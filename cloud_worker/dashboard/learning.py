"""What the loop learns: the newest retraining, and the model versions with what became of them."""

import textwrap
from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from cloud_worker.dashboard.frame import Size, fit, line, more, panel, waiting
from cloud_worker.dashboard.palette import BAD, GOOD, INK, NOBODY_KNOWS, QUIET, bar, clock, percent, version
from cloud_worker.dashboard.rows import MAX_NUMBER, TrainingRow, VersionRow
from cloud_worker.dashboard.state import DashboardState

REASON_LINES = 3


def training_panel(state: DashboardState, size: Size) -> RenderableType:
    """Return how far the newest retraining is."""
    row = state.newest_training()
    if row is None:
        return waiting("training", "no retraining yet", size)
    lines = [_training_head(row), _training_bar(row, size.inner_width), *_training_figures(row)]
    if row.outcome == "failed" and row.verdict != "refused":
        lines.insert(1, Text(row.outcome_reason, BAD))
    return panel("training", Group(*lines), size)


def models_panel(state: DashboardState, now: datetime, size: Size) -> RenderableType:
    """Return the model versions, newest first: announced, running where, refused why."""
    if not state.versions:
        return waiting("models", "no model heard of yet", size)
    newest = max((edge.running_version for edge in state.edges.values()), default=0)
    lines = [
        text
        for row in state.newest_versions()
        for text in (_version_line(row, state, newest, now), *_refusal_lines(row, size))
    ]
    shown, hidden = fit(lines, size.inner_height)
    return panel("models", Group(*shown, *more(hidden)), size)


def _training_head(row: TrainingRow) -> Text:
    if row.verdict == "released":
        return Text(f"✓ released as {version(row.released_version)}", f"bold {GOOD}")
    if row.verdict == "refused":
        return Text(f"✗ {row.outcome_reason}", f"bold {BAD}")
    if row.outcome == "failed":
        return Text("✗ failed", f"bold {BAD}")
    if row.outcome:
        return Text(f"✓ candidate after {min(row.seconds, MAX_NUMBER):.0f} s", f"bold {GOOD}")
    return Text(f"↻ {row.phase}", f"bold {GOOD}")


def _training_bar(row: TrainingRow, width: int) -> Text:
    done = 1.0 if row.outcome == "candidate" else row.fraction
    colour = BAD if row.outcome == "failed" else GOOD
    return bar(done, max(1, width - 6), colour).append(f" {percent(done):>5}", INK)


def _training_figures(row: TrainingRow) -> list[Text]:
    epoch = f"{row.epoch}/{row.epochs}" if row.epochs else NOBODY_KNOWS
    loss = f"{row.loss:.3f}" if row.loss is not None else NOBODY_KNOWS
    accuracy = f"{row.balanced_accuracy:.3f}" if row.balanced_accuracy is not None else NOBODY_KNOWS
    return [
        Text.assemble(("epoch ", QUIET), (epoch, INK), ("   loss ", QUIET), (loss, INK)),
        Text.assemble(("balanced accuracy ", QUIET), (accuracy, f"bold {INK}")),
    ]


def _version_line(row: VersionRow, state: DashboardState, newest: int, now: datetime) -> Text:
    running = sorted(id.edge for id, edge in state.edges.items() if edge.running_version == row.version)
    since = min(row.running_since.values(), default=None)
    if not row.version:
        return line(("◌ ", f"bold {QUIET}"), (f"{clock(row.seen_at, now)[:5]} ", QUIET), ("unverified release", QUIET))
    if running:
        sign, colour, words = "●", GOOD if row.version == newest else INK, f"runs on {', '.join(running)}"
    elif row.running_since:
        sign, colour, words = "○", QUIET, "replaced"
    elif row.announced_at is not None:
        since, sign, colour, words = row.announced_at, "◌", INK, "announced, unverified"
    else:
        since, sign, colour, words = row.seen_at, "◌", QUIET, "asked for"
    head = (f"{sign} {version(row.version):<3} ", f"bold {colour}")
    return line(head, (f"{clock(since, now)[:5]} ", QUIET), (words, colour))


def _refusal_lines(row: VersionRow, size: Size) -> Iterator[Text]:
    for id, refusal in row.refusals.items():
        yield line((f"  ✗ {refusal.phase} by {id.edge}", f"bold {BAD}"))
        reason = textwrap.wrap(refusal.reason, max(8, size.inner_width - 4), max_lines=REASON_LINES, placeholder="…")
        yield from (line((f"    {part}", INK)) for part in reason)
