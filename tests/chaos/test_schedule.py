"""Which fault strikes whom, and when."""

from sliceloop.chaos.schedule import LONGEST_S, SHARES, SHORTEST_S, Kind, draw

AVAILABLE = dict.fromkeys(Kind, ("edge-1", "edge-2"))


def test_a_seed_gives_the_same_schedule_again_and_another_seed_another() -> None:
    """Seed, sizes and available kinds decide alone."""
    assert draw(7, 500, 60, AVAILABLE) == draw(7, 500, 60, AVAILABLE)
    assert draw(7, 500, 60, AVAILABLE) != draw(8, 500, 60, AVAILABLE)


def test_every_available_kind_strikes_when_there_are_enough_faults() -> None:
    """A whole round of the kinds, each by its share, comes before the next."""
    a_round = len(Kind) + sum(share - 1 for share in SHARES.values())
    assert {fault.kind for fault in draw(1, 500, a_round, AVAILABLE)} == set(Kind)


def test_every_target_of_a_kind_is_struck_before_one_is_struck_twice() -> None:
    """Four faults on four targets strike each once."""
    names = ("a", "b", "c", "d")
    assert {fault.target for fault in draw(3, 100, 4, {Kind.KILL: names})} == set(names)


def test_an_unavailable_kind_never_strikes() -> None:
    """What this machine cannot do is not drawn."""
    drawn = draw(1, 500, 100, {Kind.KILL: ("edge-1",)})
    assert {fault.kind for fault in drawn} == {Kind.KILL}


def test_faults_come_in_order_while_slices_are_given_and_are_short() -> None:
    """Moments grow, lie within the stream, and durations within their bounds."""
    drawn = draw(2, 500, 200, AVAILABLE)
    assert [fault.at_slice for fault in drawn] == sorted(fault.at_slice for fault in drawn)
    assert all(1 <= fault.at_slice <= 500 for fault in drawn)
    assert all(SHORTEST_S <= fault.seconds <= LONGEST_S for fault in drawn)
