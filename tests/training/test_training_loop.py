"""Training learns, repeats itself bit by bit, goes on after a crash, and refuses what would make its figures lies."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from protocol.labels import Label
from training.checkpoint import CheckpointError, dumps
from training.data.slices import LeakError
from training.networks import build
from training.train import (
    EPOCH_FILE,
    DeadRunError,
    MissingClassError,
    TrainingStoppedError,
    TrainSettings,
    augmented,
    train,
)


def network(name: str = "squeezenet1_1_bn", seed: int = 0):
    torch.manual_seed(seed)
    return build(name, 64)


@pytest.fixture(scope="module")
def slices(toy):
    return toy(24, seed=1), toy(12, name="v", seed=2)


SHORT = TrainSettings(epochs=3, batch=16)


def test_loss_goes_down_and_unseen_patients_are_read(slices):
    """A few epochs lower the loss and read patients that were not learnt from."""
    told = []
    trained = train(network(), *slices, TrainSettings(epochs=8, batch=16), on_epoch=told.append)
    assert tuple(told) == trained.history
    assert trained.history[-1].train_loss < 0.5 * trained.history[0].train_loss
    assert trained.best.validation_balanced_accuracy > 0.9
    assert (trained.validation_logits.argmax(1) == slices[1].labels).mean() > 0.9


def test_same_seed_same_bits_and_another_seed_others(slices):
    """Two runs with the same seed end in the same weights, bit by bit, and leave the global random state alone."""
    first, again, other = network(), network(), network()
    before = torch.get_rng_state()
    train(first, *slices, SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert dumps(train(again, *slices, SHORT).network) == dumps(first)
    assert dumps(train(other, *slices, SHORT.model_copy(update={"seed": 1})).network) != dumps(first)


def test_resumed_run_equals_an_uninterrupted_one(slices, tmp_path):
    """A run that was cut in the middle of an epoch ends, after the same call again, in the bits of one that was not."""
    whole = train(network(), *slices, SHORT)
    stop = threading.Event()
    with pytest.raises(TrainingStoppedError) as caught:
        train(network(), *slices, SHORT, on_epoch=lambda _: stop.set(), stop=stop, resume_folder=tmp_path)
    assert caught.value.epoch == 1
    resumed = train(network(), *slices, SHORT, resume_folder=tmp_path)
    assert dumps(resumed.network) == dumps(whole.network)
    assert [p.model_dump(exclude={"seconds"}) for p in resumed.history] == [
        p.model_dump(exclude={"seconds"}) for p in whole.history
    ]


KILLED = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[2:]
from conftest import toy_slices
from test_training_loop import SHORT, network
from training.train import train

def die(progress):
    if progress.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

train(network(), toy_slices(24, seed=1), toy_slices(12, name="v", seed=2), SHORT, on_epoch=die,
      resume_folder=pathlib.Path(sys.argv[1]))
"""


def test_killed_process_is_gone_on_from(slices, tmp_path):
    """After kill -9 the last finished epoch is on the disk, and another process ends in the bits of an unharmed run."""
    here = Path(__file__).parent
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(here), str(here.parent.parent)])
    assert died.returncode == -signal.SIGKILL
    epochs = []
    resumed = train(network(), *slices, SHORT, on_epoch=lambda p: epochs.append(p.epoch), resume_folder=tmp_path)
    assert epochs == [3]
    assert dumps(resumed.network) == dumps(train(network(), *slices, SHORT).network)


def test_resume_folder_of_another_run_or_a_damaged_one_is_refused(slices, tmp_path):
    """Weights of another run are never mixed in, and a damaged file is named."""
    short = TrainSettings(epochs=1, batch=16)
    train(network("baseline_cnn"), *slices, short, resume_folder=tmp_path)
    with pytest.raises(CheckpointError, match="another run"):
        train(network("baseline_cnn"), *slices, SHORT, resume_folder=tmp_path)
    (tmp_path / EPOCH_FILE).write_bytes((tmp_path / EPOCH_FILE).read_bytes()[:200])
    with pytest.raises(CheckpointError, match="cut off"):
        train(network("baseline_cnn"), *slices, short, resume_folder=tmp_path)


def test_patient_on_both_sides_is_refused_by_name(slices, toy):
    """Training does not start while a patient stands on both sides, and says which."""
    with pytest.raises(LeakError, match="p003"):
        train(network("baseline_cnn"), slices[0], slices[1].concat(slices[0].of_patients(["p003"])), SHORT)


def test_missing_class_is_named_with_what_to_do(slices):
    """A class without a slice stops training before it begins."""
    without = slices[0].select(slices[0].labels != 1)
    with pytest.raises(MissingClassError, match=r"training has no slice of Pneumonia.*add patients"):
        train(network("baseline_cnn"), without, slices[1], SHORT)
    assert without.count(Label.PNEUMONIA) == 0


def test_network_that_answers_the_same_to_all_is_a_dead_run(slices):
    """Dead units are noticed after the first epoch, not after the last."""
    dead = network("squeezenet1_1")
    dead.net.features[0].bias.data.fill_(-100)
    with pytest.raises(DeadRunError, match="the same answer to every slice") as caught:
        train(dead, *slices, SHORT)
    assert caught.value.epoch == 1


def test_broken_numbers_are_a_dead_run(slices):
    """A loss that is no number stops the run at once."""
    broken = network("baseline_cnn")
    broken.net.fc3.bias.data.fill_(float("nan"))
    with pytest.raises(DeadRunError, match="loss nan"):
        train(broken, *slices, SHORT)


def test_augmentation_varies_slices_and_keeps_them_slices():
    """Augmented slices differ from one another, keep their shape, and stay between 0 and 1."""
    torch.manual_seed(0)
    grey = torch.rand(1, 1, 64, 64).expand(8, -1, -1, -1).contiguous()
    varied = augmented(grey)
    assert varied.shape == grey.shape
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert np.unique([round(slice_.mean().item(), 4) for slice_ in varied]).size == 8
