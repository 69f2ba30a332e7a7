"""`sliceloop status`: releases, the rollout by ring, and every edge, in the terminal or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloud_worker.assigner import fleet_edge
from cloud_worker.fleet_settings import RolloutSettings
from cloud_worker.fleet_status import STEPS, EdgeLine, RingCounts, edge_lines, ring_counts
from cloud_worker.ledger import Ledger, Release, Rollout
from cloud_worker.lineage import key_ids
from protocol.manifest import MANIFEST_MAJOR, shown_manifest

NOTICE = "research use only"
SHOWN_RELEASES = 10
KEY_DIGITS = 12


@dataclass(frozen=True)
class Status:
    """All that is shown; `rings` are of the newest rollout."""

    releases: Sequence[Release]
    rollouts: dict[int, Rollout]
    rings: Sequence[RingCounts]
    edges: Sequence[EdgeLine]


def show_status(ledger_url: str, settings: RolloutSettings, *, as_json: bool) -> None:
    """Print the state of the fleet."""
    with Ledger(ledger_url) as ledger:
        found = read_status(ledger, settings, datetime.now(UTC))
    if as_json:
        print(json.dumps(plain(found, settings), indent=2, default=str))
    else:
        _show(found, settings)


def read_status(ledger: Ledger, settings: RolloutSettings, now: datetime) -> Status:
    """Read what is known; what verifies and what does not, the worker says."""
    records = ledger.edges()
    stored = {(each.site, each.edge): each for each in ledger.assignments()}
    pins = {(each.site, each.edge): each.version for each in ledger.pins()}
    edges = [fleet_edge(each, stored.get((each.site, each.edge)), pins) for each in records]
    rollouts = ledger.rollouts()
    rings = ring_counts(rollouts[-1].version, edges, settings, now) if rollouts else []
    lines = edge_lines(edges, rollouts, settings, now)
    return Status(ledger.releases(), {each.version: each for each in rollouts}, rings, lines)


def plain(found: Status, settings: RolloutSettings) -> dict[str, Any]:
    """Return the same as plain values, for JSON."""
    newest = max(found.rollouts.values(), key=lambda each: each.version, default=None)
    rollout = (
        None if newest is None else {**_rollout(newest, settings), "rings": [asdict(each) for each in found.rings]}
    )
    return {
        "notice": NOTICE,
        "releases": [_release(each, found.rollouts, settings) for each in found.releases],
        "rollout": rollout,
        "edges": [_edge(each) for each in found.edges],
        "stuck": [f"{each.site}/{each.edge}" for each in found.edges if each.stuck_since],
    }


def _release(release: Release, rollouts: dict[int, Rollout], settings: RolloutSettings) -> dict[str, Any]:
    manifest = shown_manifest(release.envelope)
    return {
        "version": release.version,
        "name": release.name,
        "sha256": release.sha256,
        "released_at": release.released_at.isoformat(),
        "expires_at": manifest.expires_at.isoformat(),
        "signed_by": [each[:KEY_DIGITS] for each in key_ids(release.envelope)],
        "rollout": _rollout(rollouts[release.version], settings) if release.version in rollouts else None,
    }


def _rollout(rollout: Rollout, settings: RolloutSettings) -> dict[str, Any]:
    return {
        "version": rollout.version,
        "state": rollout.state,
        "ring": _ring_name(rollout, settings),
        "ring_started_at": rollout.ring_started_at.isoformat(),
        "reason": rollout.reason,
    }


def _edge(line: EdgeLine) -> dict[str, Any]:
    times = {"last_seen": line.last_seen, "stuck_since": line.stuck_since}
    return asdict(line) | {name: at.isoformat() if at else None for name, at in times.items()}


def _ring_name(rollout: Rollout, settings: RolloutSettings) -> str:
    return settings.rings[min(rollout.ring, len(settings.rings) - 1)].name


def _show(found: Status, settings: RolloutSettings) -> None:
    console = Console()
    releases = _table(f"releases — {NOTICE}", "version", "name", "sha256", "state", "ring", "signed by", "reason")
    for release in list(found.releases)[-SHOWN_RELEASES:]:
        row = _release(release, found.rollouts, settings)
        rollout = row["rollout"] or {"state": "not rolled out", "ring": "", "reason": _not_begun(release)}
        keys = " ".join(row["signed_by"])
        cells = (row["version"], row["name"], row["sha256"][:12], rollout["state"], rollout["ring"], keys)
        releases.add_row(*(Text(str(cell)) for cell in cells), Text(rollout["reason"]))
    console.print(releases)
    if found.rings:
        rings = _table(f"rollout of version {max(found.rollouts)}", "ring", "edges", "assigned", *STEPS)
        for ring in found.rings:
            rings.add_row(ring.name, str(ring.edges), str(ring.assigned), *(str(ring.steps[step]) for step in STEPS))
        console.print(rings)
    for version, rollout in found.rollouts.items():
        if rollout.state == "paused":
            console.print(
                Text(
                    f"paused: `sliceloop resume {version}` goes on, `sliceloop withdraw {version}` takes it back, "
                    "`sliceloop pin` leaves out an edge that is not waited for"
                )
            )
    console.print(_edge_table(found.edges))
    for line in found.edges:
        if line.stuck_since is not None:
            since = f"{line.stuck_since:%F %T}"
            console.print(
                Text(f"stuck: {line.site}/{line.edge} on its way to {line.assigned} since {since}: {line.reason}")
            )


def _not_begun(release: Release) -> str:
    if shown_manifest(release.envelope).major < MANIFEST_MAJOR:
        return "of an earlier sliceloop: edges that run it go on"
    return "waits for further signatures (`sliceloop sign`), or for a worker with worker.assign_key_file"


def _edge_table(lines: Sequence[EdgeLine]) -> Table:
    table = _table("edges", "edge", "ring", "assigned", "runs", "phase", "last seen (UTC)", "reason")
    for line in lines:
        seen = f"{line.last_seen:%F %T}" if line.last_seen else "never"
        runs = f"{line.running or '-'}{' (withdrawn)' if line.on_withdrawn else ''}"
        phase = f"{line.phase}{', stuck' if line.stuck_since else ''}"
        cells = (f"{line.site}/{line.edge}", line.ring, line.assigned or "-", runs, phase, seen, line.reason)
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
