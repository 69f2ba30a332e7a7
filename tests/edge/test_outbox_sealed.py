"""An outbox that is encrypted tells nothing without its key."""

import sqlite3
from pathlib import Path

import pytest
from outbox_parts import fill, ids, message, outbox_at

from edge_agent.outbox import OutboxKeyError
from edge_agent.outbox.database import files_of
from sliceloop.keys import KeyExistsError, new_outbox_key

SECRET = b"what nobody may read " * 20
PATIENT = "Doe^Jane.dcm (7 bytes, 1)"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_outbox_key(tmp_path / "keys" / "outbox.key")
    return tmp_path / "keys" / "outbox.key"


def on_disk(path: Path) -> bytes:
    """Return every byte of the outbox's files."""
    return b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*") if file.is_file())


def test_nothing_readable_lies_on_the_disk(tmp_path: Path, key: Path) -> None:
    """Payloads, user properties, names of frames and reasons are sealed, and come back as they were."""
    path = tmp_path / "o"
    with outbox_at(path, key_file=key) as outbox:
        outbox.add(PATIENT, "slice-1", 1, [message("m1", SECRET)])
        outbox.refuse("Roe.png", "a reason with Roe in it")
        assert SECRET[:20] not in on_disk(path)
        assert b"/edges/a/b" not in on_disk(path)
        assert b"Doe" not in on_disk(path)
        assert b"Roe" not in on_disk(path)
    with outbox_at(path, key_file=key) as outbox:
        assert outbox.pending(1) == [message("m1", SECRET)]
        assert outbox.is_captured(PATIENT)
        assert not outbox.is_captured("Doe^John.dcm")
        assert outbox.refused() == [("Roe.png", "a reason with Roe in it")]


def test_encryption_seals_what_waits(tmp_path: Path, key: Path) -> None:
    """Turned on for an outbox with waiting rows, it encrypts them in place, and every frame stays known."""
    path = tmp_path / "o"
    with outbox_at(path) as outbox:
        outbox.add(PATIENT, "slice-1", 1, [message("m1", SECRET)])
        outbox.refuse("Roe.png", "no slice")
        fill(outbox, 120, first=2)
    with outbox_at(path, key_file=key) as outbox:
        assert outbox.pending(1) == [message("m1", SECRET)]
        assert outbox.depth() == 121
        assert outbox.is_captured(PATIENT)
        assert outbox.refused() == [("Roe.png", "no slice")]
        outbox.add("new.png", "s", 122, [message("new")])
    assert SECRET[:20] not in on_disk(path)
    assert b"Roe" not in on_disk(path)
    with outbox_at(path, key_file=key) as outbox:
        assert outbox.is_captured("2.png")
        assert len(ids(outbox)) == 122


def test_encryption_goes_on_where_it_was_interrupted(tmp_path: Path, key: Path) -> None:
    """A box that is switched off in the midst of it has a readable outbox, and the rest is sealed at the next start."""
    path = tmp_path / "o"
    with outbox_at(path, key_file=key) as outbox:
        fill(outbox, 2)
    with outbox_at(tmp_path / "plain") as plain:
        fill(plain, 2)
    with sqlite3.connect(path) as database:
        database.execute("ATTACH ? AS plain", (str(tmp_path / "plain"),))
        database.execute(
            "UPDATE messages SET (payload, user_properties) = (SELECT payload, user_properties FROM plain.messages AS p"
            " WHERE p.position = 2) WHERE position = 2"
        )
        database.execute("UPDATE queue SET sealed = 0 WHERE position = 2")
        database.execute("INSERT INTO facts VALUES ('sealing', x'01')")
    with outbox_at(path, key_file=key) as outbox:
        assert outbox.pending(9) == [message("s1"), message("s2")]
        assert outbox.is_captured("1.png")
    assert b"payload" not in (path.read_bytes().split(b"CREATE", 1)[0])
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT sum(sealed) FROM queue").fetchone() == (2,)


def test_without_its_key_it_does_not_open(tmp_path: Path, key: Path) -> None:
    """A missing key, a wrong one, one that others may read, and what is no key are each named; nothing is changed."""
    path, wrong, torn = tmp_path / "o", tmp_path / "wrong.key", tmp_path / "torn.key"
    with outbox_at(path, key_file=key) as outbox:
        fill(outbox, 1)
    before = path.read_bytes()
    new_outbox_key(wrong)
    torn.write_text("abc")
    torn.chmod(0o600)
    for file, said in [
        (None, "is encrypted: set edge.outbox_key_file"),
        (wrong, "encrypted with another key"),
        (torn, "is not 64 hexadecimal digits"),
        (tmp_path / "none", "cannot be read"),
    ]:
        with pytest.raises(OutboxKeyError, match=said), outbox_at(path, key_file=file):
            pass
    key.chmod(0o640)
    with pytest.raises(OutboxKeyError, match="chmod 600"), outbox_at(path, key_file=key):
        pass
    assert path.read_bytes() == before
    key.chmod(0o600)
    with outbox_at(path, key_file=key) as outbox:
        assert ids(outbox) == ["s1"]


def test_a_damaged_one_is_renewed_with_its_key_alone(tmp_path: Path, key: Path) -> None:
    """Damaged beyond reading, without its key it is not set aside; with it every frame stays known."""
    path = tmp_path / "o"
    with outbox_at(path, key_file=key) as outbox:
        fill(outbox, 3)
        outbox.delete(["s1"])
    for file in files_of(path):
        file.unlink(missing_ok=True)
    path.write_bytes(b"garbage " * 999)
    with pytest.raises(OutboxKeyError, match="needs its key"), outbox_at(path):
        pass
    with outbox_at(path, key_file=key) as outbox:
        assert outbox.lost_ranges() == ((2, 3),)
        assert outbox.is_captured("1.png")
    with pytest.raises(OutboxKeyError), outbox_at(path):
        pass


def test_a_key_is_not_overwritten(key: Path) -> None:
    """The key file is for its owner alone, and a second one is not written over it."""
    before = key.read_text()
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyExistsError, match="opens with its own key alone"):
        new_outbox_key(key)
    assert key.read_text() == before
