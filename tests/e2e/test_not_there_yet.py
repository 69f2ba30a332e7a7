"""Broker or S3 server away at the start, or their ports taken: said clearly, and nothing has to be started twice."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_loop import Loop

from sliceloop.demo.stage import EDGES

HOST = "127.0.0.1"
DEADLINE_S = 60


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.e2e
def test_services_that_come_first_wait_and_then_work(loop: Loop) -> None:
    """Edges, worker and trainer say what they lack, stay, and need no restart when broker and S3 server appear."""
    services = ("worker", "trainer", *EDGES)
    loop.start(*services)
    loop.wait("the worker misses the object store", lambda: loop.s3_url in loop.log("worker"))
    assert "object store away" in loop.log("worker")
    missing = f"broker unreachable at {HOST}:{loop.broker.port}"
    loop.wait("the others miss the broker", lambda: all(missing in loop.log(name) for name in ("trainer", *EDGES)))

    loop.start_broker()
    loop.wait("the edges miss a model", lambda: all("no model yet" in loop.log(edge) for edge in EDGES))
    loop.start_s3()
    loop.release()
    loop.streaming = True
    loop.wait_for_new_slices()
    loop.wait_until_all_is_stored()
    loop.assert_nothing_is_lost_or_doubled()


def test_a_broker_port_in_use_is_named(taken_port: int) -> None:
    """The embedded broker ends with an exit code, and says which port to free."""
    said = fails("broker.embedded", "--port", str(taken_port))
    assert f"port {taken_port} is in use" in said


def test_an_s3_port_in_use_is_named(taken_port: int, tmp_path: Path) -> None:
    """The embedded S3 server ends with an exit code, and says which port to free."""
    said = fails("cloud_worker.embedded_s3", "--folder", str(tmp_path), "--port", str(taken_port))
    assert f"port {taken_port} is in use" in said


def fails(*arguments: str) -> str:
    """Run a module that must fail; return what it says, which is no traceback."""
    ended = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr
