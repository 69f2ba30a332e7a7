"""The behaviour bench: what it counts, prints and draws."""

import io
import random
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from protocol.labels import LABELS, Label
from sliceloop.update_bench.behaviour import BehaviourRequest, measure_behaviour
from sliceloop.update_bench.behaviour_figures import draw
from sliceloop.update_bench.behaviour_report import show
from sliceloop.update_bench.behaviour_result import DEFAULT, SIGNED, WIDEST, BehaviourResult, Course
from sliceloop.update_bench.beside_cost import cost_beside
from sliceloop.update_bench.kinds import KEPT_SLICES, MIXES, Match, Said, made_up, read_by_networks
from sliceloop.update_bench.signed import signed, widest
from training.model.preprocess import INPUT_PX
from training.model.reader import Reading


@pytest.fixture(scope="module")
def benched() -> BehaviourResult:
    return measure_behaviour(BehaviourRequest(runs=2, networks=False))


def test_every_kind_runs_on_every_mix(benched: BehaviourResult) -> None:
    """A course for each, with kept slices and without, with as many runs as were asked for."""
    courses = benched.courses
    assert {(course.kind, course.mix, course.kept) for course in courses} == {
        (kind.name, mix, kept) for kind in made_up() for mix in MIXES for kept in (True, False)
    }
    assert {len(course.caught_at) for course in courses} == {2}


def test_bad_candidates_are_held_to_two_bounds_and_good_ones_to_their_gates(benched: BehaviourResult) -> None:
    """A bad one passes no gate: the default bounds hold for it, and the widest that a gate gave."""
    bad, good = ({course.held_to for course in benched.courses if course.good is each} for each in (False, True))
    assert (bad, good) == ({DEFAULT, WIDEST}, {SIGNED})
    assert benched.widest.max_contradiction > benched.bounds.max_contradiction


def test_an_edge_keeps_so_many_slices_of_each_label_of_which_the_incumbent_was_certain() -> None:
    """Where most slices are Normal the findings of weeks are kept, and only so many Normal ones."""
    kind = next(kind for kind in made_up() if kind.name == "always uncertain")
    kept = list(kind.kept(MIXES["95 % Normal"], 1))
    of_label = Counter(pair.incumbent.label for pair in kept)
    assert of_label[Label.NORMAL] == KEPT_SLICES
    assert min(of_label.values()) > 40
    assert not any(pair.incumbent.uncertain for pair in kept)


def test_a_gate_signs_what_it_sees() -> None:
    """Room for a tenth that is answered otherwise, the same for the same seed; the default where nothing is."""
    kinds = {kind.name: kind for kind in made_up()}
    identical, other = (signed(kinds[name], 1) for name in ("identical", "20 % other"))
    assert identical.max_disagreement == identical.max_shift == 0.25 < other.max_disagreement
    assert other == signed(kinds["20 % other"], 1) != signed(kinds["20 % other"], 2)
    assert widest([identical, other]).max_disagreement == other.max_disagreement


def test_a_result_is_read_from_its_file(benched: BehaviourResult) -> None:
    """The JSON holds everything."""
    assert BehaviourResult.model_validate_json(benched.model_dump_json()) == benched


def test_the_picture_is_drawn(benched: BehaviourResult) -> None:
    """A PNG with a column for each mix, a row for each kind of bounds and edge."""
    with Image.open(io.BytesIO(draw(benched, "png"))) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height


def test_the_tables_name_each_kind(benched: BehaviourResult) -> None:
    """Bad and good candidates are printed with their shares."""
    printed = io.StringIO()
    show(benched, Console(file=printed, width=200))
    assert all(kind.name in printed.getvalue() for kind in made_up())


def test_a_share_counts_verdicts_up_to_a_slice() -> None:
    """Runs without a verdict, or with a later one, do not count."""
    course = Course(
        kind="k",
        good=False,
        real=False,
        mix="m",
        kept=True,
        held_to=WIDEST,
        slices=300,
        caught_at=(0, 50, 51, None),
        verdict="said so",
    )
    assert (course.share(50).hits, course.share(50).of) == (2, 4)
    assert course.share(0).hits == 1


def test_the_same_seed_gives_the_same_slices() -> None:
    """A run can be made again."""
    for kind in made_up():
        runs = [list(islice(kind.pairs(MIXES["balanced"], seed), 20)) for seed in (1, 1, 2)]
        assert runs[0] == runs[1]
        assert runs[0] != runs[2]


def test_networks_are_compared_on_the_same_slices() -> None:
    """Both answers of a pair are to one slice, which is truly of the label that was drawn."""
    truth = [random.Random(number).choice(LABELS) for number in range(30)]
    answers = {"first": [Said(label) for label in truth], "second": [Said(label, uncertain=True) for label in truth]}
    patients = [f"patient {number}" for number in range(30)]
    (kind,) = read_by_networks([Match("second beside first", True, "second", "first")], answers, truth, patients)
    for pair in islice(kind.pairs((0.0, 1.0, 1.0), 0), 50):
        assert pair.candidate.label is pair.incumbent.label
        assert pair.candidate.label is not Label.NORMAL
        assert pair.candidate.uncertain


def test_a_gate_sees_other_patients_than_the_edge_and_none_is_kept_twice() -> None:
    """Every slice of one half may be held back, every one of the other comes to the edge, which keeps it once."""
    truth = [label for label in LABELS for _ in range(40)]
    patients = [f"patient {number // 2}" for number in range(len(truth))]
    answers = {"first": [Said(label) for label in truth], "second": [Said(label, uncertain=True) for label in truth]}
    (kind,) = read_by_networks([Match("second beside first", True, "second", "first")], answers, truth, patients)
    chance = random.Random(1)
    assert kind.gate is not None
    held_back, at_edge = (
        {id(draw(label, chance)[1]) for label in LABELS for _ in range(500)} for draw in (kind.gate, kind.draw)
    )
    assert len(held_back) + len(at_edge) == len(truth)
    whose = {id(said): patient for said, patient in zip(answers["first"], patients, strict=True)}
    assert not {whose[each] for each in held_back} & {whose[each] for each in at_edge}
    assert kind.accuracy(MIXES["balanced"]) == (1, 1)
    kept = [id(pair.incumbent) for pair in kind.kept(MIXES["balanced"], 1)]
    assert sorted(kept) == sorted(at_edge)


class _Quick:
    def read(self, prepared: np.ndarray) -> Reading:
        return Reading(Label.NORMAL, False, {Label.NORMAL: 1.0})


def test_the_cost_of_reading_beside_is_measured_with_and_without() -> None:
    """Without a silent reader nothing is compared; with one the intervals are those of the same loop."""
    slices = [np.zeros((INPUT_PX, INPUT_PX), np.uint8)] * 20
    alone, beside = (cost_beside(_Quick(), _Quick(), slices, duty) for duty in (None, 1.0))
    assert alone.compared == 0
    assert beside.compared <= 20
    assert beside.interval_p50_ms > 0
