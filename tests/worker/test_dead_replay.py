"""Dead letters replayed through a real broker to a real worker with a real S3 server."""

from dataclasses import replace

import pytest
from worker_parts import DEADLINE_S, NOW, outbound, quick, receiving, slice_read

from broker.embedded import free_port
from broker.messages import Outbound
from broker.settings import BrokerSettings
from cloud_worker.ledger import DeadLetter, DeadLetterClosedError, Ledger
from cloud_worker.ledger.dead_letters import MAX_DEAD_LETTER_BYTES
from cloud_worker.object_store import ObjectStore, quarantine_key
from protocol.chunks import sha256_of
from protocol.codec import EventContext, encode_frame
from protocol.messages import Frame, Status
from protocol.topics import Kind, edge_topic
from sliceloop.dead_run import DeadLetterError, replay, replayable

STATUS = Status(state="online", boot_id="boot-1", at=NOW, software="test")


def bury(ledger: Ledger, sent: Outbound, reason: str = "an older worker did not know it") -> DeadLetter:
    """Make a dead letter of what was sent."""
    ledger.dead_letter(sent.topic, sent.payload, reason, NOW, sent.user_properties)
    return ledger.dead_letters(1)[0]


def test_a_replayed_slice_is_stored(store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings) -> None:
    """Published again as it came, the slice reaches object store and ledger, and the letter is closed."""
    letter = bury(ledger, outbound(slice_read(1), "m-1"))
    with receiving(store, ledger, broker_settings):
        assert replay(ledger.url, store, broker_settings, letter.id, DEADLINE_S)
    assert ledger.slice("slice-1").message_id == "m-1"
    assert ledger.find_dead_letter(letter.id).state == "replayed"
    with pytest.raises(DeadLetterClosedError):
        replay(ledger.url, store, broker_settings, letter.id, DEADLINE_S)


def test_a_large_original_is_replayed_from_the_quarantine(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings
) -> None:
    """What the ledger has cut is fetched by its hash, whole."""
    data = b"x" * (MAX_DEAD_LETTER_BYTES + 1)
    frame = Frame(slice_id="slice-1", sha256=sha256_of(data), media_type="image/png", data=data)
    encoded = encode_frame(frame, EventContext("f-1", "/edges", NOW))
    sent = Outbound(edge_topic("north", "ct-1", Kind.FRAME), data, user_properties=encoded.user_properties)
    letter, wide = bury(ledger, sent), broker_settings.model_copy(update={"max_payload_bytes": 2_000_000})
    store.put(quarantine_key(sha256_of(data)), data, "application/octet-stream")
    assert not letter.whole
    with receiving(store, ledger, wide):
        assert replay(ledger.url, store, wide, letter.id, DEADLINE_S)
    (stored,) = ledger.frames_of("slice-1")
    assert store.get(stored.frame_key) == data


def test_what_dies_again_stays_open(store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings) -> None:
    """A message that the worker still cannot take in is told with its reason, and its letter is not closed."""
    letter = bury(ledger, replace(outbound(slice_read(1), "m-1"), payload=b"garbage"))
    with receiving(store, ledger, broker_settings):
        assert not replay(ledger.url, store, broker_settings, letter.id, DEADLINE_S)
    assert ledger.find_dead_letter(letter.id).state == "open"
    assert ledger.died_again(letter) is not None


def test_without_a_worker_it_stays_open(store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings) -> None:
    """Where nobody takes the message in time that is said, and the letter can be replayed later."""
    letter = bury(ledger, outbound(slice_read(1), "m-1"))
    with pytest.raises(DeadLetterError, match="no worker has taken it yet"):
        replay(ledger.url, store, broker_settings, letter.id, 2)
    assert ledger.find_dead_letter(letter.id).state == "open"


def test_without_a_broker_it_is_not_published(store: ObjectStore, ledger: Ledger) -> None:
    """A broker that is away is told."""
    letter = bury(ledger, outbound(slice_read(1), "m-1"))
    with pytest.raises(DeadLetterError, match="not published in time"):
        replay(ledger.url, store, quick(free_port()), letter.id, 0.5)


def test_what_is_said_again_by_itself_is_not_replayed(store: ObjectStore, ledger: Ledger) -> None:
    """An old status could take the place of a new one; what has no id is never taken in."""
    with pytest.raises(DeadLetterError, match="no slice and no original"):
        replayable(bury(ledger, outbound(STATUS, "m-1")), store)
    with pytest.raises(DeadLetterError, match="no message id"):
        replayable(bury(ledger, replace(outbound(slice_read(1), "m-1"), user_properties=())), store)
