"""What goes first, and what gives way when there is no room."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outbox_parts import Clock, fill, ids, message, outbox_at, pair

from edge_agent.outbox import Outbox, OutboxFullError, OutboxNumberError
from protocol.topics import Kind

MAX_WAIT_S = 100.0


def test_the_urgent_go_first_and_slices_before_originals(tmp_path: Path) -> None:
    """By priority, then by age; an original waits for every slice."""
    with outbox_at(tmp_path / "o") as outbox:
        for number, priority in enumerate([0, 50, 0, 50], start=1):
            outbox.add(f"{number}", "s", number, pair(number), priority=priority)
        assert ids(outbox) == ["s2", "s4", "s1", "s3", "f2", "f4", "f1", "f3"]
        assert ids(outbox, 2, besides=["s4", "f4"]) == ["s2", "s1"]


def test_age_wins_in_the_end(tmp_path: Path) -> None:
    """What waited longer than max_wait_s takes turns with the new and the most urgent, over a restart too."""
    clock = Clock()
    with outbox_at(tmp_path / "o", clock=clock, max_wait_s=MAX_WAIT_S) as outbox:
        outbox.add("1", "s", 1, pair(1))
        clock.now += 60
        outbox.add("2", "s", 2, pair(2), priority=99)
        assert ids(outbox) == ["s2", "s1", "f2", "f1"]
        clock.now += 41
    with outbox_at(tmp_path / "o", clock=clock, max_wait_s=MAX_WAIT_S) as outbox:
        assert ids(outbox) == ["s2", "s1", "f1", "f2"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 40)), min_size=1, max_size=40), st.integers(1, 3))
def test_nothing_starves(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, float]], rate: int) -> None:
    """Whatever comes in: of any three that are sent in a row, one is the oldest of those that are overdue."""
    clock, waits, since_oldest = Clock(), dict[str, float](), 0
    path = tmp_path_factory.mktemp("o") / "o"
    with Outbox(path, max_rows=999, max_bytes=9999, clock=clock, max_wait_s=MAX_WAIT_S) as outbox:
        for number, (priority, passed_s) in enumerate(steps, start=1):
            outbox.add(f"{number}", "s", number, [message(f"m{number}", b"x")], priority=priority)
            waits[f"m{number}"] = clock.now
            clock.now += passed_s
            for _ in range(rate if number % 3 == 0 else 0):
                (sent,) = ids(outbox, 1)
                overdue = [name for name, since in waits.items() if clock.now - since >= MAX_WAIT_S]
                is_oldest = not overdue or sent == min(overdue, key=lambda name: (waits[name], int(name[1:])))
                since_oldest = 0 if is_oldest else since_oldest + 1
                assert since_oldest < 3
                outbox.delete([sent])
                del waits[sent]


def test_a_new_slice_does_not_wait_behind_a_backlog(tmp_path: Path) -> None:
    """After an outage every third message is a new slice, however many wait and however little goes at a time."""
    clock = Clock()
    with outbox_at(tmp_path / "o", clock=clock) as outbox:
        fill(outbox, 50)
        clock.now += 600
        for number in range(51, 61):
            outbox.add(f"{number}", "s", number, [message(f"s{number}")])
            sent = [ids(outbox, 1)[0] for _ in range(3) if outbox.depth()]
            assert f"s{number}" in sent
            outbox.delete(sent)


def test_originals_give_way_and_slices_never(tmp_path: Path) -> None:
    """Full, the least urgent and oldest original is dropped and its number kept; with slices alone it is refused."""
    with outbox_at(tmp_path / "o", max_rows=6, when_full="drop-frames") as outbox:
        for number, priority in enumerate([50, 0, 0], start=1):
            outbox.add(f"{number}", "s", number, pair(number), priority=priority)
        outbox.add("4", "s", 4, pair(4), priority=10)
        assert ids(outbox) == ["s1", "s4", "s2", "s3", "f1", "f4"]
        assert outbox.dropped_frames() == ((2, 3),)
        outbox.add("5", "s", 5, pair(5))
        outbox.add("6", "s", 6, pair(6))
        assert outbox.depth() == 6
        assert outbox.dropped_frames() == ((1, 6),)
        with pytest.raises(OutboxFullError, match=r"outbox full \(7 of 6 rows\)"):
            outbox.add("7", "s", 7, [message("s7")])
        assert not outbox.is_captured("7")
        assert outbox.waiting_ranges(10) == ((1, 6),)


def test_originals_give_way_by_bytes_too(tmp_path: Path) -> None:
    """The bound in bytes drops as many originals as the new slice needs."""
    with outbox_at(tmp_path / "o", max_bytes=100, when_full="drop-frames") as outbox:
        fill(outbox, 5, messages=pair)
        outbox.add("6", "s", 6, [message("s6", bytes(25))])
        assert outbox.dropped_frames() == ((1, 3),)
        assert outbox.load().bytes == 95


def test_how_full_it_is_and_was(tmp_path: Path) -> None:
    """Fullness is the larger share of rows and bytes; the high water mark stays until the outbox was empty."""
    with outbox_at(tmp_path / "o", max_rows=10, max_bytes=1000) as outbox:
        fill(outbox, 4, messages=lambda n: [message(f"s{n}", bytes(200))])
        assert (outbox.load().rows, outbox.load().bytes) == (4, 800)
        assert outbox.load().fullness == pytest.approx(0.8)
        outbox.delete(["s1", "s2"])
        assert outbox.load().fullness == pytest.approx(0.4)
        assert outbox.load().high_water == pytest.approx(0.8)
        outbox.delete(["s3", "s4"])
        assert outbox.load().high_water == 0


def test_waiting_numbers_are_told_as_ranges(tmp_path: Path) -> None:
    """Numbers without a receipt, of slices alone; beyond the limit the last ranges are joined."""
    with outbox_at(tmp_path / "o") as outbox:
        fill(outbox, 10, messages=pair)
        outbox.delete(["s3", "s6", "s8", "f1"])
        assert outbox.waiting_ranges(9) == ((1, 2), (4, 5), (7, 7), (9, 10))
        assert outbox.waiting_ranges(2) == ((1, 2), (4, 10))


def test_bytes_bound_what_is_taken_at_once(tmp_path: Path) -> None:
    """As many as fit into the bytes that are left; a message beyond the whole window goes alone."""
    with outbox_at(tmp_path / "o") as outbox:
        fill(outbox, 3, messages=lambda n: [message(f"s{n}", bytes(400))])
        assert ids(outbox, max_bytes=1000, whole=1000) == ["s1", "s2"]
        assert ids(outbox, max_bytes=300, whole=1000) == []
        assert ids(outbox, max_bytes=300, whole=300) == ["s1"]


def test_what_is_held_back_lets_the_others_go(tmp_path: Path) -> None:
    """A message that is kept back is counted with its reason, and given again when it is let go."""
    with outbox_at(tmp_path / "o") as outbox:
        fill(outbox, 3)
        outbox.hold("s1", "too large")
        assert ids(outbox) == ["s2", "s3"]
        assert (outbox.held().count, outbox.held().reason) == (1, "too large")
        assert outbox.release_held() == 1
        assert ids(outbox) == ["s1", "s2", "s3"]
        assert outbox.release_held() == 0


def test_a_number_is_never_given_twice(tmp_path: Path) -> None:
    """A number that was given is refused, also after its receipt."""
    with outbox_at(tmp_path / "o") as outbox:
        fill(outbox, 3)
        outbox.delete(["s3"])
        with pytest.raises(OutboxNumberError, match="number 3 was given before"):
            outbox.add("new", "s", 3, [message("new", kind=Kind.SLICE)])
        assert outbox.last_sequence() == 3
