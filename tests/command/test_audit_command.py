"""`sliceloop audit` and `sliceloop dead` as an engineer meets them, on a ledger with real rows."""

import json
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from command_here import run_here
from command_parts import NOW, reading, sha256

from cloud_worker.ledger import Ledger
from edge_agent.outbox import Outbox, OutboxMessage
from protocol.codec import EventContext, encode
from protocol.labels import Label
from protocol.messages import SliceRead, Status
from protocol.topics import Kind, edge_topic

SITE, EDGE = "site-a", "edge-1"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture
def config(tmp_path: Path, url: str) -> Path:
    file = tmp_path / "worker.toml"
    file.write_text(f'[worker]\nledger_url = "{url}"\n')
    return file


def store_slice(ledger: Ledger, number: int) -> None:
    """Store a slice that was captured so many minutes after noon, and whose original stays at the edge."""
    said = SliceRead(
        slice_id=f"slice-{number}",
        boot_id="boot-1",
        sequence=number,
        captured_at=NOW + timedelta(minutes=number),
        source="phantom",
        patient_key=sha256("patient"),
        preprocessing_version=1,
        frame_sha256=sha256(f"frame {number}"),
        frame_omitted="a test",
        image=b"\x89PNG....",
        image_sha256=sha256(f"slice {number}"),
        reading=reading(Label.NORMAL),
    )
    ledger.store_slice(
        message_id=f"m-{number}", site=SITE, edge=EDGE, slice=said, image_key=f"slices/{number}.png", received_at=NOW
    )


def fill(url: str, stored: Iterable[int], last: int, waiting: tuple[tuple[int, int], ...] = ()) -> None:
    """Enter these numbers, and a status that says which was the last one and what waits."""
    with Ledger(url) as ledger:
        for number in stored:
            store_slice(ledger, number)
        status = Status(state="online", boot_id="b", at=NOW, software="test", last_sequence=last, waiting=waiting)
        ledger.record_status(SITE, EDGE, status.model_dump(mode="json"), NOW)


def quarantine(url: str, number: int, reason: str = "no slice") -> None:
    with Ledger(url) as ledger:
        status = Status(state="online", boot_id="b", at=NOW, software="test")
        properties = encode(status, EventContext(f"m-{number}", "/edges", NOW, sequence=number)).user_properties
        ledger.dead_letter(edge_topic(SITE, EDGE, Kind.SLICE), b"garbage", reason, NOW, properties)


def test_a_complete_ledger_is_clean(tmp_path: Path, config: Path, url: str) -> None:
    """Where every number is stored the audit ends with 0."""
    fill(url, range(1, 6), 5)
    ended = run_here("audit", "-c", config, cwd=tmp_path)
    assert ended.code == 0, ended.err + ended.out
    assert [line.split() for line in ended.out.splitlines() if line.startswith("site-a/edge-1 ")] == [
        ["site-a/edge-1", "5", "5", "0", "0", "0", "0", "0"]
    ], "in 80 columns name and numbers stand there whole"


def test_lost_numbers_are_named_with_their_time(tmp_path: Path, config: Path, url: str) -> None:
    """Lost numbers end the audit with 1, as ranges with the times of their neighbours, in the file too."""
    fill(url, [1, 2, 6, 7], 9, waiting=((8, 8),))
    quarantine(url, 4)
    ended = run_here("audit", "-c", config, "--json", "audit.json", cwd=tmp_path)
    assert ended.code == 1, ended.err
    before, after = ((NOW + timedelta(minutes=n)).isoformat(timespec="seconds") for n in (2, 6))
    assert f"site-a/edge-1 lost: 3, captured between {before} and {after}" in ended.out
    assert f"site-a/edge-1 refused: 4, captured between {before} and {after}" in ended.out
    assert "site-a/edge-1 waiting: 8," in ended.out
    (edge,) = json.loads((tmp_path / "audit.json").read_text())["edges"]
    assert (edge["issued"], edge["stored"], edge["lost"], edge["doubled"]) == (9, 4, 3, 0)
    assert edge["numbers"] == {"refused": 1, "waiting": 1, "set aside": 0, "lost": 3, "unknown": 0}
    assert [(f["fate"], f["first"], f["last"]) for f in edge["findings"]][:3] == [
        ("lost", 3, 3),
        ("refused", 4, 4),
        ("lost", 5, 5),
    ]


def test_the_outbox_is_believed_before_the_status(tmp_path: Path, config: Path, url: str) -> None:
    """With an edge's data folder, what waits there is waiting, whatever the last status said."""
    fill(url, [1], 3)
    assert run_here("audit", "-c", config, cwd=tmp_path).code == 1
    with Outbox(tmp_path / "data" / "outbox.sqlite", max_rows=9, max_bytes=999) as outbox:
        for number in (2, 3):
            message = OutboxMessage(f"m{number}", Kind.SLICE, b"s", "application/cbor", (("sequence", str(number)),))
            outbox.add(f"{number}.png", f"slice-{number}", number, [message])
    for given in ("data", "site-a/edge-1=data"):
        ended = run_here("audit", "-c", config, "--edge-data", given, cwd=tmp_path)
        assert (ended.code, "waiting: 2 to 3 (2)" in ended.out) == (0, True), ended.err + ended.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--edge", "edge-9"), "the ledger knows no edge */edge-9; it knows site-a/edge-1"),
        (("--edge-data", "nowhere"), "nowhere/outbox.sqlite does not exist: --edge-data is the edge.data_dir"),
        (("--edge-data", "site-b/edge-1=data"), "site-b/edge-1 is not among the audited edges (site-a/edge-1)"),
        (("--since", "yesterday"), "'yesterday' is no time"),
    ],
)
def test_what_cannot_be_audited_is_named(
    tmp_path: Path, config: Path, url: str, arguments: tuple[str, ...], said: str
) -> None:
    """An unknown edge, a folder that is none, and a time that is none are told in one line."""
    fill(url, [1], 1)
    ended = run_here("audit", "-c", config, *arguments, cwd=tmp_path)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_a_period_is_audited_alone(tmp_path: Path, config: Path, url: str) -> None:
    """Slices captured outside the period do not count."""
    fill(url, [1, 3, 4], 4)
    since = (NOW + timedelta(minutes=3, seconds=30)).isoformat()
    assert run_here("audit", "-c", config, cwd=tmp_path).code == 1
    assert run_here("audit", "-c", config, "--since", since, cwd=tmp_path).code == 0


def test_dead_letters_are_listed_shown_and_discarded(tmp_path: Path, config: Path, url: str) -> None:
    """A letter is found by its reason, shown without its payload, and closed with a reason of one's own."""
    quarantine(url, 7, "unknown schema")
    quarantine(url, 8, "other")
    listed = run_here("dead", "list", "-c", config, "--reason", "SCHEMA", cwd=tmp_path)
    assert listed.code == 0, listed.err
    assert "unknown schema" in listed.out
    assert "other" not in listed.out
    shown = run_here("dead", "show", 1, "-c", config, cwd=tmp_path)
    assert "quarantine/" in shown.out
    assert "garbage" not in shown.out
    assert run_here("dead", "discard", 1, "--why", "a test", "-c", config, cwd=tmp_path).code == 0
    again = run_here("dead", "discard", 1, "--why", "a test", "-c", config, cwd=tmp_path)
    assert (again.code, "dead letter 1 is discarded already" in again.err) == (2, True)
    assert "unknown schema" not in run_here("dead", "list", "-c", config, cwd=tmp_path).out
    everything = run_here("dead", "list", "-c", config, "--state", "all", cwd=tmp_path)
    assert "discarded" in everything.out
    unknown = run_here("dead", "show", 99, "-c", config, cwd=tmp_path)
    assert (unknown.code, "no dead letter 99" in unknown.err) == (2, True)
