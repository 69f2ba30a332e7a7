"""Collect what a run left: ledger, objects and outboxes, for the verdict."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import func, select

from cloud_worker.audit import audit
from cloud_worker.audit_facts import edge_facts
from cloud_worker.ledger.tables import dead_letters, frames, slices
from cloud_worker.object_store import ObjectMissingError
from edge_agent.outbox import Outbox, OutboxError
from protocol.chunks import sha256_of
from sliceloop.audit_run import EVERYTHING, AuditError, word_of_outbox
from sliceloop.chaos.ground import Ground
from sliceloop.chaos.verdict import Facts, SliceFact
from sliceloop.demo.stage import EDGES, SITE


def stored_frames(ground: Ground) -> set[str]:
    """Return which files the ledger has a slice of."""
    return {row["frame_sha256"] for row in ground.ledger.rows(select(slices.c.frame_sha256))}


def waiting(ground: Ground) -> dict[str, int]:
    """Count the messages in each edge's outbox; -1 where it cannot be opened just now."""
    return {edge: _asked(ground, edge, Outbox.depth, -1) for edge in EDGES}


def dead_letters_ever(ground: Ground) -> int:
    """Count the dead letters that were ever written, those included that gave way to newer ones."""
    return int(ground.ledger.scalar(select(func.max(dead_letters.c.id))) or 0)


def collect(ground: Ground, given: Mapping[str, Sequence[str]], ended: Sequence[str]) -> Facts:
    """Read everything; every object is fetched and hashed."""
    of_slice = defaultdict(list)
    for row in ground.ledger.rows(select(frames.c.slice_id, frames.c.sha256, frames.c.frame_key)):
        of_slice[row["slice_id"]].append((row["sha256"], row["frame_key"]))
    rows = ground.ledger.rows(select(slices).order_by(slices.c.edge, slices.c.sequence))
    letters = ground.ledger.rows(select(dead_letters.c.reason).order_by(dead_letters.c.id))
    return Facts(
        given=given,
        slices=[
            SliceFact(
                edge=row["edge"],
                sequence=row["sequence"],
                frame_sha256=row["frame_sha256"],
                image_sha256=row["image_sha256"],
                object_sha256=_object(ground, row["image_key"]),
                frames=tuple((sha256, _object(ground, key)) for sha256, key in of_slice[row["slice_id"]]),
            )
            for row in rows
        ],
        waiting=waiting(ground),
        refused={edge: _asked(ground, edge, lambda outbox: len(outbox.refused()), 0) for edge in EDGES},
        dead_letters=[row["reason"] for row in letters],
        audit=[finding for edge in EDGES for finding in _audited(ground, edge)],
        ended=ended,
    )


def _audited(ground: Ground, edge: str) -> list[str]:
    """Account for an edge's numbers as the engineer does, by ledger and outbox; nothing may wait any more either."""
    try:
        word = word_of_outbox(ground.folder / edge / "data")
    except (AuditError, OutboxError) as error:
        return [f"{edge}: {error}"]
    found = audit(edge_facts(ground.ledger, SITE, edge, EVERYTHING, word))
    counts: dict[str, int] = {
        "doubled": found.doubled,
        "originals missing": found.originals_missing,
        **{str(fate): n for fate, n in found.fates.items()},
    }
    return [f"{edge}: {count} {what}" for what, count in counts.items() if count]


def _object(ground: Ground, key: str) -> str:
    try:
        return sha256_of(ground.store.get(key))
    except ObjectMissingError:
        return ""


def _asked(ground: Ground, edge: str, question: Callable[[Outbox], int], otherwise: int) -> int:
    try:
        with Outbox(ground.folder / edge / "data" / "outbox.sqlite", max_rows=1, max_bytes=1) as outbox:
            return question(outbox)
    except OutboxError:
        return otherwise
