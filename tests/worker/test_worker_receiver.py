"""The receiver stores first and says so after; what it cannot take in it keeps aside with its reason, and goes on."""

import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import cbor2
import pytest
from worker_parts import (
    EDGE,
    NOW,
    RETRY_S,
    SITE,
    Peer,
    outbound,
    png,
    quick,
    receipt_for,
    receiving,
    slice_read,
    wait_until,
)

from broker.embedded import EmbeddedBroker
from broker.messages import Outbound
from broker.settings import BrokerSettings
from cloud_worker.embedded_s3 import EmbeddedS3
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, S3Settings, frame_key, image_key, quarantine_key
from protocol.chunks import sha256_of
from protocol.codec import EventContext, encode_frame, schema_uri
from protocol.messages import Frame, ModelPhase, ModelReported, Status
from protocol.topics import Kind, edge_topic

RECEIPTS = edge_topic(SITE, EDGE, Kind.RECEIPT)
SLICE_TOPIC = edge_topic(SITE, EDGE, Kind.SLICE)
QUIET_S = 10 * RETRY_S
"""Long enough for the receiver to try several times."""


def wait_until_receipted(edge: Peer, message_id: str) -> None:
    """Wait for a receipt that names this message, perhaps among others."""
    named = receipt_for(message_id)
    wait_until(lambda: edge.drain() or any(map(named, edge.heard)), f"the receipt of {message_id}")


def status(sequence: int = 1) -> Status:
    return Status(state="online", boot_id="boot-1", at=NOW, software="0.1", last_sequence=sequence)


def frame(data: bytes, message_id: str, **changes: Any) -> Outbound:
    fields = {"slice_id": "slice-1", "sha256": sha256_of(data), "media_type": "application/dicom", "data": data}
    encoded = encode_frame(Frame.model_validate({**fields, **changes}), EventContext(message_id, "/test", NOW))
    return Outbound(edge_topic(SITE, EDGE, Kind.FRAME), encoded.payload, user_properties=encoded.user_properties)


def test_a_slice_is_stored_before_its_receipt_is_said(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """When the receipt of a slice arrives, its image is in the object store and its row in the ledger."""
    edge, said = peer(RECEIPTS), slice_read(1)
    with receiving(store, ledger, broker_settings):
        edge.say(outbound(said, "m-1"))
        edge.hear(receipt_for("m-1"), "the receipt")
        stored = ledger.slice("slice-1")
        assert store.get(stored.image_key) == said.image
        assert (stored.message_id, stored.site, stored.edge, stored.sequence) == ("m-1", SITE, EDGE, 2)
        assert ledger.verdict_parts("slice-1").first == said.reading


def test_a_slice_that_comes_twice_is_stored_once_and_receipted_twice(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """The second delivery of a message gives a receipt again, and no second row."""
    edge = peer(RECEIPTS)
    with receiving(store, ledger, broker_settings):
        for _ in range(2):
            edge.say(outbound(slice_read(1), "m-1"))
            edge.hear(receipt_for("m-1"), "the receipt")
    assert ledger.counts()["slices"] == ledger.counts()["readings"] == 1


def test_the_captured_original_is_kept(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """A frame goes into the object store by its hash, into the ledger by its slice, and is receipted."""
    edge, data = peer(RECEIPTS), b"DICM and so on"
    with receiving(store, ledger, broker_settings):
        edge.say(frame(data, "f-1"))
        edge.hear(receipt_for("f-1"), "the receipt")
        (stored,) = ledger.frames_of("slice-1")
        assert stored.frame_key == frame_key(sha256_of(data), "application/dicom")
        assert store.get(stored.frame_key) == data


def test_what_an_edge_says_of_itself_is_remembered(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """Status and reported model of an edge are in the ledger; a trainer's status on a like topic is none of an edge."""
    edge = peer()
    with receiving(store, ledger, broker_settings):
        edge.say(Outbound("sliceloop/v1/cloud/retrain/status", b"{}"))
        edge.say(outbound(ModelReported(phase=ModelPhase.ACTIVE, at=NOW, desired_version=3), "m-1"))
        edge.say(outbound(status(7), "m-2"))
        wait_until(lambda: any(row.status and row.reported for row in ledger.edges()), "the edge is known")
    (known,) = ledger.edges()
    assert known.status is not None
    assert known.reported is not None
    assert (known.status["last_sequence"], known.reported["desired_version"]) == (7, 3)
    assert ledger.dead_letters() == []


def test_while_the_object_store_is_away_nothing_is_receipted_and_nothing_lost(
    s3_server: EmbeddedS3,
    store: ObjectStore,
    ledger: Ledger,
    broker_settings: BrokerSettings,
    peer: Callable[..., Peer],
) -> None:
    """With S3 killed no receipt is said and no row written; when S3 is back, each message is dealt with, once."""
    edge, ids = peer(RECEIPTS), [f"m-{number}" for number in range(5)]
    with receiving(store, ledger, broker_settings):
        s3_server.kill()
        try:
            for number, message_id in enumerate(ids):
                edge.say(outbound(slice_read(number), message_id))
            edge.drain(QUIET_S)
            assert edge.heard == []
            assert ledger.counts()["slices"] == ledger.counts()["dead_letters"] == 0
        finally:
            s3_server.start()
        for message_id in ids:
            wait_until_receipted(edge, message_id)
        assert all(store.exists(ledger.slice(f"slice-{number}").image_key) for number in range(5))


def test_while_the_object_store_is_away_what_is_to_be_quarantined_waits(
    s3_server: EmbeddedS3,
    store: ObjectStore,
    ledger: Ledger,
    broker_settings: BrokerSettings,
    peer: Callable[..., Peer],
) -> None:
    """With S3 killed bytes that are no message get no receipt; when S3 is back they are kept once, in both places."""
    edge = peer(RECEIPTS)
    with receiving(store, ledger, broker_settings):
        s3_server.kill()
        try:
            edge.say(Outbound(SLICE_TOPIC, b"garbage", user_properties=(("id", "g-1"),)))
            edge.drain(QUIET_S)
            assert edge.heard == []
        finally:
            s3_server.start()
        edge.hear(receipt_for("g-1"), "the receipt")
    assert store.get(quarantine_key(sha256_of(b"garbage"))) == b"garbage"
    assert [letter.payload for letter in ledger.dead_letters()] == [b"garbage"]


def test_while_the_ledger_is_locked_nothing_is_receipted_and_nothing_lost(
    store: ObjectStore, ledger_url: str, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """While another program holds the ledger no receipt is said; when it lets go, the slice is stored and receipted."""
    edge = peer(RECEIPTS)
    with Ledger(ledger_url, busy_timeout_s=0.1) as ledger, receiving(store, ledger, broker_settings):
        holder = sqlite3.connect(ledger_url.removeprefix("sqlite:///"), isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        edge.say(outbound(slice_read(1), "m-1"))
        wait_until(lambda: store.exists(image_key(slice_read(1).image_sha256)), "the object is stored")
        edge.drain(QUIET_S)
        assert edge.heard == []
        holder.execute("ROLLBACK")
        holder.close()
        edge.hear(receipt_for("m-1"), "the receipt")
        assert ledger.slice("slice-1").message_id == "m-1"


def test_a_store_that_lets_nobody_in_is_waited_for(
    s3_settings: S3Settings,
    store: ObjectStore,
    ledger: Ledger,
    broker_settings: BrokerSettings,
    peer: Callable[..., Peer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With wrong keys the receiver waits, and stops when told to; with the right ones it stores what is said again."""
    edge, locked_out = peer(RECEIPTS), ObjectStore(s3_settings)
    with monkeypatch.context() as environment, receiving(locked_out, ledger, broker_settings):
        environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        edge.say(outbound(slice_read(1), "m-1"))
        edge.drain(QUIET_S)
        assert edge.heard == []
    assert ledger.counts()["dead_letters"] == 0
    with receiving(store, ledger, broker_settings):
        edge.say(outbound(slice_read(1), "m-1"))
        edge.hear(receipt_for("m-1"), "the receipt")
    assert ledger.counts()["slices"] == 1


def test_an_object_that_the_store_refuses_for_good_stays_with_its_edge(
    s3_settings: S3Settings, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """A slice whose object the store refuses, even into quarantine, gets a letter and no receipt; the next is heard."""
    edge, refusing = peer(RECEIPTS), ObjectStore(s3_settings.model_copy(update={"prefix": "long" * 400 + "/"}))
    with receiving(refusing, ledger, broker_settings):
        edge.say(outbound(slice_read(1), "m-1"))
        edge.say(outbound(status(), "m-2"))
        wait_until(lambda: bool(ledger.edges()), "the next message is handled")
        wait_until(lambda: bool(ledger.dead_letters()), "the letter is there")
        edge.drain(QUIET_S)
        assert edge.heard == []
    (letter,) = ledger.dead_letters()
    assert letter.reason.startswith("ObjectRefusedError")
    assert (letter.topic, letter.payload) == (SLICE_TOPIC, outbound(slice_read(1), "m-1").payload)


@dataclass
class Ward:
    """A receiver at work, the edge that feeds it, and its ledger."""

    edge: Peer
    ledger: Ledger


@pytest.fixture(scope="module")
def ward(shared_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """One receiver for all that is to be quarantined: each message also shows that the one before did no harm."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ward') / 'ledger.sqlite'}"
    with (
        EmbeddedBroker() as broker,
        Ledger(url) as ledger,
        receiving(shared_store, ledger, quick(broker.port)),
        Peer(quick(broker.port), RECEIPTS) as edge,
    ):
        yield Ward(edge, ledger)


def altered(**fields: Any) -> Outbound:
    """Return a slice's message with these fields, past the checks of our own side."""
    said = slice_read(1).model_dump(mode="python") | fields
    return replace(outbound(slice_read(1), "m-1"), payload=cbor2.dumps(said))


def with_property(name: str, value: str) -> Outbound:
    good = outbound(slice_read(1), "m-1")
    return replace(good, user_properties=tuple({**dict(good.user_properties), name: value}.items()))


def image(data: bytes) -> Mapping[str, Any]:
    return {"image": data, "image_sha256": sha256_of(data)}


def claiming(side_px: int) -> bytes:
    """Return a PNG whose header claims another size than its pixels have."""
    header = b"IHDR" + struct.pack(">II", side_px, side_px) + png(0)[24:29]
    return png(0)[:12] + header + struct.pack(">I", zlib.crc32(header)) + png(0)[33:]


YEAR_ONE = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
QUARANTINED = {
    "bytes that are no message": (Outbound(SLICE_TOPIC, b"\x00garbage"), "MalformedPayloadError"),
    "an unknown schema major": (
        with_property("dataschema", schema_uri(Kind.SLICE, 2)),
        "UnknownSchemaMajorError",
    ),
    "another image than stated": (altered(image_sha256="c" * 64), "another SHA-256"),
    "no image": (altered(**image(b"this is no image at all")), "no PNG"),
    "a JPEG": (altered(**image(png(9, suffix=".jpg"))), "no PNG"),
    "a truncated PNG": (altered(**image(png(9, 77)[:80])), "cannot be read"),
    "a small image": (altered(**image(png(9, side_px=128))), "(128, 128), not 256x256"),
    "a tiny image": (altered(**image(png(9, side_px=16))), "cannot be read"),
    "a PNG of 20,000 x 20,000": (altered(**image(claiming(20_000))), "cannot be read"),
    "a number beyond 64 bits": (altered(sequence=str(2**70)), "RefusedByLedgerError"),
    "a time before the calendar begins": (altered(captured_at=YEAR_ONE), "RefusedByLedgerError"),
    "a frame that is another": (frame(b"one", "m-1", sha256=sha256_of(b"other")), "another SHA-256"),
}


@pytest.mark.parametrize(("sent", "reason"), QUARANTINED.values(), ids=QUARANTINED)
def test_what_cannot_be_taken_in_is_kept_with_its_reason_and_receipted(
    ward: Ward, shared_store: ObjectStore, sent: Outbound, reason: str
) -> None:
    """A message that cannot be taken in is kept, whole, with its reason; the edge need not send it again."""
    before = ward.ledger.counts()
    message_id = f"q-{before['dead_letters']}"
    attributes = {**dict(sent.user_properties), "id": message_id}
    ward.edge.say(replace(sent, user_properties=tuple(attributes.items())))
    ward.edge.hear(receipt_for(message_id), "the receipt")
    letter = ward.ledger.dead_letters(1)[0]
    assert reason in letter.reason
    assert (letter.topic, letter.payload) == (sent.topic, sent.payload)
    assert shared_store.get(quarantine_key(letter.sha256)) == sent.payload
    assert ward.ledger.counts() == {**before, "dead_letters": before["dead_letters"] + 1}


def test_a_message_without_a_usable_id_is_kept_without_a_receipt(ward: Ward) -> None:
    """Without an id that could stand in a receipt there is none, and the next good slice has its own."""
    before = ward.ledger.counts()["dead_letters"]
    ward.edge.say(replace(outbound(slice_read(9), "m-9"), user_properties=(("id", "no id / at all"),)))
    ward.edge.say(outbound(slice_read(10), "m-10"))
    ward.edge.hear(receipt_for("m-10"), "the receipt of the next slice")
    assert ward.edge.heard == []
    assert ward.ledger.counts()["dead_letters"] == before + 1
