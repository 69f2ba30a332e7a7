"""Bytes of any kind on all of our topics: worker, desk and trainer go on with the next good message."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worker_parts import (
    EDGE,
    NOW,
    SITE,
    Peer,
    message_of,
    network,
    network_file,
    outbound,
    quick,
    receipt_for,
    release,
    slice_read,
)

from broker.embedded import EmbeddedBroker
from broker.messages import Inbound, Outbound
from broker.supervised import SupervisedThread
from cloud_worker.app import run_worker
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, S3Settings
from cloud_worker.settings import WorkerSettings
from cloud_worker.signing_keys import load_signer
from protocol.chunks import describe
from protocol.codec import schema_uri
from protocol.messages import (
    ChunkRequest,
    ModelPhase,
    ModelReported,
    RetrainPhase,
    RetrainRequest,
    RetrainResult,
    RetrainStatus,
)
from protocol.topics import (
    CLOUD_KINDS,
    FLEET_DESIRED,
    FLEET_KEYS,
    Kind,
    chunk_filter,
    cloud_topic,
    edge_topic,
    fleet_chunk,
    parse,
)
from sliceloop.keys import new_keys
from training.layout import cut_points
from training.service import run_trainer
from training.settings import TrainerSettings

MODEL_PIECE = describe(network(), cut_points(network())).file.index[0]
EDGE_KINDS = [kind for kind in Kind if kind not in CLOUD_KINDS | {Kind.MODEL_CHUNK, Kind.MODEL_KEYS}]
TOPICS = [
    *(edge_topic(SITE, EDGE, kind) for kind in EDGE_KINDS),
    edge_topic(SITE, EDGE, Kind.MODEL_CHUNK, "0" * 64),
    *(cloud_topic(kind) for kind in CLOUD_KINDS),
    FLEET_DESIRED,
    FLEET_KEYS,
    fleet_chunk("0" * 64),
    "sliceloop/v1/UPPER CASE/ct-1/slice",
    "sliceloop/v1/cloud/nobody/status",
]
REQUEST = RetrainRequest(
    request_id="bad",
    reason="",
    requested_at=NOW,
    architecture="none",
    base_version=1,
    base_checkpoint_url="http://[[",
    base_checkpoint_sha256="0" * 64,
    dataset_url="http://[[",
    dataset_sha256="0" * 64,
    upload_urls={},
    seed=0,
)
GOOD = [
    outbound(slice_read(7), "m-7"),
    outbound(ModelReported(phase=ModelPhase.NONE, at=NOW), "m-8"),
    outbound(ChunkRequest(version=1, pieces=("0" * 64,), wanted={"model.onnx": "AQ=="}), "m-9"),
    outbound(RetrainStatus(request_id="r", trainer="t", phase=RetrainPhase.LOADING, at=NOW), "m-10"),
    outbound(REQUEST, "m-11"),
]


@st.composite
def cut_and_changed(draw: st.DrawFn) -> Outbound:
    """Draw a message of ours, cut somewhere and with a byte changed, under its own properties."""
    sent = draw(st.sampled_from(GOOD))
    at = draw(st.integers(0, len(sent.payload) - 1))
    payload = bytearray(sent.payload)
    payload[at] = draw(st.integers(0, 255))
    return replace(sent, payload=bytes(payload[: draw(st.integers(at, len(payload)))]))


@st.composite
def dressed(draw: st.DrawFn) -> Outbound:
    """Draw any bytes on any of our topics, under the properties of any kind."""
    topic, kind = draw(st.sampled_from(TOPICS)), draw(st.sampled_from(Kind))
    properties = (
        ("id", draw(st.sampled_from(["m-1", "", "§"]))),
        ("dataschema", schema_uri(kind, draw(st.integers(0, 2)))),
    )
    payload = draw(st.binary(max_size=200) | st.sampled_from([b"{}", b"[]", b"\xa0", b"null", b"[" * 5_000]))
    return Outbound(topic, payload, user_properties=properties if draw(st.booleans()) else ())


@pytest.fixture(scope="module")
def everybody(
    shared_store: ObjectStore, shared_s3_settings: S3Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peer]:
    """A whole worker and a trainer service at work, and a peer that hears what they answer."""
    folder = tmp_path_factory.mktemp("garbage")
    url, stop = f"sqlite:///{folder / 'ledger.sqlite'}", threading.Event()
    keys = new_keys(folder / "keys")
    with Ledger(url) as ledger:
        release(shared_store, ledger, load_signer(keys.signing), network())
    second = network_file(folder / "second", network())
    worker = WorkerSettings(
        ledger_url=url,
        second_reader_dir=second,
        poll_s=0.05,
        store_retry_s=0.05,
        assign_key_file=keys.assign,
        trusted_keys_dir=keys.trusted,
    )
    with ExitStack() as stack:
        broker = quick(stack.enter_context(EmbeddedBroker()).port)
        starts = {
            "worker": lambda: run_worker(worker, shared_s3_settings, broker, stop),
            "trainer": lambda: run_trainer(TrainerSettings(work_dir=folder / "work"), broker, stop),
        }
        for name, start in starts.items():
            stack.enter_context(SupervisedThread(name, start, stop))
        kinds = (Kind.RECEIPT, Kind.VERDICT)
        answers = [*(edge_topic(SITE, EDGE, kind) for kind in kinds), chunk_filter(SITE, EDGE)]
        peer = stack.enter_context(Peer(broker, *answers, cloud_topic(Kind.RETRAIN_RESULT)))
        assert_all_answer(peer, 0)
        yield peer
        assert not stop.is_set(), "a thread failed"


def assert_all_answer(peer: Peer, number: int) -> None:
    """Have a slice stored and read again, a chunk served, and a retraining answered."""
    peer.ask(outbound(slice_read(number), f"s-{number}"), receipt_for(f"s-{number}"))
    peer.hear_message(Kind.VERDICT, lambda verdict: verdict.slice_id == f"slice-{number}")
    wants = outbound(ChunkRequest(version=1, pieces=(MODEL_PIECE,)), f"g-{number}")
    peer.ask(wants, lambda heard: parse(heard.topic).sha256 == MODEL_PIECE)
    asked = REQUEST.model_copy(update={"request_id": f"r-{number}"})

    def answered(heard: Inbound) -> bool:
        message = message_of(heard)
        return isinstance(message, RetrainResult) and message.request_id == f"r-{number}"

    peer.ask(outbound(asked, f"r-{number}"), answered)


@pytest.mark.e2e
def test_no_bytes_on_any_topic_stop_anybody(everybody: Peer) -> None:
    """After any bytes on any of our topics a slice is stored and read again, chunks are served, a trainer answers."""

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cut_and_changed() | dressed())
    def say(sent: Outbound) -> None:
        everybody.say(sent)

    say()
    assert_all_answer(everybody, 1)
