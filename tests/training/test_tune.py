"""The search: 72 fresh networks with the paper's inside, resumable, halved, and best first in the table."""

import csv
import io
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from training.evaluate import Estimate
from training.kept import OtherRunError
from training.plan import Progress, TrainSettings
from training.train import TrainingStoppedError
from training.tune.plots import draw_ranking, draw_rungs
from training.tune.search import TunePlan, paper_plan, search
from training.tune.space import PAPER_CHOICE, SPACE, combination
from training.tune.table import TuneRow, as_csv, best_first

SMALL = {"kernels": ("2-3-4",), "maps": ("4", "8"), "hidden": ("8-4", "12-6"), "optimizer": ("adamw", "sgd")}
GRID = TunePlan("grid", 32, TrainSettings(epochs=1, batch=12), SMALL)
HALVING = TunePlan("halving", 32, TrainSettings(epochs=4, batch=12, learning_rate=0.01), SMALL)


@pytest.fixture(scope="module")
def slices(toy):
    return toy(6, seed=1), toy(6, name="v", seed=2)


def told(rows):
    return [row.model_dump(exclude={"seconds": True, "figures": {"seconds"}}) for row in rows]


def names(rows):
    return [(row.kernels, row.maps, row.hidden, row.optimizer) for row in rows]


@pytest.fixture(scope="module")
def whole(slices, tmp_path_factory):
    return search(GRID, *slices, tmp_path_factory.mktemp("whole"))


def test_space_has_72_combinations_and_the_papers_network():
    """The paper tried 72; its own choice is among ours, as the network that it published."""
    assert paper_plan("grid", 128, TrainSettings()).combinations == 72
    assert all(value in SPACE[name] for name, value in PAPER_CHOICE.items())
    network = combination(PAPER_CHOICE | {"optimizer": "sgd"}).network(64, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 26_203


def test_each_combination_gets_a_fresh_network(whole):
    """Every point of the space comes once, from weights of its own that the seed decides."""
    assert len(set(names(whole))) == len(whole) == 8
    first, again = (combination(PAPER_CHOICE | {"optimizer": "sgd"}).network(64, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert len({row.parameters for row in whole}) == 4


def test_stopped_search_ends_as_an_unharmed_one(slices, whole, tmp_path):
    """A stop in the middle loses only the combination that was running; the same call ends in the same rows."""
    stop, heard = threading.Event(), []

    def hear(row, done, total):
        heard.append((done, total))
        if done == 3:
            stop.set()

    with pytest.raises(TrainingStoppedError):
        search(GRID, *slices, tmp_path, on_row=hear, stop=stop)
    assert told(search(GRID, *slices, tmp_path, on_row=lambda _row, done, total: heard.append((done, total)))) == told(
        whole
    )
    assert heard == [(done, 8) for done in range(1, 9)]
    assert told(search(GRID, *slices, tmp_path)) == told(whole)


KILLED = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[2:]
from conftest import toy_slices
import test_tune
import training.tune.search as search
calls = []

def die(*arguments, **options):
    calls.append(arguments)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(*arguments, **options)

train, search.train = search.train, die
search.search(test_tune.HALVING, toy_slices(6, seed=1), toy_slices(6, name="v", seed=2), pathlib.Path(sys.argv[1]))
"""


def test_killed_search_runs_the_cut_combination_again(slices, tmp_path):
    """After kill -9 in a combination it is run again, and halving ends as if nothing had happened."""
    here = Path(__file__).parent
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), str(here), str(here.parent.parent)]
    assert subprocess.run(arguments).returncode == -signal.SIGKILL
    heard = []
    resumed = search(HALVING, *slices, tmp_path / "cut", on_row=lambda _row, done, _: heard.append(done))
    assert heard == [5, 6, 7, 8]
    rows = search(HALVING, *slices, tmp_path / "whole")
    assert told(resumed) == told(rows)
    assert_halved(rows)


def assert_halved(rows):
    """Stopped ones ended at 1 or 2 epochs below another that went on; some were stopped, and some finished."""
    stopped = [row for row in rows if row.stopped]
    finished = [row for row in rows if not row.stopped]
    assert stopped and finished
    assert all(row.epochs in (1, 2) for row in stopped) and all(row.epochs == 4 for row in finished)
    assert all(len(row.by_epoch) == row.epochs and row.balanced_accuracy is not None for row in rows)


def test_folder_of_another_search_is_refused(slices, tmp_path):
    """Results of other settings are never mixed in."""
    plan = TunePlan("grid", 32, TrainSettings(epochs=1, batch=12), {name: values[:1] for name, values in SMALL.items()})
    search(plan, *slices, tmp_path)
    with pytest.raises(OtherRunError, match="another search"):
        search(GRID, *slices, tmp_path)


def test_dead_run_is_a_row_with_its_fault(slices, tmp_path):
    """A combination whose numbers break does not end the search; the table says what happened, last."""
    space = {name: values[:1] for name, values in SMALL.items()} | {"optimizer": ("sgd",)}
    plan = TunePlan("grid", 32, TrainSettings(epochs=2, batch=12, learning_rate=1e30), space)
    (row,) = search(plan, *slices, tmp_path)
    assert row.figures is None and "epoch" in row.fault
    assert search(plan, *slices, tmp_path) == (row,)


def a_row(value: float, loss: float, **more: object) -> TuneRow:
    figures = Progress(
        epoch=2,
        epochs=2,
        train_loss=1,
        train_accuracy=0.5,
        validation_loss=loss,
        validation_accuracy=0.5,
        validation_balanced_accuracy=value,
        learning_rate=0,
        seconds=1,
    )
    given = {"figures": figures, "balanced_accuracy": Estimate(value=value, low=value - 0.1, high=value + 0.1)} | more
    known = {"kernels": "2-3-4", "maps": "25", "hidden": "200-50", "optimizer": "sgd", "parameters": 26203}
    return TuneRow.model_validate(known | {"epochs": 2, "seconds": 3, "by_epoch": (0.3, value)} | given)


def test_table_is_best_first_and_says_leaked():
    """Higher balanced accuracy comes first, among equals the smaller loss, a dead run last."""
    dead = a_row(0.9, 0.1, figures=None, balanced_accuracy=None, fault="loss nan", by_epoch=())
    rows = [a_row(0.5, 1), dead, a_row(0.6, 2), a_row(0.6, 1)]
    assert best_first(rows) == [rows[3], rows[2], rows[0], dead]
    table = list(csv.DictReader(io.StringIO(as_csv(rows, leaked_patients=3))))
    assert [row["rank"] for row in table] == ["1", "2", "3", "4"]
    assert table[0]["validation_balanced_accuracy"] == "0.6" and table[0]["low"] == "0.5"
    assert table[3]["end"] == "loss nan" and all(row["leaked_patients"] == "3" for row in table)
    assert "leaked" not in as_csv(rows)


def test_plots_show_every_combination(tmp_path):
    """The ranking has a point for each row that has figures, and the rungs a line for each."""
    rows = [a_row(0.5, 1), a_row(0.6, 1, hidden="100-25", optimizer="adamw", epochs=1, by_epoch=(0.6,), stopped=True)]
    ranking, rungs = draw_ranking(rows, "ranking"), draw_rungs(rows, "rungs")
    assert (
        sum(list(line.get_xdata()) in ([1], [2]) for line in ranking.axes[0].lines) == 3
    )  # two points, and a ring around the paper's
    assert [text.get_text() for text in rungs.axes[0].texts] == ["n=2", "n=1"]
