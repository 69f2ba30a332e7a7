"""The outbox keeps every message until a receipt, over kill -9, full disks and a second process."""

import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.outbox import Outbox, OutboxError, OutboxFullError, OutboxMessage
from protocol.topics import Kind

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "outbox.sqlite"


def outbox_at(path: Path, max_rows: int = 1000, max_bytes: int = 1_000_000) -> Outbox:
    return Outbox(path, max_rows=max_rows, max_bytes=max_bytes)


def message(name: str, payload: bytes = b"payload", kind: Kind = Kind.SLICE) -> OutboxMessage:
    return OutboxMessage(name, kind, payload, "application/cbor", (("id", name), ("source", "/edges/a/b")))


def ids(outbox: Outbox, limit: int = 100, **options: list[str]) -> list[str]:
    return [each.message_id for each in outbox.pending(limit, **options)]


def test_messages_come_out_as_they_went_in(path: Path) -> None:
    """Kind, payload, content type and user properties survive, and a restart changes nothing."""
    kept = [message("m1", b"\0\xff"), message("m2", b"frame", Kind.FRAME)]
    with outbox_at(path) as outbox:
        outbox.add("a.png", "slice-1", 7, kept)
    with outbox_at(path) as outbox:
        assert outbox.pending(10) == kept
        assert outbox.depth() == 2
        assert outbox.last_sequence() == 7
        assert outbox.is_captured("a.png")
        assert not outbox.is_captured("b.png")


def test_the_oldest_come_first_besides_those_on_their_way(path: Path) -> None:
    """Pending messages are the oldest, in order, without those in flight, as many as there is room for."""
    with outbox_at(path) as outbox:
        for number in range(6):
            outbox.add(f"{number}.png", f"slice-{number}", number + 1, [message(f"m{number}")])
        assert ids(outbox, 3) == ["m0", "m1", "m2"]
        assert ids(outbox, 3, besides=["m0", "m2", "unknown"]) == ["m1", "m3", "m4"]
        assert outbox.delete(["m1", "m4"]) == 2
        assert ids(outbox) == ["m0", "m2", "m3", "m5"]


def test_a_receipt_may_come_twice_or_name_strangers(path: Path) -> None:
    """Deleting is idempotent, and what is not there is not counted."""
    with outbox_at(path) as outbox:
        outbox.add("a.png", "slice-1", 1, [message("m1"), message("m2")])
        assert outbox.delete(["m1", "m1", "stranger"]) == 1
        assert outbox.delete(["m1"]) == 0
        assert outbox.delete([]) == 0
        assert ids(outbox) == ["m2"]


def test_a_sent_slice_stays_captured(path: Path) -> None:
    """The receipt deletes messages, not the memory of which file they came from nor of the last number."""
    with outbox_at(path) as outbox:
        outbox.add("a.png", "slice-1", 5, [message("m1")])
        outbox.delete(["m1"])
        assert outbox.is_captured("a.png")
        assert outbox.last_sequence() == 5


def test_refused_frames_are_listed_with_their_reason(path: Path) -> None:
    """What could not be read stays known by name and reason, and takes no place in the queue."""
    with outbox_at(path, max_rows=1) as outbox:
        outbox.refuse("b.png", "cut off")
        outbox.refuse("a.png", "not an image")
        assert outbox.refused() == [("a.png", "not an image"), ("b.png", "cut off")]
        assert outbox.is_captured("a.png")
        assert outbox.depth() == 0
        outbox.add("c.png", "slice-1", 1, [message("m1")])


@pytest.mark.parametrize(
    ("limits", "fault"),
    [({"max_rows": 3}, r"outbox full \(2 of 3 rows\)"), ({"max_bytes": 25}, r"outbox full \(20 of 25 bytes\)")],
)
def test_a_full_outbox_keeps_nothing_of_the_slice_and_takes_it_later(
    path: Path, limits: dict[str, int], fault: str
) -> None:
    """Where a slice's messages do not all have room none is kept; after a receipt the same slice is taken."""
    with outbox_at(path, **limits) as outbox:
        outbox.add("a.png", "slice-1", 1, [message("m1", bytes(10)), message("m2", bytes(10))])
        second = [message("m3", bytes(5)), message("m4", bytes(5))]
        with pytest.raises(OutboxFullError, match=fault):
            outbox.add("b.png", "slice-2", 2, second)
        assert ids(outbox) == ["m1", "m2"]
        assert not outbox.is_captured("b.png")
        assert outbox.last_sequence() == 1
        outbox.delete(["m1"])
        outbox.add("b.png", "slice-2", 2, second)
        assert ids(outbox) == ["m2", "m3", "m4"]


def test_a_slice_that_is_half_known_is_kept_whole_or_not_at_all(path: Path) -> None:
    """When one of a slice's messages cannot be stored, the others are not either."""
    with outbox_at(path) as outbox:
        outbox.add("a.png", "slice-1", 1, [message("m1")])
        with pytest.raises(OutboxError):
            outbox.add("b.png", "slice-2", 2, [message("m2"), message("m1")])
        with pytest.raises(OutboxError):
            outbox.add("a.png", "slice-3", 3, [message("m3")])
        assert ids(outbox) == ["m1"]
        assert outbox.last_sequence() == 1
        assert not outbox.is_captured("b.png")


KILLED_AFTER_ADD = """
import os, signal, sys
from pathlib import Path
from edge_agent.outbox import Outbox, OutboxMessage
from protocol.topics import Kind
outbox = Outbox(Path(sys.argv[1]), max_rows=100, max_bytes=1_000_000).__enter__()
outbox.add("a.png", "slice-1", 1, [OutboxMessage("m1", Kind.SLICE, bytes(50_000), "application/cbor", ())])
outbox.add("b.png", "slice-2", 2, [OutboxMessage("m2", Kind.SLICE, bytes(50_000), "application/cbor", ())])
outbox.delete(["m1"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_added_survives_kill_9(path: Path) -> None:
    """A process that is killed right after add loses nothing, and what a receipt deleted does not come back."""
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_ADD, path], cwd=ROOT, timeout=DEADLINE_S, check=False)
    assert killed.returncode == -signal.SIGKILL
    with outbox_at(path) as outbox:
        assert ids(outbox) == ["m2"]
        assert outbox.pending(1)[0].payload == bytes(50_000)
        assert outbox.is_captured("a.png")
        assert outbox.is_captured("b.png")
        assert outbox.last_sequence() == 2


ADD_MANY = """
import sys
from pathlib import Path
from edge_agent.outbox import Outbox, OutboxMessage
from protocol.topics import Kind
name = sys.argv[2]
with Outbox(Path(sys.argv[1]), max_rows=1000, max_bytes=1_000_000) as outbox:
    outbox.delete(["nobody"])
    first = outbox.last_sequence() + 1
    for number in range(25):
        one = OutboxMessage(f"{name}-{number}", Kind.SLICE, b"x", "application/cbor", ())
        outbox.add(f"{name}-{number}.png", f"slice-{name}-{number}", first + number, [one])
"""


def test_two_processes_may_use_one_outbox(path: Path) -> None:
    """Of two writers the second waits until the first has closed it, and goes on with the numbers; nothing is lost."""
    path.parent.mkdir()
    commands = [[sys.executable, "-c", ADD_MANY, path, name] for name in ("one", "two")]
    writers = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    assert [writer.wait(DEADLINE_S) for writer in writers] == [0, 0]
    with outbox_at(path) as outbox:
        assert outbox.depth() == 50
        assert [name for name in ids(outbox) if name.startswith("one")] == [f"one-{number}" for number in range(25)]


def test_two_threads_may_use_one_outbox(path: Path) -> None:
    """The reading thread adds while the link's thread looks and deletes."""
    with outbox_at(path) as outbox:

        def add() -> None:
            for number in range(50):
                outbox.add(f"{number}.png", f"slice-{number}", number + 1, [message(f"m{number}")])

        adding = threading.Thread(target=add)
        adding.start()
        deleted = 0
        while adding.is_alive() or outbox.depth():
            deleted += outbox.delete(ids(outbox, 10))
        adding.join()
        assert deleted == 50


def test_an_outbox_of_another_schema_is_left_alone(path: Path) -> None:
    """The outbox of a newer software is refused by its number, and stays as it is."""
    with outbox_at(path) as outbox:
        outbox.add("a.png", "slice-1", 1, [message("m1")])
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(OutboxError, match="schema 99, this software knows 2"), outbox_at(path):
        pass
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT message_id FROM messages").fetchall() == [("m1",)]
        assert database.execute("PRAGMA user_version").fetchone() == (99,)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Where the data folder cannot be made the error says so."""
    (tmp_path / "data").write_text("a file, not a folder")
    with pytest.raises(OutboxError, match="check the folder's rights and space"), outbox_at(tmp_path / "data" / "o"):
        pass


def test_a_disk_that_is_full_loses_nothing_that_was_kept(path: Path) -> None:
    """When the database may not grow a slice is refused whole, and what was kept before stays."""
    with outbox_at(path) as outbox:
        outbox.add("a.png", "slice-1", 1, [message("m1", bytes(1000))])
        grown = path.stat().st_size
        assert grown
    script = f"""
import resource, signal, sys
from pathlib import Path
from edge_agent.outbox import Outbox, OutboxError, OutboxMessage
from protocol.topics import Kind
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
with Outbox(Path({str(path)!r}), max_rows=100, max_bytes=10_000_000) as outbox:
    try:
        outbox.add("b.png", "slice-2", 2, [OutboxMessage("m2", Kind.SLICE, bytes(900_000), "application/cbor", ())])
    except OutboxError as error:
        print(error)
    assert outbox.depth() == 1 and not outbox.is_captured("b.png") and outbox.last_sequence() == 1
    outbox.add("c.png", "slice-3", 2, [OutboxMessage("m3", Kind.SLICE, bytes(100), "application/cbor", ())])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, timeout=DEADLINE_S, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "check the disk's space and rights" in done.stdout
    with outbox_at(path) as outbox:
        assert ids(outbox) == ["m1", "m3"]


KILLED_IN_ADD = """
import sys
from pathlib import Path
from edge_agent.outbox import Outbox, OutboxMessage
from protocol.topics import Kind
with Outbox(Path(sys.argv[1]), max_rows=100_000, max_bytes=10**9) as outbox:
    number = outbox.last_sequence()
    while True:
        number += 1
        one = OutboxMessage(f"m{number}", Kind.SLICE, bytes(20_000), "application/cbor", ())
        outbox.add(f"{number}.png", f"slice-{number}", number, [one])
        print(number, flush=True)
"""


def test_killed_in_the_midst_of_add_it_keeps_what_was_said(path: Path) -> None:
    """kill -9 at any moment, life after life: what add returned for is there, and numbers go on without a gap."""
    said = 0
    for adds in (3, 17, 8, 30):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED_IN_ADD, path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(adds):
                said = int(process.stdout.readline())
            process.kill()
            said = max([said, *(int(line) for line in process.stdout.read().split())])
    with outbox_at(path, max_rows=100_000, max_bytes=10**9) as outbox:
        (kept,) = outbox.waiting_ranges(9)
        assert kept[0] == 1
        assert said <= kept[1] <= said + 1
        assert outbox.lost_ranges() == ()
        assert all(outbox.is_captured(f"{number}.png") for number in range(1, kept[1] + 1))


def test_add_has_committed_when_it_returns(path: Path) -> None:
    """Another connection sees the slice as soon as `add` returns, so that no diagnosis is shown before."""
    with outbox_at(path) as outbox:
        outbox.add("a.png", "slice-1", 1, [message("m1")])
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT message_id FROM messages").fetchall() == [("m1",)]
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_another_process_may_look_at_it(path: Path) -> None:
    """`sliceloop refused` beside a running edge reads, while the edge alone writes."""
    script = (
        "import sys; from pathlib import Path; from edge_agent.outbox import Outbox\n"
        "with Outbox(Path(sys.argv[1]), max_rows=1, max_bytes=1) as outbox: print(outbox.depth(), outbox.refused())"
    )
    with outbox_at(path) as outbox:
        outbox.add("a.png", "slice-1", 1, [message("m1")])
        outbox.refuse("b.png", "no slice")
        seen = subprocess.run(
            [sys.executable, "-c", script, path],
            cwd=ROOT,
            timeout=DEADLINE_S,
            check=True,
            capture_output=True,
            text=True,
        )
        assert seen.stdout == "1 [('b.png', 'no slice')]\n"
        outbox.add("c.png", "slice-2", 2, [message("m2")])
