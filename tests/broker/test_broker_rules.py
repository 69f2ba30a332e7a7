"""The pure parts: back-off, order of PUBACKs, inbox, limits, settings."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.acks import AckOrder
from broker.backoff import backoff_s, slow_s
from broker.errors import BrokerError, OversizeError
from broker.inbox import Inbox
from broker.limits import Limits, check
from broker.messages import Delivery, Inbound, Outbound
from broker.settings import BrokerSettings


@given(st.integers(0, 10_000), st.integers())
def test_a_wait_grows_to_its_bound_and_never_beyond(attempt: int, seed: int) -> None:
    """Full jitter: anywhere between nothing and the bound, which doubles up to the longest."""
    wait_s = backoff_s(attempt, 0.5, 30, random.Random(seed))
    assert 0 <= wait_s <= min(30, 0.5 * 2 ** min(attempt, 10))
    assert 15 <= slow_s(30, random.Random(seed)) <= 30


@given(st.permutations(range(30)))
def test_pubacks_keep_the_order_of_arrival(finished: list[int]) -> None:
    """Whatever the order of work, PUBACKs leave in the order of arrival, each once, and none too early."""
    order, sent = AckOrder(), []
    for mid in range(30):
        order.received(mid)
    for count, mid in enumerate(finished, 1):
        sent += order.acknowledge(mid)
        assert set(sent) <= set(finished[:count])
    assert sent == list(range(30))


def message(number: int, qos: int = 1, connection: int = 1) -> Inbound:
    return Inbound("a/b", str(number).encode(), qos, False, None, (), number, connection)


@given(st.lists(st.integers(0, 1), max_size=60))
def test_an_inbox_is_bounded_and_keeps_room_for_qos_1(arrivals: list[int]) -> None:
    """Never more than its capacity, never more QoS 0 than is left beside the reserve, and nothing taken is lost."""
    inbox = Inbox(capacity=20, reserved=10)
    accepted = [number for number, qos in enumerate(arrivals) if inbox.offer(message(number, qos))]
    taken = [int(found.payload) for found in iter(lambda: inbox.take(0), None)]
    assert taken == accepted
    assert len(taken) <= 20
    assert sum(arrivals[number] == 0 for number in taken) <= 10
    assert inbox.dropped == sum(qos == 0 for qos in arrivals) - sum(arrivals[number] == 0 for number in taken)
    assert sum(arrivals[number] for number in taken) >= min(10, sum(arrivals))


def test_what_the_broker_sends_again_is_forgotten() -> None:
    """After a resumed session the inbox drops the QoS 1 messages of before, which are on their way again."""
    inbox = Inbox(capacity=20, reserved=10)
    for number, (qos, connection) in enumerate([(1, 1), (0, 1), (1, 2)]):
        inbox.offer(message(number, qos, connection))
    assert inbox.forget_resent(2) == 1
    assert [found.mid for found in iter(lambda: inbox.take(0), None)] == [1, 2]


@given(st.text(max_size=40), st.binary(max_size=300), st.integers(-1, 3), st.booleans(), st.integers(0, 400))
def test_a_message_passes_or_is_refused_by_name(
    topic: str, payload: bytes, qos: int, retain: bool, packet_bytes: int
) -> None:
    """No message makes the check raise anything but an error of ours, and what passes fits into the packet."""
    limits = Limits(max_payload_bytes=200, window=1, max_packet_bytes=packet_bytes)
    try:
        check(Outbound(topic, payload, qos, retain), limits, properties_bytes=1)
    except BrokerError:
        return
    assert len(payload) <= 200
    assert 1 + len(topic.encode()) + len(payload) <= packet_bytes


def test_the_brokers_word_only_tightens() -> None:
    """A broker that allows more than we do changes nothing; one that allows less binds us."""
    ours = Limits(max_payload_bytes=1_000, window=50)
    assert ours.tightened({"ReceiveMaximum": 65_535, "MaximumQoS": 2, "RetainAvailable": 1}) == ours
    tight = ours.tightened({"ReceiveMaximum": 5, "MaximumPacketSize": 100, "MaximumQoS": 0, "RetainAvailable": 0})
    assert (tight.window, tight.max_qos, tight.retain_available) == (5, 0, False)
    with pytest.raises(OversizeError):
        check(Outbound("a/b", bytes(100), qos=0), tight, properties_bytes=1)


def test_a_delivery_is_settled_once_and_for_good() -> None:
    """Open, then done or failed with its reason."""
    done, failed = Delivery(), Delivery()
    assert not done.done and not done.failed and not done.wait(0)
    done.settle()
    failed.settle("connection lost")
    assert done.wait(0) and done.reason is None
    assert failed.failed and not failed.wait(0) and failed.reason == "connection lost"


@pytest.mark.parametrize(
    "wrong",
    [
        {"prot": 1883},
        {"port": 0},
        {"password": "secret"},
        {"max_inflight": 0},
        {"max_inflight": 100, "max_queued_messages": 150},
        {"reconnect_min_s": 2, "reconnect_max_s": 1},
        {"tls_ca_file": "ca.crt", "tls_cert_file": "a.crt"},
        {"tls_cert_file": "a.crt", "tls_key_file": "a.key"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    """Foreign keys, impossible numbers and half of a certificate are refused where the settings are read."""
    with pytest.raises(ValidationError):
        BrokerSettings.model_validate(wrong)
