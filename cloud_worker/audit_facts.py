"""Gather what an audit looks at: an edge's own word first, and then the ledger, which by then knows what it implies."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from cloud_worker.audit import EdgeFacts, EdgeWord
from cloud_worker.ledger import Ledger, Period
from protocol.messages import Status
from protocol.ranges import Range, merged
from protocol.topics import Kind


def edge_facts(ledger: Ledger, site: str, edge: str, period: Period, word: EdgeWord | None = None) -> EdgeFacts:
    """Return what is known of an edge's numbers; without a word of its outbox, its last status speaks for it.

    An edge forgets a number after its receipt, and that comes after the commit: so what the edge does not have any
    more is in the ledger when the ledger is asked second.
    """
    word = word or _last_word(ledger, site, edge)
    doubled = chain(ledger.doubled_numbers(site, edge, period), ledger.doubled_captures(site, edge, period))
    # before what is missing: a number that is stored meanwhile is then missing at most, and refused numbers stay so
    stored, highest = ledger.stored_numbers(site, edge, period), ledger.highest_number(site, edge)
    return EdgeFacts(
        site=site,
        edge=edge,
        period=period,
        word=word,
        stored=stored,
        highest=highest,
        missing=ledger.missing_numbers(site, edge),
        refused=list(ledger.quarantined_numbers(site, edge, Kind.SLICE)),
        refused_originals=list(ledger.quarantined_numbers(site, edge, Kind.FRAME)),
        without_original=ledger.numbers_without_original(site, edge, period),
        doubled=doubled,
        unnumbered=ledger.unnumbered_letters(site, edge, period),
    )


def word_of_status(status: Mapping[str, Any]) -> EdgeWord:
    """Return what a status says of the numbers; an outbox that is empty tells what waits without naming it."""
    said = Status.model_validate(status)
    nothing_waits = said.outbox_depth == 0
    return EdgeWord(
        source="status",
        at=said.at,
        last_sequence=said.last_sequence,
        waiting=_known(said.waiting, nothing_waits),
        waiting_originals=_known(said.waiting_originals, nothing_waits),
        set_aside=merged(said.set_aside),
        dropped_originals=merged(said.dropped_originals),
        refused_frames=said.refused_frames,
    )


def _known(ranges: tuple[Range, ...] | None, nothing_waits: bool) -> list[Range] | None:
    if ranges is None:
        return [] if nothing_waits else None
    return merged(ranges)


def _last_word(ledger: Ledger, site: str, edge: str) -> EdgeWord | None:
    for known in ledger.edges():
        if (known.site, known.edge) == (site, edge) and known.status:
            return word_of_status(known.status)
    return None
