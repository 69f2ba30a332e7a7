"""What the demo decides: who plays which part, at what pace slices come, what a swap cost, whether all is well."""

import io
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console

from protocol.labels import LABELS, Label
from sliceloop.demo.measure import Diagnosed, compare_releases, swap_gap
from sliceloop.demo.result import LEARNT_FROM_PHANTOMS, DemoResult, EdgeRow, ReleaseRow, Swap, summary
from sliceloop.demo.roles import MAX_EVALUATION_SLICES, MAX_SLICES_A_PATIENT, Roles, TooFewPatientsError, deal
from sliceloop.demo.run import in_use, tail_waits
from sliceloop.demo.scanner import FAST_S, RESERVE_SHARE, SLOWEST_S, STEADY_S, TAIL, EdgeFeed, Scanner, next_interval_s
from training.data.slices import LabelledSlice, SliceSet
from training.export import export_onnx
from training.model.reader import Calibration, OnnxReader
from training.networks import build

NOW = datetime(2026, 3, 1, tzinfo=UTC)

# Roles.


def cohort_of(seed: int, torn: int) -> list[LabelledSlice]:
    """Invent patients of two sources with one to six slices; so many have two diagnoses, as real ones may."""
    rng = random.Random(seed)
    rows = []
    for split, least in (("train", 30), ("val", 0), ("test", 2)):
        for label in LABELS:
            for number in range(rng.randint(least, least + 12)):
                patient, source = f"{split}-{label}-{number}", rng.choice(["here", "there"])
                rows += [
                    LabelledSlice(f"{patient}-{slice_}.png", label, patient, source, split)
                    for slice_ in range(rng.randint(1, 6))
                ]
    for number, row in enumerate(rng.sample(rows, torn)):
        rows.append(LabelledSlice(f"torn-{number}.png", rng.choice(LABELS), row.patient_id, row.source, row.split))
    rng.shuffle(rows)
    return rows


def patients(rows: Sequence[LabelledSlice], split: str = "") -> set[str]:
    return {row.patient_id for row in rows if not split or row.split == split}


def check_roles(roles: Roles, rows: Sequence[LabelledSlice]) -> None:
    known = {row.file: row for row in rows}
    assert patients(roles.first) <= patients(roles.second)
    teachers, streamed, judges = (patients(part) for part in (roles.second, roles.stream, roles.evaluation))
    assert not teachers & streamed
    assert not teachers & judges
    assert not streamed & judges
    assert judges <= patients(rows, "test")
    for part in (roles.first, roles.second):
        assert not patients(part, "train") & patients(part, "val")
        assert patients(part, "train")
        assert patients(part, "val")
    for part in (roles.first, roles.second, roles.stream, roles.evaluation):
        assert len({row.file for row in part}) == len(part)
        assert all((known[row.file].label, known[row.file].patient_id) == (row.label, row.patient_id) for row in part)
        assert all(sum(row.patient_id == one for row in part) <= MAX_SLICES_A_PATIENT for one in patients(part))
    assert len(roles.evaluation) <= MAX_EVALUATION_SLICES


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(1, 12), st.sampled_from([None, "here"]))
def test_no_patient_plays_two_parts(seed: int, torn: int, n_stream: int, home: str | None) -> None:
    """Teachers, streamed and judging patients are different people, on every side of every split; none is invented."""
    rows = cohort_of(seed, torn)
    try:
        roles = deal(rows, n_stream, seed, home)
    except TooFewPatientsError:
        assume(False)
    check_roles(roles, rows)
    assert len(roles.stream) == n_stream
    if home is not None:
        assert {row.source for row in roles.first} == {"here"}
        assert {row.source for row in roles.stream} == {"there"}


def cohort(train: int, test: int, source: str = "here") -> list[LabelledSlice]:
    return [
        LabelledSlice(
            f"{source}-{split}-{label}-{number}.png", label, f"{source}-{split}-{label}-{number}", source, split
        )
        for split, count in (("train", train), ("test", test))
        for label in LABELS
        for number in range(count)
    ]


def test_the_same_seed_deals_the_same_parts() -> None:
    """A demo can be repeated: seed and rows decide, whatever the rows' order in memory."""
    rows = cohort(40, 3)
    assert deal(rows, 10, 1) == deal(list(rows), 10, 1)
    assert deal(rows, 10, 1) != deal(rows, 10, 2)


@pytest.mark.parametrize(
    ("rows", "n_stream", "fault"),
    [
        (cohort(40, 1), 5, "split 'test' of labels.csv must hold two patients or more of each class"),
        (cohort(6, 2), 5, "6 patients of class Normal can teach, 7 are needed"),
        ([row for row in cohort(40, 2) if row.label is not Label.COVID_19 or row.split == "test"], 5, "0 patients of"),
        (cohort(40, 2), 1000, r"only \d+ slices are left to stream; ask for --slices \d+ or fewer"),
        ([], 5, "split 'test'"),
    ],
)
def test_too_few_patients_are_named(rows: list[LabelledSlice], n_stream: int, fault: str) -> None:
    """Which class lacks how many, or how many slices there are to stream, is said before anything starts."""
    with pytest.raises(TooFewPatientsError, match=fault):
        deal(rows, n_stream, 0)


def test_what_the_error_offers_is_true() -> None:
    """As many slices as the message says can be streamed."""
    rows = cohort(40, 2)
    with pytest.raises(TooFewPatientsError) as caught:
        deal(rows, 1000, 0)
    left = int(str(caught.value).split()[1])
    assert len(deal(rows, left, 0).stream) == left


# The scanner.


def feed(folder: Path, count: int) -> EdgeFeed:
    source = folder / "source"
    source.mkdir(exist_ok=True)
    inbox = folder / f"inbox-{count}"
    inbox.mkdir()
    files = []
    for number in range(count):
        files.append(source / f"{count}-{number}.PNG")
        files[-1].write_bytes(f"slice {number} of {count}".encode())
    return EdgeFeed(inbox, files)


def given_until(scanner: Scanner, end_s: float, *, start_s: float = 0.0, **state: bool) -> list[float]:
    """Step every hundredth of a second; return when files were given."""
    times = []
    for tick in range(int(start_s * 100), int(end_s * 100)):
        before = scanner.given
        scanner.step(tick / 100, **state)
        times += [tick / 100] * (scanner.given - before)
    return times


def test_files_are_given_whole_and_in_order(tmp_path: Path) -> None:
    """Each edge finds numbered copies in the order of its feed, never a file that is still being written."""
    one = feed(tmp_path, 4)
    scanner = Scanner([one])
    given_until(scanner, 10, requested=False, hold_reserve=False)
    assert scanner.finished
    assert sorted(path.name for path in one.folder.iterdir()) == [f"{number:05d}.png" for number in range(4)]
    for number, source in enumerate(one.files):
        assert (one.folder / f"{number:05d}.png").read_bytes() == source.read_bytes()


def test_the_pace_is_that_of_the_given_clock(tmp_path: Path) -> None:
    """A file an interval for each edge; a clock that jumps makes no burst."""
    scanner = Scanner([feed(tmp_path, 10), feed(tmp_path, 11)])
    times = given_until(scanner, 1.0, requested=False, hold_reserve=False)
    assert times == pytest.approx([0, 0, 0.35, 0.35, 0.70, 0.70], abs=0.011)
    late = given_until(scanner, 61.0, start_s=60.0, requested=False, hold_reserve=False)
    assert len(late) <= 2 * (1.0 / (FAST_S / 2) + 1)
    assert all(late.count(moment) <= 2 for moment in late)


def test_the_reserve_waits_for_the_request(tmp_path: Path) -> None:
    """Until a retraining is asked for a share is held back; then it is given, slowing down; without a loop at once."""
    one = feed(tmp_path, 20)
    scanner = Scanner([one])
    given_until(scanner, 60, requested=False, hold_reserve=True)
    assert one.left == int(20 * RESERVE_SHARE)
    assert not scanner.finished
    times = given_until(scanner, 120, start_s=60, requested=True, hold_reserve=True)
    assert one.left == 0
    intervals = [later - earlier for earlier, later in pairwise(times[1:])]
    assert all(interval >= STEADY_S - 0.02 for interval in intervals)
    assert intervals == sorted(intervals)
    other = feed(tmp_path, 21)
    given_until(Scanner([other]), 60, requested=False, hold_reserve=False)
    assert other.left == 0


def test_the_tail_waits_for_the_new_release(tmp_path: Path) -> None:
    """However long the training takes, slices are left to compare the new release by; then they are given."""
    one = feed(tmp_path, 200)
    scanner = Scanner([one])
    one.waiting = True
    given_until(scanner, 2_000, requested=True, hold_reserve=False)
    assert one.left == TAIL
    one.waiting = False
    times = given_until(scanner, 2_060, start_s=2_000, requested=True, hold_reserve=False)
    assert one.left == 0
    assert times[1] - times[0] < 2 * STEADY_S


def test_the_pace_around_the_swap_is_even() -> None:
    """It slows to a bound until the swap, stays for as long as the gap is measured, and is fast again at the end."""
    edge = EdgeFeed(Path(), [Path("x")] * 1000)
    for _ in range(200):
        edge.interval_s = next_interval_s(edge, requested=True)
    assert edge.interval_s == SLOWEST_S
    edge.given = edge.swapped_at = 100
    assert next_interval_s(edge, requested=True) == SLOWEST_S
    edge.given = 111
    assert next_interval_s(edge, requested=True) == SLOWEST_S
    edge.given = 112
    assert next_interval_s(edge, requested=True) == FAST_S
    assert next_interval_s(edge, requested=False) == FAST_S


# The gap at the swap.


def diagnoses(*intervals_s: float, swap_at: int) -> list[Diagnosed]:
    times = [NOW]
    for interval_s in intervals_s:
        times.append(times[-1] + timedelta(seconds=interval_s))
    return [Diagnosed(at, 1 if index < swap_at else 2) for index, at in enumerate(times)]


def test_without_a_swap_there_is_no_gap() -> None:
    """Nothing, one diagnosis, or one version alone have no swap."""
    assert swap_gap([]) is None
    assert swap_gap(diagnoses(1, 1, swap_at=9)) is None
    assert swap_gap(diagnoses(1, 1, swap_at=0)) is None


def test_the_gap_is_the_longest_interval_around_the_swap() -> None:
    """Longest and median are of the neighbours of the change of version, in ms."""
    assert swap_gap(diagnoses(1, 1, 3, 1, 1, swap_at=3)) == Swap(max_gap_ms=3000, median_interval_ms=1000)
    assert swap_gap(diagnoses(0.5, swap_at=1)) == Swap(max_gap_ms=500, median_interval_ms=500)


def test_what_is_far_from_the_swap_does_not_count() -> None:
    """A pause long before or after is none of the swap's; one within ten intervals is."""
    quiet = [1.0] * 60
    assert swap_gap(diagnoses(*[99.0, *quiet, 99.0], swap_at=30)) == Swap(max_gap_ms=1000, median_interval_ms=1000)
    near = [*quiet[:24], 5.0, *quiet[25:]]
    measured = swap_gap(diagnoses(*near, swap_at=30))
    assert measured is not None
    assert measured.max_gap_ms == 5000


def test_of_several_swaps_the_last_counts() -> None:
    """A roll back and a second release: the gap is measured at the newest change."""
    times = [NOW + timedelta(seconds=second) for second in (0, 1, 2, 50, *range(60, 100))]
    versions = [1, 1, 2, 2, *([2] * 20), *([3] * 20)]
    measured = swap_gap([Diagnosed(at, version) for at, version in zip(times, versions, strict=True)])
    assert measured == Swap(max_gap_ms=1000, median_interval_ms=1000)


# The verdict.


def result(**changes: object) -> DemoResult:
    releases = tuple(ReleaseRow(version=version, sha256="0" * 64, gate={"by hand": "x"}) for version in (1, 2))
    good = {
        "images": "phantoms",
        "captured": 300,
        "refused": 0,
        "stored": 300,
        "lost": 0,
        "duplicates": 0,
        "disagreements": 90,
        "audits": 5,
        "labelled": 40,
        "retrain_requests": 1,
        "releases": releases,
        "edges": (EdgeRow(id="edge-1", version=2), EdgeRow(id="edge-2", version=2)),
        "accuracy": None,
        "swap": None,
        "stopped_at_review": False,
        "setup_seconds": 60.0,
        "loop_seconds": 120.0,
        "seconds": 180.0,
    }
    return DemoResult.model_validate({**good, **changes})


def test_a_demo_in_which_all_arrived_has_no_fault() -> None:
    """Everything stored once and a release that was learnt here on every edge is a good demo."""
    assert result().faults() == []
    assert result().shortfalls() == []
    assert result(stopped_at_review=True, releases=(), edges=()).faults() == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"lost": 2, "stored": 298}, "2 slices were lost"),
        ({"duplicates": 1}, "1 slices were stored twice"),
        ({"stored": 299}, "300 slices were captured, 299 stored"),
        ({"releases": ()}, "no candidate was released"),
        ({"edges": (EdgeRow(id="edge-1", version=2), EdgeRow(id="edge-2", version=1))}, "learnt here runs on edge-2"),
        ({"stopped_at_review": True, "lost": 1}, "1 slices were lost"),
    ],
)
def test_each_fault_is_named(changes: dict[str, object], fault: str) -> None:
    """What was lost, doubled or did not arrive is told in words."""
    assert any(fault in said for said in result(**changes).faults())


def test_a_release_too_late_for_the_slices_is_a_shortfall() -> None:
    """Both edges read with what was learnt here; that a third release came after the last slices is said."""
    releases = tuple(ReleaseRow(version=version, sha256="0" * 64, gate={"by hand": "x"}) for version in (1, 2, 3))
    late = result(releases=releases)
    assert late.faults() == []
    assert late.shortfalls() == ["release 3 came when too few slices were left to prove it on every edge"]


@pytest.mark.parametrize(
    ("newest", "told", "expected", "waits"),
    [(1, 1, True, True), (1, 1, False, False), (2, 1, False, True), (2, 2, True, False), (3, 2, True, True)],
)
def test_an_edge_keeps_slices_until_it_is_told_of_a_release(
    newest: int, told: int, expected: bool, waits: bool
) -> None:
    """Before a release they wait while one may come; then until the edge is told; the shadow reads them after."""
    assert tail_waits(newest, told, expected=expected) == waits


def test_the_table_names_what_the_gate_refused() -> None:
    """Of two requests of which one made a release and one was refused, the table says so."""
    console = Console(file=io.StringIO(), width=120, record=True)
    console.print(summary(result(retrain_requests=2, gate_refusals=1)))
    assert "2 requested, 1 refused by the gate, 2 releases" in console.export_text()


def test_a_release_after_the_last_slice_ends_the_demo_too() -> None:
    """An edge that swapped to the newest release reads with it, on probation as well; one still fetching does not."""
    assert in_use(3, 3, "probation")
    assert in_use(3, 3, "active")
    assert not in_use(3, 2, "downloading")
    assert not in_use(3, 2, "active")
    assert not in_use(3, 3, "rolled-back")


def test_a_demo_that_learnt_from_phantoms_says_so() -> None:
    """Where slices without labels are streamed the summary says what taught the readers; with labels it does not."""
    assert LEARNT_FROM_PHANTOMS in shown(result(stopped_at_review=True))
    assert LEARNT_FROM_PHANTOMS not in shown(result())


def shown(ended: DemoResult) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary(ended))
    return console.export_text()


# The comparison of two releases.


def test_uncertain_readings_are_counted_by_each_releases_own_calibration() -> None:
    """The same network with a high temperature is right as often and calls all uncertain, in the table too."""
    network = export_onnx(build("baseline_cnn", 32))
    labels = np.arange(6) % 3
    pixels = np.random.default_rng(0).integers(0, 256, (6, 256, 256), dtype=np.uint8)
    evaluation = SliceSet(pixels, labels, tuple(map(str, range(6))), ("here", "there") * 3)
    sharp, soft = (OnnxReader(network, Calibration(temperature=t)) for t in (1e-6, 1e6))
    pair = compare_releases(soft, sharp, evaluation, "phantoms")
    assert (pair.before.uncertain_share, pair.after.uncertain_share) == (1, 0)
    assert (pair.by_source["here"].before.uncertain_share, pair.by_source["there"].after.uncertain_share) == (1, 0)
    assert pair.before.balanced_accuracy == pair.after.balanced_accuracy
    assert "100% → 0% of these readings" in shown(result(accuracy=pair))
