"""One message that cannot be stored stands in nobody's way, and what a worker holds is bounded."""

import random
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from worker_parts import EDGE, NOW, SITE, Peer, outbound, receipt_for, receiving, slice_read, wait_until

from broker.messages import Inbound
from broker.settings import BrokerSettings
from cloud_worker.in_hand import InHand
from cloud_worker.ledger import Ledger, ReportEntry, SliceEntry
from cloud_worker.object_store import ObjectStore, ObjectStoreUnreachableError, image_key
from cloud_worker.patience import Patience
from cloud_worker.storing import MAX_LONE_FAILURES, Arrived, Storing
from protocol.messages import Status
from protocol.topics import Kind, edge_topic

RECEIPTS = edge_topic(SITE, EDGE, Kind.RECEIPT)
BEFORE_THE_CALENDAR = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))


class HalfBroken:
    """A store that takes everything but one key, and calls `meanwhile` at each try of that."""

    def __init__(self, broken_key: str, meanwhile: Callable[[], None]) -> None:
        self._broken_key, self._meanwhile = broken_key, meanwhile
        self.tries = 0

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Fail for the one key."""
        if key == self._broken_key:
            self.tries += 1
            self._meanwhile()
            raise ObjectStoreUnreachableError("a test's store", "500 InternalError")


def arrived(number: int) -> Arrived:
    sent = outbound(slice_read(number), f"m-{number}")
    return Arrived(Inbound(sent.topic, sent.payload, 1, False, None, sent.user_properties, number, 1), NOW)


def patience() -> Patience:
    return Patience(0.001, random.Random(0))


def broken(number: int) -> str:
    return image_key(slice_read(number).image_sha256)


def test_an_object_that_alone_fails_is_left_to_its_edge() -> None:
    """While others go through, a message whose object fails is let go after a few tries, neither stored nor blamed."""
    shared, stop = patience(), threading.Event()
    store = HalfBroken(broken(0), shared.succeeded)
    stored = Storing(store, shared).store(arrived(0), stop)  # type: ignore[arg-type]
    assert stored is not None
    assert (stored.entry, stored.refusal, store.tries) == (None, None, MAX_LONE_FAILURES)


def test_an_object_that_fails_like_all_others_is_waited_for() -> None:
    """While nothing goes through, a message is not let go, however often it fails; a stop ends the wait."""
    shared, stop = patience(), threading.Event()
    tries = 5 * MAX_LONE_FAILURES
    store = HalfBroken(broken(0), lambda: stop.set() if store.tries == tries else None)
    assert Storing(store, shared).store(arrived(0), stop) is None  # type: ignore[arg-type]
    assert store.tries == tries


def test_a_message_that_breaks_the_code_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw costs its message alone: it is refused, and kept whole."""

    def break_down(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("cloud_worker.storing.decode", break_down)
    kept: list[str] = []

    class Store:
        def put(self, key: str, data: bytes, content_type: str) -> None:
            kept.append(key)

    stored = Storing(Store(), patience()).store(arrived(0), threading.Event())  # type: ignore[arg-type]
    assert stored is not None and stored.refusal is not None
    assert [key.split("/")[0] for key in kept] == ["quarantine"]


def test_many_slices_are_stored_with_few_receipts(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """A hundred slices at once are all stored and all named in receipts, of which there are fewer than slices."""
    edge = peer(RECEIPTS)
    with receiving(store, ledger, broker_settings):
        for number in range(100):
            edge.say(outbound(slice_read(number), f"m-{number}"))
        wait_until(lambda: ledger.counts()["slices"] == 100, "all are stored")
        for number in range(100):
            named = receipt_for(f"m-{number}")
            wait_until(lambda: edge.drain() or any(map(named, edge.heard)), f"receipt {number}")  # noqa: B023
    assert len(edge.heard) <= 100


def test_one_entry_that_the_ledger_refuses_does_not_cost_the_batch(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """Of slices that come together one has a time that the ledger cannot keep: it is quarantined, the others stored."""
    edge = peer(RECEIPTS)
    with receiving(store, ledger, broker_settings):
        for number in range(20):
            captured_at = BEFORE_THE_CALENDAR if number == 7 else NOW
            edge.say(outbound(slice_read(number, captured_at=captured_at), f"m-{number}"))
        edge.hear(receipt_for("m-7"), "the receipt of what is quarantined")
        wait_until(lambda: ledger.counts()["slices"] == 19, "the others are stored")
    assert [letter.reason.split(":")[0] for letter in ledger.dead_letters()] == ["RefusedByLedgerError"]


def test_a_batch_says_what_was_new(ledger: Ledger) -> None:
    """A slice that comes a second time, even in the same batch, is not new and is one row; reports go in beside it."""

    def entry(number: int) -> SliceEntry:
        return SliceEntry(f"m-{number}", SITE, EDGE, slice_read(number), "key", NOW)

    status = Status(state="online", boot_id="boot-1", at=NOW, software="0.1")
    assert ledger.take_in([entry(1), entry(2), ReportEntry(SITE, EDGE, status, NOW)]) == {"m-1", "m-2"}
    later = ReportEntry(SITE, EDGE, status.model_copy(update={"state": "lost"}), NOW + timedelta(seconds=1))
    assert ledger.take_in([entry(3), entry(2), entry(3), later]) == {"m-3"}
    assert ledger.counts()["slices"] == ledger.counts()["readings"] == 3
    (known,) = ledger.edges()
    assert known.status is not None and known.status["state"] == "lost"


def test_what_is_in_hand_is_bounded() -> None:
    """With no room left a message waits until something is stored; one larger than all the room still goes, alone."""
    in_hand, stop, entered = InHand(100), threading.Event(), threading.Event()
    assert in_hand.enter(250, stop)

    def enter() -> None:
        assert in_hand.enter(60, stop)
        entered.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    assert not entered.wait(0.05)
    in_hand.leave(250)
    assert entered.wait(10)
    waiting.join()
    stop.set()
    assert not in_hand.enter(60, stop)


def test_a_heartbeat_tells_nothing_of_the_store() -> None:
    """A status is taken in while the store is away, and does not count as something that went through."""
    shared = patience()
    status = Status(state="online", boot_id="boot-1", at=NOW, software="0.1")
    sent = outbound(status, "m-1")
    came = Arrived(Inbound(sent.topic, sent.payload, 1, True, None, sent.user_properties, 1, 1), NOW)
    stored = Storing(HalfBroken("", lambda: None), shared).store(came, threading.Event())  # type: ignore[arg-type]
    assert stored is not None and isinstance(stored.entry, ReportEntry)
    assert shared.successes == 0
