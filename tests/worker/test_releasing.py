"""An engineer's release: its files, deltas and indices lie in the store, and its page says what it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from worker_parts import ARCHITECTURE, NOW, constant_network, later, network, network_file

from cloud_worker.chunks import ChunkShelf
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore, card_key, index_key
from cloud_worker.release import Releasable, make_release
from cloud_worker.release_settings import ProbationSettings, ReleaseSettings
from cloud_worker.releasing import ReleaseDesk, store_release
from protocol.chunks import describe, read_index, sha256_of, to_bitmap
from protocol.errors import HashMismatchError, LengthMismatchError
from protocol.labels import Label
from protocol.manifest import MODEL_FILE, ProbationBounds, shown_manifest
from protocol.messages import MAX_CHUNK_BYTES, ChunkRequest
from protocol.signing import TrustedKeys, generate_signer, sign
from training.layout import cut_points
from training.model.delta import apply_delta

SIGNER = generate_signer()
BALLAST = 3 * MAX_CHUNK_BYTES // 4
"""Float32 values that a network carries without using them: it has then several chunks, as real ones have."""


def heavy(seed: int, shift: float = 0.0, label: Label = Label.NORMAL) -> bytes:
    """Return a network with ballast, moved by a small step of training."""
    model = onnx.load_from_string(constant_network(label))
    values = np.random.default_rng(seed).normal(size=BALLAST).astype(np.float32)
    values += shift * np.random.default_rng(seed + 1).normal(size=BALLAST).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "ballast"))
    model.graph.node.append(helper.make_node("Identity", ["ballast"], ["unused"]))
    return bytes(model.SerializeToString())


def noisy(seed: int) -> bytes:
    """Return a network whose ballast no compression makes smaller."""
    model = onnx.load_from_string(constant_network(Label.NORMAL))
    values = np.random.default_rng(seed).integers(0, 256, 2 * MAX_CHUNK_BYTES, np.uint8)
    model.graph.initializer.append(numpy_helper.from_array(values, "ballast"))
    model.graph.node.append(helper.make_node("Identity", ["ballast"], ["unused"]))
    return bytes(model.SerializeToString())


def releasable(model: bytes) -> Releasable:
    """Return a network with nothing more to say of it."""
    return Releasable(model, ARCHITECTURE, 1.0, None, None, {})


def test_a_small_step_is_released_with_a_delta() -> None:
    """An edge with the base makes the very network of it, for fewer bytes than its chunks."""
    base, model = heavy(1), heavy(1, 1e-7)
    made = make_release(releasable(model), 2, ReleaseSettings(), [SIGNER], NOW, [base])
    (delta,) = made.manifest.deltas
    assert delta.base_sha256 == sha256_of(base)
    assert delta.file == f"delta-{sha256_of(base)[:16]}.sld"
    assert apply_delta(base, made.files[delta.file], target_size=len(model)) == model
    assert made.manifest.files[delta.file].size < 0.5 * len(model)


def test_a_delta_that_saves_nothing_is_left_out() -> None:
    """Against noise that has nothing in common chunks cost less; against itself nothing has to be fetched."""
    model = noisy(1)
    for base in (noisy(2), model):
        made = make_release(releasable(model), 2, ReleaseSettings(), [SIGNER], NOW, [base])
        assert made.manifest.deltas == ()
        assert set(made.files) == {"model.onnx", "golden.cbor"}


def test_a_manifest_says_the_bounds_of_the_settings() -> None:
    """What an edge holds a network to is signed with it."""
    settings = ReleaseSettings(
        latency_bound_ms=70,
        memory_bound_mb=300,
        probation=ProbationSettings(max_disagreement=0.1, max_contradiction=0.3),
    )
    manifest = make_release(releasable(network()), 1, settings, [SIGNER], NOW).manifest
    assert (manifest.trial.latency_ms, manifest.trial.memory_mb) == (70, 300)
    assert manifest.probation == ProbationBounds(max_disagreement=0.1, max_contradiction=0.3)
    assert set(ProbationSettings.model_fields) == set(ProbationBounds.model_fields)


def test_chunks_are_cut_at_the_borders_of_tensors() -> None:
    """Of two networks that differ in the head alone, all chunks of the ballast are the same."""
    one, two = (describe(data, cut_points(data)) for data in (heavy(1), heavy(1, label=Label.PNEUMONIA)))
    new = {chunk.sha256 for chunk in two.chunks} - {chunk.sha256 for chunk in one.chunks}
    assert len(one.chunks) > 3
    assert len(new) <= 2


def test_a_release_is_served_as_it_was_cut_when_it_was_signed(store: ObjectStore, ledger: Ledger) -> None:
    """A later sliceloop that cuts otherwise still serves it: the index lies beside the file."""
    made = make_release(releasable(heavy(1)), 1, ReleaseSettings(), [SIGNER], NOW)
    otherwise = describe(made.files[MODEL_FILE], [5_000, 77_777])
    files = {**made.manifest.files, MODEL_FILE: otherwise.file}
    manifest = made.manifest.model_copy(update={"files": files})
    envelope = sign(manifest.model_dump_json().encode(), [SIGNER])
    cut = replace(made, manifest=manifest, envelope=envelope, indices={**made.indices, MODEL_FILE: otherwise.pieces})
    store_release(store, ledger, cut, b"checkpoint", {})
    shelf = ChunkShelf(store, ledger)
    asked = ChunkRequest(
        version=1, pieces=otherwise.file.index, wanted={MODEL_FILE: to_bitmap(range(len(otherwise.chunks)))}
    )
    found = dict(shelf.find(asked))
    pieces = [shelf.read(sha256, found[sha256]) for sha256 in otherwise.file.index]
    assert read_index(otherwise.file, pieces) == otherwise.chunks
    data = b"".join(shelf.read(chunk.sha256, found[chunk.sha256]) for chunk in otherwise.chunks)
    assert data == made.files[MODEL_FILE]


def test_a_damaged_object_is_not_served(store: ObjectStore, ledger: Ledger) -> None:
    """What the store has is compared before it is published; a bitmap beyond the file is refused."""
    made = make_release(releasable(network()), 1, ReleaseSettings(), [SIGNER], NOW)
    store_release(store, ledger, made, b"checkpoint", {})
    file = made.manifest.files[MODEL_FILE]
    shelf = ChunkShelf(store, ledger)
    request = ChunkRequest(version=1, wanted={MODEL_FILE: to_bitmap([0])})
    ((sha256, place),) = shelf.find(request)
    with pytest.raises(HashMismatchError, match="is not what was released"):
        shelf.read("0" * 64, place)
    assert sha256_of(shelf.read(sha256, place)) == sha256
    with pytest.raises(LengthMismatchError, match=f"of {file.chunk_count}"):
        list(shelf.find(ChunkRequest(version=1, wanted={MODEL_FILE: to_bitmap([file.chunk_count])})))
    assert store.exists(index_key(file.sha256, file.index))


def test_deltas_are_made_against_the_last_releases(tmp_path: Path, store: ObjectStore, ledger: Ledger) -> None:
    """The setting says against how many; the bases are what edges may run."""
    desk = ReleaseDesk(ReleaseSettings(deltas=1), store, ledger, [SIGNER])
    for number, shift in enumerate((0, 1e-7, 2e-7)):
        folder = network_file(tmp_path / str(number), heavy(1, shift))
        desk.release_bundle(folder, "a step", later(number))
    manifests = [shown_manifest(each.envelope) for each in ledger.releases()]
    assert [[delta.base_sha256 for delta in manifest.deltas] for manifest in manifests] == [
        [],
        [manifests[0].model_ref.sha256],
        [manifests[1].model_ref.sha256],
    ]


def test_the_delta_of_what_follows_a_withdrawn_release_is_against_what_runs(
    tmp_path: Path, store: ObjectStore, ledger: Ledger
) -> None:
    """Nobody has the withdrawn network any more: a delta against it would be fetched by none."""
    desk = ReleaseDesk(ReleaseSettings(deltas=1), store, ledger, [SIGNER])
    for number, shift in enumerate((0, 1e-7, 2e-7)):
        folder = network_file(tmp_path / str(number), heavy(1, shift))
        desk.release_bundle(folder, "a step", later(number))
        if number == 1:
            desk.withdraw(2, "bad", None, later(number))
    first, *_, third = [shown_manifest(each.envelope) for each in ledger.releases()]
    assert [delta.base_sha256 for delta in third.deltas] == [first.model_ref.sha256]


def test_a_release_by_hand_has_a_page(tmp_path: Path, store: ObjectStore, ledger: Ledger) -> None:
    """Its card lies in the store: data, figures with intervals, gate, limits, the way back, and the key that signed."""
    desk = ReleaseDesk(ReleaseSettings(), store, ledger, [SIGNER])
    desk.release_bundle(network_file(tmp_path / "bundle", network()), "first of all", NOW)
    card = store.get(card_key(1)).decode()
    for text in (
        "# sliceloop-edge, version 1",
        "research use only",
        "d" * 64,
        "3 slices of 3 patients (test)",
        "Balanced accuracy **1.000 [1.000, 1.000]**",
        "| COVID-19 | 1 | 1 |",
        "| test | 3 | 3 |",
        "Let through: by hand, past the gate: first of all.",
        "Judged on 3 patients: the intervals are wide",
        "sliceloop withdraw 1 --why REASON",
        SIGNER.public_key.keyid,
    ):
        assert text in card, text


def test_the_page_follows_what_becomes_of_the_release(tmp_path: Path, store: ObjectStore, ledger: Ledger) -> None:
    """A further signature and the withdrawal stand on it."""
    desk, second = ReleaseDesk(ReleaseSettings(), store, ledger, [SIGNER]), generate_signer()
    desk.release_bundle(network_file(tmp_path / "bundle", network()), "first of all", NOW)
    keys = TrustedKeys((SIGNER.public_key, second.public_key), 2)
    replace(desk, signers=[second], trusted=keys).countersign(1)
    assert second.public_key.keyid in store.get(card_key(1)).decode()
    desk.withdraw(1, "bad", None, later(1))
    assert "State: withdrawn" in store.get(card_key(1)).decode()
