"""The attack table: whatever comes over the model-update topics is refused by its own name, and the incumbent reads on.

What a network may say on ONNX's own terms has a table beside this one (test_structure), as has a trial (test_trial).
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from edge_parts import (
    ASSIGNER,
    CHUNK_TIMEOUT_S,
    DEADLINE_S,
    KEYS,
    NOW,
    SIGNER,
    TalkingUpdater,
    TinyRelease,
    assigned,
    filled_slot,
    golden,
    golden_slices,
    network,
    reading_of,
    release,
    wait_until,
)
from onnx import TensorProto, helper, numpy_helper
from structlog.testing import capture_logs

from edge_agent import structure, trial
from edge_agent.desired import MISMATCH_S
from edge_agent.download import ENDLESS
from edge_agent.model_slot import ModelSlot
from edge_agent.trial import TrialBounds, try_model
from edge_agent.watch import in_a_thread
from protocol import errors
from protocol.chunks import MAX_MODEL_BYTES
from protocol.labels import Label
from protocol.manifest import MODEL_FILE, Manifest
from protocol.messages import MAX_CHUNK_BYTES, ModelPhase
from protocol.rotation import KeyRotation, KeySet, bundle, sign_rotation
from protocol.signing import (
    ASSIGNMENT_PAYLOAD_TYPE,
    TrustedKeys,
    countersign,
    generate_signer,
    sign,
)
from training.model.preprocess import INPUT_PX
from training.model.reader import Calibration, OnnxReader, UnreadableNetworkError

SECOND_SIGNER, STRANGER = generate_signer(), generate_signer()
TWO_OF_TWO = KeySet(TrustedKeys((SIGNER.public_key, SECOND_SIGNER.public_key), 2), KEYS.assign)
OLD, CURRENT, NEXT, OTHER, GOOD = 4, 5, 6, 7, 8
MAX_BYTES = 1_000_000
WITHIN = 50
"""Slices in which a model that behaves badly is to be found."""


@dataclass(frozen=True)
class Attack:
    """What is done to an edge that runs the current release, and the error by whose name it is refused."""

    name: str
    error: type[Exception]
    on: Callable[[TalkingUpdater], None]
    keys: KeySet = KEYS
    """That this edge trusts."""


def real_trial(folder: Path, manifest: Manifest) -> None:
    """Try a network as the agent does, in a process of its own."""
    bounds = TrialBounds(
        manifest.golden_tolerance, manifest.trial.latency_ms, manifest.trial.memory_mb, timeout_s=DEADLINE_S
    )
    calibration = Calibration(manifest.labels, manifest.temperature, manifest.uncertain_below)
    try_model(folder, bounds, calibration)


# Envelopes.


def offered(made: Callable[[], TinyRelease]) -> Callable[[TalkingUpdater], None]:
    """Bring a release that is assigned, as far as it gets."""
    return lambda edge: edge.bring(made())


def with_payload(change: Callable[[dict[str, object]], None]) -> Callable[[TalkingUpdater], None]:
    """Bring a manifest as no code of ours would make it, signed by a release key: a stolen or careless one."""

    def on(edge: TalkingUpdater) -> None:
        fields = json.loads(release(NEXT).manifest.model_dump_json())
        change(fields)
        envelope = sign(json.dumps(fields).encode(), [SIGNER])
        made = TinyRelease(release(NEXT).manifest, envelope, {})
        edge.assign(made)
        edge.updater.offer(envelope, NOW)
        edge.step()

    return on


def rename_model(fields: dict[str, object], name: str) -> None:
    files = dict(fields["files"])  # type: ignore[call-overload]
    fields["files"] = files | {name: files[MODEL_FILE]}


def claim(fields: dict[str, object], size: int) -> None:
    fields["files"][MODEL_FILE]["size"] = size  # type: ignore[index]


def tampered(edge: TalkingUpdater) -> None:
    """Change one number in a signed manifest."""
    second = release(NEXT)
    fields = json.loads(second.envelope)
    payload = base64.b64decode(fields["payload"]).replace(b'"version":6', b'"version":9')
    edge.assign(second)
    edge.updater.offer(json.dumps(fields | {"payload": base64.b64encode(payload).decode()}).encode(), NOW)


def replayed_assignment(edge: TalkingUpdater) -> None:
    """Say today what was said yesterday."""
    edge.updater.hear_assignment(assigned(release(OTHER), 5), NOW)
    edge.updater.hear_assignment(assigned(release(NEXT), 4), NOW)


def two_assignments(edge: TalkingUpdater) -> None:
    """Say two things under one number."""
    edge.updater.hear_assignment(assigned(release(NEXT), 5), NOW)
    edge.updater.hear_assignment(assigned(release(OTHER), 5), NOW)


def another_edges_assignment(edge: TalkingUpdater) -> None:
    edge.updater.hear_assignment(assigned(release(NEXT), edge="edge-2"), NOW)


def assigned_by_release_key(edge: TalkingUpdater) -> None:
    """Each role has keys of its own: a release key assigns nothing."""
    edge.updater.hear_assignment(assigned(release(NEXT), signer=SIGNER), NOW)


def released_by_assign_key(edge: TalkingUpdater) -> None:
    """And the worker's key, which lies online, releases nothing."""
    edge.bring(release(NEXT, signer=ASSIGNER))


def assignment_as_manifest(edge: TalkingUpdater) -> None:
    """One document is none of another type, though the key is right."""
    made = release(NEXT)
    payload = made.manifest.model_dump_json().encode()
    edge.assign(made)
    edge.updater.offer(sign(payload, [SIGNER], ASSIGNMENT_PAYLOAD_TYPE), NOW)


def frozen(edge: TalkingUpdater) -> None:
    """Keep all news away: what is assigned is signed, and old."""
    edge.offer(release(CURRENT))
    edge.step(now=NOW + timedelta(days=4))


def two_desired(edge: TalkingUpdater) -> None:
    """Publish another signed release than the one that is assigned."""
    edge.assign(release(NEXT))
    edge.updater.offer(release(OTHER).envelope, NOW)
    edge.step()
    edge.step(edge.now_s + MISMATCH_S)


def unrelated_keys(edge: TalkingUpdater) -> None:
    """Say that other keys count from now on, without being signed by those that count."""
    rotation = KeyRotation(
        version=2,
        created_at=NOW,
        release_keys=({"keyid": STRANGER.public_key.keyid, **STRANGER.public_key.to_dict()},),
        release_threshold=1,
        assign_keys=({"keyid": STRANGER.public_key.keyid, **STRANGER.public_key.to_dict()},),
    )
    edge.updater.hear_keys(bundle([sign_rotation(rotation, [], [STRANGER])]), NOW)


def skipped_keys(edge: TalkingUpdater) -> None:
    """Leave a set of keys out of the chain."""
    rotation = KeyRotation(
        version=3,
        created_at=NOW,
        release_keys=({"keyid": SIGNER.public_key.keyid, **SIGNER.public_key.to_dict()},),
        release_threshold=1,
        assign_keys=({"keyid": ASSIGNER.public_key.keyid, **ASSIGNER.public_key.to_dict()},),
    )
    edge.updater.hear_keys(bundle([sign_rotation(rotation, [SIGNER], [SIGNER])]), NOW)


# Chunks.


def asked(edge: TalkingUpdater, made: TinyRelease) -> str:
    """Bring a release so far that its chunks are asked for; return the first."""
    edge.offer(made)
    edge.step()
    for sha256 in made.wanted(edge.requests[-1]):
        edge.give(sha256, made.chunks[sha256])
    edge.step()
    return made.wanted(edge.requests[-1])[0]


def chunk_instead(change: Callable[[bytes], bytes]) -> Callable[[TalkingUpdater], None]:
    """Give other bytes than a chunk's."""

    def on(edge: TalkingUpdater) -> None:
        made = release(NEXT)
        first = asked(edge, made)
        edge.give(first, change(made.chunks[first]))

    return on


def foreign_chunk(edge: TalkingUpdater) -> None:
    """Give a chunk of another signed release."""
    other = release(OTHER)
    asked(edge, release(NEXT))
    foreign = next(sha256 for sha256 in other.chunks if sha256 not in release(NEXT).chunks)
    edge.give(foreign, other.chunks[foreign])


def chunk_with_a_path(edge: TalkingUpdater) -> None:
    """Give a chunk whose name leads elsewhere."""
    asked(edge, release(NEXT))
    edge.give("../../escaped", b"bytes")


def extra_chunk(edge: TalkingUpdater) -> None:
    """Give a chunk once more."""
    made = release(NEXT)
    first = asked(edge, made)
    edge.give(first, made.chunks[first])
    edge.give(first, made.chunks[first])


def endless_chunks(edge: TalkingUpdater) -> None:
    """Send what nobody asked for, and go on."""
    made = release(NEXT)
    asked(edge, made)
    sizes = sum(file.size for file in made.manifest.files.values())
    for number in range(2 * (ENDLESS * sizes // MAX_CHUNK_BYTES + 40)):
        edge.give(f"{number:064x}", bytes(MAX_CHUNK_BYTES))


# Networks.


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """Return a network that says something besides."""
    model = onnx.load_from_string(network((0.0, 0.5, 0.02)))
    change(model)
    return bytes(model.SerializeToString())


def elsewhere(model: onnx.ModelProto) -> None:
    """Let the weights be read from a file of the box."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def evil(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Evil", ["slice"], ["x"], domain="com.evil"))


def without_map(model: onnx.ModelProto) -> None:
    del model.graph.output[2]


def absurd(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**40]), "size"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["x"]))


def a_network(model: Callable[[], bytes], **changes: object) -> Callable[[TalkingUpdater], None]:
    """Release a network with golden slices as an honest one has them."""
    honest = network((0.0, 0.5, 0.02))
    expected = golden(OnnxReader(honest, Calibration()).logits(golden_slices()), golden_slices())
    return lambda edge: edge.bring(release(NEXT, model(), expected, **changes))


def large() -> TinyRelease:
    """Release more than the edge's setting allows."""
    slices = np.zeros((20, INPUT_PX, INPUT_PX), np.uint8)
    return release(NEXT, golden_file=golden(np.zeros((20, 3)), slices))


ATTACKS = (
    Attack("wrong key", errors.WrongKeyError, offered(lambda: release(NEXT, signer=STRANGER))),
    Attack("key of the other role on a release", errors.WrongKeyError, released_by_assign_key),
    Attack("key of the other role on an assignment", errors.WrongKeyError, assigned_by_release_key),
    Attack("document of another type", errors.EnvelopeError, assignment_as_manifest),
    Attack("too few signatures", errors.TooFewSignaturesError, offered(lambda: release(NEXT)), TWO_OF_TWO),
    Attack("keys out of nowhere", errors.WrongKeyError, unrelated_keys),
    Attack("keys that leave a set out", errors.KeyRotationError, skipped_keys),
    Attack("tampered manifest", errors.TamperedError, tampered),
    Attack("tampered chunk", errors.TamperedChunkError, chunk_instead(lambda data: bytes(len(data)))),
    Attack("truncated chunk", errors.TruncatedChunkError, chunk_instead(lambda data: data[:-1])),
    Attack("chunk that is too long", errors.TruncatedChunkError, chunk_instead(lambda data: data + b"\0")),
    Attack("extra chunk", errors.ExtraChunkError, extra_chunk),
    Attack("chunk of another release", errors.ForeignChunkError, foreign_chunk),
    Attack("chunk with a path", errors.ForeignChunkError, chunk_with_a_path),
    Attack("endless data", errors.EndlessDataError, endless_chunks),
    Attack("oversize claim", errors.OversizeError, with_payload(partial(claim, size=MAX_MODEL_BYTES + 1))),
    Attack("larger than this edge takes", errors.OversizeError, offered(large)),
    Attack("path as a file name", errors.UnsafeNameError, with_payload(partial(rename_model, name="../../escaped"))),
    Attack("absolute file name", errors.UnsafeNameError, with_payload(partial(rename_model, name="/escaped"))),
    Attack("hidden file name", errors.UnsafeNameError, with_payload(partial(rename_model, name=".escaped"))),
    Attack("file name with NUL", errors.UnsafeNameError, with_payload(partial(rename_model, name="escaped\0.onnx"))),
    Attack(
        "schema of the future", errors.UnsupportedManifestError, with_payload(lambda fields: fields.update(major=9))
    ),
    Attack("other labels", errors.UnsupportedManifestError, with_payload(lambda fields: fields.update(labels=["A"]))),
    Attack(
        "expired", errors.ExpiredManifestError, offered(lambda: release(NEXT, expires_at=NOW - timedelta(seconds=1)))
    ),
    Attack("replay of an old version", errors.OldVersionError, offered(lambda: release(OLD))),
    Attack("frozen", errors.FrozenError, frozen),
    Attack("replay of an old assignment", errors.ReplayedAssignmentError, replayed_assignment),
    Attack("two assignments at once", errors.ConflictingAssignmentError, two_assignments),
    Attack("another edge's assignment", errors.ForeignAssignmentError, another_edges_assignment),
    Attack("two desired models at once", errors.UnassignedReleaseError, two_desired),
    Attack("version given twice", errors.VersionTakenTwiceError, offered(lambda: release(CURRENT, network((0, 0, 5))))),
    Attack("other architecture", errors.OtherArchitectureError, offered(lambda: release(NEXT, architecture="vast"))),
    Attack(
        "other preprocessing", errors.OtherPreprocessingError, offered(lambda: release(NEXT, preprocessing_version=2))
    ),
    Attack(
        "other file than signed", errors.HashMismatchError, offered(lambda: release(NEXT, described={MODEL_FILE: b"x"}))
    ),
    Attack("no network", structure.NotOnnxError, a_network(lambda: network()[:-40])),
    Attack("network of other outputs", UnreadableNetworkError, a_network(lambda: changed(without_map))),
    Attack("external data", structure.ExternalDataError, a_network(lambda: changed(elsewhere))),
    Attack("custom operator", structure.CustomOperatorError, a_network(lambda: changed(evil))),
    Attack("absurd shape", structure.AbsurdShapeError, a_network(lambda: changed(absurd))),
    Attack("fails the golden slices", trial.SelfTestDifferenceError, a_network(lambda: network((0.0, 0.9, 0.0)))),
    Attack("crashes", trial.SelfTestError, a_network(lambda: network(fault="index"))),
    Attack(
        "slow by the manifest",
        trial.TooSlowError,
        offered(lambda: release(NEXT, trial={"latency_ms": 0.001})),
    ),
    Attack("large by the manifest", trial.TooMuchMemoryError, offered(lambda: release(NEXT, trial={"memory_mb": 1}))),
)


def signed_twice(version: int) -> TinyRelease:
    """Return a release that edges of one key and of two trust."""
    made = release(version)
    return replace(made, envelope=countersign(made.envelope, [SECOND_SIGNER]))


def attacked(folder: Path, keys: KeySet = KEYS) -> TalkingUpdater:
    """Return an updater whose slot runs the current release and has the one before it; networks are really tried."""
    filled_slot(folder / "models", signed_twice(OLD), signed_twice(CURRENT))
    return TalkingUpdater(opened(folder / "models", keys), keys=keys, trial=real_trial)


def opened(folder: Path, keys: KeySet = KEYS) -> ModelSlot:
    """Start on a slot's folder."""
    slot = ModelSlot(folder, [keys.release], architectures=frozenset({"tiny"}), max_bytes=MAX_BYTES)
    slot.load_active()
    return slot


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_an_attack_is_refused_by_its_name_and_the_incumbent_reads_on(attack: Attack, tmp_path: Path) -> None:
    """The engineer reads which attack it was; slices are read, also after a restart; a good release still comes."""
    edge = attacked(tmp_path, attack.keys)
    with capture_logs() as logged:
        attack.on(edge)
    said = [report.reason for report in edge.reports] + [str(entry.get("reason")) for entry in logged]
    assert [reason for reason in said if reason.startswith(f"{attack.error.__name__}: ")], said
    for slot in (edge.slot, opened(tmp_path / "models", attack.keys)):
        assert slot.current is not None
        assert reading_of(slot.current).diagnosis.reading.model.version == CURRENT
    assert {path.name for path in tmp_path.iterdir()} <= {"models", "trust"}
    edge.bring(signed_twice(GOOD))
    assert edge.slot.running_version == GOOD


def test_the_table_names_every_error_of_trust() -> None:
    """An error that can refuse a release or a message has an attack that it stands for."""
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TrustError)}
    bases = {base for kind in kinds for base in kind.__mro__[1:]}
    # a ban is what an attack leads to; the others are of files that only damage on the disk can make so
    elsewhere_tested = {errors.BannedVersionError}
    assert kinds - bases - elsewhere_tested <= {attack.error for attack in ATTACKS} | {errors.HashMismatchError}


# What passes the trial, and behaves badly on live slices.


BY_GREY = (0.5, 0.0, 0.0)
"""With this bias the tiny network calls dark slices Normal and bright ones COVID-19."""


@pytest.fixture
def by_grey(tmp_path: Path) -> ModelSlot:
    """A slot whose model gives different labels."""
    return filled_slot(tmp_path / "models", release(CURRENT, network(BY_GREY)))


def read_both_kinds(edge: TalkingUpdater) -> int:
    """Read dark and bright slices in turns until the updater judges; return how many."""
    for number in range(WITHIN):
        model = edge.slot.current
        assert model is not None
        edge.updater.slice_was_read(model.manifest.version, reading_of(model, number, dark=number % 2 == 0))
        edge.step()
        if edge.last.phase in (ModelPhase.REJECTED, ModelPhase.ROLLED_BACK):
            return number + 1
    raise AssertionError(f"not judged within {WITHIN} slices")


@pytest.mark.parametrize("label", list(Label))
@pytest.mark.parametrize(("shadow", "end"), [(WITHIN, ModelPhase.REJECTED), (0, ModelPhase.ROLLED_BACK)])
def test_a_network_that_always_says_the_same_is_found_within_50_slices(
    by_grey: ModelSlot, label: Label, shadow: int, end: ModelPhase
) -> None:
    """It passes hash, golden slices and bounds; its answers beside the incumbent's give it away, silently or in use."""
    edge = TalkingUpdater(by_grey, trial=real_trial, shadow_slices=shadow, probation_slices=WITHIN)
    bias = tuple(50.0 * (each is label) for each in Label)
    edge.bring(release(NEXT, network(bias)))  # type: ignore[arg-type]
    assert edge.last.phase is (ModelPhase.SHADOW if shadow else ModelPhase.PROBATION)
    read_both_kinds(edge)
    assert edge.last.phase is end
    assert f"release {CURRENT}" in edge.last.reason
    assert f"said {label}" in edge.last.reason or "gave another label" in edge.last.reason
    assert edge.slot.running_version == CURRENT
    assert edge.last.banned == (NEXT,)
    asked_before = len(edge.requests)
    edge.bring(release(NEXT, network(bias)))  # type: ignore[arg-type]
    assert len(edge.requests) == asked_before
    assert f"release {CURRENT}" in edge.last.reason


def test_a_network_that_is_slow_on_live_slices_alone_is_taken_back(by_grey: ModelSlot) -> None:
    """Golden slices are bright; on dark ones this network computes for 20 ms: its cost beside the incumbent's tells."""
    edge = TalkingUpdater(by_grey, trial=real_trial, probation_slices=WITHIN, silently=in_a_thread)
    edge.bring(release(NEXT, slow_in_the_dark()))
    assert edge.last.phase is ModelPhase.PROBATION
    for number in range(1, WITHIN + 1):
        model = edge.slot.current
        assert model is not None
        edge.updater.slice_was_read(model.manifest.version, reading_of(model, dark=True))
        wait_until(partial(compared, edge, number), "a comparison")
        if edge.last.phase is ModelPhase.ROLLED_BACK:
            break
    edge.updater.close()
    assert edge.last.phase is ModelPhase.ROLLED_BACK
    assert "times as long as release 5" in edge.last.reason
    assert edge.slot.running_version == CURRENT


def compared(edge: TalkingUpdater, slices: int) -> bool:
    """Step, and tell whether so many slices were compared, or judged."""
    edge.step(edge.now_s + 1)  # a second later, so that progress may be told again
    return edge.last.compared >= slices or edge.last.phase is ModelPhase.ROLLED_BACK


def slow_in_the_dark() -> bytes:
    """Return the network that is called dark and bright by, with a loop that dark slices alone enter."""
    model = onnx.load_from_string(network(BY_GREY, fault="hang"))
    (rounds,) = [tensor for tensor in model.graph.initializer if tensor.name == "ages"]
    rounds.CopyFrom(numpy_helper.from_array(np.float32(3e5).reshape(()), "ages"))
    return bytes(model.SerializeToString())


# By URL.


def test_a_url_that_never_ends_is_left_and_the_release_comes_over_mqtt(tmp_path: Path) -> None:
    """A server that ignores what it is asked for and sends zeros without end costs one chunk's length."""
    made = release(NEXT)
    slot = attacked(tmp_path).slot
    edge = TalkingUpdater(slot, trial=real_trial, urls=True)
    with endless_server() as (url, left):
        edge.assign(made, urls={MODEL_FILE: url})
        edge.updater.offer(made.envelope, NOW)
        wait_until(partial(arrived, edge, made), "the release")
        assert left.wait(DEADLINE_S)


def arrived(edge: TalkingUpdater, made: TinyRelease) -> bool:
    """Give what is asked for, a timeout later each time, and tell whether the release runs."""
    edge.give_wanted(made, edge.now_s + CHUNK_TIMEOUT_S)
    return edge.slot.running_version == made.manifest.version


@contextmanager
def endless_server() -> Iterator[tuple[str, threading.Event]]:
    """Serve zeros until nobody listens; the event tells that somebody stopped to."""
    left = threading.Event()

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(206)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(MAX_CHUNK_BYTES))
            except OSError:
                left.set()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/model", left
    finally:
        server.shutdown()
        server.server_close()
        serving.join(DEADLINE_S)
