"""The network that is shipped, on phantoms and simulated scenes that it never saw."""

import hashlib
import json
from importlib.resources import files

import numpy as np
import onnx
import pytest
from intake_parts import lying, phantoms, scenes

from edge_agent.intake import (
    ORIENTATIONS,
    UPRIGHT,
    Intake,
    IntakeLimits,
    NotFiniteIntakeError,
    Orientation,
    UnreadableIntakeError,
    judge,
    shipped_network,
    upright,
)
from edge_agent.refusal import Refusal
from training.model.preprocess import Frame

LIMITS = IntakeLimits()
MAX_SHIPPED_BYTES = 200_000


@pytest.fixture(scope="module")
def intake() -> Intake:
    """Load the shipped network."""
    return Intake(shipped_network())


@pytest.fixture(scope="module")
def chests() -> list[Frame]:
    """Draw phantoms once."""
    return phantoms(60)


def test_upright_slices_are_read(intake: Intake, chests: list[Frame]) -> None:
    """A chest slice that lies as it should is not refused, and comes back as it is."""
    refused = [judge(intake.look(chest), LIMITS) for chest in chests]
    assert refused == [None] * len(chests)
    assert all(upright(chest, intake.look(chest), LIMITS) is chest for chest in chests)


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_turned_slices_are_turned_back(intake: Intake, chests: list[Frame], rotation_deg: int) -> None:
    """A slice that is turned comes back upright."""
    turned = [lying(chest, rotation_deg) for chest in chests]
    back = [upright(picture, intake.look(picture), LIMITS) for picture in turned]
    right = [np.array_equal(one, chest) for one, chest in zip(back, chests, strict=True)]
    assert np.mean(right) >= 0.95


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_mirrored_slices_are_refused(intake: Intake, rotation_deg: int) -> None:
    """A mirrored slice through the heart is refused, however it is turned, and never turned upright."""
    pictures = [lying(chest, rotation_deg, mirrored=True) for chest in phantoms(30, low_z=0.55, high_z=0.72)]
    views = [intake.look(picture) for picture in pictures]
    refused = [judge(view, LIMITS) is Refusal.MIRRORED for view in views]
    assert np.mean(refused) >= 0.9
    kept = [upright(picture, view, LIMITS) is picture for picture, view in zip(pictures, views, strict=True)]
    assert all(is_kept for is_kept, is_refused in zip(kept, refused, strict=True) if is_refused)


def test_scenes_without_a_slice_are_refused(intake: Intake) -> None:
    """Of simulated desks, faces, pages, windows and monitors of the held-out family most are no chest, for sure."""
    refused = [judge(intake.look(scene), LIMITS) is Refusal.NOT_A_CHEST_CT for scene in scenes(100)]
    assert np.mean(refused) >= 0.8


@pytest.mark.parametrize("lies", ORIENTATIONS, ids=lambda orientation: orientation.name)
def test_turning_a_picture_turns_its_view(intake: Intake, chests: list[Frame], lies: Orientation) -> None:
    """What is said of a slice is said of the turned slice, about the turned orientation: no way round is favoured."""
    for chest in chests[:5]:
        said, said_turned = intake.look(chest), intake.look(lying(chest, lies.rotation_deg, mirrored=lies.mirrored))
        assert said_turned.orientations[lies] == pytest.approx(said.orientations[UPRIGHT], abs=1e-4)
        assert said_turned.no_chest == pytest.approx(said.no_chest, abs=1e-4)


def test_probabilities_sum_to_one(intake: Intake) -> None:
    """Whatever is shown, the nine probabilities sum to 1."""
    noise = np.random.default_rng(5).integers(0, 256, (256, 256), np.uint8)
    for picture in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
        view = intake.look(picture)
        assert sum(view.orientations.values()) + view.no_chest == pytest.approx(1)


def test_shipped_network_is_small_and_tells_its_story() -> None:
    """The file is under 200 KB, and the story beside it is of this very file, which no patient taught."""
    model = shipped_network()
    story = json.loads(files("edge_agent.intake").joinpath("intake.json").read_text())
    assert len(model) < MAX_SHIPPED_BYTES
    assert story["sha256"] == hashlib.sha256(model).hexdigest()
    assert story["holds_patients_data"] is False


@pytest.mark.parametrize("kept", [0, 10, 50_000])
def test_truncated_file_is_named(kept: int) -> None:
    """A file that ends early is no network, and the error says so."""
    with pytest.raises(UnreadableIntakeError, match="no readable intake network"):
        Intake(shipped_network()[:kept])


def test_network_of_other_classes_is_named() -> None:
    """A network that does not name our classes is refused before it looks at anything."""
    model = onnx.load_from_string(shipped_network())
    del model.metadata_props[:]
    with pytest.raises(UnreadableIntakeError, match="its classes are"):
        Intake(model.SerializeToString())


def test_network_of_another_input_is_named() -> None:
    """A network that reads something else than a slice is refused at the start."""
    model = onnx.load_from_string(shipped_network())
    model.graph.input[0].name = "picture"
    for node in model.graph.node:
        node.input[:] = ["picture" if name == "slice" else name for name in node.input]
    with pytest.raises(UnreadableIntakeError, match="it reads"):
        Intake(model.SerializeToString())


def test_network_that_answers_nan_is_named(chests: list[Frame]) -> None:
    """A network with broken weights says nothing about a slice: that is an error, no view."""
    model = onnx.load_from_string(shipped_network())
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT and len(weights.dims) == 4:
            broken = np.full_like(onnx.numpy_helper.to_array(weights), np.nan)
            weights.CopyFrom(onnx.numpy_helper.from_array(broken, weights.name))
    with pytest.raises(NotFiniteIntakeError):
        Intake(model.SerializeToString()).look(chests[0])
