"""As much of a cloud as an edge needs for updates: releases by own keys, assignments, chunks, receipts, and an ear."""

import threading
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from securesystemslib.signer import CryptoSigner

from broker.errors import BrokerError
from broker.messages import Inbound, Outbound
from broker.session import Session
from broker.settings import BrokerSettings
from cloud_worker.release import Releasable, Release, make_release
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.signing_keys import load_signer
from protocol.assignment import Assignment
from protocol.chunks import ENTRIES_A_PIECE, ENTRY_BYTES, from_bitmap, read_index, sha256_of
from protocol.codec import EventContext, decode, encode
from protocol.errors import ProtocolError
from protocol.manifest import manifest_digest
from protocol.messages import ChunkRequest, ModelReported, NetworkReading, Receipt, SliceRead
from protocol.signing import ASSIGNMENT_PAYLOAD_TYPE, sign
from protocol.topics import Address, Kind, edge_topic, every_edge, fleet_chunk, parse
from sliceloop.keys import new_keys

log = structlog.get_logger()

HEAR_S = 0.05
VALID = timedelta(days=1)
MAX_READINGS = 200_000


@dataclass(frozen=True)
class Heard:
    """One reading as the edge sent it: when it was made, by which network, and of which slice (PNG)."""

    at: datetime
    sequence: int
    image: bytes
    reading: NetworkReading


class BenchCloud:
    """One thread from `with` on; what it heard is in `readings` and `reports`."""

    def __init__(self, broker: BrokerSettings, folder: Path) -> None:
        """Make keys; `trusted` is the folder for the edges."""
        keys = new_keys(folder)
        self.trusted = keys.trusted
        self._release_key: CryptoSigner = load_signer(keys.signing)
        self._assign_key: CryptoSigner = load_signer(keys.assign)
        self._chunks: dict[int, dict[str, bytes]] = {}
        self._order: dict[int, dict[str, tuple[str, ...]]] = {}
        self._sequence = 0
        self._waiting: deque[Outbound] = deque()
        self._stop = threading.Event()
        self.readings: deque[Heard] = deque(maxlen=MAX_READINGS)
        self.reports: deque[tuple[datetime, ModelReported]] = deque(maxlen=MAX_READINGS)
        self.chunk_bytes = 0
        kinds = (Kind.SLICE, Kind.FRAME, Kind.MODEL_GET, Kind.MODEL_REPORTED)
        self._session = Session(broker, "bench-cloud", subscriptions=[every_edge(k) for k in kinds], clean_start=True)
        self._thread = threading.Thread(target=self._run, name="bench-cloud", daemon=True)

    def __enter__(self) -> Self:
        """Connect and listen."""
        self._session.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()
        self._session.__exit__(kind, error, trace)

    def release(self, model: bytes, version: int, bases: Sequence[bytes] = ()) -> Release:
        """Sign a release, and have its chunks at hand."""
        network = Releasable(model, "bench", 1.0, None, None, {})
        made = make_release(network, version, ReleaseSettings(), [self._release_key], datetime.now(UTC), bases)
        self._shelve(made)
        return made

    def assign(self, made: Release, site: str, edge: str) -> None:
        """Tell an edge to run a release."""
        self._sequence += 1
        now = datetime.now(UTC)
        assignment = Assignment(
            site=site,
            edge=edge,
            sequence=self._sequence,
            version=made.manifest.version,
            manifest_sha256=manifest_digest(made.envelope),
            issued_at=now,
            expires_at=now + VALID,
        )
        signed = sign(assignment.model_dump_json().encode(), [self._assign_key], ASSIGNMENT_PAYLOAD_TYPE)
        self._say(Outbound(edge_topic(site, edge, Kind.MODEL_DESIRED), made.envelope, retain=True))
        self._say(Outbound(edge_topic(site, edge, Kind.MODEL_ASSIGNED), signed, retain=True))

    def forget(self, version: int) -> None:
        """Let go of a release that nobody fetches any more."""
        self._chunks.pop(version, None)
        self._order.pop(version, None)

    def _shelve(self, made: Release) -> None:
        chunks: dict[str, bytes] = {}
        order: dict[str, tuple[str, ...]] = {}
        for name, data in made.files.items():
            pieces = made.indices[name]
            chunks |= {sha256_of(piece): piece for piece in pieces}
            listed, at = read_index(made.manifest.files[name], pieces), 0
            for chunk in listed:
                chunks[chunk.sha256], at = data[at : at + chunk.size], at + chunk.size
            order[name] = tuple(chunk.sha256 for chunk in listed)
        assert all(len(piece) <= ENTRIES_A_PIECE * ENTRY_BYTES for pieces in made.indices.values() for piece in pieces)
        self._chunks[made.manifest.version], self._order[made.manifest.version] = chunks, order

    # The thread.

    def _run(self) -> None:
        while not self._stop.is_set():
            inbound = self._session.receive(HEAR_S)
            receipts: dict[tuple[str, str], list[str]] = {}
            while inbound is not None:
                try:
                    self._hear(inbound, receipts)
                except ProtocolError as error:
                    log.warning("not understood", topic=inbound.topic, reason=str(error))
                self._session.ack(inbound)
                inbound = self._session.receive(0)
            for (site, edge), ids in receipts.items():
                self._receipt(site, edge, ids)
            self._publish()

    def _hear(self, inbound: Inbound, receipts: dict[tuple[str, str], list[str]]) -> None:
        address, properties = parse(inbound.topic), dict(inbound.user_properties)
        if address.kind in (Kind.SLICE, Kind.FRAME):
            receipts.setdefault((address.site, address.edge), []).append(properties["id"])
        if address.kind is Kind.FRAME:
            return
        message = decode(address.kind, inbound.payload, inbound.user_properties).message
        at = datetime.fromisoformat(properties["time"])
        if isinstance(message, SliceRead):
            self.readings.append(Heard(at, message.sequence, message.image, message.reading))
        elif isinstance(message, ModelReported):
            self.reports.append((at, message))
        elif isinstance(message, ChunkRequest):
            self._serve(address, message)

    def _serve(self, address: Address, wanted: ChunkRequest) -> None:
        chunks, order = self._chunks.get(wanted.version, {}), self._order.get(wanted.version, {})
        asked = [sha256 for sha256 in wanted.pieces if sha256 in chunks]
        for name, bitmap in wanted.wanted.items():
            asked += [order[name][place] for place in from_bitmap(bitmap, len(order[name]))]
        for sha256 in asked:
            own = edge_topic(address.site, address.edge, Kind.MODEL_CHUNK, sha256)
            self._waiting.append(Outbound(fleet_chunk(sha256) if wanted.shared else own, chunks[sha256]))
            self.chunk_bytes += len(chunks[sha256])

    def _receipt(self, site: str, edge: str, ids: list[str]) -> None:
        context = EventContext(id=uuid.uuid4().hex, source="/bench", time=datetime.now(UTC))
        for at in range(0, len(ids), 100):
            encoded = encode(Receipt(message_ids=tuple(ids[at : at + 100])), context)
            topic = edge_topic(site, edge, Kind.RECEIPT)
            self._waiting.append(Outbound(topic, encoded.payload, user_properties=encoded.user_properties))

    def _publish(self) -> None:
        while self._waiting:
            try:
                self._session.publish(self._waiting[0])
            except BrokerError:
                return  # the window is full, or the line is down: the next round
            self._waiting.popleft()

    def _say(self, outbound: Outbound) -> None:
        self._waiting.append(outbound)
