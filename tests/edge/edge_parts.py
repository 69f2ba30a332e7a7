"""What an edge is made of here: slices as files, tiny signed networks, an updater to talk with, a real process."""

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import cbor2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from securesystemslib.signer import CryptoSigner

from broker.settings import BrokerSettings
from edge_agent.capture.frame import CapturedFrame
from edge_agent.download import Way
from edge_agent.kept import KeptSlices
from edge_agent.link import Link
from edge_agent.model_slot import ACTIVE_FILE, ModelSlot, ServedModel
from edge_agent.outbox import Outbox
from edge_agent.probation import Answer, KeptReading, Paired, Role, SilentReader
from edge_agent.reading import EdgeIdentity, OriginalsPolicy, ReadSlice, read_slice
from edge_agent.settings import EdgeSettings
from edge_agent.staging import Trial
from edge_agent.trust import EdgeTrust
from edge_agent.updater import Pace, Proving, Updater, Voice
from edge_agent.watch import Silently
from protocol.assignment import Assignment
from protocol.chunks import Chunk, describe, from_bitmap, read_index, sha256_of
from protocol.labels import LABELS
from protocol.manifest import GOLDEN_FILE, MODEL_FILE, Manifest, manifest_digest
from protocol.messages import ChunkRequest, ModelPhase, ModelReported
from protocol.rotation import KeySet
from protocol.signing import ASSIGNMENT_PAYLOAD_TYPE, TrustedKeys, generate_signer, public_key_json, sign
from training.model.decode import decode_image
from training.model.preprocess import INPUT_PX, PREPROCESSING_VERSION, prepare
from training.model.reader import Calibration, OnnxReader, UnreadableNetworkError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIGNER = generate_signer()
TRUSTED = TrustedKeys((SIGNER.public_key,))
DEADLINE_S = 20.0
CHUNK_TIMEOUT_S = 5.0
PROBATION_SLICES = 3
ASSIGNER = generate_signer()
KEYS = KeySet(TRUSTED, TrustedKeys((ASSIGNER.public_key,)))
IDENTITY = EdgeIdentity("site-a", "edge-1", "boot-1", b"a secret of the site")


# Slices as files.


def body(height: int = 90, width: int = 120, seed: int = 0) -> NDArray[np.uint8]:
    """Draw a bright, grainy ellipse on black, uint8 [height, width]; each seed gives another one."""
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (0.4 * height)) ** 2 + ((x - width / 2) / (0.4 * width)) ** 2 < 1
    grain = np.random.default_rng(seed).integers(120, 220, (height, width))
    return np.where(inside, grain, 0).astype(np.uint8)


def image_file(pixels: NDArray[np.uint8], file_format: str = "PNG") -> bytes:
    """Encode pixels as a PNG or JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def slice_file(seed: int = 0) -> bytes:
    """Return a PNG that shows a slice."""
    return image_file(body(seed=seed))


def dark_slice() -> bytes:
    """Return a slice so dark that a network of fault "dark" or "hang" shows it."""
    return image_file((body() // 3).astype(np.uint8))


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG of some 60 bytes whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (_png_chunk(b"IHDR", header), _png_chunk(b"IDAT", zlib.compress(b"")), _png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def dicom_file(**elements: Any) -> bytes:
    """Return a CT image object that shows a slice, with further elements (PatientID and the like)."""
    stored = (body().astype(np.int16) * 4 + 200).astype(np.int16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["slice"])
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
    dataset.PixelData = stored.tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# Tiny networks and their signed releases.


def network(bias: tuple[float, float, float] = (0.0, 0.5, 1.0), *, fault: str = "") -> bytes:
    """Build a network of 1 kB: logits are the slice's mean grey (0..1) times 1, 2, 3, plus a bias.

    fault: "dark" gives NaN for slices whose mean grey is below 0.2, "hang" never ends on them, "index" fails on any
    slice that is not black, "hunger" takes 2 GB to read one, of which its file says nothing.
    """
    nodes = [
        helper.make_node("Cast", ["slice"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["grey", "white"], ["activation_map"]),
        helper.make_node("GlobalAveragePool", ["activation_map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["classes"]),
    ]
    if fault == "dark":
        nodes += [
            helper.make_node("Sub", ["features", "fifth"], ["above"]),
            helper.make_node("Sqrt", ["above"], ["root"]),
            helper.make_node("Add", ["classes", "root"], ["logits"]),
        ]
    elif fault == "hang":
        nodes += [
            helper.make_node("Sub", ["fifth", "features"], ["below"]),
            helper.make_node("Relu", ["below"], ["darkness"]),
            helper.make_node("Mul", ["darkness", "ages"], ["rounds"]),
            helper.make_node("ReduceMax", ["rounds"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["count"], to=TensorProto.INT64),
            helper.make_node("Loop", ["count", "", "classes"], ["logits"], body=_idle_round()),
        ]
    elif fault == "index":
        nodes += [
            helper.make_node("ReduceMax", ["grey"], ["brightest"], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["bias", "place"], ["beyond"], axis=0),
            helper.make_node("Add", ["classes", "beyond"], ["logits"]),
        ]
    elif fault == "hunger":
        nodes += [
            helper.make_node("Mean", ["features"], ["brightness"]),
            helper.make_node("ReduceMax", ["brightness"], ["some"], keepdims=0),
            helper.make_node("Div", ["some", "some"], ["one"]),
            helper.make_node("Mul", ["one", "many"], ["much"]),
            helper.make_node("Cast", ["much"], ["count"], to=TensorProto.INT64),
            helper.make_node("Unsqueeze", ["count", "first"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["classes", "nothing"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["classes"], ["logits"]))
    constants = {
        "white": np.float32(255),
        "fifth": np.float32(0.2),
        "ages": np.float32(1e15),
        "many": np.float32(5e8),
        "first": np.array([0]),
        "weights": np.array([[1, 2, 3]], np.float32),
        "bias": np.array(bias, np.float32),
    }
    side: list[str | int] = ["n", 1, INPUT_PX, INPUT_PX]
    outputs: dict[str, list[str | int]] = {"logits": ["n", 3], "features": ["n", 1], "activation_map": side}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("slice", TensorProto.UINT8, side)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())


def large(seed: int, head: float = 0.0) -> bytes:
    """Build a network of some 1.2 MB whose weights are noise that no answer depends on."""
    model = onnx.load_from_string(network((0.0, 0.5, 1.0 + head / 100)))
    noise = np.random.default_rng(seed).normal(size=300_000).astype(np.float32)
    model.graph.initializer.insert(0, onnx.numpy_helper.from_array(noise, "ballast"))
    return bytes(model.SerializeToString())


def _idle_round() -> onnx.GraphProto:
    """Return the body of a loop that passes its value on."""
    counted = helper.make_tensor_value_info("round", TensorProto.INT64, [])
    go_on = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go_on", "goes_on")]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("value", "passed")]
    nodes = [
        helper.make_node("Identity", ["go_on"], ["goes_on"]),
        helper.make_node("Identity", ["value"], ["passed"]),
    ]
    return helper.make_graph(nodes, "idle", [counted, go_on[0], value[0]], [go_on[1], value[1]])


def golden_slices(count: int = 3) -> NDArray[np.uint8]:
    """Return different slices uint8 [count, 256, 256]."""
    return np.stack([body(INPUT_PX, INPUT_PX, seed) for seed in range(count)])


def golden(logits: Any, slices: NDArray[np.uint8]) -> bytes:
    """Write golden slices as a release holds them."""
    return cbor2.dumps({"slices": slices.tobytes(), "logits": [[float(x) for x in row] for row in logits]})


@dataclass(frozen=True)
class TinyRelease:
    """A signed release and the files that it names."""

    manifest: Manifest
    envelope: bytes
    files: dict[str, bytes]

    indices: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Of files that are cut where their maker chose; the others are cut evenly."""

    @cached_property
    def pieces(self) -> dict[str, bytes]:
        """Return the pieces of the files' indices by their SHA-256."""
        return {sha256_of(piece): piece for name in self.files for piece in self.index(name)}

    @cached_property
    def chunks(self) -> dict[str, bytes]:
        """Return the chunks by their SHA-256, those of the indices too."""
        return {sha256: data for name in self.files for sha256, data in self._cut(name)} | self.pieces

    def index(self, name: str) -> tuple[bytes, ...]:
        """Return the pieces of a file's index."""
        return self.indices.get(name) or describe(self.files[name]).pieces

    def wanted(self, request: ChunkRequest) -> list[str]:
        """Return what a request asks for, by SHA-256."""
        wanted = list(request.pieces)
        for name, bitmap in request.wanted.items():
            chunks = self._listed(name)
            wanted += [chunks[place].sha256 for place in from_bitmap(bitmap, len(chunks))]
        return wanted

    def _listed(self, name: str) -> tuple[Chunk, ...]:
        if name in self.indices:
            return read_index(self.manifest.files[name], self.indices[name])
        return describe(self.files[name]).chunks

    def _cut(self, name: str) -> Iterator[tuple[str, bytes]]:
        at = 0
        for chunk in self._listed(name):
            yield chunk.sha256, self.files[name][at : at + chunk.size]
            at += chunk.size


def release(
    version: int,
    model: bytes | None = None,
    golden_file: bytes | None = None,
    *,
    signer: CryptoSigner = SIGNER,
    described: Mapping[str, bytes] | None = None,
    further: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> TinyRelease:
    """Sign a release of a tiny network, told apart by its version.

    described: files whose hashes stand in the manifest instead of those of the true ones. further: files besides.
    """
    model = network((0.0, 0.5, version / 100)) if model is None else model
    if golden_file is None:
        slices = golden_slices()
        golden_file = golden(OnnxReader(model, Calibration()).logits(slices), slices)
    files = {MODEL_FILE: model, GOLDEN_FILE: golden_file}
    files |= further or {}
    listed = {name: describe(data).file for name, data in files.items()}
    for name, data in (described or {}).items():
        listed[name] = listed[name].model_copy(update={"sha256": sha256_of(data)})
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": version,
        "architecture": "tiny",
        "created_at": NOW,
        "expires_at": NOW + timedelta(days=30),
        "labels": LABELS,
        "preprocessing_version": PREPROCESSING_VERSION,
        "temperature": 1.0,
        "uncertain_below": 0.0,
        "golden_tolerance": 0.05,
        "files": listed,
    }
    manifest = Manifest.model_validate({**fields, **changes})
    return TinyRelease(manifest, sign(manifest.model_dump_json().encode(), [signer]), files)


def assigned(
    made: TinyRelease, sequence: int = 1, *, signer: CryptoSigner = ASSIGNER, now: datetime = NOW, **changes: Any
) -> bytes:
    """Sign the assignment of a release to edge-1 at site-a, fresh for three days."""
    fields: dict[str, Any] = {
        "site": "site-a",
        "edge": "edge-1",
        "sequence": sequence,
        "version": made.manifest.version,
        "manifest_sha256": manifest_digest(made.envelope),
        "issued_at": now,
        "expires_at": now + timedelta(days=3),
    }
    said = Assignment.model_validate({**fields, **changes})
    return sign(said.model_dump_json().encode(), [signer], ASSIGNMENT_PAYLOAD_TYPE)


def filled_slot(folder: Path, *releases: TinyRelease) -> ModelSlot:
    """Return a slot in which the releases were activated one after another."""
    slot = ModelSlot(folder, [TRUSTED])
    for each in releases or (release(1),):
        indices = {name: b"".join(each.index(name)) for name in each.files}
        slot.store(each.manifest, each.envelope, each.files, indices)
        slot.activate(slot.load(each.manifest.version))
        slot.prove()
    return slot


def die_reading(slot: ModelSlot) -> None:
    """Leave the slot's folder as a process leaves it that ends in the midst of a slice."""
    with slot.trying():
        left = (slot.folder / ACTIVE_FILE).read_bytes()
    (slot.folder / ACTIVE_FILE).write_bytes(left)


def die_loading(slot: ModelSlot, version: int) -> None:
    """Leave the slot's folder as a process leaves it that ends while it loads a new network."""
    left = []
    with patch.object(slot, "load", lambda _: left.append((slot.folder / ACTIVE_FILE).read_bytes())):
        slot.load_new(version)
    (slot.folder / ACTIVE_FILE).write_bytes(left[0])


def trusted_folder(folder: Path) -> Path:
    """Write the public key that these releases are signed with."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tests.pub.json").write_text(public_key_json(SIGNER))
    (folder / "assign").mkdir(exist_ok=True)
    (folder / "assign" / "tests.pub.json").write_text(public_key_json(ASSIGNER))
    return folder


class AtOnce:
    """A silent reading that needs no thread."""

    def __init__(
        self,
        reader: SilentReader,
        role: Role,
        on_pair: Callable[[Paired], None],
        on_fault: Callable[[str], None],
        kept: KeptReading | None,
    ) -> None:
        self._kept = kept
        self._reader, self._role, self._on_pair, self._on_fault = reader, role, on_pair, on_fault

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._on_pair = lambda _: None

    def offer(self, pixels: NDArray[np.uint8], answer: Answer, cost_ms: float) -> bool:
        """Read and compare at once."""
        try:
            silent = self._reader.read(pixels)
        except UnreadableNetworkError as error:
            self._on_fault(f"{type(error).__name__}: {error}")
            return True
        pair = (silent, answer) if self._role is Role.CANDIDATE else (answer, silent)
        self._on_pair(Paired(*pair, cost_ms, cost_ms))
        return True

    def step(self, now_s: float) -> None:
        """Read a kept slice."""
        following = self._kept.next() if self._kept is not None else None
        if self._kept is not None and following is not None:
            name, pixels = following
            self._kept.on_pair(name, Paired(self._reader.read(pixels), self._kept.incumbent.read(pixels), 1.0, 1.0))


class Now:
    """A background that is the foreground."""

    def submit(self, work: Callable[[], ServedModel | None], /) -> "Future[ServedModel | None]":
        """Run it, and return what came of it."""
        done: Future[ServedModel | None] = Future()
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001  as a pool does
            done.set_exception(error)
        return done


def untried(_folder: Path, _manifest: Manifest) -> None:
    """Try no network: the slot looks at the golden slices again when it loads it."""


class TalkingUpdater:
    """An updater with its slot, and everything that it said."""

    def __init__(
        self,
        slot: ModelSlot,
        *,
        keys: KeySet = KEYS,
        shadow_slices: int = 0,
        probation_slices: int = PROBATION_SLICES,
        way: Way | None = None,
        trial: Trial = untried,
        silently: Silently = AtOnce,
        urls: bool = False,
        kept: KeptSlices | None = None,
    ) -> None:
        self.slot = slot
        self.trust = EdgeTrust(slot.folder.parent / "trust", keys, site="site-a", edge="edge-1")
        self.trust.load()
        slot.trusted = self.trust.ever_trusted
        self.reports: list[ModelReported] = []
        self.requests: list[ChunkRequest] = []
        self.shared: list[bool] = []
        self.now_s = 0.0
        self.updater = Updater(
            slot,
            self.trust,
            Pace(shadow_slices, probation_slices, way or Way(CHUNK_TIMEOUT_S), urls=urls),
            Voice(self.reports.append, self.requests.append, self.shared.append),
            Proving(Now(), trial, silently, kept),
        )

    @property
    def phases(self) -> list[ModelPhase]:
        """Return the reported phases, each once where it lasts."""
        said = [report.phase for report in self.reports]
        return [phase for index, phase in enumerate(said) if index == 0 or said[index - 1] is not phase]

    @property
    def last(self) -> ModelReported:
        """Return the newest report."""
        return self.reports[-1]

    def step(self, now_s: float | None = None, now: datetime = NOW) -> None:
        """Do one round."""
        self.now_s = self.now_s if now_s is None else now_s
        self.updater.step(self.now_s, now)

    def assign(self, made: TinyRelease, now: datetime = NOW, **changes: Any) -> None:
        """Assign a release, by the next number."""
        newest = self.trust.assignment.sequence if self.trust.assignment else 0
        self.updater.hear_assignment(assigned(made, newest + 1, now=now, **changes), now)

    def offer(self, made: TinyRelease, now: datetime = NOW) -> None:
        """Assign and offer a release."""
        self.assign(made, now)
        self.updater.offer(made.envelope, now)

    def give(self, sha256: str, data: bytes, *, shared: bool = False) -> None:
        """Let a chunk come."""
        self.updater.chunk(sha256, data, self.now_s, shared=shared)

    def bring(self, made: TinyRelease, now: datetime = NOW) -> None:
        """Assign and offer a release and give every chunk that is asked for, until nothing is."""
        self.offer(made, now)
        self.give_wanted(made)

    def give_wanted(self, made: TinyRelease, now_s: float | None = None) -> None:
        """Step, and give what is asked for, until nothing is."""
        answered = len(self.requests)
        self.step(now_s)
        while len(self.requests) > answered:
            wanted = [sha256 for request in self.requests[answered:] for sha256 in made.wanted(request)]
            answered = len(self.requests)
            for sha256 in wanted:
                self.give(sha256, made.chunks[sha256])
            self.step()

    def read_slices(self, count: int, fault: str = "") -> None:
        """Read slices with the model in use, or tell the updater that it failed on them; and let it judge."""
        for number in range(count):
            version, model = self.slot.running_version, self.slot.current
            if fault or model is None:
                self.updater.slice_was_read(version, fault=fault)
            else:
                self.updater.slice_was_read(version, reading_of(model, number))
            self.step()


def bytes_asked(edge: TalkingUpdater, made: TinyRelease) -> int:
    """Return how many bytes of a release an edge has asked for."""
    return sum(len(made.chunks[sha256]) for request in edge.requests for sha256 in made.wanted(request))


def quiet_link(settings: EdgeSettings, identity: EdgeIdentity, outbox: Outbox, slot: ModelSlot) -> Link:
    """Return a link that is not run: its updater tries and compares in the thread that calls it."""
    trust = EdgeTrust(settings.data_dir / "trust", KEYS, site=settings.site, edge=settings.edge)
    return Link(settings, BrokerSettings(), identity, outbox, slot, trust, Proving(Now(), untried, AtOnce), "tests")


def reading_of(model: ServedModel, seed: int = 0, *, dark: bool = False) -> ReadSlice:
    """Read a slice as the loop does."""
    frame = CapturedFrame(f"{seed}", dark_slice() if dark else slice_file(seed), "image/png", "tests", "a patient", NOW)
    originals = OriginalsPolicy(send=False, send_dicom=False, max_bytes=0)
    return read_slice(frame, model, IDENTITY, 1, originals, lambda data: prepare(decode_image(data)))


# Real processes.


def wait_until(condition: Callable[[], bool], what: Callable[[], str] | str, deadline_s: float = DEADLINE_S) -> None:
    """Wait on a condition that no event announces."""
    never, until_s = threading.Event(), time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until_s, f"not within {deadline_s} s: {what if isinstance(what, str) else what()}"
        never.wait(0.02)


def write_edge_config(folder: Path, *, port: int, camera: str = "", **edge: Any) -> Path:
    """Write the configuration of an edge whose data, slices and keys lie in the folder; None leaves a key out.

    With a camera's address that is the source of slices instead of the folder.
    """
    values = {
        "site": "site-a",
        "edge": "edge-1",
        "data_dir": str(folder / "data"),
        "trusted_keys_dir": str(folder / "trusted"),
        "heartbeat_s": 0.5,
        **edge,
    }
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]
    inbox = folder / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    replay = ["[edge.replay]", f'folder = "{inbox}"', "interval_s = 0.0"]
    webcam = ["[edge.webcam]", f'device = "{camera}"', "stall_timeout_s = 1.0", "reconnect_max_s = 0.5"]
    text = "\n".join(["[edge]", *lines, *(webcam if camera else replay)])
    broker = f"[broker]\nport = {port}\nreconnect_min_s = 0.05\nreconnect_max_s = 0.2\ndrain_timeout_s = 1.0\n"
    config = folder / "edge.toml"
    config.write_text(f"{text}\n{broker}")
    return config


class EdgeProcess:
    """`sliceloop edge` as a real process; leaving ends it at once."""

    def __init__(self, config: Path, env: Mapping[str, str] | None = None) -> None:
        self._log = config.with_suffix(".log")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sliceloop", "edge", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                cwd=config.parent,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_S)

    @property
    def said(self) -> str:
        """Return all that it wrote."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Tell whether it is alive."""
        return self._process.poll() is None

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it wrote the text so many times."""
        wait_until(
            lambda: self.said.count(text) >= times or not self.running, lambda: f"{text!r} {times}x in:\n{self.said}"
        )
        assert self.said.count(text) >= times, self.said

    def exit_code(self) -> int:
        """Wait for its end."""
        return self._process.wait(DEADLINE_S)

    def terminate(self) -> int:
        """Ask it to stop, and wait for its end."""
        self._process.send_signal(signal.SIGTERM)
        return self.exit_code()


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | int | float) else f'"{value}"'


def named(key: str) -> str:
    """Return the file's name out of a frame's key, which holds its size and time as well."""
    return key.rsplit(" (", 1)[0]
