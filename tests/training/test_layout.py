"""A release's files are cut so that a change of one tensor moves its own chunks only."""

import cbor2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from protocol.messages import MAX_CHUNK_BYTES
from training.layout import OWN_CHUNK_BYTES, chunks_at, cut_points, golden_cut_points, stored_tensors
from training.likeness import Likeness, with_unlikeness

SHAPES = {"body": (3, 100_001), "small": (7,), "tiny": (), "head": (3, 512), "mean": (300,)}


def network(**changed: np.ndarray) -> bytes:
    """Return a model that holds these tensors; those that are not given have the values of their names."""
    values = {
        name: np.random.default_rng(len(name)).normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()
    }
    tensors = [numpy_helper.from_array(value, name) for name, value in (values | changed).items()]
    value = helper.make_tensor_value_info("slice", onnx.TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph([helper.make_node("Identity", ["slice"], ["out"])], "g", [value], [], tensors)
    return bytes(helper.make_model(graph).SerializeToString(deterministic=True))


def pieces(model: bytes) -> list[bytes]:
    return list(chunks_at(model, cut_points(model)))


@pytest.mark.parametrize("name", SHAPES)
def test_a_changed_tensor_changes_only_its_own_chunks(name):
    """As many chunks change as the tensor fills; a small one takes its neighbours along, in one chunk."""
    before, after = network(), network(**{name: np.full(SHAPES[name], 7, np.float32)})
    changed = [new for old, new in zip(pieces(before), pieces(after), strict=True) if old != new]
    size = 4 * int(np.prod(SHAPES[name]))
    assert len(changed) == -(-size // MAX_CHUNK_BYTES)
    if size >= OWN_CHUNK_BYTES:
        assert sum(map(len, changed)) == size


def test_a_models_tensors_are_found_where_they_lie():
    """Name, type, shape and bytes are those that onnx reads."""
    model = network()
    read = onnx.load_from_string(model).graph.initializer
    found = stored_tensors(model)
    assert [(t.name, t.data_type, t.dims) for t in found] == [(t.name, t.data_type, tuple(t.dims)) for t in read]
    assert [model[t.offset : t.offset + t.length] for t in found] == [tensor.raw_data for tensor in read]


def test_the_unlikeness_has_chunks_of_its_own():
    """Its directions change with every retraining, and take nothing of the body along."""
    model = network()
    for seed in (1, 2):
        random = np.random.default_rng(seed)
        mean, directions = (random.normal(size=shape).astype(np.float32) for shape in ((512,), (512, 9)))
        told = telling_unlikeness(model, Likeness(mean, directions, np.ones(9, np.float32), 1.0, 1.0))
        if seed == 1:
            first = set(pieces(told))
    changed = [piece for piece in pieces(told) if piece not in first]
    assert sum(map(len, changed)) < mean.nbytes + directions.nbytes + 512


def telling_unlikeness(model: bytes, likeness: Likeness) -> bytes:
    proto = onnx.load_from_string(model)
    proto.graph.node[0].output[0] = "features"
    return with_unlikeness(proto.SerializeToString(), likeness)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 3 * MAX_CHUNK_BYTES))
def test_whatever_the_bytes_the_chunks_are_the_file(start, padding):
    """Every file is covered once, in order, by chunks from 1 byte to the limit."""
    for data in (start + bytes(padding), start, network()[: padding or 1] + start):
        for points in (cut_points(data), golden_cut_points(data)):
            cut = list(chunks_at(data, points))
            assert b"".join(cut) == data
            assert all(0 < len(piece) <= MAX_CHUNK_BYTES for piece in cut)
            assert list(points[:1]) == ([0] if data else [])


def test_what_is_no_onnx_is_cut_evenly():
    """A delta or a picture has no tensors."""
    assert cut_points(b"\xff" * (MAX_CHUNK_BYTES + 1)) == (0, MAX_CHUNK_BYTES)
    assert cut_points(b"") == ()


def test_new_golden_logits_leave_the_golden_slices_chunks():
    """A network that learnt more answers otherwise on the same slices."""
    slices = np.random.default_rng(0).integers(0, 256, 3 * MAX_CHUNK_BYTES, np.uint8).tobytes()
    old, new = (cbor2.dumps({"slices": slices, "logits": [[value, 0.5, 1.5]] * 3}) for value in (0.25, 0.75))
    kept = set(chunks_at(old, golden_cut_points(old)))
    moved = [piece for piece in chunks_at(new, golden_cut_points(new)) if piece not in kept]
    assert sum(map(len, moved)) < 200
