"""A floor: QoS 1 through the broker from one bare paho client to another, nothing kept and nothing checked."""

import threading
import time
from collections.abc import Sequence

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

HOST = "127.0.0.1"
WINDOW = 20
"""paho's default of messages in flight."""
LIMIT_S = 120.0


def publish_all(port: int, payloads: Sequence[bytes], pairs: int) -> float:
    """Send the payloads through so many pairs at once; return the seconds from the first publish to the last arrival.

    Raises `TimeoutError` when not all arrive.
    """
    shares = [payloads[number::pairs] for number in range(pairs)]
    all_here = [threading.Event() for _ in shares]
    receivers = [_receiver(port, number, len(share), all_here[number]) for number, share in enumerate(shares)]
    senders = [_connected(_new(f"floor-out-{number}"), port) for number in range(pairs)]
    begun_s = time.monotonic()
    threads = [
        threading.Thread(target=_send, args=(sender, number, share), name=f"floor-{number}", daemon=True)
        for number, (sender, share) in enumerate(zip(senders, shares, strict=True))
    ]
    for thread in threads:
        thread.start()
    arrived = all(event.wait(LIMIT_S) for event in all_here)
    seconds = time.monotonic() - begun_s
    for client in (*senders, *receivers):
        client.disconnect()
        client.loop_stop()
    if not arrived:
        raise TimeoutError(f"a bare paho pair did not send everything within {LIMIT_S:.0f} s")
    return seconds


def _new(client_id: str) -> Client:
    return Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)


def _receiver(port: int, number: int, expected: int, all_here: threading.Event) -> Client:
    client = _new(f"floor-in-{number}")
    came, subscribed = 0, threading.Event()

    def on_message(_client: Client, _userdata: object, _message: MQTTMessage) -> None:
        nonlocal came
        came += 1
        if came == expected:
            all_here.set()

    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    _connected(client, port)
    client.subscribe(f"floor/{number}", qos=1)
    if not subscribed.wait(LIMIT_S):
        raise TimeoutError("a bare paho client could not subscribe")
    return client


def _connected(client: Client, port: int) -> Client:
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.max_inflight_messages_set(WINDOW)
    client.connect(HOST, port)
    client.loop_start()
    if not connected.wait(LIMIT_S):
        raise TimeoutError("a bare paho client could not connect")
    return client


def _send(client: Client, number: int, payloads: Sequence[bytes]) -> None:
    for payload in payloads:
        client.publish(f"floor/{number}", payload, qos=1)
