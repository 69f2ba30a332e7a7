"""What the evidence promises: no false alarm beyond alpha whenever one looks, and few trials where it is clear."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.probation.evidence import Count, Stakes, evidence

STAKES: list[Stakes] = [{1.0: 0.92, 0.9: 0.08}, {1 / 3: 0.9, 1 / 9: 0.1}, {1.0: 0.5, 1 / 3: 0.4, 1 / 9: 0.1}]
BOUND = 0.25
ALPHA = 0.01

counts = st.builds(lambda a, b: Count(trials=a + b, events=a), st.integers(0, 300), st.integers(0, 300))
bounds = st.floats(0.01, 0.95)
stakes = st.sampled_from(STAKES)


@given(counts, bounds, stakes, st.floats(0, 1))
def test_one_more_trial_is_expected_to_bring_nothing_while_the_rate_is_within_the_bound(
    count: Count, bound: float, staked: Stakes, part: float
) -> None:
    """The evidence is a supermartingale under every rate up to the bound, from any past."""
    rate = bound * part
    with_event, without = evidence(count.plus(True), bound, staked), evidence(count.plus(False), bound, staked)
    assert rate * with_event + (1 - rate) * without <= evidence(count, bound, staked) * (1 + 1e-9)


@pytest.mark.parametrize("staked", STAKES)
def test_the_mean_of_the_evidence_over_many_runs_is_one_at_most_at_the_bound(staked: Stakes) -> None:
    """Its exact mean after 60 trials at the bound, over all outcomes, is 1."""
    trials = 60
    mean = math.fsum(
        math.comb(trials, events)
        * BOUND**events
        * (1 - BOUND) ** (trials - events)
        * evidence(Count(trials=trials, events=events), BOUND, staked)
        for events in range(trials + 1)
    )
    assert mean == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("staked", STAKES)
def test_seeded_runs_at_the_bound_hardly_ever_reach_one_over_alpha(staked: Stakes) -> None:
    """Of 1,000 runs of 300 trials, looked at after each, no more than alpha and its spread reach the limit."""
    reached = sum(_reaches(staked, BOUND, seed, 300) for seed in range(1000))
    assert reached <= 1000 * ALPHA + 3 * math.sqrt(1000 * ALPHA * (1 - ALPHA))


@pytest.mark.parametrize("staked", STAKES)
def test_twice_the_bound_and_more_is_found_in_time(staked: Stakes) -> None:
    """A rate of 80 % against a bound of 25 % is found within 60 trials in nearly all of 200 runs."""
    assert sum(_reaches(staked, 0.8, seed, 60) for seed in range(200)) >= 190


def test_events_in_every_trial_need_few_trials() -> None:
    """Four events in four trials multiply the share that was staked on rate 1 by 256."""
    assert evidence(Count(trials=4, events=4), BOUND, {1.0: 1.0}) == pytest.approx(256)


@given(counts, bounds, stakes)
def test_evidence_is_a_finite_number_whatever_the_counts(count: Count, bound: float, staked: Stakes) -> None:
    """Neither many events nor none overflow."""
    huge = Count(trials=count.trials * 10_000, events=count.events * 10_000)
    assert 0 <= evidence(huge, bound, staked) < math.inf


def _reaches(staked: Stakes, rate: float, seed: int, trials: int) -> bool:
    chance, count = random.Random(seed), Count()
    for _ in range(trials):
        count = count.plus(chance.random() < rate)
        if evidence(count, BOUND, staked) >= 1 / ALPHA:
            return True
    return False
