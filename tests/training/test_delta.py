"""A delta makes exactly the new file of the old one, and whatever else it is made of, harms nobody."""

import struct
import tracemalloc

import numpy as np
import onnx
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from training.layout import segments_between
from training.model.delta import (
    BLOCK_BYTES,
    MAGIC,
    MAX_SEGMENTS,
    WINDOW_LOG,
    DeltaError,
    Segment,
    apply_delta,
    make_delta,
)

MIB = 1024 * 1024


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes, list[Segment]]:
    """Two files, and some runs that are taken for the same in both."""
    base, target = draw(st.binary(max_size=300)), draw(st.binary(max_size=300))
    segments, at = [], 0
    for _ in range(draw(st.integers(0, 4))):
        width = draw(st.sampled_from([1, 2, 4]))
        start = at + draw(st.integers(0, 20))
        values = draw(st.integers(1, 20))
        if start + values * width > len(target) or values * width > len(base):
            break
        rows = (
            draw(st.sampled_from([row for row in range(1, values + 1) if values % row == 0] + [0])) if width > 1 else 0
        )
        segments.append(Segment(draw(st.integers(0, len(base) - values * width)), start, values * width, width, rows))
        at = start + values * width
    return base, target, segments


@settings(max_examples=500, deadline=None)
@given(pairs())
def test_a_delta_makes_the_target(pair):
    """Whatever the files and wherever their shared runs, the result is the target to the bit."""
    base, target, segments = pair
    delta = make_delta(base, target, segments, level=1)
    assert apply_delta(base, delta, target_size=len(target)) == target


@settings(max_examples=1000, deadline=None)
@given(pairs(), st.data())
def test_a_damaged_delta_is_refused_or_makes_other_bytes(pair, data):
    """Cut, changed or followed by anything: the named error, or a file of the promised size."""
    base, target, segments = pair
    delta = bytearray(make_delta(base, target, segments, level=1))
    match data.draw(st.sampled_from(["cut", "change", "other base", "other size", "noise"])):
        case "cut":
            del delta[data.draw(st.integers(0, len(delta) - 1)) :]
        case "change":
            for at in data.draw(st.lists(st.integers(0, len(delta) - 1), min_size=1, max_size=4)):
                delta[at] = data.draw(st.integers(0, 255))
        case "other base":
            base = data.draw(st.binary(max_size=300))
        case "noise":
            delta[4:] = data.draw(st.binary(max_size=300))
    size = data.draw(st.sampled_from([len(target), len(target) + 1, 0, 2**16]))
    try:
        assert len(apply_delta(base, bytes(delta), target_size=size)) == size
    except DeltaError:
        return


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 400))
def test_what_was_packed_by_a_stranger_is_refused_or_makes_other_bytes(base, content, size):
    """Segments and bytes of anybody's choice, in a frame that is whole."""
    try:
        assert len(apply_delta(base, packed(content), target_size=size)) == size
    except DeltaError:
        return


def packed(content: bytes) -> bytes:
    return MAGIC + zstandard.ZstdCompressor().compress(content)


def segment(base_offset: int, target_offset: int, length: int, width: int, rows: int = 0) -> bytes:
    return struct.pack("<IQQQBI", 1, base_offset, target_offset, length, width, rows)


BASE = bytes(range(100))
HOSTILE = {
    "outside the base": segment(90, 0, 20, 1) + bytes(100),
    "far outside the base": segment(2**63, 0, 20, 1) + bytes(100),
    "outside the target": segment(0, 90, 20, 1) + bytes(100),
    "far outside the target": segment(0, 2**63, 20, 1) + bytes(100),
    "endless": segment(0, 0, 2**64 - 1, 1) + bytes(100),
    "empty": segment(0, 0, 0, 1) + bytes(100),
    "half a value": segment(0, 0, 3, 2) + bytes(100),
    "values of no known size": segment(0, 0, 3, 3) + bytes(100),
    "values of no size": segment(0, 0, 3, 0) + bytes(100),
    "scaled bytes": segment(0, 0, 10, 1, 2) + bytes(200),
    "rows that are not equal": segment(0, 0, 20, 2, 3) + bytes(200),
    "more rows than values": segment(0, 0, 20, 2, 2**32 - 1) + bytes(200),
    "one above another": struct.pack("<IQQQBIQQQBI", 2, 0, 10, 10, 1, 0, 0, 15, 10, 1, 0) + bytes(100),
    "backwards": struct.pack("<IQQQBIQQQBI", 2, 0, 50, 10, 1, 0, 0, 10, 10, 1, 0) + bytes(100),
    "too many": struct.pack("<I", MAX_SEGMENTS + 1) + bytes(100),
    "fewer than said": struct.pack("<I", 3) + bytes(30),
    "too short": struct.pack("<I", 0) + bytes(99),
    "too long": struct.pack("<I", 0) + bytes(101),
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_delta_is_refused_by_name(content):
    """Runs outside the files, over each other, of no size, of too many bytes: `DeltaError`."""
    with pytest.raises(DeltaError):
        apply_delta(BASE, packed(content), target_size=100)


@pytest.mark.parametrize("delta", [b"", b"SLD1", b"SLD2" + packed(b"")[4:], MAGIC + b"no frame", b"\x00" * 50])
def test_what_is_no_delta_is_refused_by_name(delta):
    """Other bytes than ours, and a frame that does not begin."""
    with pytest.raises(DeltaError):
        apply_delta(BASE, delta, target_size=100)


def test_a_bomb_takes_no_more_memory_than_the_target_may_have():
    """A frame of some kilobytes that unpacks to 1 GiB, and one that asks for a window of 2 GiB, are refused early."""
    bomb = zstandard.ZstdCompressor(level=3).compressobj()
    packed_bomb = MAGIC + bomb.compress(struct.pack("<I", 0))
    zeros = bytes(MIB)
    packed_bomb += b"".join(bomb.compress(zeros) for _ in range(1024)) + bomb.flush()
    wide = zstandard.ZstdCompressionParameters.from_level(1, window_log=WINDOW_LOG + 1, write_content_size=0)
    packed_wide = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    tracemalloc.start()
    with pytest.raises(DeltaError):
        apply_delta(BASE, packed_bomb, target_size=MIB)
    with pytest.raises(DeltaError):
        apply_delta(BASE, MAGIC + packed_wide.compress(bytes(100)) + packed_wide.flush(), target_size=96)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB


def model(names: tuple[str, ...] = ("body", "norm", "head"), *, first: int = 0, dtype: str = "float32") -> bytes:
    """A model of three tensors whose first one is moved by `first` values' last bits."""
    body = np.random.default_rng(0).normal(size=(64, 4099)).astype(dtype)
    body.view(f"u{body.itemsize}")[:] += np.uint8(first)
    tensors = [body, np.ones((64, 1), "float32"), np.full((3, 64), first, dtype)]
    graph = helper.make_graph(
        [],
        "g",
        [],
        [],
        [numpy_helper.from_array(tensor, name) for tensor, name in zip(tensors, names, strict=True)],
        doc_string="n" * first,
    )
    return bytes(helper.make_model(graph).SerializeToString(deterministic=True))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("names", [("body", "norm", "head"), ("first", "norm", "last")])
def test_the_tensors_of_two_models_are_found_wherever_they_lie(dtype, names):
    """Small changes of all weights take a small share, though tensors moved and were renamed."""
    base, target = model(dtype=dtype), model(names, first=3, dtype=dtype)
    delta = make_delta(base, target, segments_between(base, target))
    assert apply_delta(base, delta, target_size=len(target)) == target
    assert len(delta) < len(target) / 100


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_that_were_scaled_take_little(dtype):
    """What a normalisation does to a convolution's rows is told by one factor a row, and by the roundings."""
    random = np.random.default_rng(0)
    before = random.normal(size=(64, 1000))
    after = before * random.uniform(0.5, 2, (64, 1)) + random.normal(0, 1e-7, before.shape)
    base, target = (values.astype(dtype).tobytes() for values in (before, after))
    plain, scaled = (
        make_delta(base, target, [Segment(0, 0, len(target), len(target) // 64_000, rows)]) for rows in (0, 64)
    )
    assert apply_delta(base, scaled, target_size=len(target)) == target
    assert len(scaled) < 0.5 * len(plain)


def test_another_network_makes_a_delta_too():
    """Where nothing is shared the target lies in the delta as it is; the maker sees that it does not pay."""
    base, target = onnx.ModelProto(producer_name="other").SerializeToString(), model()
    delta = make_delta(base, target, segments_between(base, target))
    assert apply_delta(base, delta, target_size=len(target)) == target
    assert len(delta) > 0.8 * len(target)


def test_a_delta_is_the_same_each_time():
    """The same two files give the same bytes, so that a release can be made again."""
    base, target = model(), model(first=3)
    assert make_delta(base, target, segments_between(base, target)) == make_delta(
        base, target, segments_between(base, target)
    )


def test_a_long_run_is_cut_into_blocks():
    """A tensor of several blocks and a rest comes out whole."""
    base = np.random.default_rng(1).bytes(2 * BLOCK_BYTES + 8)
    target = np.random.default_rng(2).bytes(2 * BLOCK_BYTES + 8)
    delta = make_delta(base, target, [Segment(0, 0, len(target), 4)], level=1)
    assert apply_delta(base, delta, target_size=len(target)) == target


def test_the_maker_refuses_segments_outside_the_files():
    """What no edge would take is not made."""
    with pytest.raises(DeltaError):
        make_delta(BASE, BASE, [Segment(50, 0, 60, 1)])
