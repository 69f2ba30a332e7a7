"""The window fills the line, and no more: it follows how long receipts take."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.window import FEWEST, AdaptiveWindow

MOST = 50
FIRST_MANY = 8_000


def through(
    window: AdaptiveWindow, rate_per_s: float, delay_s: float, receipts: int, others: int = 0
) -> list[tuple[float, float]]:
    """Keep the window full on a line that takes so many messages a second and adds a delay.

    Return of each when its receipt came, and how long that took.

    others: messages of others that always wait before each of ours.
    """
    now_s, free_at_s, came = 0.0, 0.0, []
    under_way: deque[tuple[float, float]] = deque()
    for _ in range(receipts):
        while len(under_way) < window.messages:
            free_at_s = max(free_at_s, now_s) + (1 + others) / rate_per_s
            under_way.append((now_s, free_at_s + delay_s))
        sent_s, now_s = under_way.popleft()
        came.append((now_s, now_s - sent_s))
        window.receipt(now_s - sent_s)
    return came


@given(st.floats(20, 2000), st.floats(0.001, 0.2))
def test_the_line_is_kept_busy_and_the_queue_short(rate_per_s: float, delay_s: float) -> None:
    """On a line of any speed all of it is used, and a message waits at most about once more than on the empty line."""
    came = through(AdaptiveWindow(MOST), rate_per_s, delay_s, FIRST_MANY)[FIRST_MANY // 2 :]
    alone_s = 1 / rate_per_s + delay_s
    assert sum(took for _, took in came) / len(came) <= 2.5 * alone_s + 0.05
    lasted_s = came[-1][0] - came[0][0]
    possible = min(rate_per_s, MOST / alone_s)
    assert (len(came) - 1) / lasted_s >= 0.8 * possible


def test_it_gives_way_where_others_fill_the_line() -> None:
    """When receipts begin to take long because of others, the window shrinks; when they are gone, it grows again."""
    window = AdaptiveWindow(MOST)
    through(window, 1000, 0.02, 500)
    alone = window.messages
    through(window, 1000, 0.02, 500, others=15)
    crowded = window.messages
    through(window, 1000, 0.02, 500)
    assert crowded < alone / 2
    assert window.messages > 2 * crowded


def test_a_missing_receipt_halves_it_and_a_new_connection_begins_anew() -> None:
    """Overdue receipts shrink the window to its least; a restart forgets all that."""
    window = AdaptiveWindow(MOST)
    before = window.messages
    for _ in range(10):
        window.overdue()
    assert window.messages == FEWEST
    window.restart()
    assert window.messages == before


@given(st.lists(st.floats(0, 1e6)), st.integers(1, 100))
def test_it_stays_within_its_bounds(took: list[float], most: int) -> None:
    """Whatever receipts take, at least one message may go, and never more than the bound."""
    window = AdaptiveWindow(most)
    for seconds in took:
        window.receipt(seconds)
        assert 1 <= window.messages <= most
