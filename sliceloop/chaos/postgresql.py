"""A PostgreSQL server of the run's own, on 127.0.0.1, in its folder."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

USER = "sliceloop"
SYSTEM_USER = "postgres"
"""Runs the server when we are root, which PostgreSQL refuses to be."""


class PostgresqlMissingError(RuntimeError):
    """PostgreSQL's programs are not installed."""

    def __init__(self) -> None:
        """Say what to install."""
        super().__init__("PostgreSQL is not installed: apt-get install postgresql, or run with --ledger sqlite")


def server_command(folder: Path, port: int) -> list[str]:
    """Make the cluster, and return the command that is the server; raises `PostgresqlMissingError`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    if os.geteuid() == 0:
        shutil.chown(folder, SYSTEM_USER)
    made = [str(_program("initdb")), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C"]
    subprocess.run(_as_server(made), check=True, stdout=subprocess.DEVNULL, cwd=folder)
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    return _as_server([str(_program("postgres")), "-D", str(data), "-p", str(port), *options])


def url(port: int) -> str:
    """Return the ledger's URL."""
    return f"postgresql+psycopg://{USER}@127.0.0.1:{port}/postgres"


def backends(server: int) -> list[int]:
    """Return the process ids of the server's backends, those that serve a client."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_text()
        except (OSError, ValueError):
            continue  # gone meanwhile
        if parent == server and command.startswith(f"postgres: {USER} "):
            found.append(int(path.name))
    return sorted(found)


def _program(name: str) -> Path:
    found = shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None)
    if found is None:
        raise PostgresqlMissingError
    return Path(found)


def _as_server(command: Sequence[str]) -> list[str]:
    if os.geteuid() != 0:
        return list(command)
    become = ["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--clear-groups", "--pdeathsig", "INT"]
    return ["setpriv", *become, "--", *command]
