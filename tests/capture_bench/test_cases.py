"""Which frames a capture benchmark takes."""

from collections import Counter

import pytest

from sliceloop.capture_bench.cases import BadSeverityError, CasePlan, cases, parse_severities, stratified
from training.screen_camera import EmptyScene, Factor

IDS = ("a", "b", "c", "d")
LABELS = (0, 1, 2, 2)


def test_every_slice_is_shown_at_every_severity_with_dice_of_its_own():
    """Each slice comes once at each severity, under one seed that no other slice has."""
    plan = CasePlan(severities=(0.0, 1.0), factor_slices=0, empty_scenes=0)

    taken = cases(plan, IDS, LABELS)

    assert [(case.at, case.severity) for case in taken] == [(at, s) for at in range(4) for s in (0.0, 1.0)]
    assert len({case.seed for case in taken}) == len(IDS)
    assert len({(case.at, case.seed) for case in taken}) == len(IDS)


def test_another_shot_of_a_slice_has_other_dice():
    """Two shots of a slice at one severity differ in their seed."""
    taken = cases(CasePlan(severities=(1.0,), shots=2, factor_slices=0, empty_scenes=0), IDS, LABELS)
    assert len({(case.at, case.seed) for case in taken}) == 2 * len(IDS)


def test_scenes_without_a_slice_come_at_every_severity():
    """Every kind of scene is shown so many times at each severity."""
    taken = cases(CasePlan(severities=(0.0, 1.0), factor_slices=0, empty_scenes=3), (), ())
    counted = Counter((case.scene, case.severity) for case in taken)
    assert counted == {(scene, severity): 3 for scene in EmptyScene for severity in (0.0, 1.0)}


def test_factors_are_shown_alone_where_there_is_a_severity():
    """Each factor is shown alone on the same slices, but not at severity 0, where none does anything."""
    taken = [case for case in cases(CasePlan(factor_slices=2, empty_scenes=0), IDS, LABELS) if case.kind == "factor"]
    assert {case.only for case in taken} == set(Factor)
    assert {case.severity for case in taken} == {0.6, 1.0, 1.6}
    assert len({case.at for case in taken}) == 2


def test_a_stratified_draw_takes_the_classes_evenly_and_the_same_again():
    """Of very unequal classes as many slices are drawn of each, and the seed decides which."""
    labels = [0] * 90 + [1] * 6 + [2] * 4

    drawn = stratified(labels, 12, seed=3)

    assert Counter(labels[at] for at in drawn) == {0: 4, 1: 4, 2: 4}
    assert drawn == stratified(labels, 12, seed=3)
    assert set(drawn) != set(stratified(labels, 12, seed=4))


def test_a_draw_of_more_than_there_are_takes_all():
    """Nothing is drawn twice."""
    assert sorted(stratified([0, 0, 1], 10, seed=0)) == [0, 1, 2]


def test_severities_are_read_once_each_and_in_order():
    """Doubled ones come once, so that no frame is counted twice."""
    assert parse_severities("1.6, 0,0.6,1.6") == (0.0, 0.6, 1.6)


@pytest.mark.parametrize("text", ["", "bad", "0,,1", "-1", "0,4", "nan", "1 2"])
def test_severities_that_there_are_not_are_refused(text):
    """The message says what would do."""
    with pytest.raises(BadSeverityError, match=r"0,0\.6,1,1\.6"):
        parse_severities(text)
