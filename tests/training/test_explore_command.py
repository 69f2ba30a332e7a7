"""`sliceloop explore` from its door: a folder of phantoms becomes a report."""

import csv
import json
import shutil
import threading

import pytest
import typer
from typer.testing import CliRunner

from sliceloop.cli import app
from sliceloop.explore_run import TogetherError, explore_folder, parse_together
from training.data.phantom import Cohort, write_phantoms
from training.data.slices import LeakError
from training.explore.explore import UnknownSourcesError

PLOTS = {"counts.png", "intensities.png", "effects.png", "shortcuts.png"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Two sites, three classes, one slice a patient."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, [Cohort("site-a", "train", 5, 1), Cohort("site-b", "test", 5, 1)], seed=0)
    return folder


def explored(folder, out, *options):
    result = CliRunner().invoke(app, ["explore", str(folder), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    return json.loads((out / "results.json").read_text())


def rows_of(folder):
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def relabelled(folder, copy, change):
    """A copy of the folder whose rows went through `change`."""
    shutil.copytree(folder, copy)
    rows = rows_of(folder)
    with (copy / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(change(index, dict(row)) for index, row in enumerate(rows))
    return copy


def run(folder, out, **changed):
    arguments = {"cache": None, "seed": 0, "together": (), "patient_rule": None, "stop": threading.Event()}
    explore_folder(folder, out, **(arguments | {"allow_leak": False} | changed))


@pytest.fixture(scope="module")
def report(phantoms, tmp_path_factory):
    """The phantoms' report, through the command."""
    out = tmp_path_factory.mktemp("report") / "out"
    explored(phantoms, out, "--seed", "3")
    return out


def test_a_report_with_plots_and_numbers_is_written(phantoms, report):
    """Markdown, HTML with its pictures inside, PNGs and JSON lie in the folder; no patient and no file is named."""
    written = {path.name for path in report.iterdir()}
    assert written >= PLOTS | {"report.md", "report.html", "results.json"}
    text, page, numbers = ((report / name).read_text() for name in ("report.md", "report.html", "results.json"))
    assert json.loads(numbers)["story"]["n_patients"] == json.loads(numbers)["story"]["n_slices"] == 30
    assert "commit" in json.loads(numbers)["story"] and "commit" in text
    assert page.count("data:image/png;base64") == len([name for name in written if name.endswith(".png")])
    named = [
        name for row in rows_of(phantoms) for name in (row["patient_id"], row["file"]) if name in text + page + numbers
    ]
    assert not named
    assert str(phantoms.parent) not in text + page + numbers


def test_the_same_seed_gives_the_same_files(phantoms, report, tmp_path):
    """A second run, over a cache, writes the same bytes, pictures too."""
    explored(phantoms, tmp_path / "again", "--seed", "3", "--cache", str(tmp_path / "cache"))
    for path in report.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_a_set_of_one_class_is_explored_without_tests(phantoms, tmp_path):
    """Nothing to compare is said, not stumbled over."""
    one = relabelled(phantoms, tmp_path / "one", lambda _, row: row | {"label": "Normal"})
    found = explored(one, tmp_path / "out")
    assert not [pair for difference in found["differences"] for pair in difference["pairs"]]
    assert {row["target"] for row in found["audit"]["rows"]} == {"source"}
    assert "effects.png" not in {path.name for path in (tmp_path / "out").iterdir()}


def test_what_is_wrong_with_a_set_is_counted_and_marked(phantoms, tmp_path, capsys):
    """A patient of two labels, one on two sides, a corrupt picture: each is said with its number, and names nobody."""
    train, test = ([i for i, row in enumerate(rows_of(phantoms)) if row["split"] == s] for s in ("train", "test"))
    renamed = {train[0]: "torn", train[5]: "torn", train[1]: "leaked", test[-1]: "leaked"}
    wrong = relabelled(phantoms, tmp_path / "wrong", lambda i, row: row | {"patient_id": renamed.get(i, f"p{i}")})
    rows = rows_of(wrong)
    assert rows[train[0]]["label"] != rows[train[5]]["label"]
    assert rows[train[1]]["label"] == rows[test[-1]]["label"]
    (wrong / rows[train[7]]["file"]).write_bytes(b"no picture")
    with pytest.raises(LeakError, match="leaked"):
        run(wrong, tmp_path / "out")
    sources = ",".join(sorted({row["source"] for row in rows}))
    with pytest.warns(UserWarning, match="two labels"):
        run(wrong, tmp_path / "out", allow_leak=True, together=[f"both={sources}"])
    found = json.loads((tmp_path / "out/results.json").read_text())
    text = (tmp_path / "out/report.md").read_text()
    assert {name: found["story"][name] for name in ("two_label_patients", "leaked_patients", "unreadable")} == {
        "two_label_patients": 1,
        "leaked_patients": 1,
        "unreadable": 1,
    }
    assert text.startswith("**LEAKED: 1 patients")
    assert "1 patients with slices of two classes are left out" in text
    assert "torn" not in text
    assert ".png" in capsys.readouterr().err
    assert not [row for row in found["audit"]["rows"] if row["target"] == "source"], "both sites are one origin"


def test_a_stop_leaves_nothing_behind(phantoms, tmp_path):
    """Asked to stop, the command ends with 130 and writes no half report."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(typer.Exit) as ended:
        run(phantoms, tmp_path / "out", stop=stop)
    assert ended.value.exit_code == 130
    assert not (tmp_path / "out").exists()


def test_an_unknown_source_is_refused(phantoms, tmp_path):
    """A source to take together that is not in the set is named before anything is read."""
    with pytest.raises(UnknownSourcesError, match="nowhere"):
        run(phantoms, tmp_path / "out", together=["x=nowhere"])


@pytest.mark.parametrize("text", ["a", "a=", "=b", "a=b,b"])
def test_a_malformed_group_is_refused(text):
    """What is no NAME=SOURCE,SOURCE says how to write it."""
    with pytest.raises(TogetherError, match="NAME=SOURCE"):
        parse_together([text])
