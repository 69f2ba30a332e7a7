"""`sliceloop pin`, `pause` and `resume`: a person's word on where a release goes."""

from dataclasses import replace
from datetime import UTC, datetime

from cloud_worker.assigner import fleet_edge
from cloud_worker.ledger import Ledger, Pin, Rollout
from cloud_worker.rollout import FleetEdge
from protocol.manifest import MANIFEST_MAJOR, Manifest, shown_manifest
from protocol.topics import check_edge_ids


class RolloutInputError(ValueError):
    """What was asked for cannot be done to this rollout or edge; the message says why."""


def pin_edge(ledger_url: str, name: str, version: int) -> str:
    """Pin an edge; return what is to be said."""
    site, edge = _edge_name(name)
    with Ledger(ledger_url) as ledger:
        manifest = shown_manifest(ledger.release(version).envelope)
        states = {each.version: each.state for each in ledger.rollouts()}
        if states.get(version) in ("withdrawn", "aborted"):
            raise RolloutInputError(f"version {version} is {states[version]}: no edge is told to run it any more")
        now = datetime.now(UTC)
        ledger.pin(Pin(site, edge, version, now))
        known = [fleet_edge(each, None, {}) for each in ledger.edges() if (each.site, each.edge) == (site, edge)]
    return f"{name} is pinned to version {version}{_caution(known, manifest, now)}"


def unpin_edge(ledger_url: str, name: str) -> str:
    """Let an edge follow the rollouts again; return what is to be said."""
    site, edge = _edge_name(name)
    with Ledger(ledger_url) as ledger:
        if not ledger.unpin(site, edge):
            raise RolloutInputError(f"{name} is not pinned: `sliceloop status` shows which are")
    return f"{name} follows the rollouts again"


def pause_rollout(ledger_url: str, version: int) -> str:
    """Pause a rollout that runs; return what is to be said."""
    with Ledger(ledger_url) as ledger:
        running = _rollout(ledger, version, "running")
        _save(ledger, replace(running, state="paused", reason="paused by hand"), running)
    return f"the rollout of version {version} is paused: edges that were told go on"


def resume_rollout(ledger_url: str, version: int) -> str:
    """Go on with a paused rollout; return what is to be said."""
    with Ledger(ledger_url) as ledger:
        paused = _rollout(ledger, version, "paused")
        now = datetime.now(UTC)
        _save(ledger, replace(paused, state="running", ring_started_at=now, reason=""), paused)
    return f"the rollout of version {version} goes on"


def _rollout(ledger: Ledger, version: int, state: str) -> Rollout:
    ledger.release(version)
    found = next((each for each in ledger.rollouts() if each.version == version), None)
    if found is None:
        raise RolloutInputError(
            f"the rollout of version {version} has not begun: does a worker with worker.assign_key_file run, and have "
            "enough keys signed?"
        )
    if found.state != state:
        raise RolloutInputError(f"the rollout of version {version} is {found.state}, not {state}")
    return found


def _save(ledger: Ledger, rollout: Rollout, known: Rollout) -> None:
    if not ledger.save_rollout(rollout, known):
        raise RolloutInputError(
            f"the rollout of version {rollout.version} went on at this moment: look, and do it again"
        )


def _edge_name(name: str) -> tuple[str, str]:
    site, slash, edge = name.partition("/")
    if not slash:
        raise RolloutInputError(f"{name} names no edge: say SITE/EDGE, as `sliceloop status` shows it")
    check_edge_ids(site, edge)
    return site, edge


def _caution(known: list[FleetEdge], manifest: Manifest, now: datetime) -> str:
    """Say what keeps the edge from running it, as far as it can be seen from here."""
    if not known:
        return "; it was never heard of yet"
    edge, version = known[0], manifest.version
    if edge.running == version:
        return ""
    if edge.running > version:
        return (
            f"; it runs {edge.running} and refuses to go backwards: only `sliceloop withdraw` signs a way back, for "
            "all edges"
        )
    if version in edge.banned:
        return "; it took this version back before, and refuses it: the pin counts for nothing there"
    if manifest.expires_at <= now or manifest.major < MANIFEST_MAJOR:
        return "; no edge is told of it any more, it has expired or is of an earlier sliceloop: release it anew"
    return ""
