"""An edge that is cut off: it reads on, keeps what it has to say within its bound, and goes on where it was."""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from real_loop import DEADLINE_S, Loop, Materials

from broker.embedded import EmbeddedBroker
from broker.messages import Outbound
from broker.session import Session
from broker.settings import BrokerSettings
from cloud_worker.release import Releasable, Release, make_release
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.signing_keys import load_signer
from edge_agent.outbox import Outbox, OutboxMessage
from edge_agent.publisher import Publisher
from protocol.assignment import Assignment
from protocol.chunks import Chunk, from_bitmap, read_index, sha256_of
from protocol.codec import decode
from protocol.manifest import manifest_digest
from protocol.messages import ChunkRequest, ModelPhase, ModelReported
from protocol.signing import ASSIGNMENT_PAYLOAD_TYPE, sign
from protocol.topics import Kind, edge_topic, every_edge, parse
from sliceloop.demo.stage import EDGES, SITE

CUT_OFF_SLICES = 30
"""Slices that each edge is given while the broker is silent: for longer than a keepalive and a receipt may take."""
MAX_ROWS = 12


@pytest.mark.e2e
def test_a_silent_broker_costs_nothing(loop: Loop) -> None:
    """The broker stops for some seconds, as behind a pulled cable: the edges read on, and all arrives afterwards."""
    loop.processes.add_env({"SLICELOOP_BROKER__KEEPALIVE_S": "2", "SLICELOOP_BROKER__CONNECT_TIMEOUT_S": "2"})
    loop.start_all()
    loop.signal("broker", signal.SIGSTOP)
    loop.wait_for_given(CUT_OFF_SLICES)
    loop.wait("the edges have read all", lambda: all(loop.slices_read(edge) >= CUT_OFF_SLICES for edge in EDGES))
    assert all(loop.outbox_depth(edge) >= CUT_OFF_SLICES for edge in EDGES)
    loop.signal("broker", signal.SIGCONT)
    loop.wait_for_new_slices()
    loop.wait_until_all_is_stored()
    loop.assert_nothing_is_lost_or_doubled()
    print(loop.figures())


@pytest.mark.e2e
def test_a_full_outbox_waits_for_receipts(loop: Loop) -> None:
    """Full, the outbox refuses new slices and the edge says so; the source keeps them, and they go out later."""
    loop.processes.add_env({"SLICELOOP_EDGE__MAX_OUTBOX_ROWS": str(MAX_ROWS)})
    loop.start_all()
    loop.kill("broker")
    loop.wait("both outboxes are full", lambda: all("outbox full" in loop.log(edge) for edge in EDGES))
    loop.wait_for_given(MAX_ROWS)
    for edge in EDGES:
        assert loop.outbox_depth(edge) <= MAX_ROWS
        assert loop.slices_read(edge) < loop.given(edge)
    loop.restart("broker")
    loop.wait_until_all_is_stored()
    loop.assert_nothing_is_lost_or_doubled()


@pytest.mark.e2e
def test_a_restarted_edge_goes_on_with_its_download(loop: Loop, materials: Materials) -> None:
    """Killed in the middle of a model, the edge asks for the missing chunks alone."""
    keys = loop.folder / "keys"
    release = signed(materials, keys / "signing.pem")
    loop.start_broker()
    with Session(loop.broker, "cloud", subscriptions=HEARD, clean_start=True) as session:
        loop.wait("the cloud is connected", lambda: session.connected)
        session.publish(Outbound(edge_topic(SITE, "edge-1", Kind.MODEL_DESIRED), release.envelope, retain=True))
        said = assigned(release, keys / "assign.pem")
        session.publish(Outbound(edge_topic(SITE, "edge-1", Kind.MODEL_ASSIGNED), said, retain=True))
        cloud = Cloud(session, release)
        loop.start("edge-1")
        half = len(cloud.chunks) // 2
        loop.wait("half of the chunks", lambda: cloud.serve(half) == half and loop.chunks_kept("edge-1") == half)
        loop.kill("edge-1")
        before, killed_at = set(cloud.served), datetime.now(UTC)
        cloud.serve(half)
        loop.restart("edge-1")
        loop.wait(
            "the model runs", lambda: bool(cloud.serve(len(cloud.chunks))) and cloud.phase is ModelPhase.PROBATION
        )
    assert cloud.asked_since(killed_at) == set(cloud.chunks) - before


def test_without_receipts_it_publishes_less_and_less_often(tmp_path: Path) -> None:
    """A worker that is slow or away is not drowned in copies: the wait doubles up to four receipt timeouts."""
    with EmbeddedBroker() as broker, Outbox(tmp_path / "outbox.sqlite", max_rows=9, max_bytes=999) as outbox:
        outbox.add("a.png", "a", 1, [OutboxMessage("a", Kind.SLICE, b"a", "application/cbor", ())])
        with Session(BrokerSettings(port=broker.port), "edge") as session:
            assert session.wait_connected(DEADLINE_S)
            publisher = Publisher(outbox, session, site=SITE, edge="edge-1", window=5, receipt_timeout_s=10)
            sent = [now for now in range(260) if publisher.step(now)]
            waits = [later - earlier for earlier, later in pairwise(sent)]
            assert all(
                usual <= wait <= 1.25 * usual + 1 for usual, wait in zip([10, 20, 40, 40, 40], waits[:5], strict=True)
            )
            publisher.receipt(["a"])
            assert publisher.step(1_000) == 0


HEARD = [every_edge(Kind.MODEL_GET), every_edge(Kind.MODEL_REPORTED)]


class Cloud:
    """As much of a worker as hands out chunks, but no more of them than it is told."""

    def __init__(self, session: Session, release: Release) -> None:
        self._session = session
        files = release.manifest.files
        self._listed = {name: read_index(files[name], pieces) for name, pieces in release.indices.items()}
        self.chunks = {sha256_of(piece): piece for pieces in release.indices.values() for piece in pieces}
        for name, chunks in self._listed.items():
            self.chunks |= dict(parts(release.files[name], chunks))
        self.served: set[str] = set()
        self.phase = ModelPhase.NONE
        self._asked: list[tuple[datetime, str]] = []

    def serve(self, limit: int) -> int:
        """Answer what came, up to so many different chunks in all; return how many were served."""
        while (inbound := self._session.receive(0)) is not None:
            event = decode(parse(inbound.topic).kind, inbound.payload, inbound.user_properties)
            if isinstance(event.message, ModelReported):
                self.phase = event.message.phase
            elif isinstance(event.message, ChunkRequest):
                asked_at = datetime.fromisoformat(dict(inbound.user_properties)["time"])
                wanted = self._wanted(event.message)
                self._asked += [(asked_at, sha256) for sha256 in wanted]
                self._hand_out(wanted, limit)
            self._session.ack(inbound)
        return len(self.served)

    def asked_since(self, since: datetime) -> set[str]:
        """Return the chunks that the edge asked for since then."""
        return {sha256 for at, sha256 in self._asked if at > since}

    def _wanted(self, request: ChunkRequest) -> list[str]:
        wanted = list(request.pieces)
        for name, bitmap in request.wanted.items():
            listed = self._listed[name]
            wanted += [listed[place].sha256 for place in from_bitmap(bitmap, len(listed))]
        return wanted

    def _hand_out(self, wanted: list[str], limit: int) -> None:
        for sha256 in wanted:
            if len(self.served | {sha256}) <= limit:
                self.served.add(sha256)
                topic = edge_topic(SITE, "edge-1", Kind.MODEL_CHUNK, sha256)
                self._session.publish(Outbound(topic, self.chunks[sha256]))


def parts(data: bytes, chunks: tuple[Chunk, ...]) -> Iterator[tuple[str, bytes]]:
    """Cut a file as its index says."""
    at = 0
    for chunk in chunks:
        yield chunk.sha256, data[at : at + chunk.size]
        at += chunk.size


def assigned(release: Release, key: Path) -> bytes:
    """Assign a release to the first edge."""
    now = datetime.now(UTC)
    assignment = Assignment(
        site=SITE,
        edge="edge-1",
        sequence=1,
        version=release.manifest.version,
        manifest_sha256=manifest_digest(release.envelope),
        issued_at=now,
        expires_at=now + timedelta(days=1),
    )
    return sign(assignment.model_dump_json().encode(), [load_signer(key)], ASSIGNMENT_PAYLOAD_TYPE)


def signed(materials: Materials, key: Path) -> Release:
    """Make a release of the tiny network."""
    network = Releasable(
        model=materials.bundle.model,
        architecture=materials.bundle.report.architecture,
        temperature=1.0,
        training_data_sha256=None,
        split_sha256=None,
        metrics={},
    )
    return make_release(network, 1, ReleaseSettings(), [load_signer(key)], datetime.now(UTC))
