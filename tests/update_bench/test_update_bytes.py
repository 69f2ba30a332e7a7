"""What an update moves is counted as an edge fetches it, and a new head moves little."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.manifest import MODEL_FILE
from protocol.messages import MAX_CHUNK_BYTES
from sliceloop.update_bench.bytes_moved import CHUNKS, DELTA, FLOAT16, FLOAT32, FULL, count_bytes, table
from sliceloop.update_bench.moved import INDEX_PIECE_ENTRIES, MANIFEST_BYTES, moved
from sliceloop.update_bench.update_pairs import BASE, HEAD, INT8, SGD, UpdatePlan, make_networks

ENTRY_BYTES = 36


def noise(chunks: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(chunks * MAX_CHUNK_BYTES)


def test_an_edge_without_a_model_fetches_everything():
    """All chunks once, all pieces of the index, and the manifest."""
    data = noise(INDEX_PIECE_ENTRIES + 2)
    first = moved({}, {"a.bin": data})
    assert first.chunks == INDEX_PIECE_ENTRIES + 2
    assert first.bytes == len(data) + ENTRY_BYTES * first.chunks + MANIFEST_BYTES


def test_an_edge_fetches_the_chunks_and_pieces_that_changed():
    """Of two pieces the one with the changed chunk, whole; nothing where nothing changed."""
    held = noise(INDEX_PIECE_ENTRIES + 2)
    wanted = held[:-MAX_CHUNK_BYTES] + noise(1, seed=1)
    assert moved({"a.bin": held}, {"b.bin": held}).bytes == MANIFEST_BYTES
    changed = moved({"a.bin": held}, {"a.bin": wanted})
    assert (changed.chunks, changed.chunk_bytes, changed.index_bytes) == (1, MAX_CHUNK_BYTES, 2 * ENTRY_BYTES)


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_no_more_is_fetched_than_there_is(held, wanted):
    """Whatever the files, chunks do not exceed the file."""
    fetched = moved({MODEL_FILE: held}, {MODEL_FILE: wanted})
    assert fetched.chunk_bytes <= len(wanted)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The updates of a small network that learns for a moment."""
    plan = UpdatePlan(
        "squeezenet1_1_bn", 32, patients_per_class=2, slices_per_patient=1, base_epochs=2, epochs=1, batch=6
    )
    return count_bytes(make_networks(tmp_path_factory.mktemp("phantoms") / "p", plan), plan)


@pytest.mark.chaos  # CI does the same by `make bench`
def test_every_update_is_measured_in_both_layouts_and_by_both_ways(measured):
    """Full, chunks and delta, as float32 and as float16; int8 is subtracted from int8."""
    assert len(measured.rows) == 2 * (1 + 4 * 2)
    assert {row.way for row in measured.rows if row.update == INT8} == {CHUNKS, DELTA}
    assert measured.find(INT8, FLOAT32, DELTA).moved_bytes < measured.find(INT8, FLOAT32, CHUNKS).moved_bytes
    assert {(row.layout, row.way) for row in measured.rows if row.update == BASE} == {(FLOAT32, FULL), (FLOAT16, FULL)}
    assert all(
        row.moved_bytes == row.chunk_bytes + row.index_bytes + row.manifest_bytes and row.chunks
        for row in measured.rows
    )


@pytest.mark.chaos
def test_a_new_head_moves_a_small_part_and_a_delta_of_all_weights_less_than_all(measured):
    """The body's chunks stay where the body did; what SGD changed a little is told in less."""
    for layout in (FLOAT32, FLOAT16):
        whole = measured.find(BASE, layout, FULL).moved_bytes
        assert measured.find(HEAD, layout, CHUNKS).moved_bytes < 0.1 * whole
        sgd = measured.find(SGD, layout, CHUNKS)
        assert sgd.moved_bytes > 0.9 * sgd.model_bytes
        assert measured.find(SGD, layout, DELTA).moved_bytes < 0.8 * sgd.moved_bytes


@pytest.mark.chaos
def test_the_result_is_told_to_people_and_to_programs(measured):
    """A table with a line for each row, and JSON that says how it was made."""
    assert table(measured).row_count == len(measured.rows)
    told = json.loads(measured.model_dump_json())
    assert told["plan"]["architecture"] == "squeezenet1_1_bn"
    assert set(told["versions"]) >= {"onnx", "zstandard"}
