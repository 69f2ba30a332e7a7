"""Where a release's files are cut: at the borders of tensors, so that a change of one tensor moves its own chunks only.

An ONNX file is a tree of length-prefixed fields (protobuf): weights lie in it as they are, one run of bytes each. Only
the way down to those runs is walked here; whatever else a file holds stays between them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cbor2

from protocol.messages import MAX_CHUNK_BYTES
from training.model.delta import Segment

OWN_CHUNK_BYTES = 1024
"""A tensor of so many bytes has chunks of its own; a chunk costs 36 bytes in its file's index."""

_GRAPH, _INITIALIZER = 7, 5
"""Fields of ModelProto and GraphProto in onnx.proto3; the next four are TensorProto's."""
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_WIDTHS = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 10: 2, 12: 4, 16: 2}
"""Bytes of a value by data type; the others are too rare to be subtracted."""
_SCALED = (1, 10)
"""float32 and float16."""
_VARINT, _EIGHT_BYTES, _LENGTH_PREFIXED, _FOUR_BYTES = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class NoFieldsError(ValueError):
    """The bytes are no fields of protobuf."""


@dataclass(frozen=True)
class StoredTensor:
    """An initializer as it lies in a model's file: `length` bytes from `offset`; `data_type` as in TensorProto."""

    name: str
    data_type: int
    dims: tuple[int, ...]
    offset: int
    length: int


def cut_points(model: bytes) -> tuple[int, ...]:
    """Return where the chunks of a model.onnx begin, the first at 0, each of MAX_CHUNK_BYTES at most.

    Each tensor of OWN_CHUNK_BYTES or more is cut in pieces from its own beginning; what lies between two of them, graph
    and small tensors, stays together. Bytes that are no ONNX are cut into equal pieces.
    """
    large = [tensor for tensor in stored_tensors(model) if tensor.length >= OWN_CHUNK_BYTES]
    return _pieces(
        len(model), [border for tensor in large for border in (tensor.offset, tensor.offset + tensor.length)]
    )


def golden_cut_points(golden: bytes) -> tuple[int, ...]:
    """Return where the chunks of a golden.cbor begin: its slices, which stay, share none with its logits."""
    try:
        content = cbor2.loads(golden)
        slices = bytes(content["slices"])
        start = golden.find(slices)
    except (cbor2.CBORDecodeError, LookupError, TypeError, ValueError):
        return even_cut_points(golden)
    return _pieces(len(golden), [start, start + len(slices)] if start >= 0 else [])


def even_cut_points(data: bytes) -> tuple[int, ...]:
    """Return where chunks of equal size begin, for a file of which nothing is known."""
    return _pieces(len(data), [])


def chunks_at(data: bytes, starts: tuple[int, ...]) -> Iterator[bytes]:
    """Cut a file at these points."""
    for start, end in pairwise((*starts, len(data))):
        yield data[start:end]


def segments_between(base: bytes, target: bytes) -> tuple[Segment, ...]:
    """List the tensors that two models share, by name, type and shape, in the target's order; see `make_delta`.

    One that is called otherwise is taken for the base's first of its type and shape that is left.
    """
    waiting = {_identity(tensor): tensor for tensor in stored_tensors(base)}
    wanted = sorted(stored_tensors(target), key=lambda tensor: tensor.offset)
    pairs = [(waiting.pop(_identity(tensor), None), tensor) for tensor in wanted]
    segments = []
    for before, after in pairs:
        if before is None:
            same = next((one for one in waiting if one[1:] == _identity(after)[1:]), None)
            before = waiting.pop(same) if same else None
        if before is not None and after.data_type in _WIDTHS:
            rows = after.dims[0] if after.data_type in _SCALED and len(after.dims) > 1 else 0
            segments.append(Segment(before.offset, after.offset, after.length, _WIDTHS[after.data_type], rows))
    return tuple(segments)


def stored_tensors(model: bytes) -> tuple[StoredTensor, ...]:
    """List the initializers of the main graph whose values lie in the file as raw bytes; none where it is no ONNX."""
    try:
        return tuple(
            tensor
            for graph in _fields(model, 0, len(model))
            if graph.number == _GRAPH and graph.wire == _LENGTH_PREFIXED
            for field in _fields(model, graph.start, graph.end)
            if field.number == _INITIALIZER and field.wire == _LENGTH_PREFIXED
            for tensor in _tensor(model, field.start, field.end)
        )
    except (NoFieldsError, UnicodeDecodeError):
        return ()


def _identity(tensor: StoredTensor) -> tuple[str, int, tuple[int, ...], int]:
    return tensor.name, tensor.data_type, tensor.dims, tensor.length


class _Field(NamedTuple):
    """A field's content is at start:end; a varint's is `value`."""

    number: int
    wire: int
    start: int
    end: int
    value: int


def _pieces(size: int, borders: list[int]) -> tuple[int, ...]:
    """Cut at the borders, and what lies between two of them into pieces from its beginning."""
    runs = pairwise(sorted({0, *borders, size}))
    return tuple(start for begin, end in runs for start in range(begin, end, MAX_CHUNK_BYTES))


def _tensor(model: bytes, start: int, end: int) -> Iterator[StoredTensor]:
    name, data_type, dims, raw = "", 0, list[int](), None
    for field in _fields(model, start, end):
        if field.number == _NAME:
            name = model[field.start : field.end].decode()
        elif field.number == _DATA_TYPE:
            data_type = field.value
        elif field.number == _DIMS:
            dims += [field.value] if field.wire == _VARINT else _varints(model, field.start, field.end)
        elif field.number == _RAW_DATA:
            raw = field
    if raw is not None and raw.end > raw.start:
        yield StoredTensor(name, data_type, tuple(dims), raw.start, raw.end - raw.start)


def _fields(data: bytes, start: int, end: int) -> Iterator[_Field]:
    while start < end:
        key, start = _varint(data, start, end)
        number, wire = key >> 3, key & 7
        value = 0
        if wire == _VARINT:
            begin = start
            value, start = _varint(data, start, end)
        else:
            if wire == _LENGTH_PREFIXED:
                length, start = _varint(data, start, end)
            elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
                length = 8 if wire == _EIGHT_BYTES else 4
            else:
                raise NoFieldsError(f"no field begins at byte {start}")
            begin, start = start, start + length
        if start > end:
            raise NoFieldsError(f"a field ends at byte {start}, its parent at {end}")
        yield _Field(number, wire, begin, start, value)


def _varints(data: bytes, start: int, end: int) -> list[int]:
    values = []
    while start < end:
        value, start = _varint(data, start, end)
        values.append(value)
    return values


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return the number that begins at `start`, and where it ends."""
    value = 0
    for place in range(start, min(end, start + _MAX_VARINT_BYTES)):
        value |= (data[place] & 0x7F) << 7 * (place - start)
        if data[place] < 0x80:
            return value, place + 1
    raise NoFieldsError(f"a number that begins at byte {start} does not end")
