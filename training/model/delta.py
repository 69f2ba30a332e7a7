"""An exact delta between two releases: what an edge needs to make the new model's file out of the one that it runs.

Where both files hold the same tensor, the values are subtracted as integers; after a few steps of training most of the
differences are small, and their bytes, sorted by significance, compress well. A normalisation that was folded into a
convolution scales each of its rows anew with every training: where that pays, the base's row times one factor is
subtracted. All else of the target lies in the delta as it is. A delta is 4 bytes `SLD1` and one zstd frame: the count
of segments, the segments, the bytes between them, and each segment's factors and differences.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import zstandard
from numpy.typing import NDArray

MAGIC = b"SLD1"
MAX_SEGMENTS = 65_536
WIDTHS = (1, 2, 4)
"""Bytes of a value."""
_FLOATS = {2: "<f2", 4: "<f4"}
"""How a value is read by its width, where it is to be scaled."""
BLOCK_BYTES = 1024 * 1024
"""Longer runs become several segments, so that unpacking one takes little memory."""
WINDOW_LOG = 23
"""8 MiB, of which an unpacking edge keeps one in memory."""
LEVEL = 19

_COUNT, _SEGMENT = struct.Struct("<I"), struct.Struct("<QQQBI")
_FACTOR = np.dtype("<f4")
_NO_FACTORS = np.zeros(0, np.float32)


class DeltaError(ValueError):
    """The delta does not make a file of the promised size out of this base; take the full file."""


@dataclass(frozen=True)
class Segment:
    """A run of `length` bytes that lies in both files, made of values of `width` bytes.

    With `rows` they are float16 or float32, in so many equal rows that may each have been scaled.
    """

    base_offset: int
    target_offset: int
    length: int
    width: int
    rows: int = 0


def make_delta(base: bytes, target: bytes, segments: Sequence[Segment] = (), *, level: int = LEVEL) -> bytes:
    """Return the delta that `apply_delta` makes the target of, with the base.

    The segments lie in the target one behind another; raises `DeltaError` for those that do not, or lie outside.
    """
    _refuse(segments, len(base), len(target))
    described, differences = [], []
    for block in (block for segment in segments for block in _blocks(segment)):
        chosen, difference = _cheapest(base, target, block)
        described.append(chosen)
        differences.append(difference)
    if len(described) > MAX_SEGMENTS:
        raise DeltaError(f"{len(described):,} segments; up to {MAX_SEGMENTS:,} are allowed")
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            level, window_log=WINDOW_LOG, write_content_size=0, write_checksum=1
        )
    ).compressobj()
    parts = [_COUNT.pack(len(described)), *(_SEGMENT.pack(*astuple(one)) for one in described)]
    parts += [target[start:end] for start, end in _between(described, len(target))]
    packed = [packer.compress(part) for part in [*parts, *differences]]
    return b"".join([MAGIC, *packed, packer.flush()])


def apply_delta(base: bytes, delta: bytes, *, target_size: int) -> bytes:
    """Return the target, of exactly so many bytes; raises `DeltaError` for whatever else the delta would make.

    It may come from anybody: no more is unpacked than the target and its segments take. The caller checks the hash.
    """
    if not delta.startswith(MAGIC):
        raise DeltaError("no delta of this kind")
    unpacked = _Unpacked(delta[len(MAGIC) :])
    (count,) = _COUNT.unpack(unpacked.take(_COUNT.size))
    if count > MAX_SEGMENTS:
        raise DeltaError(f"{count:,} segments; up to {MAX_SEGMENTS:,} are allowed")
    segments = [Segment(*fields) for fields in _SEGMENT.iter_unpack(unpacked.take(count * _SEGMENT.size))]
    _refuse(segments, len(base), target_size)
    target = bytearray(target_size)
    for start, end in _between(segments, target_size):
        target[start:end] = unpacked.take(end - start)
    for segment in segments:
        factors = np.frombuffer(unpacked.take(segment.rows * _FACTOR.itemsize), _FACTOR)
        values = _sum(_predicted(base, segment, factors), unpacked.take(segment.length), segment)
        target[segment.target_offset : segment.target_offset + segment.length] = values
    unpacked.end()
    return bytes(target)


def _blocks(segment: Segment) -> Iterator[Segment]:
    """Cut a segment, between two rows where it has some."""
    row_bytes = segment.length // segment.rows if segment.rows else segment.width
    step = max(BLOCK_BYTES // row_bytes, 1) * row_bytes
    for start in range(0, segment.length, step):
        length = min(step, segment.length - start)
        rows = length // row_bytes if segment.rows else 0
        yield Segment(segment.base_offset + start, segment.target_offset + start, length, segment.width, rows)


def _refuse(segments: Sequence[Segment], base_size: int, target_size: int) -> None:
    """Raise `DeltaError` unless the segments lie in both files, and in the target one behind another."""
    if len(segments) > MAX_SEGMENTS:
        raise DeltaError(f"{len(segments):,} segments; up to {MAX_SEGMENTS:,} are allowed")
    end = 0
    for segment in segments:
        if segment.width not in WIDTHS or segment.length < 1 or segment.length % segment.width:
            raise DeltaError(f"{segment} is no run of values of {', '.join(map(str, WIDTHS))} bytes")
        if segment.rows and (segment.width not in _FLOATS or segment.length % (segment.rows * segment.width)):
            raise DeltaError(f"{segment} cannot be scaled in rows")
        if segment.target_offset < end or segment.base_offset < 0:
            raise DeltaError(f"{segment} begins before byte {end} of the target, or before the base")
        end = segment.target_offset + segment.length
        if end > target_size or segment.base_offset + segment.length > base_size:
            raise DeltaError(f"{segment} ends behind the base ({base_size}) or the target ({target_size})")


def _between(segments: Sequence[Segment], target_size: int) -> Iterator[tuple[int, int]]:
    """Yield where the target's bytes are that no segment covers."""
    start = 0
    for segment in segments:
        if segment.target_offset > start:
            yield start, segment.target_offset
        start = segment.target_offset + segment.length
    if target_size > start:
        yield start, target_size


def _cheapest(base: bytes, target: bytes, segment: Segment) -> tuple[Segment, bytes]:
    """Return the segment as it is described, and its factors, if they pay, and differences."""
    plain = replace(segment, rows=0)
    ways = [(plain, _sorted(_folded(target, _predicted(base, plain, _NO_FACTORS), plain)))]
    if segment.rows:
        factors = _factors(base, target, segment)
        difference = _sorted(_folded(target, _predicted(base, segment, factors), segment))
        ways.append((segment, factors.tobytes() + difference))
    quick = zstandard.ZstdCompressor(level=1)
    return min(ways, key=lambda way: len(quick.compress(way[1])))


def _factors(base: bytes, target: bytes, segment: Segment) -> NDArray[np.float32]:
    """Return for each row the factor of least squares; 1 where there is none."""
    before, after = (_floats(data, at, segment).astype(np.float64) for data, at in _both(base, target, segment))
    with np.errstate(all="ignore"):
        factors = ((before * after).sum(1) / np.square(before).sum(1)).astype(_FACTOR)
    return np.where(np.isfinite(factors), factors, np.float32(1)).astype(_FACTOR)


def _predicted(base: bytes, segment: Segment, factors: NDArray[np.float32]) -> NDArray[np.unsignedinteger]:
    """Return the base's values, scaled if there are factors, as integers."""
    if not segment.rows:
        return _integers(base, segment.base_offset, segment)
    rows = _floats(base, segment.base_offset, segment)
    with np.errstate(all="ignore"):  # beyond float16 it is infinite; the difference makes up for it
        scaled = (rows.astype(np.float32) * factors[:, None]).astype(rows.dtype)
    return scaled.reshape(-1).view(f"<u{segment.width}")


def _folded(target: bytes, predicted: NDArray[np.unsignedinteger], segment: Segment) -> NDArray[np.unsignedinteger]:
    """Subtract and zigzag: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    difference = _integers(target, segment.target_offset, segment) - predicted
    signed = difference.view(f"<i{segment.width}")
    folded = (signed << 1) ^ (signed >> (8 * segment.width - 1))
    return folded.view(f"<u{segment.width}")


def _sorted(folded: NDArray[np.unsignedinteger]) -> bytes:
    """Sort the bytes by significance: all first bytes, then all second ones."""
    return folded.view(np.uint8).reshape(-1, folded.itemsize).T.tobytes()


def _sum(predicted: NDArray[np.unsignedinteger], difference: bytes, segment: Segment) -> bytes:
    planes = np.frombuffer(difference, np.uint8).reshape(segment.width, -1)
    folded = np.ascontiguousarray(planes.T).reshape(-1).view(f"<u{segment.width}")
    one = folded.dtype.type(1)
    signed = (folded >> one) ^ (~(folded & one) + one)
    return bytes((predicted + signed).tobytes())


def _both(base: bytes, target: bytes, segment: Segment) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    return (base, segment.base_offset), (target, segment.target_offset)


def _integers(data: bytes, at: int, segment: Segment) -> NDArray[np.unsignedinteger]:
    return np.frombuffer(data, f"<u{segment.width}", segment.length // segment.width, at)


def _floats(data: bytes, at: int, segment: Segment) -> NDArray[np.floating]:
    return np.frombuffer(data, _FLOATS[segment.width], segment.length // segment.width, at).reshape(segment.rows, -1)


class _Unpacked:
    """A zstd frame, unpacked only as far as it is asked for."""

    def __init__(self, frame: bytes) -> None:
        self._reader = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG).stream_reader(frame)

    def take(self, size: int) -> bytes:
        """Return exactly so many bytes."""
        try:
            data = self._reader.read(size) if size else b""
        except zstandard.ZstdError as error:
            raise DeltaError(f"the delta is damaged ({error})") from error
        if len(data) != size:
            raise DeltaError(f"the delta ends {size - len(data):,} bytes too early")
        return data

    def end(self) -> None:
        """Make sure that nothing is left."""
        try:
            left = self._reader.read(1)
        except zstandard.ZstdError as error:
            raise DeltaError(f"the delta is damaged ({error})") from error
        if left:
            raise DeltaError("the delta makes more than it should")
