"""What a session does with a broker that misbehaves: one that sends exactly the bytes that a test gives it."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DEADLINE_S, connected, quick_settings, wait_until

from broker.errors import (
    BrokerError,
    CredentialFileError,
    InvalidMessageError,
    OversizeError,
    UnsupportedByBrokerError,
    WindowFullError,
)
from broker.session import Outbound, Session

CONNECT, PUBLISH, SUBSCRIBE = 0x10, 0x30, 0x80
ACCEPTED = bytes.fromhex("20 03 00 00 00")
HANG_UP = b"hang up"


class ScriptedBroker:
    """Answers each packet of a kind with the given bytes, or hangs up; what is not in the script has no answer."""

    def __init__(self, script: dict[int, bytes]) -> None:
        self.script = script
        self.connects: list[bytes] = []
        self._stop = threading.Event()
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="scripted-broker", daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for client in self._clients:
            client.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream:
            try:
                while packet := read_packet(stream.read):
                    if packet[0] == CONNECT:
                        self.connects.append(packet)
                    answer = self.script.get(packet[0] & 0xF0)
                    if answer == HANG_UP:
                        return
                    if answer:
                        client.sendall(answer)
            except OSError:
                return


def read_packet(read: Callable[[int], bytes]) -> bytes:
    first = read(1)
    length, shift = 0, 0
    while first:
        byte = read(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return first + read(length)
    return b""


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    broker = ScriptedBroker({CONNECT: ACCEPTED})
    yield broker
    broker.close()


@pytest.mark.parametrize(("code", "remedy"), [(0x86, "password_file"), (0x87, "access rules"), (0x85, "client id")])
def test_a_refusal_that_lasts_is_told_with_what_to_do(scripted: ScriptedBroker, code: int, remedy: str) -> None:
    """Bad credentials, no right, a refused client id: said as such, kept, and tried again all the same."""
    scripted.script[CONNECT] = bytes([0x20, 3, 0, code, 0])
    with Session(quick_settings(scripted.port), "refused") as session:
        wait_until(lambda: session.fatal is not None, "the refusal is noticed")
        assert remedy in str(session.fatal)
        wait_until(lambda: len(scripted.connects) >= 2, "it tries again")
        scripted.script[CONNECT] = ACCEPTED
        connected(session)
        assert session.fatal is None


def test_a_busy_broker_is_just_tried_again(scripted: ScriptedBroker) -> None:
    """'Server busy' passes by itself."""
    scripted.script[CONNECT] = bytes([0x20, 3, 0, 0x89, 0])
    with Session(quick_settings(scripted.port), "patient") as session:
        wait_until(lambda: len(scripted.connects) >= 3, "it tries again")
        assert session.fatal is None


def test_why_there_is_no_connection_can_be_asked(scripted: ScriptedBroker) -> None:
    """A broker that hangs up, a port where nobody listens, an unknown host: each has its own words, until it passes."""
    scripted.script[CONNECT] = HANG_UP
    with Session(quick_settings(scripted.port), "curious") as session:
        wait_until(lambda: session.trouble is not None, "the loss is noticed")
        assert session.trouble == "the broker closed the connection"
        assert session.fatal is None
        scripted.script[CONNECT] = ACCEPTED
        connected(session)
        assert session.trouble is None
    for changes, words in (({}, "Connection refused"), ({"host": "nobody.invalid"}, "ame")):
        with Session(quick_settings(1, **changes), "lost") as session:
            wait_until(lambda session=session: session.trouble is not None, "the failure is noticed")
            assert words in str(session.trouble)
            assert "Errno" not in str(session.trouble)


def test_silence_after_the_connect_is_not_waited_for_forever(scripted: ScriptedBroker) -> None:
    """Without a CONNACK, or a SUBACK, within connect_timeout_s the next attempt begins."""
    settings = quick_settings(scripted.port, connect_timeout_s=0.2)
    scripted.script.clear()
    with Session(settings, "unheard", subscriptions=["a/b"]) as session:
        wait_until(lambda: len(scripted.connects) >= 2, "no CONNACK: it tries again")
        scripted.script[CONNECT] = ACCEPTED
        tried = len(scripted.connects)
        wait_until(lambda: len(scripted.connects) >= tried + 3, "no SUBACK: it tries again")
        assert not session.connected


def test_a_refused_subscription_is_told_by_its_filter(scripted: ScriptedBroker) -> None:
    """The session works without the subscription, and says which one is missing."""
    scripted.script[SUBSCRIBE] = bytes.fromhex("90 04 0001 00 87")
    with Session(quick_settings(scripted.port), "curious", subscriptions=["secret/#"]) as session:
        connected(session)
        assert "secret/#" in str(session.fatal)


def test_the_window_is_the_smaller_of_ours_and_the_brokers(scripted: ScriptedBroker) -> None:
    """Beyond the broker's Receive Maximum nothing is sent, QoS 0 apart; a stop does not wait for ever."""
    scripted.script[CONNECT] = bytes.fromhex("20 06 00 00 03 21 0003")
    settings = quick_settings(scripted.port, drain_timeout_s=0.1)
    with Session(settings, "eager") as session:
        connected(session)
        deliveries = [session.publish(Outbound("a/b", b"x")) for _ in range(3)]
        with pytest.raises(WindowFullError) as caught:
            session.publish(Outbound("a/b", b"x"))
        assert caught.value.window == 3
        assert session.publish(Outbound("a/b", b"x", qos=0)).wait(DEADLINE_S)
    assert all(delivery.failed for delivery in deliveries)


def test_the_brokers_limits_hold_before_anything_is_sent(scripted: ScriptedBroker) -> None:
    """Maximum Packet Size, Maximum QoS and Retain Available of the CONNACK are kept."""
    scripted.script[CONNECT] = bytes.fromhex("20 0c 00 00 09 27 00000064 24 00 25 00")
    with Session(quick_settings(scripted.port), "modest") as session:
        connected(session)
        with pytest.raises(OversizeError) as caught:
            session.publish(Outbound("a/b", bytes(100), qos=0))
        assert caught.value.limit < 100
        assert session.publish(Outbound("a/b", bytes(caught.value.limit), qos=0)).wait(DEADLINE_S)
        for message in (Outbound("a/b", b"", qos=1), Outbound("a/b", b"", qos=0, retain=True)):
            with pytest.raises(UnsupportedByBrokerError):
                session.publish(message)


def test_an_unreadable_message_is_left_behind_once(scripted: ScriptedBroker) -> None:
    """After a packet that cannot be read the next connection starts clean; otherwise it would come back for ever."""
    scripted.script[SUBSCRIBE] = bytes.fromhex("90 04 0001 00 01") + bytes.fromhex("32 0b 0003 612f62 0001 04 26 0001")
    with Session(quick_settings(scripted.port), "reader", subscriptions=["a/b"]) as session:
        wait_until(lambda: len(scripted.connects) >= 2, "it connects again")
        scripted.script[SUBSCRIBE] = bytes.fromhex("90 04 0001 00 01")
        connected(session)
        assert [clean_start(packet) for packet in scripted.connects[:2]] == [False, True]


def clean_start(connect: bytes) -> bool:
    return bool(connect[connect.index(b"MQTT") + 5] & 0x02)


def test_a_birth_that_fails_costs_the_birth_alone(scripted: ScriptedBroker) -> None:
    """An error in the owner's birth function, or a birth message too large, leaves the session connected."""

    def oversized() -> list[Outbound]:
        return [Outbound("born", bytes(2_000_000))]

    def broken() -> list[Outbound]:
        raise RuntimeError("no birth today")

    for birth in (oversized, broken):
        with Session(quick_settings(scripted.port), "unborn", birth=birth) as session:
            connected(session)
            assert session.publish(Outbound("a/b", b"", qos=0)).wait(DEADLINE_S)


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+/b", "a\0", "a/b#"])
def test_a_topic_filter_that_cannot_be_is_refused_at_the_start(topic_filter: str) -> None:
    """A faulty subscription is a fault of the program, so it does not wait for a broker to say so."""
    with pytest.raises(InvalidMessageError), Session(quick_settings(1), "x", subscriptions=[topic_filter]):
        pass


@pytest.mark.parametrize("field", ["password_file", "tls_ca_file", "tls_cert_file"])
def test_a_missing_credential_file_is_named_at_the_start(tmp_path: Path, field: str) -> None:
    """A file that is not there stops the start with its path."""
    there = tmp_path / "there.pem"
    there.write_bytes(b"\xff not a certificate")
    missing = tmp_path / "missing.pem"
    changes = {"tls_cert_file": {"tls_cert_file": missing, "tls_key_file": there, "tls_ca_file": there}}
    settings = quick_settings(1, **changes.get(field, {field: missing}))
    with pytest.raises(CredentialFileError) as caught, Session(settings, "x"):
        pass
    assert caught.value.path in (missing, there)


def test_a_host_that_cannot_be_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name that nobody knows or that cannot be encoded does not end the thread."""
    for host in ("nobody.invalid", "a" * 70, "\u2603."):
        settings = quick_settings(1, host=host)
        with Session(settings, "lost") as session:
            assert not session.wait_connected(0.2)
            with pytest.raises(BrokerError):
                session.publish(Outbound("a/b", b""))
