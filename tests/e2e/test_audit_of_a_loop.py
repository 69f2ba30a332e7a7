"""The audit of a real loop: what a process did behind everybody's back is named, by number and by object."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from real_loop import Loop

from protocol.codec import stated_sequence
from protocol.topics import Kind
from sliceloop.demo.stage import EDGES, SITE

EDGE = EDGES[0]
WAITING = 3
"""Slices that the edge keeps while the worker is down."""


@dataclass(frozen=True)
class Audited:
    """How `sliceloop audit` ended, what it printed, and its file."""

    code: int
    printed: str
    edges: dict[str, dict[str, Any]]
    objects: dict[str, Any] | None


def audit(loop: Loop, *arguments: str) -> Audited:
    file = loop.folder / "audit.json"
    ended = loop.command("audit", "--json", str(file), *arguments)
    said = json.loads(file.read_text())
    return Audited(ended.returncode, ended.stdout, {each["edge"]: each for each in said["edges"]}, said["objects"])


def wait_for_empty_outboxes(loop: Loop) -> None:
    """Wait until each edge has said by its status that all it read has a receipt."""
    loop.streaming = False

    def said_all() -> bool:
        statuses = {record.edge: record.status or {} for record in loop.ledger.edges()}
        return all(
            (statuses[edge].get("last_sequence"), statuses[edge].get("outbox_depth")) == (loop.given(edge), 0)
            for edge in EDGES
        )

    loop.wait("both outboxes are empty", said_all)


def delete_a_waiting_slice(loop: Loop) -> int:
    """Delete the newest slice that waits in the killed edge's outbox; return its number."""
    with loop.outbox(EDGE) as outbox:
        waiting = [message for message in outbox.pending(1_000) if message.kind is Kind.SLICE]
        number = stated_sequence(waiting[-1].user_properties)
        assert number is not None
        assert outbox.delete([waiting[-1].message_id]) == 1
    return number


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_a_message_deleted_behind_the_edges_back_is_named(loop: Loop) -> None:
    """A slice that somebody deletes from an outbox is lost, and the audit says which number, and when."""
    loop.start_all()
    loop.kill("worker")
    unanswered = loop.outbox_depth(EDGE)  # some of it may be stored, and only its receipt is missing
    loop.wait("slices wait at the edge", lambda: loop.outbox_depth(EDGE) >= unanswered + 2 * WAITING)
    loop.kill(EDGE)
    waits = audit(loop, "--site", SITE, "--edge-data", f"{SITE}/{EDGE}={loop.data_dir(EDGE)}")
    assert waits.edges[EDGE]["numbers"]["waiting"] >= WAITING
    assert waits.edges[EDGE]["lost"] == 0

    lost = delete_a_waiting_slice(loop)
    loop.restart("worker")
    loop.restart(EDGE)
    wait_for_empty_outboxes(loop)

    found = audit(loop, "--objects")
    assert found.code == 1
    assert f"{SITE}/{EDGE} lost: {lost}, captured between" in found.printed
    assert [(f["fate"], f["first"], f["last"]) for f in found.edges[EDGE]["findings"]] == [("lost", lost, lost)]
    assert found.edges[EDGE]["issued"] == found.edges[EDGE]["stored"] + 1 == loop.given(EDGE)
    assert [(each["lost"], each["doubled"]) for each in (found.edges[EDGE], found.edges[EDGES[1]])] == [(1, 0), (0, 0)]
    assert found.objects is not None
    assert found.objects["wrong"] == 0
    assert found.objects["read"] >= 2 * (found.edges[EDGE]["stored"] + found.edges[EDGES[1]]["stored"])
