"""The desk reads again, says its verdicts, tells edges their release, serves its chunks, and asks for retrainings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from worker_parts import (
    ASSIGN,
    EDGE,
    NOW,
    SITE,
    Peer,
    add_labelled,
    cohort,
    constant_network,
    deciding,
    director,
    network,
    network_file,
    outbound,
    quick,
    release,
    reports,
    slice_read,
    trusted_by,
    wait_until,
)

from broker.embedded import EmbeddedBroker
from broker.messages import Inbound, Outbound
from broker.settings import BrokerSettings
from cloud_worker.embedded_s3 import EmbeddedS3
from cloud_worker.fleet_settings import DeliverySettings
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, image_key, index_key
from cloud_worker.release import Release
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.releasing import ReleaseDesk
from cloud_worker.second_reader import SecondReader
from cloud_worker.settings import RetrainSettings, WorkerSettings
from protocol.assignment import Seen, trusted_assignment
from protocol.chunks import check_file, read_index, sha256_of, to_bitmap
from protocol.labels import Label
from protocol.manifest import Manifest
from protocol.messages import (
    MAX_CHUNK_BYTES,
    ChunkRequest,
    Message,
    RetrainPhase,
    RetrainRequest,
    RetrainResult,
    RetrainStatus,
    SliceRead,
    Verdict,
)
from protocol.signing import TrustedKeys, generate_signer
from protocol.topics import FLEET_CHUNKS, FLEET_DESIRED, Kind, chunk_filter, cloud_topic, edge_topic, parse
from sliceloop.chaos.mqtt_proxy import MqttProxy

SIGNER = generate_signer()
SETTINGS = WorkerSettings(name="desk-test", poll_s=0.02, store_retry_s=0.05)
VERDICTS = edge_topic(SITE, EDGE, Kind.VERDICT)
CHUNKS = chunk_filter(SITE, EDGE)
OWN = edge_topic(SITE, EDGE, Kind.MODEL_ASSIGNED), edge_topic(SITE, EDGE, Kind.MODEL_DESIRED)
REQUESTS = cloud_topic(Kind.RETRAIN_REQUEST)


def told(version: int, edge: str = EDGE) -> Callable[[Inbound], bool]:
    """Tell whether what arrived is this edge's assignment to this version, as the edge verifies it."""

    def is_it(heard: Inbound) -> bool:
        if heard.topic != edge_topic(SITE, edge, Kind.MODEL_ASSIGNED):
            return False
        keys, now = TrustedKeys((ASSIGN.public_key,)), datetime.now(UTC)
        return trusted_assignment(heard.payload, keys, site=SITE, edge=edge, seen=Seen(), now=now).version == version

    return is_it


def desired(version: int, edge: str = EDGE) -> Callable[[Inbound], bool]:
    """Tell whether what arrived is the signed release of this version, on the edge's own topic."""
    topic = edge_topic(SITE, edge, Kind.MODEL_DESIRED)
    return lambda heard: heard.topic == topic and trusted_by(SIGNER, heard.payload).version == version


def chunk(sha256: str) -> Callable[[Inbound], bool]:
    """Tell whether what arrived is this chunk."""
    return lambda heard: parse(heard.topic).sha256 == sha256


def wants(version: int, pieces: Sequence[str], edge: str = EDGE, *, shared: bool = False) -> Outbound:
    """Ask for pieces of indices."""
    request = ChunkRequest(version=version, pieces=tuple(pieces), shared=shared)
    return outbound(request, "get-1", edge_topic(SITE, edge, Kind.MODEL_GET))


def wants_places(version: int, name: str, places: Sequence[int]) -> Outbound:
    """Ask for chunks of a file by their places."""
    return outbound(ChunkRequest(version=version, wanted={name: to_bitmap(places)}), "get-1")


def first_piece(made: Release) -> str:
    """Return the first piece of the network's index, which is a chunk as others are."""
    return made.manifest.files["model.onnx"].index[0]


def store_slice(store: ObjectStore, ledger: Ledger, said: SliceRead, stored_bytes: bytes | None = None) -> None:
    """Enter a slice as the receiver does; other bytes stand for an object that was damaged since."""
    key = image_key(said.image_sha256)
    store.put(key, said.image if stored_bytes is None else stored_bytes, "image/png")
    ledger.store_slice(message_id=said.slice_id, site=SITE, edge=EDGE, slice=said, image_key=key, received_at=NOW)


def fetch(edge: Peer, manifest: Manifest) -> dict[str, bytes]:
    """Ask for every file of a release as an edge does: its index, and then its chunks by their places."""
    files = {}
    for name, file in manifest.files.items():
        pieces = [edge.ask(wants(manifest.version, [sha256]), chunk(sha256)).payload for sha256 in file.index]
        chunks = read_index(file, pieces)
        edge.say(wants_places(manifest.version, name, range(len(chunks))))
        found = {each.sha256: edge.hear(chunk(each.sha256), name).payload for each in dict.fromkeys(chunks)}
        files[name] = b"".join(found[each.sha256] for each in chunks)
    return files


def test_each_edge_hears_its_assignment_and_its_release(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """Both are retained on the edge's own topics, for a later one too; a newer release follows without a restart."""
    reports(ledger)
    release(store, ledger, SIGNER, network(), datetime.now(UTC))
    edge = peer(*OWN)
    with deciding(SETTINGS, broker_settings, store, ledger, assigner=director(SETTINGS, store, ledger, SIGNER)):
        edge.hear(told(1), "assignment of version 1")
        edge.hear(desired(1), "version 1")
        late = peer(*OWN)
        assert late.hear(told(1), "assignment, for a later one").retained
        assert late.hear(desired(1), "version 1, for a later one").retained
        with Ledger(ledger.url) as elsewhere:
            release(store, elsewhere, SIGNER, constant_network(Label.NORMAL), datetime.now(UTC))
        edge.hear(told(2), "assignment of version 2")
        edge.hear(desired(2), "version 2")


def test_what_was_announced_to_all_is_taken_back(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """A release that an older worker retained for the whole fleet is cleared: it belongs to no ring."""
    peer().say(Outbound(FLEET_DESIRED, b"of before", retain=True))
    edge = peer(FLEET_DESIRED)
    edge.hear(lambda heard: heard.payload == b"of before", "what was retained")
    with deciding(SETTINGS, broker_settings, store, ledger, assigner=director(SETTINGS, store, ledger, SIGNER)):
        edge.hear(lambda heard: heard.payload == b"", "nothing any more")


def test_a_broker_that_forgot_the_assignments_is_told_again(
    store: ObjectStore,
    ledger: Ledger,
    running_broker: EmbeddedBroker,
    broker_settings: BrokerSettings,
    peer: Callable[..., Peer],
) -> None:
    """After the broker was killed and started again, a new subscriber still gets assignment and release."""
    reports(ledger)
    release(store, ledger, SIGNER, network(), datetime.now(UTC))
    with deciding(SETTINGS, broker_settings, store, ledger, assigner=director(SETTINGS, store, ledger, SIGNER)):
        peer(*OWN).hear(told(1), "version 1")
        running_broker.kill()
        with EmbeddedBroker(running_broker.port), Peer(broker_settings, *OWN) as edge:
            edge.hear(told(1), "assignment again")
            edge.hear(desired(1), "version 1 again")


def test_what_several_edges_wait_for_is_published_once_for_all(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """Whoever asks within the interval, a chunk for all goes out once; who cannot hear it there gets its own."""
    made = release(store, ledger, SIGNER, network())
    piece = first_piece(made)
    settings = SETTINGS.model_copy(update={"delivery": DeliverySettings(repeat_after_s=60)})
    edge = peer(FLEET_CHUNKS, chunk_filter(SITE, EDGE), chunk_filter(SITE, "ct-2"))
    with deciding(settings, broker_settings, store, ledger):
        edge.ask(wants(1, [piece], shared=True), chunk(piece))
        for name in ("ct-2", "ct-3", EDGE):
            edge.say(wants(1, [piece], name, shared=True))
        edge.say(wants(1, [piece], "ct-2"))
        own = edge.hear(lambda heard: heard.topic == edge_topic(SITE, "ct-2", Kind.MODEL_CHUNK, piece), "its own")
        assert sha256_of(own.payload) == piece
        edge.drain(0.2)
        assert edge.heard == []


def test_chunks_make_the_files_of_the_release(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """The chunks that an edge asks for are the release's files; of an older release too."""
    made = [release(store, ledger, SIGNER, model) for model in (network(), constant_network(Label.NORMAL))]
    edge = peer(CHUNKS)
    with deciding(SETTINGS, broker_settings, store, ledger):
        for each in made:
            files = fetch(edge, each.manifest)
            for name, data in files.items():
                check_file(name, each.manifest.files[name], data)
            assert files == each.files


def test_what_no_release_has_is_passed_over(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """Unknown versions and unknown chunks are passed over, also where the store has lost a release's files."""
    made = release(store, ledger, SIGNER, network())
    lost = replace(ledger.releases()[0], version=2, sha256="f" * 64, files={"model.onnx": "models/ff/lost"})
    ledger.add_release(lost)
    edge, first = peer(CHUNKS), first_piece(made)
    with deciding(SETTINGS, broker_settings, store, ledger):
        edge.ask(wants(1, [first]), chunk(first))
        edge.say(wants(99, [first]))
        edge.say(wants(2, [first]))
        edge.say(wants(1, ["0" * 64, first]))
        edge.hear(chunk(first), "the chunk that is known")
        edge.drain(0.2)
        assert edge.heard == []


def test_a_damaged_index_is_nothing_against_who_asks(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """What the store has lost is not served; the requests, which come again and again, are no dead letters."""
    damaged, sound = (release(store, ledger, SIGNER, model) for model in (network(), constant_network(Label.NORMAL)))
    file = damaged.manifest.files["model.onnx"]
    store.replace(index_key(file.sha256, file.index), b"damaged", "application/octet-stream")
    edge = peer(CHUNKS)
    with deciding(SETTINGS, broker_settings, store, ledger):
        edge.ask(wants(2, [first_piece(sound)]), chunk(first_piece(sound)))
        edge.say(wants(1, [first_piece(damaged)]))
        edge.ask(wants(2, [first_piece(sound)]), chunk(first_piece(sound)))
    assert list(ledger.dead_letters()) == []


def test_chunks_asked_for_while_the_store_is_away_come_when_it_is_back(
    s3_server: EmbeddedS3,
    store: ObjectStore,
    ledger: Ledger,
    broker_settings: BrokerSettings,
    peer: Callable[..., Peer],
) -> None:
    """With S3 killed the desk waits with what it was asked, and answers when S3 is back."""
    old, new = (
        first_piece(release(store, ledger, SIGNER, model)) for model in (network(), constant_network(Label.NORMAL))
    )
    edge = peer(CHUNKS)
    with deciding(SETTINGS, broker_settings, store, ledger):
        edge.ask(wants(1, [old]), chunk(old))
        s3_server.kill()
        try:
            edge.say(wants(2, [new]))
            edge.drain(0.3)
            assert edge.heard == []
        finally:
            s3_server.start()
        edge.hear(chunk(new), "the chunk")


def test_a_release_is_withdrawn_though_the_store_is_away(
    s3_server: EmbeddedS3,
    store: ObjectStore,
    ledger: Ledger,
    broker_settings: BrokerSettings,
    peer: Callable[..., Peer],
) -> None:
    """What waits for S3, a request for chunks here, holds up no way back: it needs ledger and broker alone."""
    first = release(store, ledger, SIGNER, network(), datetime.now(UTC))
    reports(ledger, running=first)
    edge = peer(*OWN)
    with deciding(SETTINGS, broker_settings, store, ledger, assigner=director(SETTINGS, store, ledger, SIGNER)):
        edge.hear(told(1), "assignment of version 1")
        second = release(store, ledger, SIGNER, constant_network(Label.NORMAL), datetime.now(UTC))
        edge.hear(told(2), "assignment of version 2")
        reports(ledger, running=second)
        s3_server.kill()
        try:
            edge.say(wants(2, [first_piece(second)]))
            edge.drain(0.3)
            ReleaseDesk(ReleaseSettings(), store, ledger, [SIGNER]).withdraw(2, "bad", None, datetime.now(UTC))
            edge.hear(told(1), "the way back")
        finally:
            s3_server.start()


def test_a_way_back_does_not_wait_behind_the_chunks_that_wait(
    store: ObjectStore, ledger: Ledger, running_broker: EmbeddedBroker, peer: Callable[..., Peer]
) -> None:
    """On a narrow line the window is always full of chunks: what edges shall run goes before them."""
    first = release(store, ledger, SIGNER, network(), datetime.now(UTC))
    second = release(store, ledger, SIGNER, with_ballast(60), datetime.now(UTC))
    reports(ledger, running=first)
    edge, count = peer(*OWN, CHUNKS), second.manifest.files["model.onnx"].chunk_count
    with MqttProxy(running_broker.port) as line:
        line.narrow_to(150_000)
        narrow, slow = quick(line.port, max_inflight=2), SETTINGS.model_copy(update={"poll_s": 0.5})
        with deciding(slow, narrow, store, ledger, assigner=director(slow, store, ledger, SIGNER)):
            edge.hear(told(2), "assignment of version 2")
            edge.say(wants_places(2, "model.onnx", range(count)))
            edge.hear(lambda heard: parse(heard.topic).kind is Kind.MODEL_CHUNK, "the first chunk")
            assert ReleaseDesk(ReleaseSettings(), store, ledger, [SIGNER]).withdraw(2, "bad", None, datetime.now(UTC))
            edge.hear(told(1), "the way back")
    assert sum(parse(heard.topic).kind is Kind.MODEL_CHUNK for heard in edge.heard) < 12


def with_ballast(chunks: int) -> bytes:
    """Return a network that carries so many chunks of values that it does not use."""
    model = onnx.load_from_string(constant_network(Label.NORMAL))
    values = np.random.default_rng(0).integers(0, 256, chunks * MAX_CHUNK_BYTES, np.uint8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "ballast"))
    model.graph.node.append(onnx.helper.make_node("Identity", ["ballast"], ["unused"]))
    return bytes(model.SerializeToString())


def test_a_verdict_is_said_after_the_second_reading_and_after_the_review(
    tmp_path: Path, store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """The edge hears what the second reader sees and whether it disagrees, and then what a person says of it."""
    edge = peer(VERDICTS)
    reader = SecondReader(network_file(tmp_path / "second", network()), "second")
    store_slice(store, ledger, slice_read(1, Label.COVID_19))
    with deciding(SETTINGS, broker_settings, store, ledger, reader):
        verdict = edge.hear_message(Kind.VERDICT)
        assert isinstance(verdict, Verdict)
        assert verdict.second is not None
        assert (verdict.first.label, verdict.second.label) == (Label.NORMAL, Label.COVID_19)
        assert verdict.second.model == reader.ref
        assert verdict.disagreement is not None
        assert verdict.disagreement.kind == "label"
        assert [each.slice.slice_id for each in ledger.open_disagreements()] == ["slice-1"]
        label(ledger.url, "slice-1", Label.PNEUMONIA)
        reviewed = edge.hear_message(Kind.VERDICT, lambda verdict: verdict.review)
        assert reviewed.review.label is Label.PNEUMONIA
        assert reviewed.second == verdict.second
    assert ledger.open_disagreements() == []


def label(ledger_url: str, slice_id: str, word: Label) -> None:
    """Set a label as a reviewer does: by the command, in a process of its own."""
    command = [sys.executable, "-m", "sliceloop", "label", "set", slice_id, word, "--reviewer", "dr-test"]
    environment = {**os.environ, "SLICELOOP_WORKER__LEDGER_URL": ledger_url}
    subprocess.run(command, check=True, env=environment, timeout=60)


def test_slices_that_cannot_be_read_again_hold_up_no_other(
    tmp_path: Path, store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """A slice whose object is missing or damaged is left without a second reading; the next one gets its own."""
    edge, missing = peer(VERDICTS), slice_read(1)
    key = image_key(missing.image_sha256)
    ledger.store_slice(message_id="m-1", site=SITE, edge=EDGE, slice=missing, image_key=key, received_at=NOW)
    store_slice(store, ledger, slice_read(2), b"damaged")
    store_slice(store, ledger, slice_read(3))
    reader = SecondReader(network_file(tmp_path / "second", network()), "second")
    with deciding(SETTINGS, broker_settings, store, ledger, reader):
        assert edge.hear_message(Kind.VERDICT).slice_id == "slice-3"
    assert [stored.slice_id for stored in ledger.slices_without("second")] == ["slice-1", "slice-2"]


def test_a_second_reader_that_answers_nonsense_stops_nothing(
    tmp_path: Path, store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """With a second reader whose answers are not finite no slice gets a second reading, and all else goes on."""
    edge = peer(*OWN)
    reports(ledger)
    store_slice(store, ledger, slice_read(1))
    nonsense = network_file(tmp_path / "second", network((float("nan"),) * 3))
    assigner = director(SETTINGS, store, ledger, SIGNER)
    with deciding(SETTINGS, broker_settings, store, ledger, SecondReader(nonsense, "second"), assigner):
        release(store, ledger, SIGNER, network(), datetime.now(UTC))
        edge.hear(desired(1), "the release")
    assert len(ledger.slices_without("second")) == 1
    assert ledger.dead_letters() == []


def test_a_retraining_is_asked_for_until_a_trainer_is_heard(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """A due request is published, and again while no trainer speaks; what the trainer says is remembered."""
    policy = RetrainSettings(min_new_labels=3, min_patients_per_class=1, silence_s=0.2)
    add_labelled(store, ledger, cohort(8))
    release(store, ledger, SIGNER, network())
    trainer = peer(REQUESTS)
    with deciding(SETTINGS.model_copy(update={"retrain": policy}), broker_settings, store, ledger):
        said = [trainer.hear_message(Kind.RETRAIN_REQUEST) for _ in range(3)]
        (request,) = ledger.requests()
        assert {each.request_id for each in said} == {request.request_id}
        stranger = RetrainStatus(request_id="nobodys", trainer="t", phase=RetrainPhase.TRAINING, at=NOW)
        trainer.say(outbound(stranger, "s-0"))
        trainer.say(outbound(stranger.model_copy(update={"request_id": request.request_id}), "s-1"))
        wait_until(lambda: ledger.request(request.request_id).last_heard_at is not None, "the trainer was heard")
        failed = {"request_id": request.request_id, "outcome": "failed", "at": NOW, "trainer": "t", "reason": "no"}
        trainer.say(outbound(RetrainResult.model_validate(failed), "r-1"))
        wait_until(lambda: ledger.request(request.request_id).state == "failed", "the request is closed")
    assert len(ledger.requests()) == 1
    assert ledger.dead_letters() == []


def test_the_gates_verdict_is_said_where_the_result_was(
    store: ObjectStore, ledger: Ledger, broker_settings: BrokerSettings, peer: Callable[..., Peer]
) -> None:
    """Who heard the candidate hears the gate's verdict on the same topic; the desk takes it for no trainer's result."""
    policy = RetrainSettings(min_new_labels=3, min_patients_per_class=1)
    add_labelled(store, ledger, cohort(8))
    release(store, ledger, SIGNER, network())
    trainer = peer(REQUESTS, cloud_topic(Kind.RETRAIN_RESULT))
    with deciding(SETTINGS.model_copy(update={"retrain": policy}), broker_settings, store, ledger):
        request = trainer.hear_message(Kind.RETRAIN_REQUEST)
        assert isinstance(request, RetrainRequest)
        forged = RESULT.model_copy(
            update={"request_id": request.request_id, "outcome": "failed", "verdict": "refused", "trainer": "forged"}
        )
        trainer.say(outbound(forged, "r-0"))
        trainer.say(outbound(RESULT.model_copy(update={"request_id": request.request_id}), "r-1"))
        verdict = trainer.hear_message(
            Kind.RETRAIN_RESULT, lambda said: said.verdict == "refused" and said.trainer != "forged"
        )
        assert isinstance(verdict, RetrainResult)
        assert (verdict.request_id, verdict.trainer) == (request.request_id, SETTINGS.name)
        assert "the trainer named no model.onnx" in verdict.reason
    assert ledger.request(request.request_id).state == "candidate"


@dataclass
class Ward:
    """An edge beside a desk that has served a chunk of its release, and the desk's ledger."""

    edge: Peer
    ledger: Ledger
    chunk: str


@pytest.fixture(scope="module")
def ward(shared_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """One desk for all odd messages: each also shows that the one before did no harm."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ward') / 'ledger.sqlite'}"
    with EmbeddedBroker() as broker, Ledger(url) as ledger:
        first = first_piece(release(shared_store, ledger, SIGNER, network()))
        settings = quick(broker.port)
        with deciding(SETTINGS, settings, shared_store, ledger), Peer(settings, CHUNKS) as edge:
            edge.ask(wants(1, [first]), chunk(first))
            yield Ward(edge, ledger, first)


def odd(message: Message, **fields: object) -> Outbound:
    """Return a JSON message with these fields, past the checks of our own side."""
    said = message.model_dump(mode="json") | fields
    return replace(outbound(message, "odd-1"), payload=json.dumps(said).encode())


STATUS = RetrainStatus(request_id="r", trainer="t", phase=RetrainPhase.TRAINING, at=NOW)
RESULT = RetrainResult(request_id="r", outcome="candidate", at=NOW, trainer="t")


@pytest.mark.parametrize(
    ("sent", "quarantined"),
    [
        (outbound(STATUS, "s-1"), False),
        (outbound(RESULT, "r-1"), False),
        (odd(STATUS, request_id="../../etc"), True),
        (odd(RESULT, temperature=0), True),
        (odd(ChunkRequest(version=1, pieces=("0" * 64,)), version=str(2**80)), True),
        (odd(ChunkRequest(version=1, pieces=("0" * 64,)), pieces=[]), True),
        (outbound(ChunkRequest(version=1, wanted={"model.onnx": to_bitmap([9_999])}), "g-1"), True),
        (outbound(ChunkRequest(version=1, wanted={"../../etc": to_bitmap([0])}), "g-2"), False),
        (Outbound(cloud_topic(Kind.RETRAIN_RESULT), b"[" * 10_000), True),
    ],
    ids=[
        "status nobody asked for",
        "result nobody asked for",
        "bad id",
        "bad number",
        "huge",
        "empty",
        "beyond",
        "no file",
        "garbage",
    ],
)
def test_odd_messages_change_nothing(ward: Ward, sent: Outbound, quarantined: bool) -> None:
    """What nobody asked for is passed over, what is no message is kept with its reason, and the desk goes on."""
    before = ward.ledger.counts()
    ward.edge.say(sent)
    ward.edge.say(wants(1, [ward.chunk]))
    ward.edge.hear(chunk(ward.chunk), "a chunk afterwards")
    changed = {name: count - before[name] for name, count in ward.ledger.counts().items() if count != before[name]}
    changed.pop("retrain_decisions", None)
    assert changed == ({"dead_letters": 1} if quarantined else {})
