"""Training an intake network: drawn from a seed, reproducible, and shipped as what was trained."""

import threading

import numpy as np
import pytest
import torch

from edge_agent.intake import Intake
from training.intake.examples import Examples, IntakeStoppedError, drawn_examples, real_examples
from training.intake.export import check_intake_parity, export_intake
from training.intake.network import IntakeNetwork, upright_view
from training.intake.train import IntakePlan, train_intake

PLAN = IntakePlan(people=12, epochs=3, batch=16)


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Draw a tiny set once."""
    return drawn_examples(PLAN.people, PLAN.seed)


def test_examples_come_from_the_seed_alone(examples: Examples) -> None:
    """The same seed draws the same pictures, another one others; chests and others are both there."""
    again, other = drawn_examples(PLAN.people, PLAN.seed), drawn_examples(PLAN.people, PLAN.seed + 1)
    np.testing.assert_array_equal(again.pictures, examples.pictures)
    np.testing.assert_array_equal(again.is_chest, examples.is_chest)
    assert other.pictures.shape != examples.pictures.shape or (other.pictures != examples.pictures).any()
    assert 0.2 < examples.is_chest.mean() < 0.8


def test_training_is_reproducible(examples: Examples) -> None:
    """The same examples and plan give the same weights, bit by bit."""
    first, second = (train_intake(examples, PLAN).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_loss_goes_down(examples: Examples) -> None:
    """A network that goes on learning the same few pictures knows them better."""
    losses: list[float] = []
    plan = IntakePlan(people=PLAN.people, epochs=12, batch=16)
    train_intake(examples, plan, on_epoch=lambda _, loss: losses.append(loss))
    assert len(losses) == plan.epochs
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_training_stops_when_asked(examples: Examples) -> None:
    """A stop ends drawing and training alike, by name."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(IntakeStoppedError):
        drawn_examples(PLAN.people, PLAN.seed, stop=stop)
    with pytest.raises(IntakeStoppedError):
        train_intake(examples, PLAN, stop=stop)


def test_exported_network_answers_the_same(examples: Examples) -> None:
    """The file that the edge loads answers as the network that was trained, and the edge can load it."""
    network = train_intake(examples, PLAN)
    model = export_intake(network)
    pictures = np.random.default_rng(3).integers(0, 256, (4, 256, 256), np.uint8)
    assert check_intake_parity(network, model, pictures) < 1e-3
    assert 0 <= Intake(model).look(pictures[0]).no_chest <= 1


@pytest.mark.parametrize("view", range(8))
def test_each_view_undoes_its_own_way_round(view: int) -> None:
    """The k-th view of a picture that lies the k-th way round is the upright picture."""
    upright = torch.arange(16.0).view(1, 1, 4, 4)
    mirrored, quarters = divmod(view, 4)
    lies = torch.rot90(upright.flip(3) if mirrored else upright, -quarters, (2, 3))
    assert torch.equal(upright_view(lies, view), upright)


def test_turned_picture_permutes_the_logits() -> None:
    """Even an untrained network says of the turned slice what it says of the slice: that is built in."""
    torch.manual_seed(1)
    network = IntakeNetwork().eval()
    slices = torch.randint(0, 256, (2, 1, 256, 256), dtype=torch.uint8)
    with torch.inference_mode():
        said, turned = network(slices), network(torch.rot90(slices, -1, (2, 3)))
    torch.testing.assert_close(turned[:, 1:4], said[:, 0:3])
    torch.testing.assert_close(turned[:, 0], said[:, 3])


def test_real_slices_count_as_upright_chests() -> None:
    """A data set's prepared slices are taken as they are, all of them chests."""
    slices = np.random.default_rng(2).integers(0, 256, (3, 256, 256), np.uint8)
    examples = real_examples(slices)
    assert examples.pictures.shape == (3, 128, 128)
    assert examples.is_chest.all()
