"""The policy asks for a retraining when it is due, says why when it is not, and never moves a patient."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_parts import NOW, cohort, later, patient_key

from cloud_worker.retrain import RetrainFacts, Side, count_patients, decide, side_of
from cloud_worker.settings import RetrainSettings
from protocol.labels import LABELS, Label

SETTINGS = RetrainSettings(min_new_labels=10, min_patients_per_class=2, cooldown_s=60)
ENOUGH = {side: dict.fromkeys(LABELS, 2) for side in Side}


def facts(**changes: Any) -> RetrainFacts:
    """Return facts under which a retraining is due, with these changes."""
    due = {"now": NOW, "has_release": True, "new_labels": 10, "patients": ENOUGH, "last_request_at": None}
    return RetrainFacts(**{**due, "open_requests": 0, **changes})


def lacking(side: Side, label: Label, count: int = 1) -> dict[Side, dict[Label, int]]:
    """Return enough patients everywhere but here."""
    return {**ENOUGH, side: {**ENOUGH[side], label: count}}


def test_it_fires_when_nothing_stands_against_it() -> None:
    """With a release, labels and patients enough and nothing under way, a retraining is due."""
    assert decide(facts(), SETTINGS).fire
    assert "10 new labels" in decide(facts(), SETTINGS).reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"has_release": False}, "nothing released yet"),
        ({"open_requests": 1}, "under way"),
        ({"new_labels": 9}, "fewer than 10 new labels"),
        ({"last_request_at": later(-59)}, "less than 60 s ago"),
        ({"patients": {}}, "fewer than 2 labelled patients"),
        ({"patients": lacking(Side.TRAIN, Label.COVID_19)}, "COVID-19 (train)"),
        ({"patients": lacking(Side.HELD_BACK, Label.NORMAL, 0)}, "Normal (held-back)"),
        ({"has_release": False, "new_labels": 0, "patients": {}}, "`sliceloop release`"),
        ({"open_requests": 1, "new_labels": 0}, "under way"),
    ],
)
def test_each_thing_that_is_missing_is_the_reason(changes: dict[str, Any], reason: str) -> None:
    """Whatever is missing keeps the policy from firing, and is what it gives as its reason."""
    decision = decide(facts(**changes), SETTINGS)
    assert not decision.fire
    assert reason in decision.reason


@pytest.mark.parametrize("changes", [{"last_request_at": later(-60)}, {"patients": lacking(Side.VAL, Label.NORMAL, 0)}])
def test_what_is_not_asked_for_does_not_hold_it_up(changes: dict[str, Any]) -> None:
    """A cooldown that has just passed, and a class without validation patients, do not stand against it."""
    assert decide(facts(**changes), SETTINGS).fire


def test_sides_have_about_their_shares() -> None:
    """Of many patients about the set shares are held back and validate; the rest is learnt from."""
    n, settings = 5_000, RetrainSettings(held_back_share=0.3, val_share=0.15)
    sides = [side_of(patient_key(str(number)), settings) for number in range(n)]
    for side, share in ((Side.HELD_BACK, 0.3), (Side.VAL, 0.15), (Side.TRAIN, 0.55)):
        assert abs(sides.count(side) / n - share) < 4 * math.sqrt(share * (1 - share) / n)


@given(
    key=st.text(),
    seed=st.integers(0, 9),
    others=st.lists(st.tuples(st.text(), st.sampled_from(Label)), max_size=20),
)
def test_a_patient_never_changes_sides(key: str, seed: int, others: list[tuple[str, Label]]) -> None:
    """A patient's side depends on the patient and the seed alone, whoever else is labelled, and however."""
    settings = RetrainSettings(seed=seed)
    side = side_of(key, settings)
    for label in Label:
        counted = count_patients([*others, (key, label)], settings)
        assert counted[side][label] >= 1
        alone = count_patients([(key, label)], settings)
        assert alone == {side: {label: 1}}


def test_another_seed_deals_anew() -> None:
    """Another seed puts some patients on another side."""
    one, other = ([side_of(str(n), RetrainSettings(seed=seed)) for n in range(50)] for seed in (0, 1))
    assert one != other


def test_patients_are_counted_and_not_slices() -> None:
    """Many slices of a patient count once in a class, and a patient of two classes once in each."""
    pairs = [(each.patient, each.label) for each in cohort(20)] * 3
    counted = count_patients(pairs, SETTINGS)
    assert sum(sum(by.values()) for by in counted.values()) == 60
    both = count_patients([("p", Label.NORMAL), ("p", Label.COVID_19)], SETTINGS)
    assert both == {side_of("p", SETTINGS): {Label.NORMAL: 1, Label.COVID_19: 1}}
