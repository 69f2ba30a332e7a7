"""A PostgreSQL server for tests and trials: fsync on, bound to 127.0.0.1, in a process that dies with ours.

The server's programs come from the system (Debian's package postgresql). They refuse to run as root, so root drops to
another user, who must be able to reach the folder. Only who knows the password in `server.json` is let in.
"""

import argparse
import ctypes
import os
import pwd
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict

from cloud_worker.embedded_s3 import HOST, PORT_RANGE, is_free

MODULE = "cloud_worker.embedded_postgresql"
PROGRAMS = ("initdb", "postgres")
DEBIAN_FOLDER = Path("/usr/lib/postgresql")
"""Debian keeps the programs of each major version apart, and off the PATH."""
UNPRIVILEGED_USERS = ("postgres", "nobody")
SUPERUSER = "sliceloop"
DATABASE = "postgres"
DURABLE = ("-cfsync=on", "-cfull_page_writes=on", "-csynchronous_commit=on")
READY_LINE = 7
"""Of postmaster.pid, counted from 0: what the server says of itself, `ready` once it answers queries."""
STILL_IN_USE = "shared memory block"
"""Said by a server whose predecessor was killed, as long as that one's children live on."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.05
MAX_LOG_BYTES = 10 * 1024 * 1024
PR_SET_PDEATHSIG = 1


class EmbeddedPostgresqlError(Exception):
    """Anything that the embedded PostgreSQL server raises."""


class PostgresqlMissingError(EmbeddedPostgresqlError):
    """The server's programs are not installed."""

    def __init__(self) -> None:
        """Say what to install."""
        super().__init__(
            f"no PostgreSQL server: {' and '.join(PROGRAMS)} are neither on the PATH nor in "
            f"{DEBIAN_FOLDER}/*/bin; on Debian: apt-get install postgresql"
        )


class PostgresqlPortInUseError(EmbeddedPostgresqlError):
    """Another program listens on the port."""

    def __init__(self, port: int) -> None:
        """Remember the port."""
        super().__init__(f"port {port} is in use: stop the program that listens there, or choose another port")
        self.port = port


class NoUnprivilegedUserError(EmbeddedPostgresqlError):
    """Root has nobody to run the server as."""

    def __init__(self) -> None:
        """Say what to do."""
        users = " or ".join(UNPRIVILEGED_USERS)
        super().__init__(f"PostgreSQL refuses to run as root, and there is no user {users}: run as an ordinary user")


class FolderOutOfReachError(EmbeddedPostgresqlError):
    """The user that root drops to cannot write into the folder."""

    def __init__(self, folder: Path, user: str) -> None:
        """Remember the folder and the user."""
        super().__init__(
            f"{folder} is out of reach of the user {user}, as whom root runs PostgreSQL: "
            "choose a folder whose parents others may enter, or run as an ordinary user"
        )
        self.folder, self.user = folder, user


class EmbeddedPostgresqlStartError(EmbeddedPostgresqlError):
    """The server did not start."""

    def __init__(self, reason: str, log: Path) -> None:
        """Remember the reason and where the server's log is."""
        super().__init__(f"the embedded PostgreSQL server did not start: {reason}; see {log}")
        self.reason, self.log = reason, log


class State(BaseModel):
    """What a restart in the same folder keeps: the password and the port."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    password: str
    port: int


@dataclass(frozen=True)
class Account:
    """Whose process the server is."""

    name: str
    uid: int
    gid: int


class EmbeddedPostgresql:
    """The server as a context manager; entering again in the same folder finds the same password, port and tables."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """Remember the folder and the port; None is the folder's last port, or a free one."""
        self._folder = folder.absolute()
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
        """Start the server and wait until it answers, its recovery done; makes the cluster at the first time."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        self._state = prepare(self._folder, self._wanted_port)
        while not self._came_up(deadline_s):
            time.sleep(POLL_INTERVAL_S)

    def stop(self) -> None:
        """Have the server disconnect its clients, write all down and end; make it end where it does not."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill -9 the server; its children end by themselves, and the next start recovers from the log."""
        self._end(signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise EmbeddedPostgresqlStartError("it is not running", log_path(self._folder))
        return self._process.pid

    @property
    def url(self) -> str:
        """The database's address for SQLAlchemy, with the password."""
        if self._state is None:
            raise EmbeddedPostgresqlStartError("it was not started", log_path(self._folder))
        return url(self._state)

    def _came_up(self, deadline_s: float) -> bool:
        """Start a process and wait for its answer; False when a killed predecessor is not quite gone yet."""
        said_before = _size(log_path(self._folder))
        # Linux ends it when the thread that starts it ends: start it from the main thread
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, "--folder", str(self._folder), "--die-with-parent"],
            cwd=Path(__file__).parents[1],  # where the package is found, installed or not
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while not _is_ready(self._folder, self._process.pid):
                if self._process.poll() is not None:
                    said = _said_since(log_path(self._folder), said_before)
                    if STILL_IN_USE in said and time.monotonic() < deadline_s:
                        return False
                    reason = f"its process ended ({_first_fault(said)})"
                    raise EmbeddedPostgresqlStartError(reason, log_path(self._folder))
                if time.monotonic() > deadline_s:
                    raise EmbeddedPostgresqlStartError(
                        f"no answer within {START_TIMEOUT_S:.0f} s", log_path(self._folder)
                    )
                time.sleep(POLL_INTERVAL_S)
        except BaseException:
            self.kill()
            raise
        return True

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None


def find_programs() -> Path:
    """Return the folder of the server's programs, of the newest version where there are several.

    Raises `PostgresqlMissingError`.
    """
    on_path = shutil.which("postgres")
    debian = sorted(DEBIAN_FOLDER.glob("*/bin"), key=lambda folder: _major(folder.parent.name), reverse=True)
    for folder in (*([Path(on_path).resolve().parent] if on_path else []), *debian):
        if all(os.access(folder / program, os.X_OK) for program in PROGRAMS):
            return folder
    raise PostgresqlMissingError


def prepare(folder: Path, port: int | None) -> State:
    """Return the folder's password and port; the first call makes the cluster. Raises an `EmbeddedPostgresqlError`."""
    programs, account = find_programs(), _account()
    folder.mkdir(parents=True, exist_ok=True)
    state = _load(folder)
    if state is None:
        state = State(password=secrets.token_urlsafe(24), port=port or _free_port(random.SystemRandom()))
        _save(folder, state)
    elif port is not None and port != state.port:
        state = state.model_copy(update={"port": port})
        _save(folder, state)
    if not is_free(state.port):
        raise PostgresqlPortInUseError(state.port)
    if not (folder / "data").exists():
        _make_cluster(folder, programs, account, state.password)
    return state


def url(state: State) -> str:
    """Return the database's address for SQLAlchemy, with the password."""
    return f"postgresql+psycopg://{SUPERUSER}:{state.password}@{HOST}:{state.port}/{DATABASE}"


def log_path(folder: Path) -> Path:
    """Return where the server writes its log."""
    return folder / "postgresql.log"


def _make_cluster(folder: Path, programs: Path, account: Account | None, password: str) -> None:
    """Make it under another name first: what a kill leaves half made is no cluster, and is made anew."""
    unfinished, password_file = folder / "data.new", folder / "password.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    _write_secret(password_file, password)
    if account is not None:
        for path in (folder, password_file):
            os.chown(path, account.uid, account.gid)
        _check_reach(folder, account)
    options = [f"--username={SUPERUSER}", f"--pwfile={password_file}", "--auth=scram-sha-256"]
    options += ["--encoding=UTF8", "--locale=C"]
    try:
        made = _run_as(account, [str(programs / "initdb"), f"--pgdata={unfinished}", *options], folder)
    finally:
        password_file.unlink()
    if made.returncode:
        log_path(folder).write_bytes(made.stdout)
        raise EmbeddedPostgresqlStartError(f"initdb ended with {made.returncode}", log_path(folder))
    unfinished.rename(folder / "data")


def _check_reach(folder: Path, account: Account) -> None:
    if _run_as(account, ["test", "-w", str(folder)], Path("/")).returncode:
        raise FolderOutOfReachError(folder, account.name)


def _run_as(account: Account | None, command: list[str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def _account() -> Account | None:
    """Return as whom root runs the server; None for an ordinary user, who runs it himself."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED_USERS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, found.pw_uid, found.pw_gid)
    raise NoUnprivilegedUserError


def _become_server(folder: Path, state: State, *, die_with_parent: bool) -> None:
    """Replace this process by the server."""
    log = log_path(folder)
    if _size(log) > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    account = _account()
    if account is not None:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)
    if die_with_parent:  # after the change of user, which forgets it
        _die_with_parent()
    data = folder / "data"
    os.chdir(data)
    listen = [f"-clisten_addresses={HOST}", f"-cport={state.port}", "-cunix_socket_directories="]
    command = [str(find_programs() / "postgres"), "-D", str(data), *listen, *DURABLE]
    os.execv(command[0], command)  # noqa: S606 - no shell is meant


def _die_with_parent() -> None:
    if sys.platform == "linux":
        # SIGQUIT ends its children with it, and frees the shared memory; as after kill -9 the next start recovers
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _is_ready(folder: Path, pid: int) -> bool:
    """Tell whether the server of this process has said in its lock file that it answers."""
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) > READY_LINE and lines[0] == str(pid) and lines[READY_LINE].strip() == "ready"


def _load(folder: Path) -> State | None:
    path = folder / "server.json"
    return State.model_validate_json(path.read_bytes()) if path.exists() else None


def _save(folder: Path, state: State) -> None:
    path = folder / "server.json"
    temporary = path.with_suffix(".new")
    _write_secret(temporary, state.model_dump_json())
    temporary.replace(path)


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _free_port(rng: random.Random) -> int:
    return next(port for port in rng.sample(PORT_RANGE, len(PORT_RANGE)) if is_free(port))


def _major(name: str) -> int:
    return int(name) if name.isdecimal() else 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _said_since(log: Path, size_before: int) -> str:
    """Return what was written since the log had this size; all of it when it was begun anew meanwhile."""
    said = log.read_bytes() if log.exists() else b""
    return said[size_before if size_before <= len(said) else 0 :].decode(errors="replace")


def _first_fault(said: str) -> str:
    lines = [line for line in said.splitlines() if "FATAL" in line or "Error" in line] or said.splitlines()
    return lines[0][:300] if lines else "it said nothing"


def main() -> None:
    """Run the server until SIGINT."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=main.__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where cluster, password and log are kept")
    parser.add_argument("--port", type=int, help="on 127.0.0.1; default: the folder's last one, or a free one")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting thread ends (Linux)")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    try:
        state = prepare(folder, arguments.port)
        print(f"PostgreSQL for trials on {HOST}:{state.port}, its password is in {folder}/server.json", flush=True)
        _become_server(folder, state, die_with_parent=arguments.die_with_parent)
    except EmbeddedPostgresqlError as fault:
        sys.exit(str(fault))


if __name__ == "__main__":
    main()
