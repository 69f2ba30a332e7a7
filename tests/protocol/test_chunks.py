"""A file is exactly what its chunks make, these exactly what its index lists, and that exactly what was signed."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocol.chunks import (
    ENTRIES_A_PIECE,
    ENTRY_BYTES,
    MAX_MODEL_BYTES,
    Chunk,
    Described,
    ManifestFile,
    check_chunk,
    check_file,
    cut,
    describe,
    from_bitmap,
    read_index,
    sha256_of,
    to_bitmap,
)
from protocol.errors import HashMismatchError, LengthMismatchError, TamperedChunkError, TruncatedChunkError
from protocol.messages import MAX_CHUNK_BYTES, MAX_CHUNKS, ChunkRequest

contents = st.binary(min_size=1, max_size=3000)
offsets = st.lists(st.integers(-10, 4000), max_size=12)
places = st.sets(st.integers(0, MAX_CHUNKS - 1), max_size=40)


def numbered(count: int) -> bytes:
    """Make a file of so many chunks of 4 bytes, no two alike, when it is cut at `every_fourth`."""
    return b"".join(number.to_bytes(4, "big") for number in range(count))


def every_fourth(data: bytes) -> list[int]:
    return list(range(0, len(data), 4))


def index_of(*entries: Chunk) -> bytes:
    return b"".join(bytes.fromhex(chunk.sha256) + chunk.size.to_bytes(4, "big") for chunk in entries)


def signed_with(index: bytes, *, size: int, count: int) -> ManifestFile:
    """Describe a file as a release key might that signs an index without looking at it."""
    return ManifestFile(sha256="f" * 64, size=size, chunk_count=count, index=(sha256_of(index),))


@given(contents, offsets)
@example(b"x", [0, 1, 1, -1, 5])
def test_a_file_recombines_from_its_chunks(data: bytes, cuts: list[int]) -> None:
    """For any file and any cuts, the chunks pass one by one and together make the file that was described."""
    described = describe(data, cuts)
    parts = list(cut(data, cuts))
    assert read_index(described.file, described.pieces) == described.chunks
    for chunk, part in zip(described.chunks, parts, strict=True):
        check_chunk(chunk, part)
    check_file("model.onnx", described.file, b"".join(parts))


@given(contents, offsets)
def test_a_file_is_cut_where_it_is_told(data: bytes, cuts: list[int]) -> None:
    """Every cut inside a file is the border of a chunk, so that what lies between two cuts changes no other chunk."""
    borders, at = set(), 0
    for part in cut(data, cuts):
        at += len(part)
        borders.add(at)
    assert {place for place in cuts if 0 < place < len(data)} <= borders


@given(st.integers(-2, 2), st.integers(1, 4), st.lists(st.integers(0, 4 * MAX_CHUNK_BYTES), max_size=3))
def test_a_file_recombines_at_the_border_of_a_chunk(off: int, count: int, cuts: list[int]) -> None:
    """Sizes around whole 64 KiB chunks are cut and recombined without loss, and no chunk is empty or larger."""
    data = bytes(count * MAX_CHUNK_BYTES + off)
    parts = list(cut(data, cuts))
    assert b"".join(parts) == data
    assert all(0 < len(part) <= MAX_CHUNK_BYTES for part in parts)


@given(contents, offsets, st.data())
def test_a_changed_byte_of_a_chunk_is_refused(data: bytes, cuts: list[int], draws: st.DataObject) -> None:
    """A flipped bit is another hash, a missing or extra byte another length; each has its error."""
    chunk, part = draws.draw(st.sampled_from(list(zip(describe(data, cuts).chunks, cut(data, cuts), strict=True))))
    with pytest.raises(TamperedChunkError, match=chunk.sha256[:12]):
        check_chunk(chunk, draws.draw(flipped(part)))
    for other in (part[:-1], part + b"x", b"", bytes(MAX_CHUNK_BYTES + 1)):
        with pytest.raises(TruncatedChunkError, match=chunk.sha256[:12]):
            check_chunk(chunk, other)


@given(contents, st.data())
def test_a_changed_byte_of_a_file_is_refused(data: bytes, draws: st.DataObject) -> None:
    """A file with a flipped bit, or with a byte more or less, is not the one that was described."""
    described = describe(data).file
    with pytest.raises(HashMismatchError, match="golden"):
        check_file("golden.cbor", described, draws.draw(flipped(data)))
    for other in (data[:-1], data + b"x"):
        with pytest.raises(LengthMismatchError, match="golden"):
            check_file("golden.cbor", described, other)


@given(st.integers(1, 3 * ENTRIES_A_PIECE), st.data())
def test_a_changed_byte_of_an_index_is_refused(count: int, draws: st.DataObject) -> None:
    """A flipped bit in any piece, and a piece left out, doubled or moved, make another index."""
    data = numbered(count)
    described = describe(data, every_fourth(data))
    pieces = list(described.pieces)
    place = draws.draw(st.integers(0, len(pieces) - 1))
    changed = [*pieces[:place], draws.draw(flipped(pieces[place])), *pieces[place + 1 :]]
    shortened = [*pieces[:place], pieces[place][:-1], *pieces[place + 1 :]]
    for other in (changed, shortened, pieces[:-1], [*pieces, pieces[0]], [*pieces, b""]):
        with pytest.raises(HashMismatchError):
            read_index(described.file, other)
    if len(pieces) > 1:
        with pytest.raises(HashMismatchError):
            read_index(described.file, pieces[::-1])


def flipped(data: bytes) -> st.SearchStrategy[bytes]:
    def flip(bit: int) -> bytes:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    return st.integers(0, 8 * len(data) - 1).map(flip)


@given(st.integers(1, 4 * ENTRIES_A_PIECE), st.data())
def test_a_changed_chunk_changes_its_own_piece_of_the_index_alone(count: int, draws: st.DataObject) -> None:
    """Where some chunks get other bytes, only these chunks, and the pieces that list them, are new."""
    data = numbered(count)
    changed = draws.draw(st.sets(st.integers(0, count - 1), max_size=5))
    after = b"".join(b"new!" if place in changed else data[4 * place : 4 * place + 4] for place in range(count))
    before, now = describe(data, every_fourth(data)), describe(after, every_fourth(data))
    assert differing(before.chunks, now.chunks) == changed
    assert differing(before.pieces, now.pieces) == {place // ENTRIES_A_PIECE for place in changed}


def differing(before: tuple[object, ...], now: tuple[object, ...]) -> set[int]:
    return {place for place, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1]}


@pytest.mark.parametrize("count", [1, ENTRIES_A_PIECE - 1, ENTRIES_A_PIECE, ENTRIES_A_PIECE + 1, 3 * ENTRIES_A_PIECE])
def test_a_piece_of_an_index_stays_below_4_kib(count: int) -> None:
    """Each piece but the last lists 113 chunks, and none has more than 4 KiB."""
    data = numbered(count)
    described = describe(data, every_fourth(data))
    assert described.file.chunk_count == count
    assert len(described.pieces) == len(described.file.index) == -(-count // ENTRIES_A_PIECE)
    assert all(len(piece) == ENTRIES_A_PIECE * ENTRY_BYTES <= 4096 for piece in described.pieces[:-1])
    assert sum(map(len, described.pieces)) == count * ENTRY_BYTES


CHUNK = Chunk("a" * 64, 4)


@pytest.mark.parametrize(
    ("index", "size", "count"),
    [
        pytest.param(index_of(CHUNK, CHUNK), 9, 2, id="too-small"),
        pytest.param(index_of(CHUNK, CHUNK), 7, 2, id="too-large"),
        pytest.param(index_of(CHUNK, CHUNK), 4, 1, id="one-chunk-more"),
        pytest.param(index_of(CHUNK), 8, 2, id="one-chunk-less"),
        pytest.param(index_of(CHUNK)[:-1], 4, 1, id="cut-off"),
        pytest.param(b"", 4, 1, id="empty"),
        pytest.param(index_of(CHUNK, Chunk("b" * 64, 0)), 4, 2, id="an-empty-chunk"),
        pytest.param(index_of(Chunk("b" * 64, MAX_CHUNK_BYTES + 1)), MAX_CHUNK_BYTES, 1, id="a-chunk-too-large"),
        pytest.param(index_of(Chunk("b" * 64, 2**32 - 1), CHUNK), 8, 2, id="endless"),
        pytest.param(
            index_of(Chunk("b" * 64, MAX_CHUNK_BYTES + 1), CHUNK), MAX_CHUNK_BYTES + 5, 2, id="the-sum-of-one-too-large"
        ),
        pytest.param(index_of(CHUNK, CHUNK), 8, 1, id="the-sum-of-one-more"),
    ],
)
def test_an_index_whose_chunks_do_not_make_the_file_is_refused(index: bytes, size: int, count: int) -> None:
    """Even a signed index is refused before any chunk is fetched, when its sizes are not those of the file."""
    with pytest.raises(LengthMismatchError):
        read_index(signed_with(index, size=size, count=count), [index])


def test_a_file_of_a_release_of_before_has_no_index_to_read() -> None:
    """What a manifest of major 1 says of a file can be checked, and leads to no chunk."""
    file = ManifestFile.model_validate({"sha256": sha256_of(b"network"), "size": 7, "chunks": ["f" * 64]})
    check_file("model.onnx", file, b"network")
    with pytest.raises(LengthMismatchError):
        read_index(file, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 0},
        {"size": -1},
        {"size": MAX_MODEL_BYTES + 1},
        {"size": 2**80},
        {"chunk_count": -1},
        {"chunk_count": 0},
        {"chunk_count": 8},
        {"chunk_count": ENTRIES_A_PIECE + 1},
        {"chunk_count": MAX_CHUNKS + 1},
        {"size": MAX_CHUNK_BYTES + 1},
        {"index": []},
        {"index": ["f" * 64] * 2},
        {"index": ["f" * 63]},
        {"index": ["F" * 64]},
        {"index": ["f" * 64 + "\n"]},
        {"index": None},
        {"sha256": "../" + "f" * 61},
    ],
)
def test_a_file_of_a_senseless_size_is_refused(changes: dict[str, object]) -> None:
    """Empty and endless files, and more or fewer chunks and pieces than the size can have, are refused."""
    with pytest.raises(ValidationError):
        ManifestFile.model_validate({**describe(b"network").file.model_dump(), **changes})


def test_a_description_of_the_largest_network_is_small() -> None:
    """The largest file, in as many chunks as there may be, is listed by 145 hashes and its own."""
    listed = tuple(["f" * 64] * -(-MAX_CHUNKS // ENTRIES_A_PIECE))
    file = ManifestFile(sha256="f" * 64, size=MAX_MODEL_BYTES, chunk_count=MAX_CHUNKS, index=listed)
    assert len(file.index) == 145
    assert len(file.model_dump_json()) < 10_000


@given(places)
@example(set())
@example({MAX_CHUNKS - 1})
def test_a_bitmap_says_the_places_that_it_was_made_of(wanted: set[int]) -> None:
    """Any set of places comes back rising, and a bitmap of all the chunks that a file may have fits a request."""
    bitmap = to_bitmap(wanted)
    assert from_bitmap(bitmap, MAX_CHUNKS) == tuple(sorted(wanted))
    assert ChunkRequest(version=1, pieces=("f" * 64,), wanted={"model.onnx": bitmap}).wanted["model.onnx"] == bitmap


@given(places.filter(bool), st.data())
def test_a_bitmap_of_a_place_that_there_is_not_is_refused(wanted: set[int], draws: st.DataObject) -> None:
    """A place at or beyond the number of chunks is refused, never left out in silence."""
    assert from_bitmap(to_bitmap(wanted), max(wanted) + 1) == tuple(sorted(wanted))
    with pytest.raises(LengthMismatchError, match=f"place {max(wanted)} of"):
        from_bitmap(to_bitmap(wanted), draws.draw(st.integers(0, max(wanted))))


@given(st.text(max_size=30) | st.binary(max_size=60).map(base64.b64encode).map(bytes.decode), st.integers(0, 300))
@example("A", 8)
@example("AAAA\n", 8)
@example("AA==AA==", 8)
@example("====", 8)
@example("_-8=", 300)
@example("\u0661\u0661\u0661\u0661", 8)
@example("\ud800", 8)
@example("/" * 100_000, 8)
def test_any_text_as_a_bitmap(text: str, count: int) -> None:
    """Whatever is said as a bitmap, it names places below the count or is a `LengthMismatchError`."""
    try:
        found = from_bitmap(text, count)
    except LengthMismatchError:
        return
    assert list(found) == sorted(set(found))
    assert all(0 <= place < count for place in found)


@pytest.mark.parametrize("text", ["A", "AQ==\n", " AQ==", "AQ==AQ==", "A!Q==", "_-8=", "AQ", "\u0661Q=="])
def test_a_bitmap_in_another_spelling_is_refused(text: str) -> None:
    """A bitmap is plain base64, whole and alone: what is left of nonsense without the wrong letters is no wish."""
    assert from_bitmap("AQ==", 8) == (0,)
    with pytest.raises(LengthMismatchError, match="base64"):
        from_bitmap(text, 8)


@given(contents, offsets, contents, offsets)
def test_a_chunk_of_another_file_never_passes(mine: bytes, my_cuts: list[int], other: bytes, cuts: list[int]) -> None:
    """A chunk passes only where its bytes are the very ones, whichever file they come from."""
    for chunk in describe(mine, my_cuts).chunks:
        for part in cut(other, cuts):
            if sha256_of(part) != chunk.sha256:
                with pytest.raises((TruncatedChunkError, TamperedChunkError)):
                    check_chunk(chunk, part)


def test_the_same_bytes_are_one_chunk() -> None:
    """What repeats in a file, or comes back in the next release, has the same name and is moved once."""
    described: Described = describe(bytes(4 * MAX_CHUNK_BYTES))
    assert len(described.chunks) == 4
    assert len(set(described.chunks)) == 1
