"""The ledger, in real SQLite files, with real second processes."""

import hashlib
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cloud_worker.ledger import (
    AmbiguousSliceError,
    Gap,
    Ledger,
    LedgerTooNewError,
    LedgerUnavailableError,
    NaiveTimeError,
    RefusedByLedgerError,
    Release,
    UnknownRequestError,
    UnknownSliceError,
    VersionTakenError,
)
from cloud_worker.ledger.dead_letters import MAX_DEAD_LETTER_BYTES, MAX_DEAD_LETTERS
from cloud_worker.ledger.tables import metadata
from protocol.labels import Label
from protocol.messages import (
    Disagreement,
    ModelRef,
    NetworkReading,
    RetrainRequest,
    RetrainResult,
    Review,
    SliceRead,
    UploadedFile,
)

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DEADLINE_S = 60


def sha256(text: str) -> str:
    """Return some valid SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


def reading(label: Label = Label.NORMAL, version: int = 1) -> NetworkReading:
    """Return a reading that is sure of this label."""
    return NetworkReading(
        label=label,
        uncertain=False,
        probabilities={each: 0.8 if each is label else 0.1 for each in Label},
        model=ModelRef(name="net", version=version, sha256=sha256("net")),
        latency_ms=12.5,
    )


def slice_read(slice_id: str, sequence: int = 1, boot_id: str = "boot-1") -> SliceRead:
    """Return a slice as an edge would send it."""
    return SliceRead(
        slice_id=slice_id,
        boot_id=boot_id,
        sequence=sequence,
        captured_at=NOW - MINUTE,
        source="phantom",
        patient_key=sha256("patient"),
        preprocessing_version=1,
        frame_sha256=sha256("frame"),
        image=b"\x89PNG....",
        image_sha256=sha256(slice_id),
        reading=reading(),
    )


def store(ledger: Ledger, slice_id: str, sequence: int = 1, boot_id: str = "boot-1", message_id: str = "") -> bool:
    """Store a slice of edge a-1 of site a."""
    return ledger.store_slice(
        message_id=message_id or f"message-{slice_id}",
        site="a",
        edge="a-1",
        slice=slice_read(slice_id, sequence, boot_id),
        image_key=f"slices/{slice_id}",
        received_at=NOW + min(sequence, 100) * MINUTE,
    )


def request(request_id: str, at: datetime = NOW) -> RetrainRequest:
    """Return a retraining trigger message."""
    return RetrainRequest(
        request_id=request_id,
        reason="enough labels",
        requested_at=at,
        architecture="squeezenet",
        base_version=1,
        base_checkpoint_url="http://s3/checkpoint",
        base_checkpoint_sha256=sha256("checkpoint"),
        dataset_url="http://s3/dataset",
        dataset_sha256=sha256("dataset"),
        upload_urls={"model.onnx": "http://s3/upload"},
        seed=7,
    )


def result(request_id: str) -> RetrainResult:
    """Return a candidate."""
    return RetrainResult(
        request_id=request_id,
        outcome="candidate",
        at=NOW,
        trainer="trainer-1",
        architecture="squeezenet",
        files={"model.onnx": UploadedFile(sha256=sha256("onnx"), size=3)},
        temperature=1.5,
        validation={"balanced_accuracy": 0.7},
    )


def release(version: int, request_id: str | None = None) -> Release:
    """Return a release."""
    return Release(
        version=version,
        name="net",
        sha256=sha256(f"net {version}"),
        architecture="squeezenet",
        released_at=NOW,
        envelope=b"\0signed\xff",
        files={"model.onnx": "models/x/model.onnx"},
        checkpoint_key="models/x/checkpoint.safetensors",
        checkpoint_sha256=sha256("checkpoint"),
        request_id=request_id,
        gate={"accepted": True} if request_id else None,
    )


DISAGREEMENT = Disagreement(kind="label", reasons=("Normal against COVID-19",))


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that can say everything that this module can."""
    prelude = "import os, signal, sys\nsys.path.insert(0, 'tests/cloud')\nfrom test_ledger import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + script, *arguments],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


# --- opening and migrating


def test_migrations_make_the_tables(ledger: Ledger) -> None:
    """From an empty file the migrations lead to exactly the tables that the code uses."""
    with ledger.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_twice_changes_nothing(ledger_url: str) -> None:
    """Opening a ledger that is at head keeps what is in it."""
    with Ledger(ledger_url) as first:
        store(first, "s1")
    with Ledger(ledger_url) as again:
        assert again.counts()["slices"] == 1


def test_processes_open_at_once(ledger_url: str) -> None:
    """Processes that open an empty file in the same moment all get a migrated ledger."""
    script = "sys.stdin.readline()\nwith Ledger(sys.argv[1]) as ledger: print(ledger.counts()['slices'])"
    children = [child(script, ledger_url) for _ in range(4)]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=DEADLINE_S)[0] for process in children] == ["0\n"] * 4


def test_sqlite_is_opened_for_durability(ledger_url: str) -> None:
    """The file is in WAL mode, synchronised in full, with foreign keys on."""
    with Ledger(ledger_url) as ledger, ledger.read() as connection:
        modes = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
    assert modes == list(PRAGMAS.values())


PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_newer_ledger_is_refused(ledger_url: str, tmp_path: Path) -> None:
    """A ledger that a newer sliceloop migrated is refused with what to do."""
    with Ledger(ledger_url):
        pass
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerTooNewError, match="update this one"):
        Ledger(ledger_url).__enter__()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////there/is/no/such/folder/ledger.sqlite",
        "postgresql://worker:geheim@127.0.0.1:1/ledger",
        "oracle9://worker:geheim@127.0.0.1:1/ledger",
        "geheim",
    ],
)
def test_unavailable_ledger(url: str) -> None:
    """A ledger that cannot be opened is named without its password."""
    with pytest.raises(LedgerUnavailableError) as caught:
        Ledger(url).__enter__()
    assert "geheim" not in str(caught.value)


def test_not_a_database(tmp_path: Path) -> None:
    """A file that is no database is named."""
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerUnavailableError, match=r"ledger\.sqlite.*not a database"):
        Ledger(f"sqlite:///{path}").__enter__()


def test_ledger_that_is_not_open(ledger_url: str) -> None:
    """Using a ledger outside its `with` block is named."""
    with pytest.raises(LedgerUnavailableError, match="not open"):
        Ledger(ledger_url).counts()


def test_locked_ledger(ledger_url: str, tmp_path: Path) -> None:
    """A writer that waits in vain for another process says that the ledger is unavailable, and wrote nothing."""
    with Ledger(ledger_url, busy_timeout_s=0.05) as ledger:
        other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailableError, match="locked"):
            store(ledger, "s1")
        other.execute("ROLLBACK")
        other.close()
        assert store(ledger, "s1")


# --- slices


def test_storing_twice_is_storing_once(ledger: Ledger) -> None:
    """A message that comes twice, and a slice that comes in two messages, are stored once, with one reading."""
    assert store(ledger, "s1")
    assert not store(ledger, "s1")
    assert not store(ledger, "s1", message_id="another-message")
    counts = ledger.counts()
    assert (counts["slices"], counts["readings"]) == (1, 1)


def test_two_processes_store_the_same_slices_once(ledger: Ledger) -> None:
    """When two processes store the same slices at once, each slice is new to one of them."""
    script = (
        "with Ledger(sys.argv[1]) as ledger:\n"
        "    sys.stdin.readline()\n"
        "    print(sum(store(ledger, f's{n}', n + 1) for n in range(50)))"
    )
    children = [child(script, ledger.url) for _ in range(2)]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    new = [int(process.communicate(timeout=DEADLINE_S)[0]) for process in children]
    assert sum(new) == 50
    assert ledger.counts()["slices"] == ledger.counts()["readings"] == 50


def test_slice_comes_back_as_it_was(ledger: Ledger) -> None:
    """Everything that a slice says, but its pixels, comes back, with aware times in UTC."""
    store(ledger, "s1")
    stored, sent = ledger.slice("s1"), slice_read("s1")
    common = {"slice_id", "boot_id", "sequence", "captured_at", "source", "patient_key", "image_sha256", "frame_sha256"}
    assert {name: getattr(stored, name) for name in common} == {name: getattr(sent, name) for name in common}
    assert stored.captured_at.tzinfo is UTC
    assert ledger.verdict_parts("s1").first == sent.reading


def test_times_are_moments(ledger: Ledger) -> None:
    """A time in another zone comes back as the same moment; a time without zone is refused."""
    berlin = NOW.astimezone(timezone(timedelta(hours=1)))
    ledger.dead_letter("topic", b"", "reason", berlin)
    assert ledger.dead_letters()[0].at == NOW
    assert ledger.dead_letters()[0].at.tzinfo is UTC
    with pytest.raises(NaiveTimeError):
        ledger.dead_letter("topic", b"", "reason", NOW.replace(tzinfo=None))


def test_find_slice(ledger: Ledger) -> None:
    """A slice is found by as much of its id as is unique; wildcards are no wildcards."""
    for number, slice_id in enumerate(("abc", "abd", "ab"), start=1):
        store(ledger, slice_id, number)
    assert ledger.find_slice("abc").slice_id == "abc"
    assert ledger.find_slice("ab").slice_id == "ab"
    with pytest.raises(AmbiguousSliceError):
        ledger.find_slice("a")
    for unknown in ("x", "", "%", "_bc"):
        with pytest.raises(UnknownSliceError):
            ledger.find_slice(unknown)
    with pytest.raises(UnknownSliceError):
        ledger.slice("a")


def test_values_that_no_database_takes(ledger: Ledger) -> None:
    """A sequence number beyond 64 bits is refused by name, and the ledger goes on."""
    with pytest.raises(RefusedByLedgerError):
        ledger.store_slice(
            message_id="m", site="a", edge="b", slice=slice_read("s1", 2**70), image_key="k", received_at=NOW
        )
    assert store(ledger, "s1")


def test_frames_may_come_first(ledger: Ledger) -> None:
    """A frame is stored once, also before its slice."""
    frame = {"slice_id": "s1", "sha256": sha256("frame"), "frame_key": "frames/x", "media_type": "image/png"}
    assert ledger.store_frame(message_id="f1", received_at=NOW, **frame)
    assert not ledger.store_frame(message_id="f1", received_at=NOW, **frame)
    assert [each.frame_key for each in ledger.frames_of("s1")] == ["frames/x"]
    assert store(ledger, "s1")


def test_gaps(ledger: Ledger) -> None:
    """Missing numbers between an edge's lowest and highest are found, over boots, however large the gap."""
    for sequence, boot in ((3, "boot-1"), (4, "boot-1"), (7, "boot-2"), (8, "boot-2"), (10**12, "boot-3")):
        store(ledger, f"s{sequence}", sequence, boot)
    assert ledger.gaps("a", "a-1") == [Gap(5, 6, "boot-2"), Gap(9, 10**12 - 1, "boot-3")]
    assert ledger.gaps("a", "a-1")[0].missing == 2
    assert ledger.gaps("a", "another") == []


def test_dead_letters_are_bounded(ledger: Ledger) -> None:
    """A large dead letter is cut with its whole size and hash noted; the oldest letters go."""
    payload = b"x" * (MAX_DEAD_LETTER_BYTES + 1)
    ledger.dead_letter("topic\0\ud800" + "t" * 5000, payload, "too large", NOW)
    (letter,) = ledger.dead_letters()
    assert (len(letter.payload), letter.size) == (MAX_DEAD_LETTER_BYTES, len(payload))
    assert letter.sha256 == hashlib.sha256(payload).hexdigest()
    for number in range(MAX_DEAD_LETTERS):
        ledger.dead_letter("topic", b"", str(number), NOW)
    assert ledger.counts()["dead_letters"] == MAX_DEAD_LETTERS
    assert ledger.dead_letters(limit=1)[0].reason == str(MAX_DEAD_LETTERS - 1)


# --- second readings, disagreements, labels


def test_second_reading_and_disagreement(ledger: Ledger) -> None:
    """A slice waits for its second reader, then its verdict has both readings and the disagreement; once."""
    store(ledger, "s2", 2)
    store(ledger, "s1", 1)
    assert [each.slice_id for each in ledger.slices_without("second")] == ["s1", "s2"]
    assert [each.slice_id for each in ledger.slices_without("second", limit=1)] == ["s1"]
    second = reading(Label.COVID_19, version=9)
    assert ledger.add_second_reading("s1", second, DISAGREEMENT, NOW)
    assert not ledger.add_second_reading("s1", reading(), None, NOW)
    assert [each.slice_id for each in ledger.slices_without("second")] == ["s2"]
    parts = ledger.verdict_parts("s1")
    assert (parts.site, parts.edge, parts.second, parts.disagreement, parts.review) == (
        "a",
        "a-1",
        second,
        DISAGREEMENT,
        None,
    )
    (waiting,) = ledger.open_disagreements()
    assert (waiting.slice.slice_id, waiting.first, waiting.second) == ("s1", reading(), second)
    assert (waiting.disagreement, waiting.age(NOW + MINUTE)) == (DISAGREEMENT, MINUTE)


def test_unknown_slices(ledger: Ledger) -> None:
    """A reading, a label or a verdict for a slice that is not there is refused by name."""
    for attempt in (
        lambda: ledger.add_second_reading("s1", reading(), None, NOW),
        lambda: ledger.set_label("s1", Label.NORMAL, "Kim", "", NOW),
        lambda: ledger.verdict_parts("s1"),
    ):
        with pytest.raises(UnknownSliceError, match="s1"):
            attempt()


def test_newest_label_counts(ledger: Ledger) -> None:
    """The history of labels is kept, the newest counts, and the same word of the same reviewer is one row."""
    store(ledger, "s1")
    ledger.add_second_reading("s1", reading(Label.COVID_19), DISAGREEMENT, NOW)
    assert ledger.set_label("s1", Label.COVID_19, "Kim", "ground glass", NOW)
    assert not ledger.set_label("s1", Label.COVID_19, "Kim", "again", NOW + MINUTE)
    assert ledger.open_disagreements() == []
    assert ledger.set_label("s1", Label.NORMAL, "Lee", "motion", NOW + MINUTE)
    assert [each.label for each in ledger.labelled_slices()] == [Label.NORMAL]
    assert [each.label for each in ledger.labelled_slices(up_to_label_id=1)] == [Label.COVID_19]
    assert [(each.label, each.why) for each in ledger.labels_of("s1")] == [
        (Label.NORMAL, "motion"),
        (Label.COVID_19, "ground glass"),
    ]
    assert ledger.verdict_parts("s1").review == Review(label=Label.NORMAL, reviewer="Lee", at=NOW + MINUTE)
    assert ledger.newest_label_id() == 2


def test_label_before_the_second_reading(ledger: Ledger) -> None:
    """A disagreement over a slice that a person has labelled already does not wait for a person."""
    store(ledger, "s1")
    ledger.set_label("s1", Label.COVID_19, "Kim", "", NOW)
    ledger.add_second_reading("s1", reading(Label.COVID_19), DISAGREEMENT, NOW)
    assert ledger.open_disagreements() == []
    assert ledger.verdict_parts("s1").disagreement == DISAGREEMENT


def test_labels_are_published_once(ledger: Ledger) -> None:
    """The newest label of each slice is to be published until it is marked; a new label is to be published again."""
    for number in (1, 2):
        store(ledger, f"s{number}", number)
        ledger.set_label(f"s{number}", Label.NORMAL, "Kim", "", NOW)
    ledger.set_label("s1", Label.PNEUMONIA, "Kim", "", NOW)
    assert [(each.slice_id, each.label) for each in ledger.labels_to_publish()] == [
        ("s2", Label.NORMAL),
        ("s1", Label.PNEUMONIA),
    ]
    for each in ledger.labels_to_publish(limit=10):
        ledger.mark_published(each.id, NOW)
    assert ledger.labels_to_publish() == []
    ledger.set_label("s1", Label.NORMAL, "Kim", "", NOW)
    assert [(each.site, each.edge, each.slice_id) for each in ledger.labels_to_publish()] == [("a", "a-1", "s1")]


# --- retraining


def test_decisions_are_recorded_once_per_change(ledger: Ledger) -> None:
    """The same decision again is no new row; a change back is one."""
    said = [(False, "3 of 20"), (False, "3 of 20"), (True, "20 of 20"), (False, "one open"), (False, "3 of 20")]
    new = [ledger.record_decision(NOW + n * MINUTE, fired, reason, n) for n, (fired, reason) in enumerate(said)]
    assert new == [True, False, True, True, True]
    assert [(each.fired, each.reason) for each in ledger.decisions()] == [said[0], *said[2:]]
    assert [each.reason for each in ledger.decisions(limit=2)] == ["one open", "3 of 20"]


def test_new_labels_are_counted_since_the_last_request(ledger: Ledger) -> None:
    """Slices labelled since the last request that did not fail are new; a failed request learnt nothing."""
    for number in (1, 2, 3):
        store(ledger, f"s{number}", number)
    assert ledger.new_labels() == 0
    ledger.set_label("s1", Label.NORMAL, "Kim", "", NOW)
    ledger.set_label("s1", Label.PNEUMONIA, "Lee", "", NOW)
    ledger.set_label("s2", Label.NORMAL, "Kim", "", NOW)
    assert ledger.new_labels() == 2
    ledger.open_request(request("r1"), dataset_key="d", labels_used=ledger.newest_label_id())
    assert ledger.new_labels() == 0
    ledger.set_label("s3", Label.NORMAL, "Kim", "", NOW)
    assert ledger.new_labels() == 1
    ledger.close_request("r1", "failed", NOW)
    assert ledger.new_labels() == 3


def test_one_request_at_a_time(ledger: Ledger) -> None:
    """While a request is open there is no second; closed ones stay, and the last time is remembered."""
    assert ledger.last_request_at() is None
    assert ledger.open_request(request("r1"), dataset_key="d", labels_used=3)
    assert not ledger.open_request(request("r1"), dataset_key="d", labels_used=3)
    assert not ledger.open_request(request("r2", NOW + MINUTE), dataset_key="d", labels_used=4)
    (waiting,) = ledger.requests_open()
    assert (waiting.message, waiting.labels_used, waiting.last_published_at) == (request("r1"), 3, None)
    ledger.touch_request("r1", published_at=NOW)
    ledger.touch_request("r1", heard_at=NOW + MINUTE)
    touched = ledger.request("r1")
    assert (touched.last_published_at, touched.last_heard_at) == (NOW, NOW + MINUTE)
    assert ledger.close_request("r1", "failed", NOW)
    assert not ledger.close_request("r1", "failed", NOW)
    assert ledger.open_request(request("r2", NOW + MINUTE), dataset_key="d", labels_used=4)
    assert ledger.last_request_at() == NOW + MINUTE
    assert [each.state for each in ledger.requests()] == ["failed", "open"]


def test_candidate_from_trainer_to_release(ledger: Ledger) -> None:
    """A candidate closes its request, is decided once, and its release is stored once."""
    ledger.open_request(request("r1"), dataset_key="d", labels_used=1)
    assert ledger.add_candidate(result("r1"), NOW)
    assert not ledger.add_candidate(result("r1"), NOW)
    assert ledger.requests_open() == []
    (pending,) = ledger.pending_candidates()
    assert (pending.files, pending.validation) == (result("r1").files, {"balanced_accuracy": 0.7})
    assert ledger.decide_candidate("r1", "accepted", "not worse", {"classes": {"Normal": 0.9}}, NOW)
    assert not ledger.decide_candidate("r1", "refused", "changed my mind", None, NOW)
    assert ledger.pending_candidates() == []
    (accepted,) = ledger.accepted_unreleased()
    assert (accepted.verdict, accepted.gate) == ("accepted", {"classes": {"Normal": 0.9}})
    ledger.add_release(release(1, "r1"))
    assert ledger.accepted_unreleased() == []
    with pytest.raises(VersionTakenError):
        ledger.add_release(release(2, "r1"))


def test_candidate_of_an_unknown_request(ledger: Ledger) -> None:
    """A candidate that nobody asked for is refused by name."""
    with pytest.raises(UnknownRequestError, match="r1"):
        ledger.add_candidate(result("r1"), NOW)


def test_versions_only_grow(ledger: Ledger) -> None:
    """A taken version is refused; the next one is one above the highest."""
    assert (ledger.latest_release(), ledger.next_version()) == (None, 1)
    ledger.add_release(release(1))
    ledger.add_release(release(4))
    with pytest.raises(VersionTakenError, match="4"):
        ledger.add_release(release(4))
    assert (ledger.latest_release(), ledger.next_version()) == (release(4), 5)
    assert ledger.releases() == [release(1), release(4)]


def test_edges_are_remembered_by_their_newest_word(ledger: Ledger) -> None:
    """Status and report of an edge are kept side by side; an older one does not replace a newer one."""
    assert ledger.record_status("a", "a-1", {"state": "online"}, NOW + MINUTE)
    assert not ledger.record_status("a", "a-1", {"state": "lost"}, NOW)
    assert ledger.record_reported("a", "a-1", {"phase": "active"}, NOW)
    (edge,) = ledger.edges()
    assert (edge.status, edge.status_at) == ({"state": "online"}, NOW + MINUTE)
    assert (edge.reported, edge.reported_at) == ({"phase": "active"}, NOW)


# --- kill -9

WRITES = {
    "slices": "store(ledger, 's1')",
    "frames": "ledger.store_frame(message_id='f', slice_id='s', sha256=sha256(''), frame_key='k', media_type='m', "
    "received_at=NOW)",
    "dead_letters": "ledger.dead_letter('t', b'', 'r', NOW)",
    "disagreements": "store(ledger, 's1'); ledger.add_second_reading('s1', reading(), DISAGREEMENT, NOW)",
    "labels": "store(ledger, 's1'); ledger.set_label('s1', Label.NORMAL, 'Kim', '', NOW)",
    "retrain_decisions": "ledger.record_decision(NOW, True, 'r', 1)",
    "retrain_requests": "ledger.open_request(request('r1'), dataset_key='d', labels_used=1)",
    "candidates": "ledger.open_request(request('r1'), dataset_key='d', labels_used=1); "
    "ledger.add_candidate(result('r1'), NOW)",
    "releases": "ledger.add_release(release(1))",
    "edges": "ledger.record_status('a', 'a-1', {}, NOW)",
}


@pytest.mark.parametrize("table", WRITES)
def test_writes_survive_kill(ledger_url: str, table: str) -> None:
    """What a write stored is there although its process is killed with -9 as soon as it returns."""
    script = f"ledger = Ledger(sys.argv[1]).__enter__()\n{WRITES[table]}\nos.kill(os.getpid(), signal.SIGKILL)"
    process = child(script, ledger_url)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -9
    with Ledger(ledger_url) as ledger:
        assert ledger.counts()[table] == 1


def test_half_a_transaction_is_none(ledger_url: str) -> None:
    """A process that is killed within a transaction leaves nothing of it, and no lock."""
    script = (
        "from cloud_worker.ledger.database import insert_once\n"
        "from cloud_worker.ledger.tables import edges\n"
        "ledger = Ledger(sys.argv[1]).__enter__()\n"
        "with ledger.write() as connection:\n"
        "    insert_once(connection, edges, {'site': 'a', 'edge': 'a-1'})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    child(script, ledger_url).communicate(timeout=DEADLINE_S)
    with Ledger(ledger_url) as ledger:
        assert ledger.counts()["edges"] == 0
        assert store(ledger, "s1")
