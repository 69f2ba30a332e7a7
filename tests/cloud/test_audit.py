"""What became of every number: random histories are told back exactly, by the pure function and by both databases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ledger import slice_read

from cloud_worker.audit import EdgeAudit, EdgeFacts, EdgeWord, Fate, audit
from cloud_worker.audit_facts import edge_facts, word_of_status
from cloud_worker.ledger import Ledger, Missing, Period
from protocol.codec import EventContext, encode
from protocol.messages import Status
from protocol.ranges import Range, ranges_of
from protocol.topics import Kind, edge_topic

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SITE, EDGE = "site-a", "edge-1"
STORED = "stored"
EVERYTHING = Period()
History = Sequence[str]
"""What became of number 1, number 2, and so on: `stored`, or a fate."""

fates = st.sampled_from([STORED, STORED, *(fate for fate in Fate if fate is not Fate.UNKNOWN)])
histories = st.lists(fates, max_size=40)


@dataclass(frozen=True)
class Told:
    """What an audit must say."""

    stored: set[int]
    fates: dict[Fate, set[int]]


def numbers(history: History, what: str) -> list[int]:
    return [number for number, fate in enumerate(history, start=1) if fate == what]


def ranges(history: History, what: str) -> list[Range]:
    return list(ranges_of(numbers(history, what)))


def captured_at(number: int) -> datetime:
    return NOON + number * SECOND


def word(history: History, last_sequence: int | None = None) -> EdgeWord:
    """Return what the edge of this history says of it."""
    return EdgeWord(
        source="outbox",
        at=NOON,
        last_sequence=len(history) if last_sequence is None else last_sequence,
        waiting=ranges(history, Fate.WAITING),
        set_aside=ranges(history, Fate.SET_ASIDE),
    )


def gaps(history: History) -> Iterator[Missing]:
    """Yield the gaps below the highest stored number, as the ledger does."""
    before = 0
    for number in numbers(history, STORED):
        if number > before + 1:
            yield Missing(before + 1, number - 1, captured_at(before) if before else None, captured_at(number))
        before = number


def facts(history: History, said: EdgeWord | None, period: Period = EVERYTHING) -> EdgeFacts:
    stored = numbers(history, STORED)
    return EdgeFacts(
        site=SITE,
        edge=EDGE,
        period=period,
        word=said,
        stored=len([number for number in stored if period.meets(captured_at(number), captured_at(number))]),
        highest=(stored[-1], captured_at(stored[-1])) if stored else None,
        missing=gaps(history),
        refused=ranges(history, Fate.REFUSED),
        refused_originals=(),
        without_original=(),
        doubled=(),
        unnumbered=0,
    )


def told(found: EdgeAudit) -> dict[Fate, set[int]]:
    """Return the numbers that an audit names, by fate."""
    named: dict[Fate, set[int]] = {fate: set() for fate in Fate}
    for finding in found.findings:
        named[finding.fate] |= set(range(finding.first, finding.last + 1))
    return named


def expected(history: History) -> dict[Fate, set[int]]:
    return {fate: set(numbers(history, fate)) for fate in Fate}


@given(histories)
def test_a_history_is_told_back_exactly(history: History) -> None:
    """Each number is counted once, under what became of it."""
    found = audit(facts(history, word(history)))
    assert told(found) == expected(history)
    assert found.fates == {fate: len(named) for fate, named in expected(history).items()}
    assert (found.stored, found.issued) == (len(numbers(history, STORED)), len(history))
    assert found.clean == (found.lost == 0)


@given(histories, st.integers(0, 40))
def test_what_an_edge_has_not_said_yet_is_not_lost(history: History, last_sequence: int) -> None:
    """Numbers beyond the last one that the edge spoke of are unknown where nothing else is known of them."""
    found = audit(facts(history, word(history, min(last_sequence, len(history)))))
    assert all(number <= last_sequence for number in told(found)[Fate.LOST])
    assert all(number > last_sequence for number in told(found)[Fate.UNKNOWN])
    assert told(found)[Fate.REFUSED] == set(numbers(history, Fate.REFUSED))


@pytest.mark.parametrize("said", [None, EdgeWord("status", NOON, 40, waiting=None)])
@given(history=histories)
def test_nothing_is_called_lost_without_the_edges_word(said: EdgeWord | None, history: History) -> None:
    """Of an edge without status, or with one that does not tell what waits, missing numbers are unknown."""
    found = audit(facts(history, said))
    assert found.lost == 0
    assert found.clean
    assert found.fates[Fate.REFUSED] == len(numbers(history, Fate.REFUSED))


@given(histories)
def test_a_gap_lies_between_its_neighbours(history: History) -> None:
    """Each missing number is told with the times of the nearest stored numbers around it."""
    stored = numbers(history, STORED)
    for finding in audit(facts(history, word(history))).findings:
        below = [number for number in stored if number < finding.first]
        above = [number for number in stored if number > finding.last]
        assert finding.before == (captured_at(max(below)) if below else None)
        assert finding.after == (captured_at(min(above)) if above else None)


@given(histories, st.integers(0, 45), st.integers(0, 45))
def test_a_period_has_the_gaps_that_reach_into_it(history: History, since: int, until: int) -> None:
    """A gap counts for a period when the time between its neighbours has a part in it, open ends included."""
    period = Period(captured_at(since), captured_at(until))
    found = audit(facts(history, word(history), period))
    whole = audit(facts(history, word(history)))
    for finding in whole.findings:
        ends_before = finding.after is not None and finding.after < captured_at(since)
        begins_after = finding.before is not None and finding.before >= captured_at(until)
        assert (finding in found.findings) == (not ends_before and not begins_after)


@given(st.integers(1, 10**15), st.integers(1, 10**6))
def test_the_size_of_a_gap_costs_nothing(first: int, count: int) -> None:
    """A gap of any size is one finding."""
    gap = Missing(first, first + count - 1, None, NOON)
    missing = replace(facts((), None), missing=[gap], highest=(first + count, NOON), stored=1)
    found = audit(replace(missing, word=EdgeWord("status", NOON, first + count, ())))
    assert [(f.fate, f.first, f.last) for f in found.findings] == [(Fate.LOST, gap.first, gap.last)]
    assert found.fates[Fate.LOST] == count


def test_an_original_waits_is_refused_or_is_missing() -> None:
    """An original that is promised is missing only where none waits, none was refused, and the edge has said so."""
    said = EdgeWord("status", NOON, 5, waiting=[], waiting_originals=[(2, 2)], dropped_originals=[(4, 4)])
    found = audit(replace(facts([STORED] * 6, said), without_original=[(1, 4), (6, 6)], refused_originals=[(3, 3)]))
    assert found.original_findings == (
        (Fate.LOST, (1, 1)),
        (Fate.WAITING, (2, 2)),
        (Fate.REFUSED, (3, 3)),
        (Fate.SET_ASIDE, (4, 4)),
        (Fate.UNKNOWN, (6, 6)),
    )
    assert (found.originals_missing, found.lost, found.clean) == (1, 0, False)


def test_originals_that_gave_way_are_no_fault() -> None:
    """An original that the edge gave up to make room is told, and does not make the audit fail."""
    said = EdgeWord("status", NOON, 1, waiting=[], waiting_originals=[], dropped_originals=[(1, 1)])
    found = audit(replace(facts([STORED], said), without_original=[(1, 1)]))
    assert (found.originals[Fate.SET_ASIDE], found.clean) == (1, True)


def test_a_status_that_does_not_tell_what_waits_tells_it_when_nothing_does() -> None:
    """Of an edge that does not name what waits it is known all the same when its outbox is empty."""
    status = {"state": "online", "boot_id": "b", "at": NOON.isoformat(), "software": "old", "last_sequence": 3}
    assert word_of_status({**status, "outbox_depth": 2}).waiting is None
    assert word_of_status({**status, "outbox_depth": 0}).waiting == []
    assert word_of_status({**status, "waiting": [[5, 3], [4, 4], [1, 2], [2, 3]]}).waiting == [(1, 4)]


# --- from the ledger


def enter(ledger: Ledger, history: History, said: bool = True) -> None:
    """Do to a ledger what such a history does."""
    for number in numbers(history, STORED):
        read = slice_read(f"s{number}", number).model_copy(update={"captured_at": captured_at(number)})
        put(ledger, f"m{number}", read)
        original(ledger, number)
    for number in numbers(history, Fate.REFUSED):
        quarantine(ledger, Kind.SLICE, number)
    if said:
        status = Status(
            state="online",
            boot_id="boot-1",
            at=NOON,
            software="test",
            last_sequence=len(history),
            waiting=ranges(history, Fate.WAITING),
            waiting_originals=(),
            set_aside=ranges(history, Fate.SET_ASIDE),
        )
        ledger.record_status(SITE, EDGE, status.model_dump(mode="json"), NOON)


def put(ledger: Ledger, message_id: str, read: object, edge: str = EDGE) -> None:
    ledger.store_slice(message_id=message_id, site=SITE, edge=edge, slice=read, image_key="k", received_at=NOON)


def original(ledger: Ledger, number: int) -> None:
    ledger.store_frame(
        message_id=f"f{number}", slice_id=f"s{number}", sha256="0" * 64, frame_key="k", media_type="t", received_at=NOON
    )


def quarantine(ledger: Ledger, kind: Kind, number: int, message_id: str = "") -> None:
    context = EventContext(message_id or f"{kind}-{number}", "/edges", NOON, sequence=number)
    properties = encode(STATUS, context).user_properties
    ledger.dead_letter(edge_topic(SITE, EDGE, kind), b"garbage", "no slice", NOON, properties)


STATUS = Status(state="online", boot_id="boot-1", at=NOON, software="test")


def audited(ledger: Ledger, period: Period = EVERYTHING) -> EdgeAudit:
    return audit(edge_facts(ledger, SITE, EDGE, period))


def empty(ledger: Ledger) -> None:
    """Forget everything."""
    from cloud_worker.ledger.tables import metadata

    with ledger.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


def test_the_ledger_tells_a_history_back(ledger: Ledger) -> None:
    """What was stored, refused, waits or is lost is found by the database as by the pure function."""

    @settings(max_examples=25, deadline=None)
    @given(histories)
    def tell(history: History) -> None:
        empty(ledger)
        enter(ledger, history)
        found = audited(ledger)
        assert told(found) == expected(history)
        assert (found.stored, found.issued, found.doubled) == (len(numbers(history, STORED)), len(history), 0)
        assert found.findings == audit(facts(history, word(history))).findings

    tell()


def test_the_ledger_tells_a_period(ledger: Ledger) -> None:
    """A period has the slices that were captured in it, and the gaps that reach into it."""
    history = [STORED, STORED, Fate.LOST, STORED, STORED, Fate.LOST, STORED]
    enter(ledger, history)
    found = audited(ledger, Period(captured_at(5), captured_at(7)))
    assert (found.stored, told(found)[Fate.LOST]) == (1, {6})
    assert audited(ledger, Period(until=captured_at(2))).clean


def test_a_number_under_two_slices_is_doubled(ledger: Ledger) -> None:
    """A number that an edge gave twice, as after the loss of its data folder, is told with both slices."""
    enter(ledger, [STORED, STORED])
    put(ledger, "other", slice_read("other", 2, "boot-2"))
    found = audited(ledger)
    assert (found.stored, found.issued, found.doubled, found.clean) == (2, 2, 1, False)
    (doubled,) = found.doublings
    assert (doubled.what, doubled.sequence, doubled.rows, doubled.slice_ids) == ("number", 2, 2, ("other", "s2"))


def test_a_capture_under_two_numbers_is_doubled(ledger: Ledger) -> None:
    """One frame captured at one moment and stored under two numbers is told; frames alike at other moments are not."""
    for number, moment in ((1, 1), (2, 1), (3, 2)):
        read = slice_read(f"s{number}", number).model_copy(update={"captured_at": captured_at(moment)})
        put(ledger, f"m{number}", read)
        original(ledger, number)
    (doubled,) = audited(ledger).doublings
    assert (doubled.what, doubled.rows, doubled.slice_ids) == ("capture", 2, ("s1", "s2"))
    assert audited(ledger, Period(since=captured_at(2))).doublings == ()


def test_another_edges_numbers_are_its_own(ledger: Ledger) -> None:
    """The same number of two edges is no doubling, and fills no gap."""
    enter(ledger, [STORED, Fate.LOST])
    put(ledger, "other", slice_read("other", 2), edge="edge-2")
    assert (audited(ledger).doubled, audited(ledger).lost) == (0, 1)
    assert ledger.numbered_edges() == [(SITE, EDGE), (SITE, "edge-2")]


def test_originals_are_found_by_their_slices(ledger: Ledger) -> None:
    """A promised original that did not come is missing; one that was quarantined, or stays at the edge, is not."""
    enter(ledger, [STORED])
    put(ledger, "m2", slice_read("s2", 2))
    put(ledger, "m3", slice_read("s3", 3).model_copy(update={"frame_omitted": "too large"}))
    put(ledger, "m4", slice_read("s4", 4))
    quarantine(ledger, Kind.FRAME, 4)
    ledger.record_status(SITE, EDGE, STATUS.model_copy(update={"last_sequence": 4}).model_dump(mode="json"), NOON)
    assert audited(ledger).original_findings == ((Fate.LOST, (2, 2)), (Fate.REFUSED, (4, 4)))


def test_a_refused_number_that_is_stored_later_is_stored(ledger: Ledger) -> None:
    """A slice that was quarantined, replayed and stored counts as stored."""
    enter(ledger, [Fate.REFUSED, STORED])
    assert audited(ledger).fates[Fate.REFUSED] == 1
    put(ledger, "replayed", slice_read("s1", 1))
    original(ledger, 1)
    assert (audited(ledger).fates[Fate.REFUSED], audited(ledger).stored) == (0, 2)


def test_refused_numbers_outlast_their_letters(ledger: Ledger) -> None:
    """A quarantined number is not called lost when its dead letter has given way to newer ones."""
    enter(ledger, [Fate.REFUSED, STORED])
    with ledger.write() as connection:
        connection.exec_driver_sql("DELETE FROM dead_letters")
    assert (audited(ledger).fates[Fate.REFUSED], audited(ledger).lost) == (1, 0)


def test_a_will_does_not_take_back_what_was_said(ledger: Ledger) -> None:
    """A will, which was written when the edge connected, leaves the numbers of the last heartbeat in place."""
    enter(ledger, [STORED, Fate.WAITING, Fate.LOST])
    will = STATUS.model_copy(update={"state": "lost"})
    ledger.record_status(SITE, EDGE, will.model_dump(mode="json"), NOON + SECOND)
    assert ledger.edges()[0].status["state"] == "lost"
    assert told(audited(ledger)) == expected([STORED, Fate.WAITING, Fate.LOST])
    another_boot = will.model_copy(update={"boot_id": "boot-2", "last_sequence": 7})
    ledger.record_status(SITE, EDGE, another_boot.model_dump(mode="json"), NOON + 2 * SECOND)
    assert ledger.edges()[0].status["last_sequence"] == 7
