"""Small real things for the worker's tests: slices told apart by their grey, tiny networks, a peer on the broker."""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper
from securesystemslib.signer import CryptoSigner

from broker.errors import BrokerError
from broker.messages import Inbound, Outbound
from broker.session import Session
from broker.settings import BrokerSettings
from broker.supervised import SupervisedThread
from cloud_worker.assigner import Assigner
from cloud_worker.desk import Desk
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, image_key
from cloud_worker.receiver import SUBSCRIPTIONS, Receiver
from cloud_worker.release import Releasable, Release, make_release
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.releasing import store_release
from cloud_worker.second_reader import SecondReader
from cloud_worker.settings import WorkerSettings
from protocol.chunks import sha256_of
from protocol.codec import EventContext, decode, encode
from protocol.errors import ProtocolError
from protocol.labels import LABELS, Label
from protocol.manifest import EdgeFacts, Manifest, trusted_manifest
from protocol.messages import (
    KIND_OF,
    Message,
    ModelPhase,
    ModelRef,
    ModelReported,
    NetworkReading,
    Receipt,
    SliceRead,
)
from protocol.rotation import KeySet
from protocol.signing import TrustedKeys, generate_signer
from protocol.topics import CLOUD_KINDS, Kind, cloud_topic, edge_topic, parse
from training.bundle import Bundle, Report, write_bundle
from training.evaluate import evaluate
from training.model.preprocess import INPUT_PX, PREPROCESSING_VERSION

DEADLINE_S = 60.0
ARCHITECTURE = "squeezenet1_1_bn"
CHECKPOINT = b"weights to go on from"
RETRY_S = 0.05
SITE, EDGE = "north", "ct-1"
ASSIGN = generate_signer()
"""The worker's key."""
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
GREYS = dict(zip(LABELS, (40, 128, 216), strict=True))
"""The grey level that shows a class in these tests' slices."""


def later(seconds: float) -> datetime:
    """Return the time so many seconds after `NOW`."""
    return NOW + timedelta(seconds=seconds)


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait on a condition that no event announces."""
    never, until_s = threading.Event(), time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until_s, f"not within {deadline_s} s: {what}"
        never.wait(0.02)


def png(grey: int, mark: int = 0, side_px: int = INPUT_PX, suffix: str = ".png") -> bytes:
    """Return a grey slice; the mark makes its bytes its own."""
    pixels = np.full((side_px, side_px), grey, np.uint8)
    pixels[0, :16] = [255 * (mark >> bit & 1) for bit in range(16)]
    return bytes(cv2.imencode(suffix, pixels)[1])


def reading(label: Label = Label.NORMAL, confidence: float = 0.9, *, uncertain: bool = False) -> NetworkReading:
    """Say what a network sees."""
    rest = (1 - confidence) / 2
    return NetworkReading(
        label=label,
        uncertain=uncertain,
        probabilities={each: confidence if each == label else rest for each in LABELS},
        model=ModelRef(name="tiny", version=1, sha256="a" * 64),
        latency_ms=3,
    )


def slice_read(number: int, label: Label = Label.NORMAL, patient: str = "p", **changes: Any) -> SliceRead:
    """Say a slice whose grey shows its class, read by the edge as Normal."""
    image = changes.pop("image", png(GREYS[label], number))
    fields: dict[str, Any] = {
        "slice_id": f"slice-{number}",
        "boot_id": "boot-1",
        "sequence": number + 1,
        "captured_at": NOW,
        "source": "phantom-a",
        "patient_key": patient_key(patient),
        "preprocessing_version": PREPROCESSING_VERSION,
        "frame_sha256": "b" * 64,
        "image": image,
        "image_sha256": sha256_of(image),
        "reading": reading(),
    }
    return SliceRead.model_validate({**fields, **changes})


def patient_key(name: str) -> str:
    """Return a key as an edge makes it of a patient's id."""
    return sha256_of(name.encode())


def network(weights: Sequence[float] = (), bias: Sequence[float] = (), reshape_to: int = 0) -> bytes:
    """Build a network whose logits are weights times the mean grey (0..1), plus the bias; by default it is right.

    reshape_to: make it fail on every slice, by folding its logits into a shape that they do not fill.
    """
    centres = np.array([GREYS[label] / 255 for label in LABELS], np.float32)
    constants = {
        "white": np.array(255, np.float32),
        "weights": np.array(weights or 200 * centres, np.float32)[None],
        "bias": np.array(bias or -100 * centres**2, np.float32),
        "shape": np.array([reshape_to or -1, len(LABELS)], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["slice"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["grey", "white"], ["activation_map"]),
        helper.make_node("GlobalAveragePool", ["activation_map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["classes"]),
        helper.make_node("Reshape", ["classes", "shape"], ["logits"]),
    ]
    outputs = {"logits": ["n", 3], "features": ["n", 1], "activation_map": ["n", 1, INPUT_PX, INPUT_PX]}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("slice", TensorProto.UINT8, ["n", 1, INPUT_PX, INPUT_PX])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def constant_network(label: Label) -> bytes:
    """Build a network that names one class for every slice."""
    return network((1e-6, 1e-6, 1e-6), [5.0 if each == label else 0.0 for each in LABELS])


def quick(port: int, **changes: Any) -> BrokerSettings:
    """Return settings of a session that comes back at once."""
    return BrokerSettings.model_validate(
        {"port": port, "reconnect_min_s": 0.05, "reconnect_max_s": 0.2, "connect_timeout_s": 2.0, **changes}
    )


def outbound(message: Message, message_id: str, topic: str = "") -> Outbound:
    """Return a message of the edge north/ct-1, or of the cloud, as it is published."""
    kind = KIND_OF[type(message)]
    encoded = encode(message, EventContext(message_id, "/test", NOW))
    where = cloud_topic(kind) if kind in CLOUD_KINDS else edge_topic(SITE, EDGE, kind)
    return Outbound(topic or where, encoded.payload, user_properties=encoded.user_properties)


class Peer:
    """A real session that publishes what it is told and keeps what it hears."""

    def __init__(self, broker: BrokerSettings, *filters: str) -> None:
        self._session = Session(broker, f"peer-{uuid.uuid4().hex[:8]}", subscriptions=filters, clean_start=True)
        self.heard: list[Inbound] = []

    def __enter__(self) -> Self:
        self._session.__enter__()
        assert self._session.wait_connected(DEADLINE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, traceback)

    def say(self, sent: Outbound) -> None:
        """Publish until the broker has it."""
        until_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < until_s:
            assert self._session.wait_connected(DEADLINE_S)
            try:
                if self._session.publish(sent).wait(1):
                    return
            except BrokerError:
                continue
        raise AssertionError(f"not published in time: {sent.topic}")

    def hear(self, until: Callable[[Inbound], bool], what: str, deadline_s: float = DEADLINE_S) -> Inbound:
        """Receive until such a message is among what was heard, and take it out."""
        until_s = time.monotonic() + deadline_s
        while True:
            for inbound in self.heard:
                if until(inbound):
                    self.heard.remove(inbound)
                    return inbound
            assert time.monotonic() < until_s, f"not heard within {deadline_s} s: {what}"
            self.drain(0.1)

    def ask(self, sent: Outbound, until: Callable[[Inbound], bool]) -> Inbound:
        """Say it once a second until it is answered, as who asks a desk that is not listening yet; take one answer."""
        until_s = time.monotonic() + DEADLINE_S
        while not any(until(inbound) for inbound in self.heard):
            assert time.monotonic() < until_s, f"no answer within {DEADLINE_S} s: {sent.topic}"
            self.say(sent)
            self.drain(1)
        return self.hear(until, sent.topic)

    def hear_message(self, kind: Kind, until: Callable[[Any], bool] = bool, deadline_s: float = DEADLINE_S) -> Any:
        """Receive until a message of this kind is so, and return it."""

        def wanted(inbound: Inbound) -> bool:
            message = message_of(inbound)
            return parse(inbound.topic).kind is kind and message is not None and bool(until(message))

        return message_of(self.hear(wanted, kind, deadline_s))

    def drain(self, timeout_s: float = 0) -> None:
        """Wait for a message until the timeout, and take in all that have arrived."""
        inbound = self._session.receive(timeout_s)
        while inbound is not None:
            self._session.ack(inbound)
            self.heard.append(inbound)
            inbound = self._session.receive(0)


def message_of(inbound: Inbound) -> Any:
    """Return the message that arrived; None for bytes that are none."""
    try:
        return decode(parse(inbound.topic).kind, inbound.payload, inbound.user_properties).message
    except ProtocolError:
        return None


def receipt_for(message_id: str) -> Callable[[Inbound], bool]:
    """Tell whether what arrived is a receipt that names this message."""

    def is_it(heard: Inbound) -> bool:
        message = message_of(heard)
        return isinstance(message, Receipt) and message_id in message.message_ids

    return is_it


def network_file(folder: Path, model: bytes) -> Path:
    """Write a folder as `sliceloop train` does, around this network."""
    labels = np.arange(len(LABELS))
    figures = evaluate(np.eye(len(LABELS), dtype=np.float32), labels, [str(n) for n in labels], ["test"] * len(labels))
    report = Report(
        architecture=ARCHITECTURE,
        input_px=INPUT_PX,
        temperature=1.0,
        training_data_sha256="d" * 64,
        split_sha256="e" * 64,
        seed=0,
        n_train_slices=3,
        n_train_patients=3,
        train_sources=("test",),
        validation=figures,
        seconds=1,
    )
    write_bundle(folder, Bundle(model, CHECKPOINT, report))
    return folder


def release(store: ObjectStore, ledger: Ledger, signer: CryptoSigner, model: bytes, at: datetime = NOW) -> Release:
    """Enter a network as the next release."""
    network = Releasable(model, ARCHITECTURE, 1.0, None, None, {})
    made = make_release(network, ledger.next_version(), ReleaseSettings(), [signer], at)
    store_release(store, ledger, made, CHECKPOINT, {"by hand": "test"})
    return made


def trusted_by(signer: CryptoSigner, envelope: bytes) -> Manifest:
    """Return the manifest as an edge that trusts this signer, and runs nothing yet, verifies it."""
    return trusted_manifest(envelope, TrustedKeys((signer.public_key,)), EdgeFacts(PREPROCESSING_VERSION), now=NOW)


def director(
    settings: WorkerSettings, store: ObjectStore, ledger: Ledger, *signers: CryptoSigner, threshold: int = 1
) -> Assigner:
    """Return what assigns releases that these keys have signed."""
    release_keys = TrustedKeys(tuple(signer.public_key for signer in signers), threshold)
    return Assigner(settings, store, ledger, ASSIGN, KeySet(release_keys, TrustedKeys((ASSIGN.public_key,))))


def reports(ledger: Ledger, edge: str = EDGE, at: datetime = NOW, running: Release | None = None, **said: Any) -> None:
    """Enter what an edge says of its model."""
    model = running.manifest.model_ref if running else None
    phase = said.pop("phase", ModelPhase.ACTIVE if running else ModelPhase.NONE)
    report = ModelReported(phase=phase, at=at, running=model, **said)
    ledger.record_reported(SITE, edge, report.model_dump(mode="json"), at)


@contextmanager
def deciding(
    settings: WorkerSettings,
    broker: BrokerSettings,
    store: ObjectStore,
    ledger: Ledger,
    reader: SecondReader | None = None,
    assigner: Assigner | None = None,
) -> Iterator[None]:
    """Run a desk."""
    stop = threading.Event()
    desk = Desk(settings, broker, store, ledger, reader, assigner)
    with SupervisedThread("desk", lambda: desk.run(stop), stop):
        yield


@contextmanager
def receiving(store: ObjectStore, ledger: Ledger, broker: BrokerSettings) -> Iterator[None]:
    """Run a receiver on a session of its own."""
    stop = threading.Event()
    with Session(broker, "worker-test", subscriptions=SUBSCRIPTIONS, clean_start=True) as session:
        assert session.wait_connected(DEADLINE_S)
        settings = WorkerSettings(name="worker-test", store_retry_s=RETRY_S)
        receiver = Receiver(store, ledger, session, settings)
        with SupervisedThread("receiver", lambda: receiver.run(stop), stop):
            yield


@dataclass(frozen=True)
class Labelled:
    """A patient with a class, for `add_labelled`."""

    patient: str
    label: Label


def cohort(patients_each: int, name: str = "p") -> list[Labelled]:
    """Return so many patients of every class."""
    return [Labelled(f"{name}-{label}-{number}", label) for number in range(patients_each) for label in LABELS]


def add_labelled(store: ObjectStore, ledger: Ledger, patients: Iterable[Labelled], first: int = 0) -> None:
    """Enter a slice of each patient, with its object and its label, as receiver and reviewer would."""
    for number, each in enumerate(patients, first):
        said = slice_read(number, each.label, each.patient)
        store.put(image_key(said.image_sha256), said.image, "image/png")
        ledger.store_slice(
            message_id=f"m-{number}",
            site=SITE,
            edge=EDGE,
            slice=said,
            image_key=image_key(said.image_sha256),
            received_at=NOW,
        )
        ledger.set_label(said.slice_id, each.label, "dr-test", "test", NOW)
