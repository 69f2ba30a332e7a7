"""The embedded PostgreSQL server: real processes, killed for real."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import create_engine, text

from cloud_worker import embedded_postgresql
from cloud_worker.embedded_postgresql import (
    EmbeddedPostgresql,
    FolderOutOfReachError,
    PostgresqlMissingError,
    PostgresqlPortInUseError,
    find_programs,
    prepare,
)

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@pytest.fixture
def folder(postgresql_server: str) -> Iterator[Path]:
    """A folder that others may enter; skips where the session has no server either."""
    with TemporaryDirectory(prefix="sliceloop-postgresql-") as folder:
        yield Path(folder)


def ask(url: str, query: str) -> str:
    """Return the first value that the query answers, over a connection of its own."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(query))
            return str(result.scalar()) if result.returns_rows else ""
    finally:
        engine.dispose()


def test_what_was_committed_outlasts_kill_9(folder: Path) -> None:
    """Killed at once after a commit and started again in the same folder, the server has what was committed."""
    with EmbeddedPostgresql(folder) as server:
        url = server.url
        ask(url, "CREATE TABLE told (number integer)")
        for number in range(3):
            ask(url, f"INSERT INTO told VALUES ({number})")
            server.kill()
            server.start()
            assert ask(server.url, "SELECT count(*) FROM told") == str(number + 1)
    with EmbeddedPostgresql(folder) as again:
        assert again.url == url
        assert ask(url, "SELECT count(*) FROM told") == "3"


def test_it_writes_durably(folder: Path) -> None:
    """fsync, full page writes and synchronous commits are on."""
    with EmbeddedPostgresql(folder) as server:
        names = ("fsync", "full_page_writes", "synchronous_commit")
        assert [ask(server.url, f"SHOW {name}") for name in names] == ["on", "on", "on"]


def test_it_dies_with_its_parent(folder: Path) -> None:
    """A parent that is killed with -9 leaves no server behind."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom cloud_worker.embedded_postgresql import EmbeddedPostgresql\n"
        "with EmbeddedPostgresql(Path(sys.argv[1])) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().strip().isdecimal()
    lock = folder / "data" / "postmaster.pid"
    assert lock.exists()
    parent.kill()
    parent.communicate(timeout=DEADLINE_S)
    never, until_s = threading.Event(), time.monotonic() + DEADLINE_S
    while lock.exists():
        assert time.monotonic() < until_s, "the server is still there"
        never.wait(0.02)


def test_a_cluster_half_made_is_made_anew(folder: Path) -> None:
    """What a killed first start leaves behind does not stand in the way of the next one."""
    (folder / "data.new" / "base").mkdir(parents=True)
    with EmbeddedPostgresql(folder) as server:
        assert ask(server.url, "SELECT 1") == "1"


def test_a_wrong_password_is_refused(folder: Path) -> None:
    """Another user of the machine is not let in."""
    with EmbeddedPostgresql(folder) as server, pytest.raises(Exception, match="password authentication failed"):
        ask(server.url.replace("sliceloop:", "sliceloop:wrong"), "SELECT 1")


def test_a_port_in_use_is_named(folder: Path) -> None:
    """A port on which somebody listens is refused by its number."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PostgresqlPortInUseError, match=f"port {port} is in use"):
            prepare(folder, port)


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the server's programs it is said what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_postgresql, "DEBIAN_FOLDER", tmp_path)
    with pytest.raises(PostgresqlMissingError, match="apt-get install postgresql"):
        find_programs()


def test_the_newest_version_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of several versions off the PATH the newest that is whole is found, by number and not by name."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_postgresql, "DEBIAN_FOLDER", tmp_path)
    for version, programs in {"9": ("initdb", "postgres"), "15": ("initdb", "postgres"), "16": ("initdb",)}.items():
        (tmp_path / version / "bin").mkdir(parents=True)
        for program in programs:
            (tmp_path / version / "bin" / program).touch(mode=0o755)
    assert find_programs() == tmp_path / "15" / "bin"


@needs_root
def test_a_folder_out_of_reach_is_named(folder: Path) -> None:
    """A folder that the user to whom root drops may not enter is named, with that user."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(FolderOutOfReachError, match=r"closed/cluster is out of reach of the user"):
        prepare(closed / "cluster", None)
