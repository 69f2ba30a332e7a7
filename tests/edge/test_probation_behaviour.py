"""A candidate beside the incumbent: bad ones are called out of bounds in time, good ones are not."""

import random
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from probation_parts import (
    BALANCED,
    MOSTLY_NORMAL,
    Candidate,
    Said,
    always,
    at_random,
    caught_at,
    differing,
    permuted,
    same,
    stream,
    unsure,
)

from edge_agent.probation import Bounds, Comparison, Paired
from protocol.labels import LABELS, Label

NORMAL, PNEUMONIA, COVID = Label.NORMAL, Label.PNEUMONIA, Label.COVID_19
RUNS = 40
"""The bench makes 1,000."""

BAD: dict[str, Candidate] = {
    "always Normal": always(NORMAL),
    "always COVID-19": always(COVID),
    "each label another": permuted((PNEUMONIA, COVID, NORMAL)),
    "findings exchanged": permuted((NORMAL, COVID, PNEUMONIA)),
    "random": at_random,
    "uncertain": unsure,
}
GOOD: dict[str, Candidate] = {"identical": same, "10 % other": differing(0.1), "20 % other": differing(0.2)}


@pytest.mark.parametrize("mix", [BALANCED, MOSTLY_NORMAL], ids=["balanced", "80 % Normal"])
@pytest.mark.parametrize("candidate", BAD.values(), ids=BAD)
def test_a_bad_candidate_is_out_of_bounds_within_50_slices(candidate: Candidate, mix: tuple[float, ...]) -> None:
    """Each kind of bad network is found in 50 slices, in all but one of 40 seeded runs at most."""
    caught = [caught_at(stream(candidate, mix, seed), 50) for seed in range(RUNS)]
    assert caught.count(None) <= 1


@pytest.mark.parametrize("mix", [BALANCED, MOSTLY_NORMAL], ids=["balanced", "80 % Normal"])
@pytest.mark.parametrize("candidate", GOOD.values(), ids=GOOD)
def test_a_good_candidate_stays_within_bounds_for_500_slices(candidate: Candidate, mix: tuple[float, ...]) -> None:
    """A network that differs in up to a fifth of the slices is not called bad, in 10 seeded runs."""
    assert [caught_at(stream(candidate, mix, seed), 500) for seed in range(10)] == [None] * 10


def test_a_better_candidate_stays_within_bounds() -> None:
    """One that sees the findings of which the incumbent misses three in ten is not called bad."""
    chance, comparison = random.Random(1), Comparison.begin(Bounds())
    for _ in range(500):
        truth = chance.choice(LABELS)
        missed = truth is COVID and chance.random() < 0.3
        incumbent = chance.choice((NORMAL, PNEUMONIA)) if missed else truth
        comparison = comparison.with_pair(Paired(Said(truth), Said(incumbent), 10, 10))
    assert not comparison.verdict()


def test_a_slow_candidate_is_out_of_bounds_within_50_slices() -> None:
    """Five times the incumbent's cost is found, and one that costs a third more is not, in spite of single spikes."""
    slow = [caught_at(stream(same, BALANCED, seed, times_slower=5), 50) for seed in range(RUNS)]
    assert None not in slow
    a_third_more = [caught_at(stream(same, BALANCED, seed, times_slower=1.33), 500) for seed in range(10)]
    assert a_third_more == [None] * 10


def test_a_box_that_is_slow_for_both_networks_alarms_nobody() -> None:
    """The candidate is compared with what the incumbent costs now, not with what it cost once."""
    comparison = Comparison.begin(Bounds())
    for number in range(400):
        cost_ms = 10.0 if number < 200 else 80.0
        comparison = comparison.with_pair(Paired(Said(NORMAL), Said(NORMAL), cost_ms, cost_ms))
    assert not comparison.verdict()


def test_the_verdict_says_which_signal_with_numbers() -> None:
    """The reason that the fleet reads names both answers, the release compared with, how often, and the bound."""
    comparison = Comparison.begin(Bounds(), incumbent="release 6")
    for label in (COVID, NORMAL, COVID, PNEUMONIA, COVID):
        comparison = comparison.with_pair(Paired(Said(NORMAL), Said(label), 10, 10))
    assert comparison.verdict() == (
        "said Normal where release 6 said Pneumonia or COVID-19 on 4 of 4 slices (allowed 25%)"
    )


def test_a_verdict_stays() -> None:
    """Slices that come after it do not talk it back."""
    comparison = _after(Comparison.begin(Bounds()), stream(always(COVID), BALANCED, 1), 30)
    said = comparison.verdict()
    assert said
    assert _after(comparison, stream(same, BALANCED, 2), 300).verdict() == said


@pytest.mark.parametrize("candidate", [*BAD.values(), *GOOD.values()], ids=[*BAD, *GOOD])
def test_a_restart_after_any_slice_changes_no_verdict(candidate: Candidate) -> None:
    """Written as JSON and read again after each slice, the comparison comes to the same."""
    through = kept = Comparison.begin(Bounds(), incumbent="release 6")
    for _, pair in zip(range(40), stream(candidate, BALANCED, 7), strict=False):
        through = through.with_pair(pair)
        kept = Comparison.from_json(kept.with_pair(pair).to_json())
        assert kept == through


def test_a_comparison_of_garbage_is_refused() -> None:
    """A damaged file raises ValueError, which starts the comparison afresh."""
    with pytest.raises(ValueError, match="pairs"):
        Comparison.from_json('{"bounds": {}, "incumbent": "release 6", "pairs": "many"}')


def test_bounds_may_be_any_object_that_has_them() -> None:
    """The signed manifest's own part serves as it is, and its values count."""
    signed = SimpleNamespace(
        max_disagreement=0.6, max_shift=0.6, max_abstention=0.5, max_latency_ratio=3, max_slow_share=0.3, alpha=0.001
    )
    comparison = Comparison.begin(signed)
    assert comparison.bounds.max_disagreement == 0.6
    assert not _after(comparison, stream(differing(0.5), BALANCED, 3), 300).verdict()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_bounds_of_nothing_and_of_everything_are_bounds(share: float) -> None:
    """A manifest may allow no difference, then one is too many; or any, then none is."""
    bounds = Bounds(max_disagreement=share, max_shift=share, max_abstention=share, max_slow_share=share)
    same_so_far = _after(Comparison.begin(bounds), stream(same, BALANCED, 1), 4)  # fewer than there is a median of
    assert not same_so_far.verdict()
    after_one = same_so_far.with_pair(Paired(Said(COVID), Said(NORMAL), 10, 10))
    assert bool(after_one.verdict()) is (share == 0)
    assert bool(_after(after_one, stream(at_random, BALANCED, 1), 100).verdict()) is (share == 0)


def test_uncertain_incumbents_say_nothing_about_labels() -> None:
    """Where the incumbent was uncertain, another label is no disagreement."""
    comparison = Comparison.begin(Bounds())
    for _ in range(100):
        comparison = comparison.with_pair(Paired(Said(COVID), Said(NORMAL, uncertain=True), 10, 10))
    assert not comparison.verdict()


def _after(comparison: Comparison, pairs: Iterator[Paired], count: int) -> Comparison:
    for _, pair in zip(range(count), pairs, strict=False):
        comparison = comparison.with_pair(pair)
    return comparison
