"""`sliceloop edge` as a real process: what it says when it cannot start, that it goes on, and how it stops."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from edge_parts import (
    DEADLINE_S,
    SIGNER,
    EdgeProcess,
    assigned,
    dark_slice,
    dicom_file,
    filled_slot,
    network,
    release,
    slice_file,
    trusted_folder,
    wait_until,
    write_edge_config,
)

from broker.embedded import EmbeddedBroker, free_port
from broker.messages import Inbound, Outbound
from broker.session import Session
from broker.settings import BrokerSettings
from broker.trusted_keys import TrustedKeysError, load_key_set
from edge_agent.model_slot import ACTIVE_FILE, MAX_DEATHS_ON_PROBATION, SlotState
from edge_agent.outbox import Outbox
from protocol.codec import EventContext, decode, encode
from protocol.messages import KIND_OF, ChunkRequest, Message, ModelPhase, ModelReported, Receipt, SliceRead, Status
from protocol.signing import public_key_json
from protocol.topics import FLEET_KEYS, Kind, edge_topic, fleet_chunk, parse

ROOT = "sliceloop/v1/site-a/edge-1"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An edge's folder with a trusted key."""
    trusted_folder(tmp_path / "trusted")
    return tmp_path


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


def refused_to_start(config: Path) -> str:
    """Run an edge that cannot start; return its one line."""
    with EdgeProcess(config) as edge:
        assert edge.exit_code() == 2, edge.said
        assert "Traceback" not in edge.said
        return edge.said


def edit(config: Path, old: str, new: str) -> Path:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    return config


# It cannot start.


def test_a_missing_keys_folder_is_named(tmp_path: Path) -> None:
    """Without the folder of trusted keys the edge names it and says how to fill it."""
    said = refused_to_start(write_edge_config(tmp_path, port=free_port()))
    assert f"{tmp_path / 'trusted'} holds 0 public keys, 1 are needed" in said
    assert "sliceloop keys new" in said


def test_too_few_keys_for_the_threshold_are_counted(home: Path) -> None:
    """A threshold that the keys cannot meet is no reason to start and wait for ever."""
    said = refused_to_start(write_edge_config(home, port=free_port(), trusted_threshold=2))
    assert "holds 1 public keys, 2 are needed" in said


@pytest.mark.parametrize(
    "content", [b"garbage", b"\xff\xfe", b"{}", public_key_json(SIGNER).replace('"keyid": "', '"keyid": "0').encode()]
)
def test_a_broken_key_file_is_named(home: Path, content: bytes) -> None:
    """Among many keys the one that cannot be read is named."""
    (home / "trusted" / "broken.pub.json").write_bytes(content)
    with pytest.raises(TrustedKeysError, match=r"broken\.pub\.json cannot be used .* copy it again, or remove it"):
        load_key_set(home / "trusted", 1)


def test_a_missing_secret_is_named(home: Path) -> None:
    """A secret that the configuration names and that is not there is not made up."""
    said = refused_to_start(write_edge_config(home, port=free_port(), patient_secret_file=str(home / "secret")))
    assert f"{home / 'secret'} does not exist; copy the site's secret there" in said
    assert not (home / "secret").exists()


def test_a_secret_that_is_too_short_is_refused(home: Path) -> None:
    """A secret that could be guessed hides nobody; it is not printed either."""
    (home / "secret").write_bytes(b"hunter2\n")
    said = refused_to_start(write_edge_config(home, port=free_port(), patient_secret_file=str(home / "secret")))
    assert "holds 7 bytes; a secret has at least 16" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("site", ["Site A", "cloud"])
def test_a_site_that_no_topic_can_hold_is_refused(home: Path, site: str) -> None:
    """A site's id goes into topics: one that may not is named with the rule."""
    said = refused_to_start(write_edge_config(home, port=free_port(), site=site))
    assert "site" in said
    assert "[a-z0-9-]{1,32}" in said


def test_configuration_faults_are_named(home: Path) -> None:
    """A missing key, a foreign key, a file that is no TOML, and no file: each says what to do."""
    config = write_edge_config(home, port=free_port(), edge=None)
    said = refused_to_start(config)
    assert f"edge.edge is missing in {config}: set it there, or SLICELOOP_EDGE__EDGE" in said
    config = write_edge_config(home, port=free_port(), max_outbox_row=5)
    config.with_suffix(".log").unlink()
    said = refused_to_start(config)
    assert f"edge.max_outbox_row in {config} is foreign (did you mean 'max_outbox_rows'?)" in said
    config.write_text("[edge\n")
    assert f"{config} is not TOML" in refused_to_start(config)
    config.unlink()
    assert f"{config} cannot be read" in refused_to_start(config)


def test_a_data_folder_that_cannot_be_used_is_named(home: Path) -> None:
    """A file in the place of the data folder is named, without a traceback."""
    (home / "data").write_text("a file")
    assert str(home / "data") in refused_to_start(write_edge_config(home, port=free_port()))


def test_a_damaged_outbox_is_set_aside(home: Path) -> None:
    """A damaged outbox is named and set aside as it was, and the edge reads on."""
    filled_slot(home / "data" / "models")
    (home / "data" / "outbox.sqlite").write_bytes(b"garbage " * 1000)
    (home / "inbox").mkdir(exist_ok=True)
    (home / "inbox" / "a.png").write_bytes(slice_file())
    with EdgeProcess(write_edge_config(home, port=free_port())) as edge:
        edge.wait_for("slice read")
        assert edge.terminate() == 0
        assert "the outbox was damaged (file is not a database): set aside as outbox.sqlite.damaged-" in edge.said
    (aside,) = (home / "data").glob("outbox.sqlite.damaged-*Z")
    assert aside.read_bytes() == b"garbage " * 1000


def test_a_credential_that_is_missing_is_named(home: Path) -> None:
    """A password file that is not there stops the edge, since no retry mends it."""
    config = edit(
        write_edge_config(home, port=free_port()), "[broker]", '[broker]\npassword_file = "/nowhere/password"'
    )
    with EdgeProcess(config) as edge:
        assert edge.exit_code() == 2, edge.said
        assert "/nowhere/password" in edge.said


def test_a_second_edge_on_the_same_data_folder_is_refused(home: Path) -> None:
    """Two edges on one outbox would number their slices alike: the second says so, and the first goes on."""
    filled_slot(home / "data" / "models")
    config = write_edge_config(home, port=free_port())
    with EdgeProcess(config) as first:
        first.wait_for("edge started")
        assert (home / "data").stat().st_mode & 0o077 == 0, "slices lie in it"
        assert f"another edge runs on {home / 'data'}; stop it first" in refused_to_start(config)
        (home / "inbox" / "a.png").write_bytes(slice_file())
        first.wait_for("slice read")
        assert first.terminate() == 0


# It goes on, and it stops.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_edge_without_a_broker_reads_on_and_stops_cleanly(home: Path, number: signal.Signals) -> None:
    """With the broker away slices are read and kept; a signal ends the edge within seconds, with exit code 0."""
    filled_slot(home / "data" / "models")
    config = write_edge_config(home, port=free_port())
    for name in ("a.png", "b.png"):
        (home / "inbox" / name).write_bytes(slice_file(ord(name[0])))
    with EdgeProcess(config) as edge:
        edge.wait_for("slice read", 2)
        edge.wait_for("broker unreachable")
        os.kill(edge.pid, number)
        assert edge.exit_code() == 0, edge.said
        assert "edge stopped" in edge.said
        assert "Traceback" not in edge.said
    with Outbox(home / "data" / "outbox.sqlite", max_rows=100, max_bytes=1_000_000) as outbox:
        assert outbox.depth() == 4
    secret = home / "data" / "patient-secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_bytes()) == 64


def test_an_edge_keeps_slices_and_deletes_them_when_it_is_told_to_keep_none(home: Path) -> None:
    """A slice of a label stays, for the agent's eyes alone; with `kept_slices = 0` it goes at the start."""
    filled_slot(home / "data" / "models")
    (home / "inbox").mkdir(exist_ok=True)
    (home / "inbox" / "a.png").write_bytes(slice_file())
    kept = home / "data" / "kept"
    with EdgeProcess(write_edge_config(home, port=free_port())) as edge:
        wait_until(lambda: any(kept.glob("*.png")), lambda: edge.said)
        assert edge.terminate() == 0
    assert kept.stat().st_mode & 0o777 == 0o700
    with EdgeProcess(write_edge_config(home, port=free_port(), kept_slices=0)) as edge:
        wait_until(lambda: not any(kept.iterdir()), lambda: edge.said)
        assert edge.terminate() == 0


def test_the_log_names_no_patient(home: Path) -> None:
    """Neither a file's name nor a patient's id is in the log, not even of a file that was refused."""
    filled_slot(home / "data" / "models")
    config = write_edge_config(home, port=free_port())
    (home / "inbox" / "Doe^John.dcm").write_bytes(dicom_file(PatientID="MRN-0815", PatientName="Doe^John"))
    (home / "inbox" / "Doe^Jane.png").write_bytes(b"garbage")
    with EdgeProcess(config) as edge:
        edge.wait_for("slice read")
        edge.wait_for("frame refused")
        assert edge.terminate() == 0
        assert "Doe" not in edge.said
        assert "MRN" not in edge.said
    listed = subprocess.run(
        [sys.executable, "-m", "sliceloop", "refused", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert re.match(r"Doe\^Jane\.png \(7 bytes, \d+\): 7 bytes are neither PNG, JPEG nor DICOM", listed.stdout)


def test_killed_with_9_it_goes_on_where_it_was(home: Path) -> None:
    """kill -9 in the midst of a stream: started again, every file is read once, under numbers without a gap."""
    filled_slot(home / "data" / "models")
    config = write_edge_config(home, port=free_port())
    for number in range(60):
        (home / "inbox" / f"{number:02d}.png").write_bytes(slice_file(number))
    with EdgeProcess(config) as edge:
        edge.wait_for("slice read", 10)
    with sqlite3.connect(home / "data" / "outbox.sqlite") as database:
        (read_before,) = database.execute("SELECT count(*) FROM captured").fetchone()
    assert 10 <= read_before < 60, "the kill came too late to prove anything"
    with EdgeProcess(config) as edge:
        wait_until(lambda: captured_in(home) == 60, lambda: edge.said)
        assert edge.terminate() == 0
    with Outbox(home / "data" / "outbox.sqlite", max_rows=1000, max_bytes=100_000_000) as outbox:
        slices = [m for m in outbox.pending(1000) if m.kind is Kind.SLICE]
        assert sorted(decoded(m.payload, m.user_properties).sequence for m in slices) == list(range(1, 61))


def test_a_model_on_whose_slices_the_process_is_killed_is_rolled_back(home: Path) -> None:
    """A network that never ends on a slice has to be killed with its edge: after some lives its predecessor reads."""
    slot, hanging = filled_slot(home / "data" / "models"), release(2, network(fault="hang"))
    slot.store(hanging.manifest, hanging.envelope, hanging.files, {})
    slot.activate(slot.load(2))
    config = write_edge_config(home, port=free_port())
    (home / "inbox" / "a.png").write_bytes(dark_slice())
    for life in range(1, MAX_DEATHS_ON_PROBATION + 1):
        with EdgeProcess(config) as edge:
            wait_until(lambda: deaths_in(home) == life, lambda: edge.said)  # noqa: B023
    assert "slice read" not in edge.said
    with EdgeProcess(config) as edge:
        edge.wait_for("slice read")
        assert edge.terminate() == 0
    assert "model rolled back" in edge.said


def deaths_in(home: Path) -> int:
    return SlotState.model_validate_json((home / "data" / "models" / ACTIVE_FILE).read_bytes()).deaths_on_probation


def test_files_that_labels_csv_does_not_name_are_counted(home: Path) -> None:
    """A labels.csv that names files otherwise than they lie is said once, without names, and they are read."""
    filled_slot(home / "data" / "models")
    config = write_edge_config(home, port=free_port())
    (home / "inbox" / "scans").mkdir()
    for name in ("Doe.png", "Roe.png"):
        (home / "inbox" / "scans" / name).write_bytes(slice_file(ord(name[0])))
    (home / "inbox" / "listed.png").write_bytes(slice_file(1))
    (home / "inbox" / "labels.csv").write_text(
        "file,patient_id,source\nlisted.png,p1,here\nslices/Doe.png,p2,here\nslices/Roe.png,p3,here\n"
    )
    with EdgeProcess(config) as edge:
        edge.wait_for("slice read", 3)
        assert edge.terminate() == 0
        (warning,) = [line for line in edge.said.splitlines() if "not in labels.csv" in line]
        assert "files=2 of=3" in warning
        assert "oe.png" not in edge.said


def captured_in(home: Path) -> int:
    with sqlite3.connect(home / "data" / "outbox.sqlite") as database:
        return int(database.execute("SELECT count(*) FROM captured").fetchone()[0])


def decoded(payload: bytes, user_properties: tuple[tuple[str, str], ...]) -> Message:
    return decode(Kind.SLICE, payload, user_properties).message


# It talks with a broker.


class Cloud:
    """The cloud's half of the conversation with one edge, spoken by the test."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.heard: list[Inbound] = []

    def listen(self) -> None:
        while (inbound := self.session.receive(0.02)) is not None:
            self.session.ack(inbound)
            self.heard.append(inbound)

    def messages(self, kind: Kind) -> list[Message]:
        """Return what was heard of this kind."""
        return [
            decode(kind, inbound.payload, inbound.user_properties).message
            for inbound in self.heard
            if parse(inbound.topic).kind is kind
        ]

    def ids(self, kind: Kind) -> list[str]:
        """Return the message ids of what was heard of this kind."""
        return [dict(each.user_properties)["id"] for each in self.heard if parse(each.topic).kind is kind]

    def wait(self, condition, edge: EdgeProcess) -> None:
        def met() -> bool:
            self.listen()
            return bool(condition())

        wait_until(met, lambda: edge.said)

    def reported(self) -> ModelReported | None:
        reports = [each for each in self.messages(Kind.MODEL_REPORTED) if isinstance(each, ModelReported)]
        return reports[-1] if reports else None

    def say(self, message: Message) -> None:
        encoded = encode(message, EventContext(id="cloud-1", source="/tests", time=datetime.now(UTC)))
        self.raw(
            edge_topic("site-a", "edge-1", KIND_OF[type(message)]),
            encoded.payload,
            user_properties=encoded.user_properties,
        )

    def raw(self, topic: str, payload: bytes, **options: object) -> None:
        assert self.session.publish(Outbound(topic, payload, **options)).wait(DEADLINE_S)


@pytest.fixture
def cloud(broker: EmbeddedBroker) -> Iterator[Cloud]:
    topics = [f"{ROOT}/{kind}" for kind in (Kind.SLICE, Kind.FRAME, Kind.STATUS, Kind.MODEL_REPORTED, Kind.MODEL_GET)]
    with Session(BrokerSettings(port=broker.port), "tests-cloud", subscriptions=topics, clean_start=True) as session:
        assert session.wait_connected(DEADLINE_S)
        yield Cloud(session)


def test_garbage_on_every_topic_stops_nothing(home: Path, broker: EmbeddedBroker, cloud: Cloud) -> None:
    """Garbage where receipts, releases and chunks come: the edge says so, keeps its messages, and reads on."""
    filled_slot(home / "data" / "models")
    config = write_edge_config(home, port=broker.port)
    (home / "inbox" / "a.png").write_bytes(slice_file(1))
    with EdgeProcess(config) as edge:
        cloud.wait(lambda: len(cloud.ids(Kind.SLICE)) == 1 and len(cloud.ids(Kind.FRAME)) == 1, edge)
        for garbage in (b"\0\xff garbage", b"{}", b"null", b"[" * 5000, bytes(300_000)):
            cloud.raw(f"{ROOT}/receipt", garbage)
            cloud.raw(f"{ROOT}/model/desired", garbage)
            cloud.raw(f"{ROOT}/model/assigned", garbage)
            cloud.raw(FLEET_KEYS, garbage)
            cloud.raw(f"{ROOT}/model/chunk/{'0' * 64}", garbage)
            cloud.raw(f"{ROOT}/model/chunk/not-a-hash", garbage)
        foreign = (("dataschema", "tag:sliceloop,2026:receipt:99"), ("id", "x"))
        cloud.raw(f"{ROOT}/receipt", b'{"message_ids": ["x"]}', user_properties=foreign)
        cloud.wait(lambda: (now := cloud.reported()) and now.phase is ModelPhase.REJECTED, edge)
        edge.wait_for("is not major 1")
        (home / "inbox" / "b.png").write_bytes(slice_file(2))
        cloud.wait(lambda: len(set(cloud.ids(Kind.SLICE))) == 2, edge)
        with Outbox(home / "data" / "outbox.sqlite", max_rows=100, max_bytes=1_000_000) as outbox:
            assert outbox.depth() == 4
        cloud.say(Receipt(message_ids=tuple({*cloud.ids(Kind.SLICE), *cloud.ids(Kind.FRAME)})))
        cloud.wait(lambda: outbox_depth(home) == 0, edge)
        assert edge.terminate() == 0
        assert "Traceback" not in edge.said


def outbox_depth(home: Path) -> int:
    with Outbox(home / "data" / "outbox.sqlite", max_rows=100, max_bytes=1_000_000) as outbox:
        return outbox.depth()


def test_a_release_comes_over_the_wire_and_reads(home: Path, broker: EmbeddedBroker, cloud: Cloud) -> None:
    """A new edge takes its first release in chunks from the broker and reads; status and will tell of its life."""
    first = release(1, expires_at=datetime.now(UTC) + timedelta(days=1))
    now = datetime.now(UTC)
    cloud.raw(f"{ROOT}/model/desired", first.envelope, retain=True)
    cloud.raw(f"{ROOT}/model/assigned", assigned(first, now=now), retain=True)
    config = write_edge_config(home, port=broker.port, probation_slices=1)
    (home / "inbox" / "a.png").write_bytes(slice_file())
    with EdgeProcess(config) as edge:
        answered = 0

        def active() -> bool:
            nonlocal answered
            wanted = cloud.messages(Kind.MODEL_GET)
            for request in wanted[answered:]:
                assert isinstance(request, ChunkRequest)
                for sha256 in first.wanted(request):
                    cloud.raw(fleet_chunk(sha256), first.chunks[sha256])
            answered = len(wanted)
            now = cloud.reported()
            return now is not None and now.phase is ModelPhase.ACTIVE

        cloud.wait(active, edge)
        (slice_read,) = cloud.messages(Kind.SLICE)
        assert isinstance(slice_read, SliceRead)
        assert slice_read.reading.model == first.manifest.model_ref
        assert edge.terminate() == 0
        cloud.wait(lambda: status(cloud).state == "stopped", edge)
        assert status(cloud).model == first.manifest.model_ref
        assert status(cloud).outbox_depth == 2
        assert status(cloud).last_sequence == 1
        assert status(cloud).waiting == status(cloud).waiting_originals == ((1, 1),)


def status(cloud: Cloud) -> Status:
    last = cloud.messages(Kind.STATUS)[-1]
    assert isinstance(last, Status)
    return last


def test_problems_stand_in_the_status(home: Path, broker: EmbeddedBroker, cloud: Cloud) -> None:
    """What keeps an edge from reading is in its status, and no longer when it is gone."""
    config = write_edge_config(home, port=broker.port)
    with EdgeProcess(config) as edge:
        cloud.wait(lambda: cloud.messages(Kind.STATUS) and "no model yet" in status(cloud).problem, edge)
        edge.terminate()
    filled_slot(home / "data" / "models")
    with EdgeProcess(config) as edge:
        cloud.wait(lambda: "holds no PNG" in status(cloud).problem, edge)
        (home / "inbox" / "a.png").write_bytes(slice_file())
        cloud.wait(lambda: status(cloud).problem == "", edge)
        edge.wait_for("reading again")
        edge.terminate()


def test_receipts_that_do_not_come_stand_in_the_status(home: Path, broker: EmbeddedBroker, cloud: Cloud) -> None:
    """With a broker but nobody behind it the edge asks for the worker, once in its log, until a receipt comes."""
    filled_slot(home / "data" / "models")
    config = write_edge_config(home, port=broker.port, receipt_timeout_s=0.1)
    (home / "inbox" / "a.png").write_bytes(slice_file())
    with EdgeProcess(config) as edge:
        cloud.wait(lambda: cloud.messages(Kind.STATUS) and "no receipt for 2 s" in status(cloud).problem, edge)
        assert "is a worker running, and its object store?" in status(cloud).problem
        cloud.say(Receipt(message_ids=tuple({*cloud.ids(Kind.SLICE), *cloud.ids(Kind.FRAME)})))
        cloud.wait(lambda: status(cloud).problem == "" and status(cloud).outbox_depth == 0, edge)
        assert edge.terminate() == 0
        assert edge.said.count("is a worker running") == 1


def test_an_edge_that_is_killed_is_reported_lost(home: Path, broker: EmbeddedBroker, cloud: Cloud) -> None:
    """The will speaks for an edge that can no longer."""
    with EdgeProcess(write_edge_config(home, port=broker.port)) as edge:
        cloud.wait(lambda: cloud.messages(Kind.STATUS) and status(cloud).state == "online", edge)
        os.kill(edge.pid, signal.SIGKILL)
        cloud.wait(lambda: status(cloud).state == "lost", edge)
