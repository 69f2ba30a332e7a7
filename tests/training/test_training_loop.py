"""Training learns, repeats itself bit by bit, goes on after a crash, and refuses what would make its figures lies."""

import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from protocol.labels import Label
from training.checkpoint import CheckpointError, dumps
from training.data.slices import LeakError
from training.device import NoDeviceError, half_dtype, pick_device
from training.evaluate import log_loss
from training.networks import build
from training.plan import TrainSettings
from training.train import (
    EPOCH_FILE,
    DeadRunError,
    MissingClassError,
    TrainingStoppedError,
    train,
)


def network(name: str = "squeezenet1_1_bn", seed: int = 0):
    torch.manual_seed(seed)
    return build(name, 64)


@pytest.fixture(scope="module")
def slices(toy):
    return toy(24, seed=1), toy(12, name="v", seed=2)


SHORT = TrainSettings(epochs=3, batch=16)
EVERYTHING = TrainSettings(
    epochs=3,
    batch=16,
    optimizer="sgd",
    ema_decay=0.9,
    freeze_epochs=1,
    backbone_rate_share=0.3,
    label_smoothing=0.1,
    patience=3,
    balanced="class-source",
    window=0.5,
    exchange=0.5,
)


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


@pytest.mark.parametrize("settings", [SHORT, EVERYTHING], ids=["short", "everything"])
def test_resumed_run_equals_an_uninterrupted_one(slices, tmp_path, settings):
    """A run that was cut in the middle of an epoch ends, after the same call again, in the bits of one that was not.

    With SGD, frozen epochs, layer groups, average and patience, too.
    """
    whole = train(network(), *slices, settings)
    stop = threading.Event()
    with pytest.raises(TrainingStoppedError) as caught:
        train(network(), *slices, settings, on_epoch=lambda _: stop.set(), stop=stop, resume_folder=tmp_path)
    assert caught.value.epoch == 1
    resumed = train(network(), *slices, settings, resume_folder=tmp_path)
    assert dumps(resumed.network) == dumps(whole.network)
    assert [p.model_dump(exclude={"seconds"}) for p in resumed.history] == [
        p.model_dump(exclude={"seconds"}) for p in whole.history
    ]


ONE_EPOCH = TrainSettings(epochs=1, batch=16)


def weights(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def change(before, after, names):
    return max((after[name] - before[name]).abs().max().item() for name in names)


def test_frozen_epochs_teach_the_last_layer_alone(slices):
    """While all but the last layer is frozen, its weights and its statistics stay as they are."""
    net = network()
    before = weights(net)
    train(net, *slices, ONE_EPOCH.model_copy(update={"freeze_epochs": 1}))
    after = weights(net)
    head = [name for name in before if name.startswith("net.classifier.1")]
    assert len(head) == 2
    assert change(before, after, head) > 0
    assert change(before, after, before.keys() - set(head)) == 0
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_backbone_moves_by_its_share_of_the_rate(slices):
    """With a share of the rate, all but the last layer changes less, the last layer does not."""
    moved = []
    for share in (1.0, 0.1):
        net = network("baseline_cnn")
        before = weights(net)
        train(net, *slices, ONE_EPOCH.model_copy(update={"backbone_rate_share": share}))
        body = [name for name in before if "fc3" not in name]
        moved.append((change(before, weights(net), body), change(before, weights(net), ["net.fc3.weight"])))
    assert moved[1][0] < 0.3 * moved[0][0]
    assert moved[1][1] > 0.5 * moved[0][1]


def test_average_is_what_is_judged_and_kept(slices):
    """With a moving average the kept weights differ from the raw run's, and validation is read with them."""
    averaged = train(network("baseline_cnn"), *slices, SHORT.model_copy(update={"ema_decay": 0.9}))
    raw = train(network("baseline_cnn"), *slices, SHORT)
    assert [p.train_loss for p in averaged.history] == [p.train_loss for p in raw.history]
    assert [p.validation_loss for p in averaged.history] != [p.validation_loss for p in raw.history]
    loss = log_loss(averaged.validation_logits, slices[1].labels)
    assert loss == pytest.approx(averaged.best.validation_loss, abs=1e-6)
    assert dumps(averaged.network) != dumps(raw.network)


def test_patience_ends_a_run_that_gets_no_better(slices):
    """After so many epochs without a better one the run ends, and keeps the best."""
    still = SHORT.model_copy(update={"epochs": 9, "learning_rate": 1e-12, "patience": 2})
    trained = train(network("baseline_cnn"), *slices, still)
    assert len(trained.history) < 9
    assert trained.history[-1].epoch - trained.best.epoch == 2


def test_every_step_is_told(slices):
    """Who listens hears each step with its place, its loss and its slices."""
    told = []
    train(network("baseline_cnn"), *slices, SHORT, on_step=told.append)
    assert [(step.epoch, step.step, step.steps) for step in told] == [(e, s, 3) for e in (1, 2, 3) for s in (1, 2, 3)]
    assert sum(step.slices for step in told) == 3 * len(slices[0])
    assert all(0 < step.loss < 3 for step in told)


def test_mapped_pixels_teach_the_same(slices, tmp_path):
    """A read-only file mapped into memory gives the bits that an array in memory gives."""
    np.save(tmp_path / "pixels.npy", slices[0].pixels)
    mapped = replace(slices[0], pixels=np.load(tmp_path / "pixels.npy", mmap_mode="r"))
    there, here = (train(network("baseline_cnn"), each, slices[1], ONE_EPOCH) for each in (mapped, slices[0]))
    assert dumps(there.network) == dumps(here.network)


def test_half_precision_is_for_cuda_alone(monkeypatch):
    """The CPU computes in float32; CUDA in bf16, or in scaled fp16 where it has none; none asked for is refused."""
    assert half_dtype(pick_device("cpu")) is None
    for has_bf16, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bf16: has)
        assert half_dtype(torch.device("cuda")) is dtype
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(NoDeviceError, match="use --device cpu"):
        pick_device("cuda")


KILLED = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[2:]
from conftest import toy_slices
from test_training_loop import EVERYTHING, network
from training.train import train

def die(progress):
    if progress.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

train(network(), toy_slices(24, seed=1), toy_slices(12, name="v", seed=2), EVERYTHING, on_epoch=die,
      resume_folder=pathlib.Path(sys.argv[1]))
"""


def test_killed_process_is_gone_on_from(slices, tmp_path):
    """After kill -9 the last finished epoch is on the disk, and another process ends in the bits of an unharmed run."""
    here = Path(__file__).parent
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(here), str(here.parent.parent)])
    assert died.returncode == -signal.SIGKILL
    epochs = []
    resumed = train(network(), *slices, EVERYTHING, on_epoch=lambda p: epochs.append(p.epoch), resume_folder=tmp_path)
    assert epochs == [3]
    assert dumps(resumed.network) == dumps(train(network(), *slices, EVERYTHING).network)


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


def test_allowed_leak_goes_on(slices):
    """For reproducing a leaked result, a leak can be allowed."""
    everyone = slices[0].concat(slices[1])
    assert train(network("baseline_cnn"), everyone, slices[1], ONE_EPOCH, allow_leak=True).best.epoch == 1


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


def test_network_whose_answers_differ_by_dropout_alone_is_a_dead_run(slices):
    """In training dropout makes answers differ; on validation nothing is left of it, and nothing is released."""
    blind = network("squeezenet1_1")
    blind.net.features[0].weight.data.zero_()
    blind.net.features[0].bias.data.fill_(10)
    with pytest.raises(DeadRunError, match="the same answer to every validation slice"):
        train(blind, *slices, ONE_EPOCH.model_copy(update={"learning_rate": 1e-12}))


def test_told_loss_is_plain_cross_entropy_whatever_smoothing_the_labels_have(slices):
    """Training's loss and validation's can be drawn into one picture."""
    losses = []
    for smoothing in (0.0, 0.5):
        steps = []
        train(network(), *slices, ONE_EPOCH.model_copy(update={"label_smoothing": smoothing}), on_step=steps.append)
        losses.append(steps[0].loss)
    assert losses[0] == losses[1]
