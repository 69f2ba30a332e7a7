"""Both brokers, as real processes; every contract test runs against each."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from broker.embedded import EmbeddedBroker, free_port
from broker.session import Session
from broker.settings import BrokerSettings

DEADLINE_S = 10.0
MAX_PACKET_BYTES = 1_066_560

CONFIG = f"""\
listener {{port}} 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
max_queued_messages 10000000
max_queued_bytes 268435456
max_inflight_messages 100
max_packet_size {MAX_PACKET_BYTES}
"""


class RunningBroker(Protocol):
    """What a test may do with a broker."""

    port: int

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def stop(self) -> None: ...


def mosquitto_path() -> str:
    """Return where mosquitto is; without it skip, but fail in CI, where a skip would hide a broken promise."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None and os.environ.get("CI"):
        pytest.fail("mosquitto is not installed, and CI must test against it")
    if found is None:
        pytest.skip("mosquitto is not installed (apt install mosquitto): only the embedded broker is tested")
    return found


class MosquittoBroker:
    """A mosquitto process with a configuration file; answers are awaited on `port` unless it speaks TLS."""

    def __init__(self, folder: Path, port: int | None = None, config: str = CONFIG) -> None:
        self.port = port or free_port()
        self._file = folder / f"mosquitto-{self.port}.conf"
        self._file.write_text(config.format(port=self.port))
        self.log = folder / f"mosquitto-{self.port}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([mosquitto_path(), "-c", self._file], stdout=log, stderr=log)
        wait_until(lambda: self._process.poll() is not None or accepts(self.port), "mosquitto listens")
        assert self._process.poll() is None, self.log.read_text()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE_S)


class Brokers:
    """Starts brokers of one kind and stops them all at the end."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        self._started: list[RunningBroker] = []

    def start(self, port: int | None = None) -> RunningBroker:
        mosquitto = self.kind == "mosquitto"
        broker = MosquittoBroker(self._folder, port) if mosquitto else EmbeddedBroker(port).__enter__()
        self._started.append(broker)
        return broker

    def stop_all(self) -> None:
        for broker in self._started:
            broker.stop()


@pytest.fixture(params=["embedded", "mosquitto"])
def brokers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Brokers]:
    if request.param == "mosquitto":
        mosquitto_path()
    started = Brokers(request.param, tmp_path)
    yield started
    started.stop_all()


@pytest.fixture
def running(brokers: Brokers) -> RunningBroker:
    return brokers.start()


@pytest.fixture
def settings(running: RunningBroker) -> BrokerSettings:
    return quick_settings(running.port)


def quick_settings(port: int, **changes: object) -> BrokerSettings:
    return BrokerSettings.model_validate(
        {"port": port, "reconnect_min_s": 0.05, "reconnect_max_s": 0.2, "connect_timeout_s": 2.0, **changes}
    )


def connected(session: Session) -> Session:
    assert session.wait_connected(DEADLINE_S), "no connection"
    return session


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait on a condition that no event announces."""
    never, until_s = threading.Event(), time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until_s, f"not within {deadline_s} s: {what}"
        never.wait(0.01)


def accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
