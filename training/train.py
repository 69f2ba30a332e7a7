"""The training loop: from a network and labelled slices to the network of its best epoch."""

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch.nn import functional as F

from protocol.labels import LABELS
from training.captured import Views
from training.data.slices import Pixels, SliceSet, refuse_leak
from training.device import autocast, grad_scaler, half_dtype, pick_device
from training.ema import moving_average
from training.evaluate import balanced_accuracy, log_loss
from training.lesson import lesson_of, slices_at, varied
from training.memory import keep_freed_memory
from training.networks import Network
from training.optimizer import make_optimizer, peak_rate, rate_share, set_learning, set_rate
from training.parallel import ALONE, Team, TeamError
from training.plan import Progress, Step, TrainSettings
from training.pulse import DeadRunError, Pulse, refuse_constant
from training.run import EPOCH_FILE, Run, best_epoch, out_of_patience, run_identity
from training.sampling import draw

__all__ = [
    "EPOCH_FILE",
    "DeadRunError",
    "MissingClassError",
    "Trained",
    "TrainingStoppedError",
    "best_epoch",
    "read_logits",
    "train",
]

_READ_BATCH = 64
_GRADIENT_NORM = 1.0
"""Gradients are clipped to this; SqueezeNet without normalisation dies of its first large steps."""


class MissingClassError(ValueError):
    """A class has no slice to learn from or to be judged on."""


class TrainingStoppedError(RuntimeError):
    """The stop event was set; `epoch` was the last one finished, and a resume folder goes on from there."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"training stopped after epoch {epoch}; the same call with the same resume folder goes on")
        self.epoch = epoch


@dataclass(frozen=True)
class Trained:
    """The network with its best epoch's weights, in evaluation mode, and its logits on validation float32 [n, 3]."""

    network: Network
    history: tuple[Progress, ...]
    validation_logits: NDArray[np.float32]
    settings: dict[str, JsonValue]
    """Those that were used, of a head fewer."""
    captured_logits: tuple[NDArray[np.float32], ...] = ()
    """On validation's captured views, [n, 3] for each view of a slice."""

    @property
    def best(self) -> Progress:
        """Return the epoch whose weights the network has."""
        return best_epoch(self.history)


def train(
    network: Network,
    train: SliceSet,
    validation: SliceSet,
    settings: TrainSettings,
    *,
    views: Views | None = None,
    on_epoch: Callable[[Progress], None] = lambda _: None,
    on_step: Callable[[Step], None] = lambda _: None,
    stop: threading.Event | None = None,
    resume_folder: Path | None = None,
    allow_leak: bool = False,
    team: Team = ALONE,
) -> Trained:
    """Train the network in place, from the weights that it has, and keep the epoch that is best on validation.

    With captured views a share of each batch is shown twice, as it is and as a camera gives it, both varied alike; the
    answers are to be right and to be the same, and the epoch is chosen by both.
    With a resume folder each finished epoch is kept there, and the same call after a crash ends in the same bits.
    In a team every process makes the same call, and only the first hears `on_epoch` and `on_step` and writes.
    Raises `LeakError`, `MissingClassError`, `DeadRunError`, `TrainingStoppedError`, `NoDeviceError`, `TeamError`, and
    `CheckpointError` when the resume folder holds another run.
    """
    if not allow_leak:
        refuse_leak(train, validation)
    _refuse_missing_class("training", train)
    _refuse_missing_class("validation", validation)
    twice = settings.views_share if views else 0
    steps = math.ceil(len(train) / settings.batch)
    _refuse_small_shares(settings.batch, len(train) // steps, team)
    device = pick_device(settings.device, team.local_rank)
    half = half_dtype(device)
    keep_freed_memory()
    with _reproducible(settings.threads):
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = moving_average(network, settings.ema_decay) if settings.ema_decay else None
        run = Run(network, make_optimizer(network, settings), average)
        if resume_folder is not None:
            identity = run_identity(network, train, validation, settings, team.size, views)
            with team.first_alone():
                run.open(resume_folder / EPOCH_FILE, identity, writes=team.leads)
        peak = peak_rate(network, settings)
        scaler = grad_scaler(half)

        for epoch in range(len(run.history) + 1, settings.epochs + 1):
            if out_of_patience(run.history, settings.patience):
                break
            started_s = time.monotonic()
            torch.manual_seed(_epoch_seed(settings.seed, epoch))
            order = draw(train, settings.balanced)
            torch.manual_seed(_epoch_seed(settings.seed, epoch, team.rank))
            set_learning(network, head_only=epoch <= settings.freeze_epochs)
            read = team.reader(network)
            pulse = Pulse(epoch)
            for step, batch in enumerate(order.tensor_split(steps)):
                if team.any(stop is not None and stop.is_set()):
                    raise TrainingStoppedError(epoch - 1)
                rate = peak * rate_share(
                    ((epoch - 1) * steps + step) / (steps * settings.epochs), settings.warmup_share
                )
                set_rate(run.optimizer, rate)
                mine = team.share(batch)
                lesson = lesson_of(train, views.train if views else None, mine, settings)
                digital, captured = (network.reduce(one.to(device)) for one in (lesson.digital, lesson.captured))
                targets = lesson.targets.to(device)
                with autocast(device, half):
                    logits = read(varied(digital, captured, settings)).float()
                shown = len(batch) * (1 + twice)
                # DistributedDataParallel takes the mean over the processes
                loss = lesson.loss(logits, settings) * team.size / shown
                run.optimizer.zero_grad()
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.unscale_(run.optimizer)
                norm = torch.nn.utils.clip_grad_norm_(network.parameters(), _GRADIENT_NORM).item()
                plain = F.cross_entropy(logits.detach(), targets)  # comparable with validation's
                mean_loss = plain.item()
                pulse.feel(logits, targets, mean_loss, None if scaler.is_enabled() else norm)
                scaler.step(run.optimizer)
                scaler.update()
                if average is not None:
                    average.update_parameters(network)
                if team.leads:
                    on_step(Step(epoch, settings.epochs, step + 1, steps, mean_loss, len(batch)))
            train_loss, train_accuracy = pulse.ended(team)
            answers = _judge(run.judged, validation.pixels, team)
            if not np.isfinite(answers).all():
                raise DeadRunError(epoch, "the answers on validation are NaN or infinite")
            progress = Progress(
                epoch=epoch,
                epochs=settings.epochs,
                train_loss=train_loss,
                train_accuracy=train_accuracy,
                validation_loss=log_loss(answers, validation.labels),
                validation_accuracy=float((answers.argmax(1) == validation.labels).mean()),
                validation_balanced_accuracy=balanced_accuracy(answers, validation.labels),
                learning_rate=rate,
                seconds=time.monotonic() - started_s,
                **_judge_captured(run.judged, views, validation, team),
            )
            run.finish(progress)
            if team.leads:
                on_epoch(progress)

        network.requires_grad_(True).load_state_dict(run.best_weights)
        answers = read_logits(network.eval().cpu(), validation.pixels)
        captured_answers = tuple(read_logits(network, one) for one in views.validation.each()) if views else ()
        trained = Trained(network, tuple(run.history), answers, settings.model_dump(mode="json"), captured_answers)
        refuse_constant(trained.best.epoch, trained.validation_logits)
        return trained


def read_logits(network: Network, pixels: Pixels) -> NDArray[np.float32]:
    """Return the logits [n, 3] for prepared slices uint8 [n, 256, 256], in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        starts = range(0, len(pixels), _READ_BATCH)
        batches = (slices_at(pixels, torch.arange(at, min(at + _READ_BATCH, len(pixels)))) for at in starts)
        return np.concatenate([network(batch.to(network.mean.device))[0].cpu().numpy() for batch in batches])


def _judge(network: Network, pixels: Pixels, team: Team) -> NDArray[np.float32]:
    """Return the logits [n, 3]; in a team each process reads every so manieth slice, and all get all."""
    team.agree(network)
    if team.size == 1:
        return read_logits(network, pixels)
    mine = np.arange(team.rank, len(pixels), team.size)
    answers = torch.zeros(len(pixels), len(LABELS))
    if len(mine):
        answers[torch.from_numpy(mine)] = torch.from_numpy(read_logits(network, pixels[mine]))
    return team.sum(answers).numpy()


def _judge_captured(network: Network, views: Views | None, validation: SliceSet, team: Team) -> dict[str, float]:
    """Judge all captured views of validation's slices, where there are any."""
    if views is None:
        return {}
    answers = np.concatenate([_judge(network, one, team) for one in views.validation.each()])
    labels = np.tile(validation.labels, len(answers) // len(validation))
    return {
        "captured_balanced_accuracy": balanced_accuracy(answers, labels),
        "captured_loss": log_loss(answers, labels),
    }


def _refuse_missing_class(where: str, slices: SliceSet) -> None:
    missing = [label for label in LABELS if slices.count(label) == 0]
    if missing:
        raise MissingClassError(
            f"{where} has no slice of {', '.join(missing)} among {len(slices)}: add patients with it, "
            "or move some there"
        )


def _refuse_small_shares(batch: int, smallest_batch: int, team: Team) -> None:
    """Refuse a process without a slice, and one slice a process: nobody would see whether answers differ."""
    if team.size > 1 and (batch < 2 * team.size or smallest_batch < team.size):
        raise TeamError(
            f"{team.size} processes share batches of {smallest_batch} to {batch} slices: "
            f"take fewer processes, or a batch of at least {2 * team.size} and more slices"
        )


@contextmanager
def _reproducible(threads: int) -> Iterator[None]:
    """Lend out torch's global random generator and number of threads, and put both back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


def _epoch_seed(seed: int, epoch: int, rank: int | None = None) -> int:
    """Return the seed of an epoch's order, or that of one process's augmentation in it."""
    story = f"{seed}:{epoch}" if rank is None else f"{seed}:{epoch}:{rank}"
    return int.from_bytes(hashlib.sha256(story.encode()).digest()[:7])
