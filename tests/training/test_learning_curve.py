"""The learning curve: budgets nest, points are kept, intervals are over patients, and leaks are marked."""

import csv
import hashlib
import threading

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sliceloop.cli import app
from training.bundle import patient_keys
from training.checkpoint import Provenance, save_checkpoint
from training.data.dataset import open_dataset
from training.data.phantom import Cohort, write_phantoms
from training.head import feature_set
from training.kept import KeptResults, OtherRunError
from training.learning_curve import CurvePlan, learning_curve
from training.networks import build
from training.plan import TrainSettings
from training.pool import FineTuneLearner, HeadLearner, Pool
from training.sampling import BudgetError
from training.train import TrainingStoppedError
from training.weights import TaughtBeforeError, UntrainedBodyError

SETTINGS = TrainSettings(epochs=1, batch=16)


@pytest.fixture(scope="module")
def pool(toy):
    train, val = toy(24, seed=1), toy(12, name="v", seed=2)
    return Pool(train.concat(val), ("train",) * len(train) + ("val",) * len(val))


@pytest.fixture(scope="module")
def learner(pool):
    torch.manual_seed(0)
    return HeadLearner(feature_set(build("squeezenet1_1_bn", 32), pool.slices), SETTINGS)


class Watched:
    """A learner that remembers which patients it was given; it is wrong about some slices."""

    same_each_time = False

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.seen: list[set[str]] = []

    def read_after(self, learn_from, validate_on, judge, seed):
        self.seen.append(set(self.pool.slices.select(learn_from).patients))
        logits = np.eye(3, dtype=np.float32)[self.pool.slices.labels[judge]]
        logits[[2, 4, 8]] = [1, 0, 0]
        return logits


def test_budgets_of_a_repeat_nest_and_repeats_differ(pool, tmp_path):
    """A repeat's larger budget holds its smaller one, other repeats draw other patients, all is all, none is judged."""
    watched = Watched(pool)
    curve = learning_curve(pool, watched, CurvePlan(("3", "9", "all"), 2, "val"), KeptResults(tmp_path))
    three, three_other, nine, nine_other, everybody, _ = watched.seen
    assert three < nine < everybody and three_other < nine_other and three != three_other
    assert [budget.n_patients for budget in curve.budgets] == [3, 9, 24]
    assert not any(patient.startswith("v") for patient in everybody)


def test_interval_of_the_mean_is_that_of_one_network_when_all_repeats_agree(pool, tmp_path):
    """The mean's interval draws the same patients for each repeat, as an evaluation does."""
    curve = learning_curve(pool, Watched(pool), CurvePlan(("3",), 3, "val"), KeptResults(tmp_path))
    (budget,), estimate = curve.budgets, curve.points[0].evaluation.balanced_accuracy
    for name in ("value", "low", "high"):
        assert getattr(budget.balanced_accuracy, name) == pytest.approx(getattr(estimate, name))
    assert budget.spread == 0 and budget.lowest == budget.highest
    assert estimate.low < estimate.value < estimate.high


def test_all_comes_once_for_a_head(pool, learner, tmp_path):
    """A head on all patients is the same each time, so it comes once; it reads what can be learnt."""
    curve = learning_curve(pool, learner, CurvePlan(("3", "all"), 3, "val"), KeptResults(tmp_path))
    few, everybody = curve.budgets
    assert (few.repeats, everybody.repeats, everybody.spread) == (3, 1, None)
    assert everybody.balanced_accuracy.value > 0.9


def test_stopped_curve_goes_on_with_the_points_that_it_has(pool, tmp_path):
    """After a stop only missing points are learnt; a damaged one is learnt again."""
    plan, kept, stop = CurvePlan(("3", "6"), 2, "val"), KeptResults(tmp_path), threading.Event()
    watched = Watched(pool)
    with pytest.raises(TrainingStoppedError):
        learning_curve(pool, watched, plan, kept, on_point=lambda *_: stop.set(), stop=stop)
    assert len(watched.seen) == 1
    (tmp_path / "3-1.json").write_text("{")
    whole = learning_curve(pool, watched, plan, kept)
    assert len(watched.seen) == 5
    assert learning_curve(pool, watched, plan, kept) == whole
    assert len(watched.seen) == 5


def test_points_of_another_run_are_refused(tmp_path):
    """A folder belongs to one run."""
    KeptResults(tmp_path).open("one").open("one")
    with pytest.raises(OtherRunError, match="another folder"):
        KeptResults(tmp_path).open("two")


def test_too_large_a_budget_is_named_before_anything_is_learnt(pool, tmp_path):
    """More patients than there are stop the curve at once."""
    watched = Watched(pool)
    with pytest.raises(BudgetError, match="24"):
        learning_curve(pool, watched, CurvePlan(("3", "25"), 1, "val"), KeptResults(tmp_path))
    assert not watched.seen


def test_fine_tuning_starts_anew_each_time(pool):
    """The same seed gives the same answers, whatever was trained before; another seed gives others."""
    learner = FineTuneLearner(lambda: build("baseline_cnn", 32), pool.slices, SETTINGS)
    train, val = pool.of_splits("train"), pool.of_splits("val")
    first, other, again = (learner.read_after(train, val, val, seed) for seed in (1, 2, 1))
    assert (first == again).all() and (first != other).any()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, [Cohort("site-a", "train", 3, 1), Cohort("site-a", "val", 2, 1)], 0)
    return folder


@pytest.fixture
def begun(tmp_path):
    """Weights to start from."""
    return checkpoint(tmp_path / "begun.safetensors", ["somebody"])


def checkpoint(path, patients, **told):
    torch.manual_seed(0)
    save_checkpoint(path, build("baseline_cnn", 32), Provenance(train_patient_keys=patient_keys(patients), **told))
    return path


def curve_of(data, out, *more):
    options = ["--architecture", "baseline_cnn", "--input-px", "32", "--budgets", "3,all", "--repeats", "2"]
    return CliRunner().invoke(app, ["curve", str(data), "--out", str(out), *options, *more])


def test_head_over_random_weights_is_refused(phantoms, tmp_path):
    """The default, a head, needs weights that learnt; the message says what to give."""
    assert isinstance(curve_of(phantoms, tmp_path / "out").exception, UntrainedBodyError)


def test_start_weights_are_named_and_may_not_have_seen_who_is_judged(phantoms, tmp_path):
    """The page names file and hash; weights that learnt from judged patients are refused, or mark all outputs."""
    judged = [row.patient_id for row in open_dataset(phantoms).rows if row.split == "val"]
    seen = checkpoint(tmp_path / "seen.safetensors", judged)
    assert isinstance(curve_of(phantoms, tmp_path / "no", "--weights", str(seen)).exception, TaughtBeforeError)
    said = curve_of(phantoms, tmp_path / "out", "--weights", str(seen), "--allow-leak")
    assert said.exit_code == 0, said.output
    assert "LEAKED" in said.output
    page = (tmp_path / "out" / "curve.md").read_text()
    assert page.startswith(f"**LEAKED: {len(set(judged))} judged patient(s) taught the start weights")
    digest = hashlib.sha256(seen.read_bytes()).hexdigest()[:8]
    assert f"seen.safetensors ({digest}), which learnt from 6 patients, 6 of them in this data set" in page
    marked = checkpoint(tmp_path / "marked.safetensors", ["somebody"], leaked_patients=2)
    assert "LEAKED: the start weights" in curve_of(phantoms, tmp_path / "marked", "--weights", str(marked)).output


def test_command_writes_table_page_and_picture(phantoms, tmp_path, begun):
    """`sliceloop curve` leaves a row a point, a page and a plot, and says how fast a head learns."""
    said = curve_of(phantoms, tmp_path, "--weights", str(begun))
    assert said.exit_code == 0, said.output
    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert [(row["budget"], row["repeat"], row["leaked"]) for row in rows] == [
        ("3", "1", "no"),
        ("3", "2", "no"),
        ("all", "1", "no"),
    ]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "cached features" in (tmp_path / "curve.md").read_text()


def test_leak_is_refused_or_marks_every_output(phantoms, tmp_path, begun):
    """A patient on two sides stops the command, and with --allow-leak stands on every output."""
    lines = (phantoms / "labels.csv").read_text().splitlines()
    leaked = tmp_path / "leaked"
    leaked.mkdir()
    (leaked / "images").symlink_to(phantoms / "images")
    for path in phantoms.iterdir():
        if path.name != "labels.csv" and not (leaked / path.name).exists():
            (leaked / path.name).symlink_to(path)
    moved = next(line for line in lines if line.endswith(",train")).removesuffix(",train") + ",val"
    (leaked / "labels.csv").write_text("\n".join([*lines, moved]) + "\n")
    assert "--allow-leak" in str(curve_of(leaked, tmp_path / "no").exception)
    said = curve_of(leaked, tmp_path / "out", "--allow-leak", "--weights", str(begun))
    assert said.exit_code == 0, said.output
    assert (tmp_path / "out" / "curve.md").read_text().startswith("**LEAKED")
    assert all(row["leaked"] == "yes" for row in csv.DictReader((tmp_path / "out" / "curve.csv").open()))
