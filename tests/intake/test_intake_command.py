"""`sliceloop intake`: what a person sees of training and check."""

import json
import threading
from pathlib import Path

import pytest
import typer
from PIL import Image

from edge_agent.intake import Intake
from sliceloop.intake_run import DataChoice, IntakeCheck, check_intake, train_intake_folder
from training.data.phantom import Cohort, write_phantoms
from training.intake.train import IntakePlan
from training.screen_camera import EmptyScene, Family, empty_scene

PLAN = IntakePlan(people=6, epochs=1, batch=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set of phantoms of both sites."""
    folder = tmp_path_factory.mktemp("phantoms")
    cohorts = [Cohort(site, split, 2, 2) for site in ("site-a", "site-b") for split in ("train", "test")]
    write_phantoms(folder, cohorts, seed=77)
    return folder


def test_training_writes_a_network_that_the_edge_loads(tmp_path: Path) -> None:
    """Trained on phantoms alone, the story says that no patient's data is in it."""
    train_intake_folder(tmp_path, PLAN, None, threading.Event())
    Intake((tmp_path / "intake.onnx").read_bytes())
    story = json.loads((tmp_path / "intake.json").read_text())
    assert story["holds_patients_data"] is False
    assert story["plan"]["people"] == PLAN.people


def test_training_with_a_data_set_says_so(data: Path, tmp_path: Path) -> None:
    """Trained on a data set too, the story names its sources and marks the network as one that holds patients' data."""
    train_intake_folder(tmp_path, PLAN, DataChoice(data), threading.Event())
    story = json.loads((tmp_path / "intake.json").read_text())
    assert story["holds_patients_data"] is True
    assert story["learnt_from"]["slices"]["sources"] == ["phantom-site-a", "phantom-site-b"]


def test_stopped_training_writes_nothing(tmp_path: Path) -> None:
    """A stop leaves no half network behind."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(typer.Exit):
        train_intake_folder(tmp_path, PLAN, None, stop)
    assert not list(tmp_path.iterdir())


def test_check_tells_by_source_what_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped network is checked by source, upright, turned and mirrored, and on pictures that are no chest."""
    others = tmp_path / "others"
    others.mkdir()
    page = empty_scene(EmptyScene.TEXT_PAGE, severity=0.6, seed=3, family=Family.HELD_OUT)
    Image.fromarray(page[..., ::-1]).save(others / "page.png")
    (others / "broken.png").write_bytes(b"no picture")
    json_file = tmp_path / "check.json"
    check_intake(IntakeCheck(DataChoice(data), others=others, scenes=20, json_file=json_file), threading.Event())
    told = json.loads(json_file.read_text())
    assert told["sources"]["phantom-site-a"]["upright"] == {"read": 12}
    assert told["sources"]["phantom-site-b"]["turned"]["of"] == 36
    assert told["others"][str(others)] == {"not-a-chest-ct": 1}
    said = capsys.readouterr()
    assert "simulated" in said.out
    assert "broken.png" in said.err
