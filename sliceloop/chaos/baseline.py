"""What one gets without outbox and receipts: a bare paho publisher and subscriber, QoS 1, as its documentation shows.

The second file that imports paho: it stands for other people's programs, not for ours.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST = "127.0.0.1"
TOPIC = "baseline"
LOOK_EVERY_S = 0.05
SESSION_EXPIRY_S = 86_400


def publish(port: int, edge: str, inbox: Path, cursor: Path) -> None:
    """Publish each new file of a folder once, by QoS 1, remembering in a file how many were handed to paho."""
    client = _client(port, f"baseline-{edge}")
    done = int(cursor.read_text()) if cursor.exists() else 0
    while True:
        path = inbox / f"{done:06d}.png"
        if not path.exists():
            time.sleep(LOOK_EVERY_S)  # a program of its own, ended by a signal: nothing to wait for
            continue
        client.publish(f"{TOPIC}/{edge}/{done}", path.read_bytes(), qos=1)
        done += 1
        _remember(cursor, done)


def subscribe(port: int, file: Path) -> None:
    """Append the topic of every message that comes to a file."""

    def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        with file.open("a") as lines:
            lines.write(message.topic + "\n")

    file.touch()
    client = _client(port, "baseline-subscriber", on_message)
    while True:
        client.subscribe(f"{TOPIC}/#", qos=1)
        time.sleep(1)  # said again and again, for a broker that has forgotten


def lost_and_doubled(given: dict[str, int], topics: Sequence[str]) -> tuple[int, int]:
    """Return how many of so many messages of each edge never came, and how many came more than once."""
    expected = [f"{TOPIC}/{edge}/{number}" for edge, count in given.items() for number in range(count)]
    came = {topic: topics.count(topic) for topic in set(topics)}
    return sum(topic not in came for topic in expected), sum(count > 1 for count in came.values())


def _remember(cursor: Path, done: int) -> None:
    temporary = cursor.with_suffix(".new")
    temporary.write_text(str(done))
    temporary.replace(cursor)


def _client(port: int, client_id: str, on_message: object = None) -> Client:
    client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
    if on_message is not None:
        client.on_message = on_message  # type: ignore[assignment]
    session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own
    session.SessionExpiryInterval = SESSION_EXPIRY_S
    while True:
        try:
            client.connect(HOST, port, clean_start=False, properties=session)
            break
        except OSError:
            time.sleep(1)
    client.loop_start()
    return client


def main() -> None:
    """Run one of both until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m sliceloop.chaos.baseline", description=__doc__)
    parser.add_argument("role", choices=("publish", "subscribe"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--edge", default="")
    parser.add_argument("--inbox", type=Path)
    parser.add_argument("--file", type=Path, required=True, help="the publisher's cursor, the subscriber's lines")
    arguments = parser.parse_args()
    if arguments.role == "publish":
        publish(arguments.port, arguments.edge, arguments.inbox, arguments.file)
    else:
        subscribe(arguments.port, arguments.file)


if __name__ == "__main__":
    main()
