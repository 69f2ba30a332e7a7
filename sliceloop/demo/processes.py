"""Real processes with logs of their own: start, kill, start again, stop in the reverse order."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from cloud_worker.embedded_s3 import PR_SET_PDEATHSIG

STOP_TIMEOUT_S = 15.0
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""What `kill` and a closed terminal send; Ctrl-C is Python's own."""


class ProcessFailedError(RuntimeError):
    """A process of the demo ended although it should run (or ended badly); the message shows the end of its log."""


@dataclass
class ManagedProcess:
    """One process: how to start it, where its log is, and its present life."""

    name: str
    command: Sequence[str]
    log: Path
    env: Mapping[str, str]
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def running(self) -> bool:
        """Tell whether it is alive."""
        return self.process is not None and self.process.poll() is None

    def last_words(self, lines: int = 5) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class Processes:
    """The processes of one demo, by name; leaving stops them all, the last started first."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        """Remember where logs go, and what is added to the environment of every process."""
        self._folder = folder
        self._env = {**os.environ, **(env or {})}
        self._managed: dict[str, ManagedProcess] = {}

    def __enter__(self) -> Self:
        """Make the folder for logs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        for managed in reversed(self._managed.values()):
            self._stop(managed)

    def add_env(self, env: Mapping[str, str]) -> None:
        """Add to the environment of processes that are started from now on."""
        self._env.update(env)

    def start(self, name: str, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> ManagedProcess:
        """Start `python -m ARGUMENTS` under a name, with an environment of its own above that of all."""
        return self.run(name, [sys.executable, "-m", *arguments], env)

    def run(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> ManagedProcess:
        """Start a command under a name, with an environment of its own above that of all."""
        log = self._folder / f"{name}.log"
        self._managed[name] = ManagedProcess(name, command, log, {**self._env, **(env or {})})
        self._launch(self._managed[name])
        return self._managed[name]

    def wait_for_end(self, name: str, timeout_s: float) -> None:
        """Wait for a process that ends by itself; raises `ProcessFailedError` unless it ends well."""
        managed = self._managed[name]
        assert managed.process is not None
        code = managed.process.wait(timeout_s)
        del self._managed[name]  # not before: a wait that Ctrl-C ends leaves it among those to stop
        if code != 0:
            raise ProcessFailedError(f"{name} ended with exit code {code}:\n{managed.last_words()}")

    def kill(self, name: str) -> None:
        """End a process as a power cut would (SIGKILL)."""
        managed = self._managed[name]
        assert managed.process is not None
        managed.process.kill()
        managed.process.wait(STOP_TIMEOUT_S)

    def stop(self, name: str) -> None:
        """Ask a process to end, and make it end."""
        self._stop(self._managed[name])

    def dismiss(self, name: str) -> None:
        """Stop a process that is not needed any more: it need not run from now on."""
        self._stop(self._managed.pop(name))

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process."""
        os.kill(self.pid(name), number)

    def pid(self, name: str) -> int:
        """Return the process id of a process's present life."""
        managed = self._managed[name]
        assert managed.process is not None
        return managed.process.pid

    def ended(self) -> list[ManagedProcess]:
        """Return the processes that do not run."""
        return [managed for managed in self._managed.values() if not managed.running]

    def restart(self, name: str) -> None:
        """Start a killed process again with the same command and log."""
        self._launch(self._managed[name])

    def check(self) -> None:
        """Raise `ProcessFailedError` when a process ended that should run."""
        for managed in self._managed.values():
            if not managed.running:
                raise ProcessFailedError(f"{managed.name} ended unexpectedly:\n{managed.last_words()}")

    def _launch(self, managed: ManagedProcess) -> None:
        with managed.log.open("ab") as log:
            managed.process = _popen(managed, log)

    def _stop(self, managed: ManagedProcess) -> None:
        if managed.process is None or not managed.running:
            return
        managed.process.send_signal(signal.SIGTERM)
        try:
            managed.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            managed.process.kill()
            managed.process.wait()


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does: what it started is stopped, in order.

    One that is ignored from the start stays so: nohup means it.
    """
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit)


def _exit(number: int, _: FrameType | None) -> None:
    for each in ENDING_SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a terminal and its shell may both say so: the stop goes on
    raise SystemExit(128 + number)


def _popen(managed: ManagedProcess, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start in a session of its own, so that Ctrl-C reaches the demo alone, which then stops all in order."""
    return subprocess.Popen(
        managed.command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=managed.env,
        start_new_session=True,
        preexec_fn=_death_with_parent(),
    )


def _death_with_parent() -> Callable[[], None] | None:
    """Return what makes a child end with the thread that starts it, kill -9 included (Linux only)."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)

    return ask
