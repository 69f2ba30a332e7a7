"""What a session promises, on either broker."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DEADLINE_S, Brokers, RunningBroker, connected, quick_settings, wait_until

from broker.embedded import free_port
from broker.errors import InvalidMessageError, NotConnectedError, OversizeError
from broker.session import Inbound, Outbound, Session
from broker.settings import BrokerSettings

ROOT = Path(__file__).parents[2]
NOTHING_MORE_S = 0.3

EDGE_PROCESS = """
import sys
from broker.session import Outbound, Session
from broker.settings import BrokerSettings
settings = BrokerSettings(port=int(sys.argv[1]))
with Session(settings, "edge", will=Outbound("status/edge", b"lost", retain=True)) as session:
    session.wait_connected(10)
    print("connected", flush=True)
    sys.stdin.read()
"""


def deliver(session: Session, *messages: Outbound) -> None:
    for message in messages:
        assert session.publish(message).wait(DEADLINE_S)


def receive(session: Session, count: int) -> list[Inbound]:
    messages = [session.receive(DEADLINE_S) for _ in range(count)]
    return [message for message in messages if message is not None]


def texts(messages: list[Inbound]) -> list[str]:
    return [message.payload.decode() for message in messages]


def test_a_message_arrives_with_its_properties(settings: BrokerSettings) -> None:
    """Payload, content type and user properties arrive as they were sent, in order and with repeated names."""
    properties = (("id", "1"), ("id", "2"), ("subject", "Übersicht – 肺"))
    with Session(settings, "reader", subscriptions=["a/+"]) as reader, Session(settings, "writer") as writer:
        connected(reader)
        deliver(
            connected(writer),
            Outbound("a/b", bytes(range(256)), content_type="application/cbor", user_properties=properties),
        )
        (message,) = receive(reader, 1)
        assert (message.topic, message.payload, message.qos) == ("a/b", bytes(range(256)), 1)
        assert message.content_type == "application/cbor"
        assert message.user_properties == properties
        assert not message.retained


def test_qos_0_is_done_when_it_is_sent(brokers: Brokers, settings: BrokerSettings) -> None:
    """A QoS 0 message needs no PUBACK; rumqttd hands it on with the QoS of the subscription, against MQTT 5, 3.8.4."""
    with Session(settings, "both", subscriptions=["a/b"]) as session:
        deliver(connected(session), Outbound("a/b", b"live", qos=0))
        (message,) = receive(session, 1)
        session.ack(message)
        assert (message.payload, message.qos) == (b"live", 0 if brokers.kind == "mosquitto" else 1)


def test_an_empty_payload_is_a_message(settings: BrokerSettings) -> None:
    """An empty payload travels, so that a retained message can be cleared."""
    with Session(settings, "both", subscriptions=["a/b"]) as session:
        deliver(connected(session), Outbound("a/b", b""))
        assert texts(receive(session, 1)) == [""]


def test_a_retained_message_waits_for_its_reader(settings: BrokerSettings) -> None:
    """Who subscribes later gets the last retained message, marked as such."""
    with Session(settings, "writer") as writer:
        deliver(connected(writer), Outbound("r/x", b"old", retain=True), Outbound("r/x", b"new", retain=True))
        with Session(settings, "late", subscriptions=["r/#"]) as late:
            (message,) = receive(late, 1)
            assert (message.payload, message.retained) == (b"new", True)


@pytest.fixture
def edge_process(running: RunningBroker) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", EDGE_PROCESS, str(running.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    while "connected" not in (line := process.stdout.readline()):
        assert line, "the process ended early"
    return process


def test_the_will_comes_when_the_process_is_killed(
    settings: BrokerSettings, edge_process: subprocess.Popen[str]
) -> None:
    """kill -9 of a process publishes its will, retained."""
    with Session(settings, "watcher", subscriptions=["status/+"]) as watcher:
        connected(watcher)
        os.kill(edge_process.pid, signal.SIGKILL)
        assert texts(receive(watcher, 1)) == ["lost"]
        with Session(settings, "late", subscriptions=["status/+"]) as late:
            assert [message.retained for message in receive(late, 1)] == [True]
    edge_process.communicate()


def test_no_will_comes_after_a_clean_stop(settings: BrokerSettings, edge_process: subprocess.Popen[str]) -> None:
    """A session that ends says goodbye, so its will stays unsaid."""
    with Session(settings, "watcher", subscriptions=["status/+"]) as watcher:
        connected(watcher)
        edge_process.communicate(timeout=DEADLINE_S)
        assert edge_process.returncode == 0
        assert watcher.receive(NOTHING_MORE_S) is None


def test_an_unacknowledged_message_comes_back_after_a_reconnect(settings: BrokerSettings) -> None:
    """What was not acknowledged comes again with the next connection, and what came meanwhile comes after it."""
    with Session(settings, "writer") as writer:
        with Session(settings, "worker", subscriptions=["a/+"]) as worker:
            connected(worker)
            deliver(connected(writer), Outbound("a/b", b"1"), Outbound("a/b", b"2"), Outbound("a/b", b"3"))
            worker.ack(receive(worker, 3)[0])
        deliver(writer, Outbound("a/b", b"4"))
        with Session(settings, "worker", subscriptions=["a/+"]) as worker:
            again = receive(worker, 3)
            assert texts(again) == ["2", "3", "4"]
            for message in again:
                worker.ack(message)
        with Session(settings, "worker", subscriptions=["a/+"]) as worker:
            connected(worker)
            assert worker.receive(NOTHING_MORE_S) is None


def test_messages_may_be_acknowledged_in_any_order(settings: BrokerSettings) -> None:
    """PUBACKs go out in the order of arrival (MQTT 5, 4.6) however the work is finished; rumqttd hangs up otherwise."""
    shuffled = list(range(20))
    random.Random(7).shuffle(shuffled)
    with Session(settings, "both", subscriptions=["a/b"]) as session:
        connected(session)
        for _ in range(10):
            deliver(session, *[Outbound("a/b", str(number).encode()) for number in range(20)])
            messages = receive(session, 20)
            for number in shuffled:
                session.ack(messages[number])
        assert {message.connection for message in messages} == {1}
    with Session(settings, "both", subscriptions=["a/b"]) as session:
        connected(session)
        assert session.receive(NOTHING_MORE_S) is None


def test_an_ack_of_an_earlier_connection_is_let_go(brokers: Brokers, running: RunningBroker) -> None:
    """A message taken before the connection broke can be acknowledged without harm to the new connection."""
    settings = quick_settings(running.port)
    with Session(settings, "both", subscriptions=["a/b"]) as session:
        deliver(connected(session), Outbound("a/b", b"before"))
        (before,) = receive(session, 1)
        running.kill()
        wait_until(lambda: not session.connected, "the loss is noticed")
        session.ack(before)
        brokers.start(running.port)
        deliver(connected(session), Outbound("a/b", b"after"))
        (after,) = receive(session, 1)
        session.ack(before)
        session.ack(after)
        assert (after.payload, before.connection < after.connection) == (b"after", True)
        deliver(session, Outbound("a/b", b"alive"))
        assert texts(receive(session, 1)) == ["alive"]


def heard(session: Session, writer: Session, topic: str, text: str) -> bool:
    """Publish and say whether it comes; the last message before the mark on `own/#` is the one in question."""
    connected(session)
    deliver(connected(writer), Outbound(topic, text.encode()), Outbound("own/mark", text.encode()))
    got: list[Inbound] = []
    while not got or got[-1].topic != "own/mark" or got[-1].payload.decode() != text:
        got += receive(connected(session), 1)
        session.ack(got[-1])
    return (topic, text) in {(message.topic, message.payload.decode()) for message in got}


def test_a_further_topic_filter_is_heard_until_it_is_given_up(
    brokers: Brokers, running: RunningBroker, settings: BrokerSettings
) -> None:
    """What is subscribed to beside the plan is heard, after a reconnect too, and no longer once it is given up."""
    with Session(settings, "reader", subscriptions=["own/#"]) as reader, Session(settings, "writer") as writer:
        connected(reader), connected(writer)
        assert not heard(reader, writer, "further/x", "before")
        reader.subscribe("further/+")
        wait_until(lambda: heard(reader, writer, "further/x", "subscribed"), "the further filter is heard")
        running.kill()
        wait_until(lambda: not reader.connected and not writer.connected, "the loss is noticed")
        brokers.start(running.port)
        connected(reader), connected(writer)
        wait_until(lambda: heard(reader, writer, "further/x", "again"), "the further filter is heard again")
        reader.unsubscribe("further/+")
        wait_until(lambda: not heard(reader, writer, "further/x", "after"), "the further filter is given up")
        assert not heard(reader, writer, "further/x", "for good")


def test_a_further_topic_filter_of_before_the_connection_is_heard(brokers: Brokers) -> None:
    """A filter that is named while there is no broker is heard from the first connection on, or not, as named last."""
    port = free_port()
    settings = quick_settings(port)
    with Session(settings, "reader", subscriptions=["own/#"]) as reader, Session(settings, "writer") as writer:
        reader.subscribe("further/+")
        reader.subscribe("dropped/+")
        reader.unsubscribe("dropped/+")
        brokers.start(port)
        wait_until(lambda: heard(reader, writer, "further/x", "there"), "the further filter is heard")
        assert not heard(reader, writer, "dropped/x", "there")


def test_a_topic_filter_that_is_given_up_without_a_connection_stays_given_up(
    brokers: Brokers, running: RunningBroker, settings: BrokerSettings
) -> None:
    """A broker that kept the session kept its subscriptions: the one given up meanwhile is heard no more."""
    if brokers.kind == "embedded":
        pytest.skip("rumqttd lets go only of what the same connection has subscribed to, against MQTT 5, 3.10.4")
    with Session(settings, "reader", subscriptions=["own/#"]) as reader, Session(settings, "writer") as writer:
        connected(reader), connected(writer)
        reader.subscribe("further/+")
        wait_until(lambda: heard(reader, writer, "further/x", "subscribed"), "the further filter is heard")
        with Session(quick_settings(running.port), "reader", subscriptions=["own/#"]):  # takes the session over
            wait_until(lambda: not reader.connected, "the loss is noticed")
            reader.unsubscribe("further/+")
        wait_until(lambda: not heard(reader, writer, "further/x", "after"), "the further filter is given up")
        assert not heard(reader, writer, "further/x", "for good")


@pytest.mark.parametrize("wrong", ["", "a/#/b", "a+", "a\0b"])
def test_a_topic_filter_that_no_broker_takes_is_refused(settings: BrokerSettings, wrong: str) -> None:
    """A malformed filter raises by name, and leaves the connection alone."""
    with Session(settings, "both", subscriptions=["own/#"]) as session:
        connected(session)
        for turn in (session.subscribe, session.unsubscribe):
            with pytest.raises(InvalidMessageError):
                turn(wrong)
        deliver(session, Outbound("own/mark", b"alive"))
        assert [message.connection for message in receive(session, 1)] == [1]


def test_a_shared_subscription_splits_the_messages(settings: BrokerSettings) -> None:
    """Two workers of one group get each message once between them, and both get some."""
    group = ["$share/workers/s/#"]
    sent = [str(number) for number in range(40)]
    with (
        Session(settings, "worker-1", subscriptions=group) as first,
        Session(settings, "worker-2", subscriptions=group) as second,
        Session(settings, "writer") as writer,
    ):
        connected(first), connected(second)
        got: dict[str, list[str]] = {"first": [], "second": []}
        for number in sent:
            deliver(connected(writer), Outbound("s/x", number.encode()))

        def collect(name: str, session: Session) -> None:
            while (message := session.receive(NOTHING_MORE_S)) is not None:
                session.ack(message)
                got[name].append(message.payload.decode())

        collect("first", first), collect("second", second)
        assert sorted(got["first"] + got["second"], key=int) == sent
        assert got["first"] and got["second"]


def test_an_oversized_message_is_refused_before_it_is_sent(settings: BrokerSettings) -> None:
    """An oversized message raises and leaves the connection alone; the largest that fits goes through."""
    with Session(settings, "both", subscriptions=["a/b"]) as session:
        connected(session)
        with pytest.raises(OversizeError) as caught:
            session.publish(Outbound("a/b", bytes(settings.max_payload_bytes + 1)))
        facts = caught.value
        assert (facts.topic, facts.size, facts.limit) == ("a/b", 1_000_001, 1_000_000)
        deliver(session, Outbound("a/b", bytes(settings.max_payload_bytes)))
        (message,) = receive(session, 1)
        assert (len(message.payload), message.connection) == (settings.max_payload_bytes, 1)


def test_the_session_comes_back_after_the_broker_was_killed(brokers: Brokers, running: RunningBroker) -> None:
    """kill -9 of the broker, a new one on the same port: subscriptions, birth and publishing work again."""
    settings = quick_settings(running.port)
    birth: Callable[[], list[Outbound]] = lambda: [Outbound("born", b"again")]  # noqa: E731
    with Session(settings, "both", subscriptions=["a/b", "born"], birth=birth) as session:
        connected(session)
        assert texts(receive(session, 1)) == ["again"]
        running.kill()
        wait_until(lambda: not session.connected, "the loss is noticed")
        with pytest.raises(NotConnectedError):
            session.publish(Outbound("a/b", b"into the void"))
        brokers.start(running.port)
        deliver(connected(session), Outbound("a/b", b"back"))
        assert texts(receive(session, 2)) == ["again", "back"]


def test_deliveries_fail_when_the_broker_is_killed(running: RunningBroker, settings: BrokerSettings) -> None:
    """A message whose PUBACK did not come before the connection was lost is failed, never left open."""
    with Session(settings, "writer") as writer:
        connected(writer)
        os.kill(running.pid, signal.SIGSTOP)  # it takes bytes, but answers no more
        delivery = writer.publish(Outbound("a/b", b"x"))
        assert not delivery.wait(0.1)
        assert not delivery.failed
        running.kill()
        assert not delivery.wait(DEADLINE_S)
        assert delivery.failed
        assert delivery.reason is not None


def test_the_session_waits_for_a_broker_that_is_down(brokers: Brokers) -> None:
    """Started before the broker, the session connects when it comes, and ends in good time when it never does."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with Session(quick_settings(port), "early", subscriptions=["a/b"]) as session:
        assert not session.wait_connected(0.1)
        with pytest.raises(NotConnectedError):
            session.publish(Outbound("a/b", b"too early"))
        brokers.start(port)
        deliver(connected(session), Outbound("a/b", b"there"))
        assert texts(receive(session, 1)) == ["there"]


def test_a_stop_waits_for_the_last_pubacks(settings: BrokerSettings) -> None:
    """Everything published before the end of `with` is delivered when it is left."""
    with Session(settings, "reader", subscriptions=["a/b"]) as reader:
        connected(reader)
        with Session(settings, "writer") as writer:
            connected(writer)
            deliveries = [writer.publish(Outbound("a/b", bytes(20_000))) for _ in range(settings.max_inflight)]
        assert all(delivery.done for delivery in deliveries)
        assert len(receive(reader, settings.max_inflight)) == settings.max_inflight
        with pytest.raises(NotConnectedError):
            writer.publish(Outbound("a/b", b"after the end"))


@pytest.mark.parametrize(
    "message",
    [
        Outbound("", b""),
        Outbound("a/+", b""),
        Outbound("a/#", b""),
        Outbound("a\0b", b""),
        Outbound("a\x07b", b""),
        Outbound("a\ud800b", b""),
        Outbound("a" * 70_000, b""),
        Outbound("/".join("a" * 300), b""),
        Outbound("a/b", b"", qos=2),
        Outbound("a/b", b"", expiry_s=-1),
        Outbound("a/b", b"", content_type="text/\0"),
        Outbound("a/b", b"", user_properties=(("k", "\ufeff"),)),
        Outbound("a/b", b"", user_properties=(("k", "\ud800"),)),
        Outbound("a/b", b"", user_properties=(("k", "v" * 70_000),)),
    ],
)
def test_a_message_that_no_broker_takes_is_refused_before_it_is_sent(
    settings: BrokerSettings, message: Outbound
) -> None:
    """Text that MQTT cannot carry raises by name and leaves the connection alone."""
    with Session(settings, "both", subscriptions=["a/b"]) as session:
        connected(session)
        with pytest.raises(InvalidMessageError):
            session.publish(message)
        deliver(session, Outbound("a/b", b"alive"))
        assert [message.connection for message in receive(session, 1)] == [1]


def test_qos_0_floods_are_dropped_and_counted_and_qos_1_still_gets_through(
    brokers: Brokers, running: RunningBroker
) -> None:
    """A full inbox drops QoS 0, keeps room for QoS 1, and blocks nobody."""
    if brokers.kind == "embedded":
        pytest.skip("rumqttd hands QoS 0 on as QoS 1, and waits with it until the receiver acknowledges")
    settings = quick_settings(running.port, max_queued_messages=40, max_inflight=20)
    with Session(settings, "slow", subscriptions=["a/+"]) as slow, Session(settings, "writer") as writer:
        connected(slow), connected(writer)
        for _ in range(100):
            deliver(writer, Outbound("a/flood", b"", qos=0))
        deliver(writer, *[Outbound("a/b", b"must arrive")] * 10)
        wait_until(lambda: slow.dropped >= 80, "the flood is dropped")
        got = receive(slow, 30)
        assert [message.qos for message in got] == [0] * 20 + [1] * 10


def test_a_receiver_that_stands_still_loses_nothing(running: RunningBroker) -> None:
    """More QoS 1 messages than the window wait at the broker until the receiver acknowledges."""
    settings = quick_settings(running.port, max_queued_messages=240, max_inflight=20)
    sent = [str(number) for number in range(300)]
    with Session(settings, "slow", subscriptions=["a/b"]) as slow, Session(settings, "writer") as writer:
        connected(slow), connected(writer)
        deliver(writer, *[Outbound("a/b", number.encode()) for number in sent])
        got = []
        for _ in sent:
            (message,) = receive(slow, 1)
            slow.ack(message)
            got.append(message)
        assert texts(got) == sent
        assert {message.connection for message in got} == {1}


def test_a_receiver_that_falls_behind_stays_connected(running: RunningBroker) -> None:
    """A backlog larger than the inbox waits at the broker, even where it sends beyond our receive maximum."""
    settings = quick_settings(running.port, max_queued_messages=40, max_inflight=20)
    sent = [str(number) for number in range(300)]
    with Session(settings, "slow", subscriptions=["a/b"]) as slow, Session(settings, "writer") as writer:
        connected(slow), connected(writer)
        deliver(writer, *[Outbound("a/b", number.encode()) for number in sent])
        got = receive(slow, 1)
        for _ in sent[1:]:
            slow.ack(got[-1])
            got += receive(slow, 1)
        assert texts(got) == sent
        assert {message.connection for message in got} == {1}


def test_garbage_on_the_wire_leaves_the_session_alive(running: RunningBroker, settings: BrokerSettings) -> None:
    """Bytes that are no MQTT, and messages whose topic or properties are no text, do not end the session."""
    rng = random.Random(11)
    with Session(settings, "reader", subscriptions=["#"]) as reader, Session(settings, "writer") as writer:
        connected(reader), connected(writer)
        for _ in range(20):
            throw(running.port, rng.randbytes(200))
        for packet in (publish_packet(b"a/\xff\xfe"), publish_packet(b"a/b", user_property=b"\xff\xfe")):
            throw(running.port, CONNECT + packet)
        for packet in (publish_packet(b"a/b", user_property=b"\xef\xbb\xbf"), publish_packet(b"a/b")):
            throw(running.port, CONNECT + packet)

        def lives() -> bool:
            connected(reader), connected(writer)
            deliver(
                writer, Outbound("a/alive", rng.randbytes(1_000))
            )  # each time: a reader that starts afresh missed it
            return any(got.topic == "a/alive" for got in iter(lambda: reader.receive(0.5), None))

        wait_until(lives, "the session lives")


CONNECT = bytes.fromhex("10 12 00 04 4d515454 05 02 000a 00 0005 7468726f77")


def publish_packet(topic: bytes, user_property: bytes = b"v") -> bytes:
    """Build a PUBLISH with QoS 1, packet id 1, one user property, and three bytes of payload (MQTT 5, 3.3)."""
    pair = b"\x26" + b"\x00\x01k" + len(user_property).to_bytes(2) + user_property
    body = len(topic).to_bytes(2) + topic + b"\x00\x01" + bytes([len(pair)]) + pair + b"\xde\xad\x00"
    return bytes([0x32, len(body)]) + body


def throw(port: int, data: bytes) -> None:
    """Send bytes, and read until the broker has answered or hung up."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=1) as client,
        contextlib.suppress(OSError),
    ):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1_000):
            pass


def test_two_processes_with_one_client_id_are_told_so(running: RunningBroker) -> None:
    """Sessions that throw each other out notice, slow down, and say what to look for."""
    settings = quick_settings(running.port, reconnect_min_s=0.4, reconnect_max_s=0.5)
    with Session(settings, "twin") as first, Session(settings, "twin") as second:
        wait_until(lambda: "client id" in f"{first.fatal} {second.fatal}", "the fight is noticed")
