"""`sliceloop audit`: account for every number, edge by edge, and read objects back where asked to."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cloud_worker.audit import LOSSES, EdgeAudit, EdgeWord, Fate, audit
from cloud_worker.audit_facts import edge_facts
from cloud_worker.ledger import Ledger, Period, StoredObject
from cloud_worker.object_store import ObjectMissingError, ObjectStore
from edge_agent.outbox import Outbox
from edge_agent.settings import OUTBOX_FILE
from protocol.chunks import sha256_of
from protocol.ranges import merged
from protocol.topics import Kind
from sliceloop.progress import counted

EVERYTHING = Period()
MAX_RANGES = 10**9
"""Of an outbox on this machine: all that it has."""
MAX_PRINTED = 50
"""Lines of findings an edge; the JSON file has more."""
ORIGINAL_FATES = {Fate.LOST: "missing", Fate.SET_ASIDE: "given up by the edge"}
READERS = 8
"""Objects that are read at once."""
MAX_MISMATCHES = 1_000
"""Objects that are named; all of them are counted."""


class AuditError(RuntimeError):
    """The audit cannot be made as it was asked for; the message says how to ask."""


@dataclass(frozen=True)
class AuditRequest:
    """Which edges and which time; `edge_data` are folders, as DIR or SITE/EDGE=DIR."""

    site: str | None = None
    edge: str | None = None
    period: Period = EVERYTHING
    edge_data: tuple[str, ...] = ()
    outbox_key: Path | None = None
    json: Path | None = None


@dataclass(frozen=True)
class Mismatch:
    """An object that is not what the ledger says."""

    key: str
    slice_id: str
    fault: str


@dataclass(frozen=True)
class ObjectsAudit:
    """Objects that were read back, how many of them are wrong, and the first of these."""

    read: int
    wrong: int
    mismatches: tuple[Mismatch, ...]


def run_audit(request: AuditRequest, ledger_url: str, store: ObjectStore | None) -> int:
    """Print the audit and write its JSON; return 1 when anything is lost, doubled or another than it should be."""
    console = Console(highlight=False)
    objects = None
    with Ledger(ledger_url) as ledger:
        chosen = _chosen_edges(ledger, request)
        folders = _folders(request.edge_data, chosen)
        audits = []
        for site, edge in chosen:
            folder = folders.get((site, edge))
            word = word_of_outbox(folder, request.outbox_key) if folder else None
            audits.append(audit(edge_facts(ledger, site, edge, request.period, word)))
        if store is not None:
            objects = read_back(ledger, store, chosen, request.period)
    show(console, audits, objects)
    if request.json is not None:
        request.json.write_text(json.dumps(as_json(audits, objects, request.period), indent=1) + "\n")
    clean = all(each.clean for each in audits) and not (objects and objects.wrong)
    return 0 if clean else 1


def word_of_outbox(folder: Path, key_file: Path | None = None) -> EdgeWord:
    """Return what the outbox in an edge's data folder says of the numbers; raises `AuditError` where there is none."""
    path = folder / OUTBOX_FILE
    if not path.is_file():
        raise AuditError(f"{path} does not exist: --edge-data is the edge.data_dir of an edge")
    with Outbox(path, max_rows=1, max_bytes=1, key_file=key_file) as outbox:
        return EdgeWord(
            source="outbox",
            at=None,
            last_sequence=outbox.last_sequence(),
            waiting=merged(outbox.waiting_ranges(MAX_RANGES)),
            waiting_originals=merged(outbox.waiting_ranges(MAX_RANGES, Kind.FRAME)),
            set_aside=merged(outbox.lost_ranges()),
            dropped_originals=merged(outbox.dropped_frames()),
            refused_frames=outbox.refused_count(),
        )


def read_back(ledger: Ledger, store: ObjectStore, chosen: list[tuple[str, str]], period: Period) -> ObjectsAudit:
    """Read every object of the period's slices and compare its hash with the ledger's."""
    total = sum(ledger.count_objects(site, edge, period) for site, edge in chosen)
    read, wrong, mismatches = 0, 0, list[Mismatch]()
    with counted("objects") as on_object:
        on_object(0, total)
        each = (stored for site, edge in chosen for stored in ledger.stored_objects(site, edge, period))
        for stored, fault in _checked(each, store):
            read += 1
            on_object(read, max(total, read))
            if fault:
                wrong += 1
                if len(mismatches) < MAX_MISMATCHES:
                    mismatches.append(Mismatch(stored.key, stored.slice_id, fault))
    return ObjectsAudit(read, wrong, tuple(mismatches))


def _checked(objects: Iterator[StoredObject], store: ObjectStore) -> Iterator[tuple[StoredObject, str]]:
    """Yield each object with its fault, empty where it is whole; a few are read at once, and no more are held."""

    def check(stored: StoredObject) -> tuple[StoredObject, str]:
        try:
            found = sha256_of(store.get(stored.key))
        except ObjectMissingError:
            return stored, "missing"
        return stored, "" if found == stored.sha256 else f"SHA-256 is {found}, not {stored.sha256}"

    with ThreadPoolExecutor(READERS, "audit") as pool:
        waiting: list[Future[tuple[StoredObject, str]]] = []
        while batch := list(islice(objects, READERS)):
            done, waiting = waiting, [pool.submit(check, stored) for stored in batch]
            yield from (future.result() for future in done)
        yield from (future.result() for future in waiting)


def show(console: Console, audits: list[EdgeAudit], objects: ObjectsAudit | None) -> None:
    """Print a table of the edges, and then what is to be said of single numbers."""
    if not audits:
        console.print("no edge has spoken yet")
    # in 80 columns every number and name is there in full: folded, where it must be, and never cut
    table = Table(title="numbers", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    heads = ("edge", "issued", "stored", "waiting", "refused", "lost", "unknown", "doubled")
    for head in heads:
        table.add_column(head, justify="left" if head == "edge" else "right", overflow="fold")
    for each in audits:
        table.add_row(*_row(each))
    if audits:
        console.print(table)
    for each in audits:
        console.print(_rest(each), markup=False, soft_wrap=True)
    for each in audits:
        lines = list(_lines(each))
        for line in lines[:MAX_PRINTED]:
            console.print(line, markup=False, soft_wrap=True)
        if len(lines) > MAX_PRINTED:
            console.print(f"  and {len(lines) - MAX_PRINTED} more lines: --json FILE has them")
    if objects is not None:
        console.print(f"objects: {objects.read:,} read back, {objects.wrong:,} wrong")
        for mismatch in objects.mismatches[:MAX_PRINTED]:
            line = f"  {mismatch.key} of slice {mismatch.slice_id}: {mismatch.fault}"
            console.print(line, markup=False, soft_wrap=True)


def as_json(audits: list[EdgeAudit], objects: ObjectsAudit | None, period: Period) -> dict[str, Any]:
    """Return the audit as plain values; ranges are first and last."""
    return {
        "since": _time(period.since),
        "until": _time(period.until),
        "clean": all(each.clean for each in audits) and not (objects and objects.wrong),
        "edges": [_edge_json(each) for each in audits],
        "objects": None
        if objects is None
        else {
            "read": objects.read,
            "wrong": objects.wrong,
            "mismatches": [vars(mismatch) for mismatch in objects.mismatches],
        },
    }


def _chosen_edges(ledger: Ledger, request: AuditRequest) -> list[tuple[str, str]]:
    known = ledger.numbered_edges()
    chosen = [(site, edge) for site, edge in known if request.site in (None, site) and request.edge in (None, edge)]
    if known and not chosen:
        names = ", ".join(f"{site}/{edge}" for site, edge in known)
        raise AuditError(f"the ledger knows no edge {request.site or '*'}/{request.edge or '*'}; it knows {names}")
    return chosen


def _folders(given: tuple[str, ...], chosen: list[tuple[str, str]]) -> dict[tuple[str, str], Path]:
    """Tell whose each data folder is: SITE/EDGE=DIR says it, and DIR alone is of the one edge that is audited."""
    folders: dict[tuple[str, str], Path] = {}
    for each in given:
        name, equals, folder = each.rpartition("=")
        site, _, edge = name.partition("/")
        if not equals and len(chosen) != 1:
            raise AuditError(f"--edge-data {each}: say whose it is, SITE/EDGE={each}, or choose one edge by --edge")
        whose = (site, edge) if equals else chosen[0]
        if whose not in chosen:
            names = ", ".join("/".join(pair) for pair in chosen)
            raise AuditError(f"--edge-data {each}: {'/'.join(whose)} is not among the audited edges ({names})")
        folders[whose] = Path(folder)
    return folders


def _row(each: EdgeAudit) -> tuple[str, ...]:
    numbers = (
        each.issued,
        each.stored,
        each.fates[Fate.WAITING],
        each.fates[Fate.REFUSED],
        each.lost,
        each.fates[Fate.UNKNOWN],
        each.doubled,
    )
    return (f"{each.site}/{each.edge}", *(f"{number:,}" for number in numbers))


def _rest(each: EdgeAudit) -> str:
    """Say what the table has no room for, and whose word it goes by."""
    word = each.word
    source = (
        "nothing: it never spoke"
        if word is None
        else f"its {word.source}" + (f" of {_time(word.at)}" if word.at else "")
    )
    refused = word.refused_frames if word else 0
    missing = f"originals missing {each.originals_missing:,}, frames refused at the edge {refused:,}"
    return f"{each.site}/{each.edge}: {missing}; by {source}"


def _lines(each: EdgeAudit) -> Iterator[str]:
    name = f"{each.site}/{each.edge}"
    for finding in each.findings:
        known = " (and the edge knows it)" if finding.fate is Fate.SET_ASIDE else ""
        fate = "lost" if finding.fate in LOSSES else finding.fate
        between = f"between {_time(finding.before) or 'the beginning'} and {_time(finding.after) or 'now'}"
        yield f"{name} {fate}: {_range(finding.first, finding.last)}, captured {between}{known}"
    for fate, (first, last) in each.original_findings:
        yield f"{name} original {ORIGINAL_FATES.get(fate, fate)}: {_range(first, last)}"
    for doubled in each.doublings:
        ids = ", ".join(doubled.slice_ids)
        yield f"{name} doubled {doubled.what}: {doubled.sequence}, {doubled.rows} slices ({ids})"
    if each.unnumbered:
        yield f"{name}: {each.unnumbered} quarantined slices did not say their number; what is lost may be these"


def _edge_json(each: EdgeAudit) -> dict[str, Any]:
    word = each.word
    return {
        "site": each.site,
        "edge": each.edge,
        "word": None if word is None else {"source": word.source, "at": _time(word.at), "last": word.last_sequence},
        "issued": each.issued,
        "stored": each.stored,
        "numbers": {str(fate): count for fate, count in each.fates.items()},
        "lost": each.lost,
        "doubled": each.doubled,
        "originals": {str(fate): count for fate, count in each.originals.items()},
        "refused_frames": word.refused_frames if word else 0,
        "unnumbered": each.unnumbered,
        "findings": [
            {
                "fate": str(finding.fate),
                "first": finding.first,
                "last": finding.last,
                "captured_after": _time(finding.before),
                "captured_before": _time(finding.after),
            }
            for finding in each.findings
        ],
        "original_findings": [
            {"fate": str(fate), "first": first, "last": last} for fate, (first, last) in each.original_findings
        ],
        "doublings": [{**vars(doubled), "captured_at": _time(doubled.captured_at)} for doubled in each.doublings],
        "clean": each.clean,
    }


def _range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} to {last:,} ({last - first + 1:,})"


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
