"""What an edge asks for while a release comes: nothing that others asked for already, nothing that is only late."""

from pathlib import Path

import pytest
from edge_parts import CHUNK_TIMEOUT_S, TalkingUpdater, TinyRelease, filled_slot, large, release

from edge_agent.download import FOLLOW, STALLS_TILL_ALONE
from protocol.chunks import sha256_of

JUST_BEFORE_S = 0.001


@pytest.fixture
def edge(tmp_path: Path) -> TalkingUpdater:
    """An updater whose slot runs release 1."""
    return TalkingUpdater(filled_slot(tmp_path / "models"))


@pytest.fixture(scope="module")
def wide() -> TinyRelease:
    """A release that does not fit into the first window."""
    return release(2, large(3))


def know_the_indices(edge: TalkingUpdater, made: TinyRelease) -> None:
    """Bring an edge to the point where it knows the chunks, and has asked for none of them."""
    edge.offer(made)
    edge.step()
    (request,) = edge.requests
    for sha256 in request.pieces:
        edge.give(sha256, made.chunks[sha256])
    edge.requests.clear()


def asked(edge: TalkingUpdater, made: TinyRelease) -> list[str]:
    """Return all that was asked for since the last time."""
    said = [sha256 for request in edge.requests for sha256 in made.wanted(request)]
    edge.requests.clear()
    return said


def kept_bytes(edge: TalkingUpdater) -> int:
    """Return how much of a release on its way lies on the disk."""
    return sum(path.stat().st_size for path in edge.slot.folder.rglob("incoming/*"))


# Heard before the indices.


def test_chunks_for_all_that_come_before_the_indices_are_not_asked_for(edge: TalkingUpdater, wide: TinyRelease) -> None:
    """Other edges are ahead, and each chunk comes once: what cannot be placed yet is kept."""
    edge.offer(wide)
    edge.step()
    early = [sha256 for sha256 in wide.chunks if sha256 not in wide.pieces][:5]
    for sha256 in early:
        edge.give(sha256, wide.chunks[sha256], shared=True)
    for sha256 in wide.pieces:
        edge.give(sha256, wide.chunks[sha256])
    edge.requests.clear()
    edge.give_wanted(wide, CHUNK_TIMEOUT_S)
    assert edge.slot.running_version == 2
    assert not set(early) & set(asked(edge, wide))


def test_of_chunks_that_cannot_be_placed_no_more_is_kept_than_the_release_has(
    edge: TalkingUpdater, wide: TinyRelease
) -> None:
    """They may be another release's: whatever comes, the disk does not fill, and the release still arrives."""
    edge.offer(wide)
    edge.step()
    size = sum(map(len, wide.files.values()))
    for number in range(2 * size // 50_000):
        foreign = number.to_bytes(50_000, "big")
        edge.give(sha256_of(foreign), foreign, shared=True)
    assert size - 50_000 < kept_bytes(edge) <= size
    edge.give_wanted(wide, CHUNK_TIMEOUT_S)
    assert edge.slot.running_version == 2
    assert kept_bytes(edge) == 0


@pytest.mark.parametrize(("data", "shared"), [(b"garbage", True), (None, False)])
def test_before_the_indices_only_true_chunks_for_all_are_kept(
    edge: TalkingUpdater, wide: TinyRelease, data: bytes | None, shared: bool
) -> None:
    """Bytes under another hash, or sent to this edge alone, which has not asked for them, are dropped."""
    edge.offer(wide)
    edge.step()
    sha256 = next(sha256 for sha256 in wide.chunks if sha256 not in wide.pieces)
    edge.give(sha256, wide.chunks[sha256] if data is None else data, shared=shared)
    assert kept_bytes(edge) == 0


# Others ask for the same.


def test_while_chunks_come_that_others_asked_for_an_edge_asks_for_nothing(
    edge: TalkingUpdater, wide: TinyRelease
) -> None:
    """What it lacks is probably behind them; only when they have ceased for a while it asks for the rest."""
    know_the_indices(edge, wide)
    edge.step(1.0)
    first = asked(edge, wide)
    others = [sha256 for sha256 in wide.chunks if sha256 not in wide.pieces and sha256 not in first]
    for sha256 in first:
        edge.give(sha256, wide.chunks[sha256], shared=True)
    edge.now_s = 2.0
    edge.give(others[0], wide.chunks[others[0]], shared=True)
    pause_s = FOLLOW * CHUNK_TIMEOUT_S
    edge.step(2.0 + pause_s - JUST_BEFORE_S)
    assert asked(edge, wide) == []
    edge.step(2.0 + pause_s)
    rest = asked(edge, wide)
    assert rest
    assert not set(rest) & {*first, others[0]}


def test_a_whole_release_may_come_without_one_chunk_asked_for(edge: TalkingUpdater, wide: TinyRelease) -> None:
    """An edge that is behind the others hears all of it, and costs the broker nothing."""
    know_the_indices(edge, wide)
    for tenth, (sha256, data) in enumerate(wide.chunks.items()):
        edge.now_s = tenth / 10
        edge.give(sha256, data, shared=True)
        edge.step()
    assert asked(edge, wide) == []
    assert edge.slot.running_version == 2


def stall(edge: TalkingUpdater) -> None:
    """Let so much time pass without a chunk that an edge gives up those for all."""
    for _ in range(STALLS_TILL_ALONE + 1):
        edge.step(edge.now_s + CHUNK_TIMEOUT_S)
    assert not edge.requests[-1].shared


def test_where_chunks_for_all_never_came_an_edge_goes_on_alone(edge: TalkingUpdater, wide: TinyRelease) -> None:
    """A broker that does not let it hear them costs two timeouts, and not two for each window."""
    edge.offer(wide)
    stall(edge)
    edge.give_wanted(wide, edge.now_s + CHUNK_TIMEOUT_S)
    assert [request.shared for request in edge.requests[:STALLS_TILL_ALONE]] == [True] * STALLS_TILL_ALONE
    assert not any(request.shared for request in edge.requests[STALLS_TILL_ALONE:])
    assert edge.shared == [True, False]
    assert edge.slot.running_version == 2


def test_where_chunks_for_all_have_come_an_edge_returns_to_them(edge: TalkingUpdater, wide: TinyRelease) -> None:
    """A line that stood still for a while is no reason to have a release sent to it alone."""
    edge.offer(wide)
    edge.step()
    for sha256 in wide.wanted(edge.requests[0]):
        edge.give(sha256, wide.chunks[sha256], shared=True)
    stall(edge)
    for sha256 in wide.wanted(edge.requests[-1]):
        edge.give(sha256, wide.chunks[sha256])
    edge.step()
    assert edge.requests[-1].shared
    assert edge.shared == [True, False, True]


# Late, or lost.


def test_an_edge_says_when_nothing_is_on_its_way_any_more(edge: TalkingUpdater, wide: TinyRelease) -> None:
    """With the first request, after a stall and after a cut line, and not in between: else chunks would go twice."""
    edge.offer(wide)
    edge.step(0.0)
    for sha256 in wide.pieces:
        edge.give(sha256, wide.chunks[sha256])
    edge.step(0.1)
    edge.step(0.1 + CHUNK_TIMEOUT_S)
    for sha256 in wide.wanted(edge.requests[-1]):
        edge.give(sha256, wide.chunks[sha256])
    edge.step(0.2 + CHUNK_TIMEOUT_S)
    edge.updater.line_was_cut()
    edge.step(0.3 + CHUNK_TIMEOUT_S)
    assert [request.fresh for request in edge.requests] == [True, False, True, False, True]


def test_on_a_slow_line_chunks_are_late_and_not_asked_for_again(edge: TalkingUpdater, wide: TinyRelease) -> None:
    """While others come, however slowly, what was asked for is behind them; only a silence says that it is lost."""
    know_the_indices(edge, wide)
    edge.step(0.0)
    window = asked(edge, wide)
    slowly_s = CHUNK_TIMEOUT_S - JUST_BEFORE_S
    for number, sha256 in enumerate(window[:-1]):
        edge.step(edge.now_s + slowly_s)
        assert window[-1] not in asked(edge, wide), number
        edge.give(sha256, wide.chunks[sha256], shared=True)
    edge.step(edge.now_s + CHUNK_TIMEOUT_S)
    assert window[-1] in asked(edge, wide)


def test_on_a_good_line_nothing_is_asked_for_twice(edge: TalkingUpdater, wide: TinyRelease) -> None:
    """Every chunk once, and none that a release on this edge has already."""
    know_the_indices(edge, wide)
    edge.give_wanted(wide, 0.1)
    assert sorted(asked(edge, wide)) == sorted(set(wide.chunks) - set(wide.pieces) - set(release(1).chunks))
