"""The update bench: each figure stands beside its aim, the page shows what was measured, and a cut line is counted."""

import io
import json

import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from sliceloop.cli import app
from sliceloop.update_bench.aims import of_behaviour, of_fleet, of_line, of_swaps
from sliceloop.update_bench.behaviour import BehaviourRequest, measure_behaviour
from sliceloop.update_bench.behaviour_result import DEFAULT, SIGNED, Course
from sliceloop.update_bench.cut_line import CutLineResult
from sliceloop.update_bench.fifty import FiftyResult
from sliceloop.update_bench.figures import draw
from sliceloop.update_bench.report import show
from sliceloop.update_bench.result import UpdateResult
from sliceloop.update_bench.swaps import SwapsRequest, SwapsResult, bench_swaps
from sliceloop.update_bench.timed import TimedUpdate
from training.export import export_onnx
from training.networks import build

LINE = CutLineResult(
    needed_bytes=1000,
    bytes_per_s=100,
    every_s=5,
    cuts=3,
    whole_bytes=1010,
    cut_bytes=1050,
    whole_sent=1010,
    cut_sent=1070,
    whole_s=10,
    cut_s=20,
)
SWAPS = SwapsResult(
    swaps=5,
    network_bytes=1,
    readings=100,
    missing=0,
    doubled=0,
    wrong=0,
    median_interval_ms=10,
    swap_gaps_ms=(11, 12, 14),
    worst_interval_ms=40,
    memory_mb=(100, 101, 103, 104, 104),
    update_s=(1, 1, 1, 1, 1),
)
FLEET = FiftyResult(edges=2, artefact_bytes=100, from_worker=105, from_edges=5, to_edges=210, seconds=(3, 5))
TIMED = (TimedUpdate(update="full", model_bytes=100, chunk_bytes=90, swap_s=2, proven_s=3),)


@pytest.fixture(scope="module")
def result() -> UpdateResult:
    return UpdateResult(
        architecture="resnet18",
        seed=0,
        machine={"cpu": "none", "cores": 2},
        versions={},
        commit=None,
        timed=TIMED,
        behaviour=measure_behaviour(BehaviourRequest(runs=1, networks=False)),
        swaps=SWAPS,
        swaps_architecture="small",
        line=LINE,
        fleet=FLEET,
    )


def test_what_the_protocol_adds_is_no_repetition() -> None:
    """Overhead is what a whole line carries more than is needed; repeated is what a cut line carries more than it."""
    assert LINE.overhead == pytest.approx(0.01)
    assert LINE.repeated == pytest.approx(0.04)
    assert LINE.sent_again == pytest.approx(0.06)


def test_an_aim_is_met_or_it_is_not() -> None:
    """Four per cent over the line are within the five allowed, six from the worker are not."""
    assert [aim.met for aim in of_line(LINE)] == [True, False]
    assert [aim.met for aim in of_fleet(FLEET)] == [True]
    assert [aim.met for aim in of_fleet(FLEET.model_copy(update={"from_worker": 130}))] == [False]


@pytest.mark.parametrize("fault", ["missing", "doubled", "wrong"])
def test_one_bad_reading_fails_the_swaps(fault: str) -> None:
    """Lost, doubled or made by another version than it says: none is allowed."""
    assert [aim.met for aim in of_swaps(SWAPS, "small")] == [True, True, True]
    assert [aim.met for aim in of_swaps(SWAPS.model_copy(update={fault: 1}), "small")] == [True, False, True]


def test_memory_that_grows_and_a_long_gap_fall_short() -> None:
    """The end of the run against its beginning, and the longest gap against the median interval."""
    worse = SWAPS.model_copy(update={"memory_mb": (100, 101, 103, 104, 106), "swap_gaps_ms": (11, 16)})
    assert [aim.met for aim in of_swaps(worse, "small")] == [False, True, False]


def _course(good: bool, *caught_at: int | None) -> Course:
    name = "good" if good else "bad"
    held_to = SIGNED if good else DEFAULT
    return Course(
        kind=name,
        good=good,
        real=False,
        mix="m",
        kept=True,
        held_to=held_to,
        slices=300,
        caught_at=caught_at,
        verdict="",
    )


def test_the_worst_candidate_of_a_mix_is_judged(result: UpdateResult) -> None:
    """A bad one has to be found within 50 slices, a good one never."""
    assert result.behaviour is not None
    courses = (_course(False, 5, 5), _course(False, 5, 51), _course(True, None, None))
    judged = of_behaviour(result.behaviour.model_copy(update={"courses": courses}))
    assert [(aim.measured, aim.met) for aim in judged] == [("1 of 2: bad", False), ("0 of 2: good", True)]


def test_a_candidate_that_is_worse_here_is_rightly_taken_back(result: UpdateResult) -> None:
    """It counts among good ones where it reads as well as the incumbent, and nowhere else."""
    assert result.behaviour is not None
    back = _course(True, 5, 5)
    for accuracy, judged in (((0.6, 0.9), 0), ((0.89, 0.9), 1), (None, 1)):
        courses = (back.model_copy(update={"accuracy": accuracy}),)
        assert len(of_behaviour(result.behaviour.model_copy(update={"courses": courses}))) == judged


def test_the_page_has_a_panel_for_each_part(result: UpdateResult) -> None:
    """Fewer parts make a smaller page."""
    alone = result.model_copy(update={"behaviour": None, "swaps": None, "fleet": None})
    with Image.open(io.BytesIO(draw(result, "png"))) as page, Image.open(io.BytesIO(draw(alone, "png"))) as less:
        assert page.format == "PNG"
        assert less.height < page.height


def test_every_aim_is_printed_with_its_verdict(result: UpdateResult) -> None:
    """Those that fall short too."""
    printed = io.StringIO()
    show(result, Console(file=printed, width=200))
    assert all(aim.what in printed.getvalue() for aim in result.aims)
    assert {"met", "falls short"} <= {
        line.strip(" │").split("│")[-1].strip() for line in printed.getvalue().split("\n")
    }


def test_a_result_tells_its_aims_and_is_read_again(result: UpdateResult) -> None:
    """The JSON holds each aim beside its figure, and everything that is needed to judge again."""
    told = result.model_dump_json()
    assert len(json.loads(told)["aims"]) == len(result.aims)
    assert UpdateResult.model_validate_json(told) == result


def test_only_the_parts_that_are_asked_for_are_measured(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--only behaviour` starts no process; figures and pictures are written."""
    monkeypatch.chdir(tmp_path)
    command = ["bench", "update", "--only", "behaviour", "--no-networks", "--runs", "1"]
    done = CliRunner().invoke(app, [*command, "--json", "u.json", "--plot", "u.png", "--behaviour-plot", "b.png"])
    assert done.exit_code == 0, done.output
    told = UpdateResult.model_validate_json((tmp_path / "u.json").read_bytes())
    assert told.behaviour is not None
    assert (told.bytes, told.swaps, told.line, told.fleet) == (None, None, None, None)
    assert (tmp_path / "u.png").exists()
    assert (tmp_path / "b.png").exists()
    assert not (tmp_path / "bench-data").exists()


def test_a_real_edge_swaps_under_load_and_loses_no_reading(tmp_path) -> None:
    """Two swaps of a small network: every slice is read once, by the version that its reading names."""
    torch.manual_seed(0)
    network = export_onnx(build("squeezenet1_1_bn", 32).eval())
    seen: list[tuple[int, int]] = []
    swapped = bench_swaps(SwapsRequest(network, 2, tmp_path), lambda *done: seen.append(done))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert (swapped.missing, swapped.doubled, swapped.wrong) == (0, 0, 0)
    assert len(swapped.memory_mb) == len(swapped.update_s) == 2
    assert len(swapped.swap_gaps_ms) <= 2
