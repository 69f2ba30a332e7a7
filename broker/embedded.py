"""The embedded broker for demo and tests: rumqttd out of the iotcore package, in a process of its own.

It keeps nothing over a restart and knows no access rules per client; a deployment runs mosquitto (see mosquitto.conf).
"""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import structlog

from broker.errors import BrokerStartError, PortInUseError

log = structlog.get_logger()

HOST = "127.0.0.1"
MAX_PAYLOAD_BYTES = 2 * 1024 * 1024
MAX_INFLIGHT = 100
START_TIMEOUT_S = 15.0
HEALTH_EVERY_S = 5.0
STOP_TIMEOUT_S = 5.0
PROBE_EVERY_S = 0.02
PROBE_TIMEOUT_S = 1.0
FREE_PORT_ATTEMPTS = 5
EXIT_FAILED = 1
READ_BYTES = 1_024
SHOWN_LOG_BYTES = 2_000

CONFIG = """\
id = 0

[router]
id = 0
max_connections = 512
max_outgoing_packet_count = 200
# Each topic filter keeps at most count * size bytes, and forgets the oldest: the sample of rumqttd keeps 1 GB.
max_segment_size = 8388608
max_segment_count = 10

[v5.1]
name = "v5-1"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 5000
max_payload_size = {max_payload_bytes}
max_inflight_count = {max_inflight}
dynamic_filters = true
"""

# An MQTT 5 CONNECT with a clean start and the client id "probe" (MQTT 5, 3.1), and the first byte of the CONNACK.
PROBE = bytes.fromhex("10 12 00 04 4d515454 05 02 000a 00 0005 70726f6265")
CONNACK = b"\x20"
DISCONNECT = bytes.fromhex("e0 00")


class EmbeddedBroker:
    """Run the embedded broker as a child process from `with` until its end; it also ends when this process dies.

    port: None for a free one. folder: where its configuration and log are kept; None for nowhere.
    """

    def __init__(self, port: int | None = None, folder: Path | None = None) -> None:
        self._wanted_port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it and wait until it answers; raises PortInUseError or BrokerStartError."""
        for _ in range(FREE_PORT_ATTEMPTS):
            self.port = free_port() if self._wanted_port is None else self._wanted_port
            try:
                self._start()
            except PortInUseError:  # another process was quicker to take the port that was free a moment ago
                if self._wanted_port is not None:
                    raise
            else:
                return self
        raise PortInUseError(self.port)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Return the process id of the running broker."""
        if self._process is None:
            raise BrokerStartError("it is not running")
        return self._process.pid

    def kill(self) -> None:
        """End it at once, as a power cut would (SIGKILL); for tests."""
        self._end(subprocess.Popen.kill)

    def stop(self) -> None:
        """End it cleanly (SIGTERM); safe to call twice."""
        self._end(subprocess.Popen.terminate)

    def _start(self) -> None:
        check_port_free(self.port)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        with self._open_log() as errors:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env=_environment()
            )
            try:
                _wait_until_it_answers(self._process, self.port)
            except BrokerStartError as error:
                self.kill()
                raise BrokerStartError(f"{error.reason}: {_tail(errors)}") from error

    def _command(self) -> list[str]:
        kept = [] if self._folder is None else ["--folder", str(self._folder)]
        return [sys.executable, "-m", "broker.embedded", "--port", str(self.port), "--die-with-parent", *kept]

    def _open_log(self) -> IO[bytes]:
        if self._folder is None:
            return tempfile.TemporaryFile()
        return (self._folder / "broker.log").open("w+b")

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        how(process)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("embedded broker did not stop: killed", port=self.port)
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def free_port() -> int:
    """Return a TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def check_port_free(port: int) -> None:
    """Raise PortInUseError when somebody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as the broker does: a closing socket is no listener
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortInUseError(port) from error


def answers(port: int) -> bool:
    """Say whether an MQTT 5 broker answers a CONNECT on this port."""
    try:
        with socket.create_connection((HOST, port), timeout=PROBE_TIMEOUT_S) as probe:
            probe.sendall(PROBE)
            answer = probe.recv(1)
            probe.sendall(DISCONNECT)
            return answer == CONNACK
    except OSError:
        return False


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if answers(port):
            return
        try:
            code = process.wait(PROBE_EVERY_S)
        except subprocess.TimeoutExpired:
            continue
        raise BrokerStartError(f"its process ended with exit code {code}")
    raise BrokerStartError(f"no answer on port {port} within {START_TIMEOUT_S:g} s")


def _environment() -> dict[str, str]:
    """Let the child find this very package, installed or not."""
    ours = str(Path(__file__).resolve().parent.parent)
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": ours if not others else os.pathsep.join([ours, others])}


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read()[-SHOWN_LOG_BYTES:].decode(errors="replace").strip() or "it said nothing"


# The child process.


def main(arguments: list[str] | None = None) -> int:
    """Run the broker until SIGTERM or SIGINT; return the exit code."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.die_with_parent:
        threading.Thread(target=_stop_at_end_of_input, args=(stop,), name="parent-watch", daemon=True).start()
    try:
        check_port_free(options.port)
        _serve(options.port, options.folder, stop)
    except (PortInUseError, BrokerStartError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m broker.embedded", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, help="keep the configuration file here")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when standard input ends")
    return parser


def _serve(port: int, folder: Path | None, stop: threading.Event) -> None:
    faults: list[str] = []
    broker = _new_broker(
        CONFIG.format(host=HOST, port=port, max_payload_bytes=MAX_PAYLOAD_BYTES, max_inflight=MAX_INFLIGHT), folder
    )

    def run() -> None:
        try:
            broker()
        except Exception as error:  # a thread's top: whatever it is, the process ends and says so
            logging.getLogger(__name__).exception("embedded broker failed")
            faults.append(str(error))
        stop.set()

    # A daemon, because rumqttd knows no way to stop: the end of the process ends it.
    threading.Thread(target=run, name="rumqttd", daemon=True).start()
    sys.stdout.write(f"embedded broker for demo and tests on {HOST}:{port}: keeps nothing over a restart\n")
    sys.stdout.flush()
    while not stop.wait(HEALTH_EVERY_S):
        if not answers(port) and not answers(port):  # rumqttd can die inside and leave the process, which says nothing
            faults.append("it does not answer any more")
            stop.set()
    if faults:
        raise BrokerStartError(faults[0])


def _new_broker(config: str, folder: Path | None) -> Callable[[], None]:
    try:
        from iotcore.iotcore import IotCoreBroker
    except ImportError as error:
        raise BrokerStartError("iotcore is not installed: pip install 'sliceloop[demo]'") from error
    # rumqttd wraps its routing in error spans: each packet would be an error record.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as passing:
        file = (folder or Path(passing)) / "broker.toml"
        file.write_text(config, encoding="utf-8")
        run: Callable[[], None] = IotCoreBroker(config_path=str(file)).run_forever
        return run


def _stop_at_end_of_input(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), READ_BYTES):  # not sys.stdin.read, whose lock delays the end of the process
        pass
    stop.set()


if __name__ == "__main__":
    raise SystemExit(main())
