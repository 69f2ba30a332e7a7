"""The embedded broker as a process: its port, its messages, its end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DEADLINE_S, accepts, connected, quick_settings, wait_until

from broker.embedded import EmbeddedBroker, answers, free_port
from broker.errors import PortInUseError
from broker.session import Outbound, Session

ROOT = Path(__file__).parents[2]


def started(*arguments: str, isolated: bool = False) -> subprocess.Popen[str]:
    module = ["-c", "import sys; sys.modules['iotcore'] = None; from broker.embedded import main; sys.exit(main())"]
    return subprocess.Popen(
        [sys.executable, *(module if isolated else ["-m", "broker.embedded"]), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_what_it_is_and_stops_on_a_signal(number: signal.Signals) -> None:
    """One line says where it is and what it is not; a signal ends it with exit code 0."""
    port = free_port()
    process = started("--port", str(port))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == f"embedded broker for demo and tests on 127.0.0.1:{port}: keeps nothing over a restart\n"
    wait_until(lambda: answers(port), "it answers")
    process.send_signal(number)
    assert process.communicate(timeout=DEADLINE_S) == ("", "")
    assert process.returncode == 0


def test_it_outlives_its_parents_input_unless_asked_not_to() -> None:
    """The end of standard input means nothing without --die-with-parent, and the end with it."""
    ports = free_port(), free_port()
    loose, bound = started("--port", str(ports[0])), started("--port", str(ports[1]), "--die-with-parent")
    wait_until(lambda: all(answers(port) for port in ports), "both answer")
    for process in (loose, bound):
        assert process.stdin is not None
        process.stdin.close()
    assert bound.wait(DEADLINE_S) == 0
    assert answers(ports[0])
    loose.terminate()
    assert loose.wait(DEADLINE_S) == 0


def test_a_port_in_use_is_named(taken_port: int) -> None:
    """A taken port raises with the port and what to do, as a class and as a process."""
    message = f"port {taken_port} is in use: .* choose another"
    with pytest.raises(PortInUseError, match=message) as caught, EmbeddedBroker(taken_port):
        pass
    assert caught.value.port == taken_port
    process = started("--port", str(taken_port))
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, output) == (1, "")
    assert errors == f"{caught.value}\n"


def test_without_iotcore_it_names_the_extra() -> None:
    """Where iotcore is not installed, the message says what to install."""
    process = started("--port", str(free_port()), isolated=True)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "sliceloop[demo]" in errors
    assert "Traceback" not in errors


def test_a_killed_broker_leaves_its_port_to_the_next(tmp_path: Path) -> None:
    """After kill -9 with clients connected, a new broker starts on the same port at once."""
    with EmbeddedBroker(folder=tmp_path) as broker:
        with Session(quick_settings(broker.port), "client") as session:
            connected(session)
            broker.kill()
            assert not accepts(broker.port)
            with EmbeddedBroker(broker.port):
                wait_until(lambda: session.connected, "the client is back")
        assert (tmp_path / "broker.toml").is_file()


def test_its_processes_end_with_it() -> None:
    """The end of `with` ends the process."""
    with EmbeddedBroker() as broker:
        pid = broker.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_its_memory_is_bounded() -> None:
    """One topic filter keeps 80 MiB at most, however much is published; the sample of rumqttd grows to 1.7 GB."""
    with EmbeddedBroker() as broker, Session(quick_settings(broker.port), "writer") as writer:
        connected(writer)
        with Session(quick_settings(broker.port), "reader", subscriptions=["big"]) as reader:
            connected(reader)
            for _ in range(250):
                assert writer.publish(Outbound("big", bytes(999_000))).wait(DEADLINE_S)
        assert resident_bytes(broker.pid) < 250 * 1024 * 1024


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
