"""A damaged outbox is set aside, what can be read is saved, and no number and no frame comes twice."""

import errno
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from outbox_parts import Clock, fill, ids, message, outbox_at

from edge_agent.outbox import OutboxDamagedError, OutboxError
from edge_agent.outbox.database import files_of
from edge_agent.outbox.numbers import ISSUED, RECORD_BYTES, Numbers, Record, read_numbers
from protocol.topics import Kind

PAGE = 4096
SLICES = 60


def covered(ranges: tuple[tuple[int, int], ...]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def packed(path: Path, receipted: int = 10) -> bytes:
    """Make an outbox of 60 slices with originals, some of them receipted; return the file, without a WAL."""
    with outbox_at(path, max_bytes=10_000_000) as outbox:
        fill(
            outbox,
            SLICES,
            messages=lambda n: [
                message(f"s{n}", random.Random(n).randbytes(3000)),
                message(f"f{n}", random.Random(-n).randbytes(6000), Kind.FRAME),
            ],
        )
        outbox.refuse("refused.png", "no slice")
        outbox.delete([f"s{n}" for n in range(1, receipted + 1)])
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def flipped(content: bytes, seed: int) -> bytes:
    """Flip bits all over the file."""
    rng, damaged = random.Random(seed), bytearray(content)
    for _ in range(40):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def zeroed(content: bytes, page: int) -> bytes:
    return content[: page * PAGE] + bytes(PAGE) + content[(page + 1) * PAGE :]


DAMAGES: list[Callable[[bytes], bytes]] = [
    *(lambda content, seed=seed: flipped(content, seed) for seed in range(12)),
    *(lambda content, page=page: zeroed(content, page) for page in (0, 1, 2, 3, 5, 9, 20, 60, 120)),
    lambda content: content[: len(content) // 2],
    lambda content: content[: len(content) // 2 + 100],
    lambda content: content[: 3 * PAGE] + os.urandom(len(content) - 3 * PAGE),
    lambda content: b"",
    lambda content: b"garbage " * 1000,
    lambda content: content[:100],
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_damaged_nothing_is_unaccounted_for(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Each slice is waiting as it was, receipted, or said to be lost; every frame stays known; numbers go on."""
    path = tmp_path / "o"
    path.write_bytes(damage(packed(path)))
    with outbox_at(path, max_bytes=10_000_000) as outbox:
        waiting = {each.message_id: each.payload for each in outbox.pending(1000)}
        slices = {int(name[1:]) for name in waiting if name[0] == "s"}
        assert all(waiting[f"s{n}"] == random.Random(n).randbytes(3000) for n in slices)
        assert slices == covered(outbox.waiting_ranges(1000))
        assert outbox.depth() == len(waiting)
        lost = covered(outbox.lost_ranges())
        assert slices | lost >= set(range(11, SLICES + 1))
        assert not lost & set(range(1, 11)), "what is receipted is not lost"
        assert not lost & slices
        assert all(outbox.is_captured(f"{n}.png") for n in range(1, SLICES + 1))
        assert outbox.last_sequence() == SLICES
        outbox.add("new.png", "s", SLICES + 1, [message("new")])
        lost_before = outbox.lost_ranges()
    with outbox_at(path, max_bytes=10_000_000) as outbox:
        assert outbox.lost_ranges() == lost_before
        assert outbox.last_sequence() == SLICES + 1


def test_a_healthy_part_is_saved(tmp_path: Path) -> None:
    """A page of one payload costs that message alone; the damaged file is kept beside, and it is said."""
    path, clock = tmp_path / "o", Clock()
    content = packed(path)
    place = content.index(random.Random(30).randbytes(3000)[2000:2100])
    path.write_bytes(content[:place] + bytes(50) + content[place + 50 :])
    with outbox_at(path, clock=clock, max_bytes=10_000_000) as outbox:
        assert len(ids(outbox)) == 2 * SLICES - 10 - 1
        assert outbox.lost_ranges() == ((30, 30),)
        assert "the slice of number 30 was damaged" in outbox.trouble
        clock.now += 4000
        assert outbox.trouble == ""


def test_a_damaged_file_is_set_aside_with_its_time(tmp_path: Path) -> None:
    """What was damaged stays under a name with the time in UTC, and the status tells what became of it."""
    path = tmp_path / "o"
    path.write_bytes(zeroed(packed(path), 5))
    with outbox_at(path, clock=Clock(), max_bytes=10_000_000) as outbox:
        assert "set aside as o.damaged-20231114T221320Z" in outbox.trouble
        assert "messages saved" in outbox.trouble
    assert (tmp_path / "o.damaged-20231114T221320Z").exists()


def test_damage_that_shows_while_it_runs_is_an_error_once(tmp_path: Path) -> None:
    """The call that meets the damage says so; the next one works, on what could be saved."""
    path = tmp_path / "o"
    with outbox_at(path, max_bytes=10_000_000) as outbox:
        fill(outbox, SLICES, messages=lambda n: [message(f"s{n}", bytes(100_000))])  # more than SQLite caches
        outbox.delete(["s1"])
    with outbox_at(path, max_bytes=10_000_000) as outbox:
        with path.open("r+b") as file:
            file.seek(PAGE)
            file.write(os.urandom(path.stat().st_size - PAGE))
        with pytest.raises(OutboxDamagedError, match="set aside"):
            outbox.pending(1000)
        outbox.add("new.png", "s", SLICES + 1, [message("new")])
        assert ids(outbox)[-1] == "new"
        assert outbox.is_captured("1.png")
        assert covered(outbox.lost_ranges()) | covered(outbox.waiting_ranges(99)) == set(range(2, SLICES + 2))


def test_a_garbage_wal_is_noticed_by_the_numbers(tmp_path: Path) -> None:
    """SQLite drops a damaged WAL in silence; the numbers beside it tell which slices went with it."""
    path = tmp_path / "o"
    outbox = outbox_at(path).__enter__()
    fill(outbox, 5)
    wal, copy = path.with_name("o-wal"), tmp_path / "copy"
    copy.mkdir()
    for file in (path, path.with_name("o.numbers")):
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "o-wal").write_bytes(os.urandom(wal.stat().st_size))
    outbox.__exit__()
    with outbox_at(copy / "o") as again:
        assert covered(again.lost_ranges()) | covered(again.waiting_ranges(9)) == {1, 2, 3, 4, 5}
        assert again.last_sequence() == 5
        assert all(again.is_captured(f"{n}.png") for n in range(1, 6))
        assert again.trouble


def test_a_missing_database_is_noticed_by_the_numbers(tmp_path: Path) -> None:
    """Where the database is gone and its numbers are there, they go on, and what waited is said to be lost."""
    path = tmp_path / "o"
    packed(path)
    for file in files_of(path):
        file.unlink(missing_ok=True)
    with outbox_at(path) as outbox:
        assert outbox.last_sequence() == SLICES
        assert outbox.lost_ranges() == ((11, SLICES),)


@pytest.mark.parametrize("content", [None, b"", os.urandom(999)])
def test_damaged_numbers_are_written_anew(tmp_path: Path, content: bytes | None) -> None:
    """The database alone tells all that the file of numbers told; then its own damage costs nothing more."""
    path = tmp_path / "o"
    packed(path)
    numbers = path.with_name("o.numbers")
    numbers.unlink()
    if content is not None:
        numbers.write_bytes(content)
    with outbox_at(path, max_bytes=10_000_000) as outbox:
        assert outbox.last_sequence() == SLICES
        assert outbox.lost_ranges() == ()
        assert len(ids(outbox)) == 2 * SLICES - 10
    path.write_bytes(b"garbage")
    with outbox_at(path) as outbox:
        assert outbox.lost_ranges() == ((11, SLICES),)


def test_where_nothing_tells_the_last_number_none_is_repeated(tmp_path: Path) -> None:
    """Database and numbers both garbage: numbers go on from the seconds since 1970, more than any edge has given."""
    path, clock = tmp_path / "o", Clock()
    packed(path)
    for file in (path, path.with_name("o.numbers")):
        file.write_bytes(b"garbage " * 1000)
    with outbox_at(path, clock=clock) as outbox:
        assert outbox.last_sequence() == int(clock.now)
        assert outbox.lost_ranges() == ((1, int(clock.now)),)


def test_a_flipped_number_is_said_as_perhaps_lost(tmp_path: Path) -> None:
    """With one record of the numbers damaged besides the database, its number counts as perhaps lost, and as given."""
    path, clock = tmp_path / "o", Clock()
    packed(path)
    numbers = path.with_name("o.numbers")
    data = bytearray(numbers.read_bytes())
    data[len(bytes(data).rstrip(b"\0")) - 2 * RECORD_BYTES] ^= 1
    numbers.write_bytes(data)
    path.write_bytes(b"garbage " * 1000)
    with outbox_at(path, clock=clock) as outbox:
        assert outbox.last_sequence() == int(clock.now)
        receipt_unknown, others = outbox.lost_ranges()
        assert receipt_unknown[0] == receipt_unknown[1] <= 10
        assert others == (11, int(clock.now))


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    """The new database that was not yet in its place is taken; one beside a whole database is not."""
    path = tmp_path / "o"
    packed(path)
    path.rename(tmp_path / "o.new")
    with outbox_at(path, max_bytes=10_000_000) as outbox:
        assert len(ids(outbox)) == 2 * SLICES - 10
    (tmp_path / "o.new").write_bytes(b"half of one")
    with outbox_at(path, max_bytes=10_000_000) as outbox:
        assert len(ids(outbox)) == 2 * SLICES - 10
    assert not (tmp_path / "o.new").exists()


def test_a_folder_that_is_read_only_is_no_damage(tmp_path: Path) -> None:
    """What rights or space stand in the way of is not set aside."""
    path = tmp_path / "o"
    path.mkdir()
    with pytest.raises(OutboxError, match="check the folder's rights and space"), outbox_at(path):
        pass
    assert list(tmp_path.glob("o.damaged*")) == []


def test_a_disk_that_is_full_while_numbers_are_rewritten_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of numbers that could not be replaced stays in use: the next record goes behind the others."""
    numbers = Numbers(tmp_path / "o.numbers")
    numbers.open()
    numbers.append([Record(ISSUED, 1, bytes(16))], durable=True)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("edge_agent.outbox.numbers.write_durably", full)
        with pytest.raises(OSError, match="No space"):
            numbers.rewrite([])
    numbers.append([Record(ISSUED, 2, bytes(16))], durable=True)
    numbers.close()
    known = read_numbers(tmp_path / "o.numbers")
    assert known is not None and known.last == 2
