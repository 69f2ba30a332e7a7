"""The publisher fills its window, waits longer and longer, and lets no message block the others."""

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from outbox_parts import fill, ids, message, outbox_at, pair

from broker.errors import NotConnectedError, WindowFullError
from broker.limits import Limits, check
from broker.messages import Delivery, Outbound
from edge_agent.outbox import Outbox
from edge_agent.publisher import Publisher
from edge_agent.window import FEWEST, AdaptiveWindow

TIMEOUT_S = 10.0


class Broker:
    """A session's publishing side, with limits and PUBACKs that the test decides."""

    def __init__(self) -> None:
        self.connected, self.limits = True, Limits(1_000_000, 50)
        self.sent: list[str] = []
        self.open: dict[str, Delivery] = {}

    def publish(self, outbound: Outbound) -> Delivery:
        """Take a message as a session does."""
        check(outbound, self.limits, 50)
        if not self.connected:
            raise NotConnectedError("here", 1)
        if len(self.open) >= self.limits.window:
            raise WindowFullError(self.limits.window)
        name = dict(outbound.user_properties)["id"]
        self.sent.append(name)
        self.open[name] = Delivery()
        return self.open[name]

    def puback(self, *names: str, failure: str | None = None) -> None:
        """Acknowledge these, or all."""
        for name in names or list(self.open):
            self.open.pop(name).settle(failure)

    def come_back(self, limits: Limits) -> None:
        """Reconnect, with other limits."""
        self.puback(failure="connection lost") if self.open else None
        self.limits = limits

    def take(self) -> list[str]:
        """Return what was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with outbox_at(tmp_path / "o") as opened:
        yield opened


class FixedWindow(AdaptiveWindow):
    """A window that is all open from the start, for tests of what else bounds it."""

    def __init__(self, most: int) -> None:
        """Remember how much it is."""
        super().__init__(most)
        self._all = most

    @property
    def messages(self) -> int:
        """Return all of it."""
        return self._all


def publisher_of(outbox: Outbox, broker: Broker, window: int = 50, max_inflight_bytes: int = 100_000) -> Publisher:
    return Publisher(
        outbox,
        broker,  # type: ignore[arg-type]
        site="a",
        edge="b",
        window=window,
        receipt_timeout_s=TIMEOUT_S,
        max_inflight_bytes=max_inflight_bytes,
        rng=random.Random(1),
        pace=FixedWindow(window),
    )


def test_slices_go_out_before_originals(outbox: Outbox, broker: Broker) -> None:
    """In the order of the outbox, as many as the window has room for."""
    fill(outbox, 3, messages=pair)
    publisher = publisher_of(outbox, broker, window=4)
    assert publisher.step(0) == 4
    assert broker.take() == ["s1", "s2", "s3", "f1"]
    publisher.receipt(["s1", "s3"])
    assert publisher.step(0.1) == 2
    assert broker.take() == ["f2", "f3"]
    assert outbox.depth() == 4


def test_the_receive_maximum_is_not_passed(outbox: Outbox, broker: Broker) -> None:
    """The broker's word binds where it is smaller than the setting."""
    fill(outbox, 30)
    broker.limits = Limits(1_000_000, 7)
    publisher = publisher_of(outbox, broker)
    assert publisher.step(0) == 7
    broker.puback()
    assert publisher.step(0.1) == 0, "without a receipt there is no more room"


def test_bytes_bound_the_window(outbox: Outbox, broker: Broker) -> None:
    """No more bytes than set are without a receipt; a message that alone is larger goes alone."""
    fill(outbox, 3, messages=lambda n: [message(f"s{n}", bytes(400))])
    fill(outbox, 1, first=4, messages=lambda n: [message(f"s{n}", bytes(2000))])
    publisher = publisher_of(outbox, broker, max_inflight_bytes=1000)
    assert publisher.step(0) == 2
    publisher.receipt(["s1", "s2"])
    assert publisher.step(0.1) == 1
    publisher.receipt(["s3"])
    assert publisher.step(0.2) == 1
    assert broker.take() == ["s1", "s2", "s3", "s4"]


def test_without_a_receipt_it_is_sent_again_later_and_later(outbox: Outbox, broker: Broker) -> None:
    """A PUBACK is no receipt: the waits double up to four timeouts, each up to a quarter longer."""
    fill(outbox, 1)
    publisher, sent = publisher_of(outbox, broker), []
    for tick in range(2000):
        if publisher.step(tick / 10):
            sent.append(tick / 10)
            broker.puback()
    waits = [later - earlier for earlier, later in pairwise(sent)]
    for wait, usual in zip(waits, [10, 20, 40, 40], strict=False):
        assert usual <= wait <= 1.25 * usual + 0.1
    assert len({round(wait / usual, 3) for wait, usual in zip(waits, [10, 20, 40, 40], strict=False)}) > 1


def test_what_the_broker_did_not_take_is_sent_again_soon(outbox: Outbox, broker: Broker) -> None:
    """A delivery that failed gets no receipt: it does not wait for one, but it does not hammer either."""
    fill(outbox, 1)
    publisher = publisher_of(outbox, broker)
    publisher.step(0)
    broker.puback(failure="quota exceeded")
    assert next(tick / 10 for tick in range(1, 30) if publisher.step(tick / 10)) == pytest.approx(1.2, abs=0.2)


def test_what_the_broker_refuses_again_and_again_is_kept_back(outbox: Outbox, broker: Broker) -> None:
    """Refused three times it is kept back with the broker's reason, and the others go; the next connection tries it."""
    fill(outbox, 2)
    publisher = publisher_of(outbox, broker, window=1)
    sent = []
    for tick in range(400):
        publisher.step(tick / 10)
        sent += broker.take()
        if "s1" in broker.open:
            broker.puback("s1", failure="payload format invalid")
    assert sent[:4] == ["s1", "s1", "s1", "s2"]
    assert publisher.problem.startswith("1 message cannot be sent: payload format invalid (3 times)")
    broker.come_back(Limits(1_000_000, 50))
    publisher.step(50)
    assert broker.take() == ["s1"]


def test_oversize_is_kept_back_until_a_broker_takes_it(outbox: Outbox, broker: Broker) -> None:
    """Found before it is sent, said in the status, in nobody's way, and tried again where the limits are others."""
    for number, size in enumerate([900, 10, 900, 900, 10], start=1):
        outbox.add(f"{number}", "s", number, [message(f"s{number}", bytes(size))])
    broker.limits = Limits(1_000_000, 50, max_packet_bytes=500)
    publisher = publisher_of(outbox, broker)
    assert publisher.step(0) == 2
    assert publisher.step(0.1) == 0
    assert broker.take() == ["s2", "s5"]
    assert publisher.problem.startswith("3 messages cannot be sent: message for sliceloop/v1/a/b/slice has 900 bytes")
    broker.come_back(Limits(1_000_000, 50))
    assert publisher.step(1) == 5
    assert publisher.problem == ""


def test_a_full_session_costs_no_reading(outbox: Outbox, broker: Broker) -> None:
    """While the session takes nothing, what waits is not read from the disk at each step."""
    fill(outbox, 5)
    broker.limits = Limits(1_000_000, 2)
    publisher = publisher_of(outbox, broker)
    publisher.step(0)
    later = TIMEOUT_S * 2
    reads = 0
    pending = outbox.pending

    def counted(*args: object, **options: object) -> object:
        nonlocal reads
        reads += 1
        return pending(*args, **options)  # type: ignore[arg-type]

    outbox.pending = counted  # type: ignore[method-assign, assignment]
    for tick in range(100):
        publisher.step(later + tick / 1000)
    assert reads <= 2


def test_receipts_of_a_step_are_one_transaction(outbox: Outbox, broker: Broker) -> None:
    """They are remembered, deleted with the next step, and the rest is deleted when it stops."""
    fill(outbox, 3)
    publisher = publisher_of(outbox, broker)
    publisher.step(0)
    publisher.receipt(["s1"])
    publisher.receipt(["s2", "stranger"])
    assert outbox.depth() == 3
    publisher.step(0.1)
    assert outbox.depth() == 1
    publisher.receipt(["s3"])
    assert publisher.settle(0.0) == 1


def test_a_new_connection_sends_all_again(outbox: Outbox, broker: Broker) -> None:
    """What was on its way when the connection was lost may be lost: it goes out at once."""
    fill(outbox, 2)
    publisher = publisher_of(outbox, broker)
    publisher.step(0)
    broker.connected = False
    assert publisher.step(1) == 0
    broker.connected = True
    broker.come_back(Limits(1_000_000, 50))
    assert publisher.step(2) == 2


def test_silence_is_said_until_a_receipt_comes(outbox: Outbox, broker: Broker) -> None:
    """After four timeouts without any receipt the status says that nobody answers."""
    fill(outbox, 2)
    publisher = publisher_of(outbox, broker)
    for now_s in range(41):
        publisher.step(now_s)
        broker.puback()
    assert publisher.problem == "no receipt for 40 s: is a worker running, and its object store?"
    publisher.receipt(["s1"])
    publisher.step(42)
    assert publisher.problem == ""


def test_messages_without_an_answer_do_not_hold_the_window(outbox: Outbox, broker: Broker) -> None:
    """With the window at its least and no receipt for what is in it, those behind still go, a little later."""
    fill(outbox, 40)
    publisher = Publisher(
        outbox,
        broker,  # type: ignore[arg-type]
        site="a",
        edge="b",
        window=20,
        receipt_timeout_s=1000.0,
        rng=random.Random(1),
    )
    assert publisher.step(0) == FEWEST
    assert publisher.step(0.5) == 0
    sent = FEWEST + sum(publisher.step(float(second)) for second in range(1, 60))
    assert sent == 20, "as many as may be without a receipt at once"


def test_a_message_over_which_the_broker_hangs_up_does_not_hold_the_others(outbox: Outbox, broker: Broker) -> None:
    """A broker that drops the connection at one message, without a word, gets all others, and that one last, alone."""
    fill(outbox, 8)
    publisher = publisher_of(outbox, broker)
    for second in range(40):
        broker.connected, broker.limits = True, Limits(1_000_000, 50)
        publisher.step(float(second))
        taken = [name for name in broker.take() if name != "s1"]
        if "s1" in broker.open:  # nothing of this connection is taken
            broker.puback(failure="connection lost")
            broker.connected = False
        else:
            broker.puback()
            publisher.receipt(taken)
        publisher.step(second + 0.5)
    assert ids(outbox) == ["s1"]
