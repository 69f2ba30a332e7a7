"""Two real processes that train one network do what one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.bundle import read_bundle
from training.data.dataset import load_split, open_dataset
from training.data.phantom import Cohort, write_phantoms
from training.networks import build
from training.parallel import ALONE, Team, TeamError, joined
from training.plan import TrainSettings
from training.train import train

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120
PLAIN = TrainSettings(epochs=2, batch=4, augment=0, learning_rate=0.01, seed=3)
"""baseline_cnn has no batch normalisation and no dropout: its arithmetic is the same in any number of processes."""


def start(environment: dict[str, str], *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_torchrun_with_two_processes_learns_what_one_learns(tmp_path):
    """`torchrun -m sliceloop train` in two processes speaks once, leaves one bundle, and its losses are one's."""
    write_phantoms(tmp_path, [Cohort("site-a", "train", 3, 1), Cohort("site-a", "val", 1, 1)], seed=1)
    network = ("--architecture", "baseline_cnn", "--input-px", "64", "--learning-rate", "0.01")
    run = ("--epochs", "2", "--batch", "4", "--augment", "0", "--seed", "3", "--out", str(tmp_path / "two"))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    with start({}, *torchrun, "-m", "sliceloop", "train", str(tmp_path), *network, *run) as two:
        said, _ = two.communicate(timeout=DEADLINE_S)
    assert two.returncode == 0, said
    assert said.count("epoch 2/2") == 1

    dataset = open_dataset(tmp_path)
    torch.manual_seed(PLAIN.seed)
    one = train(build("baseline_cnn", 64), load_split(dataset, "train"), load_split(dataset, "val"), PLAIN)
    report = read_bundle(tmp_path / "two").report
    assert len(report.history) == 2
    for ours, theirs in zip(one.history, report.history, strict=True):
        assert theirs.train_loss == pytest.approx(ours.train_loss, abs=1e-5)
        assert theirs.validation_loss == pytest.approx(ours.validation_loss, abs=1e-5)
        assert theirs.train_accuracy == ours.train_accuracy


def test_a_refusal_of_two_processes_is_said_once(tmp_path):
    """What every process refuses, the first one says; also what the first finds while the others wait for it."""
    write_phantoms(tmp_path, [Cohort("site-a", "train", 1, 1), Cohort("site-a", "val", 1, 1)], seed=1)
    min((tmp_path / "images").rglob("*.png")).write_bytes(b"no image")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run = ("--out", str(tmp_path / "out"), "--architecture", "baseline_cnn")
    with start({}, *torchrun, "-m", "sliceloop", "train", str(tmp_path), *run) as two:
        said, _ = two.communicate(timeout=DEADLINE_S)
    assert two.returncode != 0
    assert said.count("repair it or take it out of the data set") == 1


TWO = """
import os, pathlib, sys, threading
sys.path[:0] = sys.argv[2:]
from conftest import toy_slices
from test_parallel import ALL_AT_ONCE, small_network
from training.checkpoint import dumps
from training.parallel import joined
from training.train import TrainingStoppedError, train

slices = toy_slices(9, seed=1), toy_slices(5, name="v", seed=2)
folder = pathlib.Path(sys.argv[1])
with joined(os.environ) as team:
    stop = threading.Event()
    try:
        train(small_network(), *slices, ALL_AT_ONCE, team=team, stop=stop, on_epoch=lambda _: stop.set(),
              resume_folder=folder)
    except TrainingStoppedError as error:
        print("stopped after", error.epoch)
    told = []
    resumed = train(small_network(), *slices, ALL_AT_ONCE, team=team, on_epoch=told.append, resume_folder=folder)
    whole = train(small_network(), *slices, ALL_AT_ONCE, team=team)
    print("told", [progress.epoch for progress in told])
    print("same", dumps(resumed.network) == dumps(whole.network), len(resumed.history))
    (folder / f"{team.rank}.safetensors").write_bytes(dumps(whole.network))
"""
ALL_AT_ONCE = TrainSettings(
    epochs=3, batch=5, optimizer="sgd", ema_decay=0.9, freeze_epochs=1, label_smoothing=0.1, backbone_rate_share=0.5
)


def small_network():
    torch.manual_seed(0)
    return build("squeezenet1_1_bn", 32)


def test_two_processes_stop_together_and_go_on_to_the_same_bits(tmp_path):
    """When one is told to stop, both do; the same call goes on, and ends in the same bits as an uninterrupted one."""
    here = Path(__file__).parent
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        start({**environment, "RANK": rank}, "-c", TWO, str(tmp_path), str(here), str(ROOT)) for rank in ("0", "1")
    ]
    said = [rank.communicate(timeout=DEADLINE_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert [line.splitlines()[-3:] for line in said] == [
        ["stopped after 1", "told [2, 3]", "same True 3"],
        ["stopped after 1", "told []", "same True 3"],
    ]
    first, second = ((tmp_path / f"{rank}.safetensors").read_bytes() for rank in (0, 1))
    assert first == second


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_batch_is_shared_out_without_loss():
    """The shares of all processes are the batch, and differ by one slice at most."""
    batch = torch.arange(11)
    shares = [Team(rank, 3).share(batch) for rank in range(3)]
    assert torch.equal(torch.cat(shares), batch)
    assert sorted(map(len, shares)) == [3, 4, 4]


def test_without_torchrun_a_process_is_alone():
    """No environment of torchrun's, one process."""
    with joined({}) as team:
        assert team is ALONE
    with pytest.raises(TeamError, match="start with torchrun"), joined({"WORLD_SIZE": "two"}):
        pass


def test_more_processes_than_slices_are_refused(toy):
    """Who starts more processes than a batch can feed reads what to change."""
    with pytest.raises(TeamError, match="take fewer processes, or a batch of at least 16"):
        train(build("baseline_cnn", 64), toy(6), toy(3, name="v"), PLAIN, team=Team(0, 8))
