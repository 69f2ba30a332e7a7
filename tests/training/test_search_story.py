"""What `curve`, `sources` and `tune` say of how their figures came about."""

import csv
import json

import pytest
from full_disk import full_disk
from typer.testing import CliRunner

from sliceloop.cli import app
from training.data.phantom import Cohort, write_phantoms
from training.plan import TrainSettings
from training.tune.search import TrialsFileError, TunePlan, search

NETWORK = ("--mode", "finetune", "--architecture", "baseline_cnn", "--input-px", "32", "--epochs", "1")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    cohorts = [Cohort("site-a", "train", 2, 1), Cohort("site-b", "train", 1, 1), Cohort("site-a", "val", 2, 1)]
    write_phantoms(folder, [*cohorts, Cohort("site-b", "val", 1, 1)], 0)
    return folder


def run(*arguments: object) -> str:
    said = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert said.exit_code == 0, said.output + str(said.exception)
    return said.output


def assert_told(out, name, n_train):
    """The JSON file names weights, data, settings, versions, machine and code; the page n and what was left out."""
    story = json.loads((out / f"{name}.json").read_text())
    assert story["start_weights"] == "none" and story["settings"]["epochs"] == 1
    assert story["data"]["train"]["n_patients"] == n_train and len(story["data"]["val"]["sha256"]) == 64
    assert {"python", "torch"} <= story["versions"].keys() and story["hardware"]["threads"] == 1
    assert "commit" in story
    page = (out / f"{name}.md").read_text()
    assert f"train {n_train} slices of {n_train} patients" in page and "Sources left out: " in page
    assert story["data"]["train"]["sha256"][:12] in page
    return story


def test_curve_tells_its_story_and_leaves_too_large_budgets_out(phantoms, tmp_path):
    """With nine patients the default budgets of 10, 30 and 100 are left out, and that is said."""
    said = run("curve", phantoms, "--out", tmp_path, *NETWORK, "--repeats", "1")
    assert "budget 10, 30, 100 left out: there are 9 patients to learn from" in said
    story = assert_told(tmp_path, "curve", 9)
    (everybody,) = story["budgets"]
    assert {name: (one["n_patients"], one["fewest_patients"]) for name, one in everybody["by_source"].items()} == {
        "phantom-site-a": (6, 2),
        "phantom-site-b": (3, 1),
    }
    assert "phantom-site-a (n 6)" in (tmp_path / "curve.md").read_text()
    assert "no interval" in (tmp_path / "curve.md").read_text()


def test_sources_tell_their_story(phantoms, tmp_path):
    """sources.json has the results, too."""
    run("sources", phantoms, "--out", tmp_path, *NETWORK)
    assert [result["source"] for result in assert_told(tmp_path, "sources", 9)["results"]] == [
        "phantom-site-a",
        "phantom-site-b",
    ]


def test_tune_tells_its_story(phantoms, tmp_path):
    """tune.json has the combinations, best first, and no optimizer of its own; tune.md says who was left out."""
    options = ("--input-px", "32", "--epochs", "1", "--exclude-source", "phantom-site-b")
    run("tune", phantoms, "--out", tmp_path, *options)
    story = assert_told(tmp_path, "tune", 6)
    assert len(story["combinations"]) == 72 and "optimizer" not in story["settings"]
    assert story["excluded_sources"] == ["phantom-site-b"]
    assert "Sources left out: phantom-site-b" in (tmp_path / "tune.md").read_text()
    best = next(csv.DictReader((tmp_path / "tune.csv").open()))
    assert best["kernels"] == story["combinations"][0]["kernels"]


def test_full_disk_names_the_trials_file(toy, tmp_path):
    """A search that cannot keep its combinations says in which file, and what to do."""
    plan = TunePlan("grid", 32, TrainSettings(epochs=1, batch=12), {"kernels": ("2-3-4",), "maps": ("4",)})
    with full_disk(20_000), pytest.raises(TrialsFileError, match=r"trials\.sqlite cannot be written .*: free space"):
        search(plan, toy(6, seed=1), toy(6, name="v", seed=2), tmp_path)
