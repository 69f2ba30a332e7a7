"""An S3 server for the demo and the tests: SeaweedFS, bound to 127.0.0.1, in a process of its own that dies with ours.

Its S3 door asks for keys; its inner doors (master, volume, filer) do not, so this is for one user's machine alone.
"""

import argparse
import ctypes
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict

MODULE = "cloud_worker.embedded_s3"
HOST = "127.0.0.1"
REGION = "us-east-1"
PORT_RANGE = range(20_000, 32_000)
"""Below Linux's ephemeral ports, so that no client's outgoing connection sits on a port of ours while we restart."""

INNER_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
    # the admin server listens even with its pages turned off
    "admin.port",
    "admin.port.grpc",
)
SWITCHED_OFF = (
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-webdav=false",
    "-admin.ui=false",
    "-master.telemetry=false",
)
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
POLL_INTERVAL_S = 0.05
MAX_LOG_BYTES = 10 * 1024 * 1024
PR_SET_PDEATHSIG = 1


class EmbeddedS3Error(Exception):
    """Anything that the embedded S3 server raises."""


class S3PortInUseError(EmbeddedS3Error):
    """Another program listens on a port that the server needs."""

    def __init__(self, port: int) -> None:
        """Remember the port."""
        super().__init__(f"port {port} is in use: stop the program that listens there, or choose another port")
        self.port = port


class SeaweedMissingError(EmbeddedS3Error):
    """SeaweedFS is not installed."""

    def __init__(self) -> None:
        """Say what to install."""
        super().__init__("SeaweedFS is not installed: pip install 'sliceloop[demo]'")


class EmbeddedS3StartError(EmbeddedS3Error):
    """The server did not start."""

    def __init__(self, reason: str, log: Path) -> None:
        """Remember the reason and where the server's log is."""
        super().__init__(f"the embedded S3 server did not start: {reason}; see {log}")
        self.reason, self.log = reason, log


class State(BaseModel):
    """What a restart in the same folder keeps: the keys and the ports."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    access_key_id: str
    secret_access_key: str
    port: int
    inner_ports: dict[str, int]


class EmbeddedS3:
    """The server as a context manager; entering again in the same folder finds the same keys, ports and objects."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """Remember the folder and the port; None is the folder's last port, or a free one."""
        self._folder = folder
        self._wanted_port = port
        self._state: State | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the server and wait until it answers."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        _launcher()
        self._state = prepare(self._folder, self._wanted_port)
        # Linux kills it when the thread that starts it ends: start it from the main thread
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, "--folder", str(self._folder.resolve()), "--die-with-parent"],
            cwd=Path(__file__).parents[1],  # where the package is found, installed or not
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask the server to end, and make it end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Kill -9 the server and what it started."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise EmbeddedS3StartError("it is not running", log_path(self._folder))
        return self._process.pid

    @property
    def port(self) -> int:
        """The port of its S3 door."""
        return self._started().port

    @property
    def endpoint_url(self) -> str:
        """The address of its S3 door."""
        return f"http://{HOST}:{self.port}"

    def credentials_env(self) -> dict[str, str]:
        """Return the environment that lets a client in."""
        return credentials_env(self._started())

    def _started(self) -> State:
        if self._state is None:
            raise EmbeddedS3StartError("it was not started", log_path(self._folder))
        return self._state

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _answers(self._folder, self._started()):
            if self._process is None or self._process.poll() is not None:
                raise EmbeddedS3StartError("its process ended", log_path(self._folder))
            if time.monotonic() > deadline_s:
                raise EmbeddedS3StartError(f"no answer within {START_TIMEOUT_S:.0f} s", log_path(self._folder))
            time.sleep(POLL_INTERVAL_S)


def prepare(folder: Path, port: int | None) -> State:
    """Return the folder's keys and ports, made at the first call; raises `S3PortInUseError`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = _load(folder)
    if state is None:
        state = _new_state(port)
        _save(folder, state)
    elif port is not None and port != state.port:
        state = state.model_copy(update={"port": port})
        _save(folder, state)
    for each in (state.port, *state.inner_ports.values()):
        if not is_free(each):
            raise S3PortInUseError(each)
    return state


def credentials_env(state: State) -> dict[str, str]:
    """Return the environment that lets a client in."""
    return {
        "AWS_ACCESS_KEY_ID": state.access_key_id,
        "AWS_SECRET_ACCESS_KEY": state.secret_access_key,
        "AWS_DEFAULT_REGION": REGION,
    }


def log_path(folder: Path) -> Path:
    """Return where the server writes its log."""
    return folder / "seaweedfs.log"


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _new_state(port: int | None) -> State:
    ports = _free_ports(len(INNER_PORTS) + 1, random.SystemRandom())
    return State(
        access_key_id=secrets.token_hex(10).upper(),
        secret_access_key=secrets.token_urlsafe(30),
        port=ports[0] if port is None else port,
        inner_ports=dict(zip(INNER_PORTS, ports[1:], strict=True)),
    )


def _free_ports(count: int, rng: random.Random) -> list[int]:
    candidates = rng.sample(PORT_RANGE, len(PORT_RANGE))
    return [port for port, _ in zip((port for port in candidates if is_free(port)), range(count), strict=False)]


def _load(folder: Path) -> State | None:
    path = folder / "server.json"
    return State.model_validate_json(path.read_bytes()) if path.exists() else None


def _save(folder: Path, state: State) -> None:
    path = folder / "server.json"
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(json.dumps(state.model_dump(), indent=1))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _launcher() -> Path:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise SeaweedMissingError
    return Path(found)


def _answers(folder: Path, state: State) -> bool:
    """Return whether the S3 door answers, and the master knows where to write and where each stored volume is."""
    master_url = f"http://{HOST}:{state.inner_ports['master.port']}"
    volumes = {path.stem.rpartition("_")[2] for path in (folder / "data").glob("*.dat")}
    return (
        _status(f"http://{HOST}:{state.port}/") == 403  # anonymous, so it is the door that asks for keys
        and _status(f"http://{HOST}:{state.inner_ports['volume.port']}/healthz") == 200
        # without this, objects from before a restart are an InternalError for a moment after S3 answers
        and all(_status(f"{master_url}/dir/lookup?volumeId={volume}") == 200 for volume in volumes)
        # without this, the first put after a restart sometimes waits 20 s
        and _status(f"{master_url}/dir/assign") == 200
    )


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - our own http address
            return int(answer.status)
    except urllib.error.HTTPError as answer:
        return answer.code
    except OSError:
        return 0


def _command(launcher: Path, folder: Path, state: State) -> list[str]:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    ports = [f"-{name}={port}" for name, port in state.inner_ports.items()]
    addresses = [f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}", f"-s3.port={state.port}"]
    return [str(launcher), "-logtostderr=true", "mini", *addresses, *ports, *SWITCHED_OFF]


def _become_server(folder: Path, state: State) -> None:
    """Replace this process by the server: whoever ends it, -9 included, leaves nothing behind."""
    command = _command(_launcher(), folder, state)
    log = log_path(folder)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.execve(command[0], command, {**os.environ, **credentials_env(state)})  # noqa: S606 - no shell is meant


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Run the server until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m cloud_worker.embedded_s3", description=main.__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where objects, keys and log are kept")
    parser.add_argument("--port", type=int, help="S3 port on 127.0.0.1; default: the folder's last one, or a free one")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting thread ends (Linux)")
    arguments = parser.parse_args()
    if arguments.die_with_parent:
        _die_with_parent()
    try:
        state = prepare(arguments.folder, arguments.port)
        print(f"embedded S3 server for demo and tests on {HOST}:{state.port}", flush=True)
        _become_server(arguments.folder, state)
    except EmbeddedS3Error as fault:
        sys.exit(str(fault))


if __name__ == "__main__":
    main()
