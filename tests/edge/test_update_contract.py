"""A release as the worker makes it is what the edge takes: one contract, both sides real."""

from pathlib import Path

import pytest
from edge_parts import NOW, SIGNER, TRUSTED, TalkingUpdater, TinyRelease, bytes_asked, large, network

from cloud_worker.release import Releasable, make_release
from cloud_worker.release_settings import ReleaseSettings
from edge_agent.model_slot import ModelSlot
from protocol.chunks import sha256_of
from protocol.labels import LABELS
from protocol.manifest import MODEL_FILE
from protocol.messages import ModelPhase
from training.model.reader import Calibration

SWAPPED = [ModelPhase.DOWNLOADING, ModelPhase.TESTING, ModelPhase.PROBATION]


def signed(model: bytes, version: int, *bases: bytes) -> TinyRelease:
    """Make a release as an engineer does, and hold it as these edges are given it."""
    made = make_release(
        Releasable(model, "tiny", 1.5, None, None, {}), version, ReleaseSettings(), [SIGNER], NOW, bases
    )
    return TinyRelease(made.manifest, made.envelope, made.files, made.indices)


def near(model: bytes) -> bytes:
    """Return the network after a small step: a little of every chunk is another."""
    moved = bytearray(model)
    moved[200_000:900_000:5_000] = bytes(140)
    return bytes(moved)


@pytest.fixture
def edge(tmp_path: Path) -> TalkingUpdater:
    """An edge that has no model yet."""
    return TalkingUpdater(ModelSlot(tmp_path / "models", [TRUSTED]))


def runs(edge: TalkingUpdater, model: bytes) -> bool:
    """Tell whether the edge reads with this very network."""
    return edge.slot.current is not None and edge.slot.current.ref.sha256 == sha256_of(model)


def test_what_the_worker_signs_the_edge_runs(edge: TalkingUpdater) -> None:
    """The first release of all, by the phases that every release takes, with the calibration that was signed."""
    edge.bring(signed(network(), 1))
    assert edge.phases == SWAPPED
    assert edge.slot.current is not None
    assert edge.slot.current.reader.calibration == Calibration(LABELS, 1.5, 0.5)


def test_a_delta_that_the_worker_made_is_what_the_edge_applies(edge: TalkingUpdater) -> None:
    """An edge with the base fetches the delta and not the network, and has the very file."""
    base, model = large(0), near(large(0))
    edge.bring(signed(base, 1))
    edge.read_slices(3)
    asked = len(edge.requests)
    second = signed(model, 2, base)
    edge.bring(second)
    (delta,) = second.manifest.deltas
    assert runs(edge, model)
    wanted = {name for request in edge.requests[asked:] for name in request.wanted}
    assert delta.file in wanted
    assert MODEL_FILE not in wanted


def test_an_edge_without_the_base_takes_the_network_as_the_worker_cut_it(edge: TalkingUpdater) -> None:
    """Its chunks end where tensors do, and make the file all the same."""
    model = near(large(0))
    second = signed(model, 2, large(0))
    edge.bring(second)
    assert second.manifest.deltas
    assert runs(edge, model)
    assert bytes_asked(edge, second) > len(model)


def test_a_new_head_moves_the_chunks_of_the_head_alone(edge: TalkingUpdater) -> None:
    """Without a delta too, what the worker cut at the borders of tensors an edge has already."""
    edge.bring(signed(large(0), 1))
    edge.read_slices(3)
    edge.requests.clear()
    model = large(0, head=5.0)
    second = signed(model, 2)
    edge.bring(second)
    assert runs(edge, model)
    assert MODEL_FILE in {name for request in edge.requests for name in request.wanted}
    places = [name for name in second.manifest.files if name != MODEL_FILE]
    assert bytes_asked(edge, second) < 10_000 + sum(len(second.files[name]) for name in places)
