"""The training loop: from a network and labelled slices to the network of its best epoch."""

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue, TypeAdapter, ValidationError
from torch import Tensor
from torch.nn import functional as F

from protocol.labels import LABELS
from training.checkpoint import CheckpointError, pack, read_bytes, unpack, write_atomically
from training.data.slices import SliceSet, refuse_leak
from training.evaluate import balanced_accuracy, log_loss
from training.networks import ARCHITECTURES, Network
from training.plan import Progress, TrainSettings

EPOCH_FILE = "epoch.safetensors"
_READ_BATCH = 64
_GRADIENT_NORM = 1.0
"""Gradients are clipped to this; SqueezeNet without normalisation dies of its first large steps."""
_CONSTANT_SPREAD = 1e-6
"""In logits: a network whose answers differ by less from slice to slice does not look at the slice."""


class MissingClassError(ValueError):
    """A class has no slice to learn from or to be judged on."""


class DeadRunError(RuntimeError):
    """Training no longer changes anything, or the numbers are broken; `epoch` and `fault` say when and how."""

    def __init__(self, epoch: int, fault: str) -> None:
        super().__init__(
            f"epoch {epoch}: {fault}; nothing to release. Lower the learning rate or start from other weights"
        )
        self.epoch = epoch
        self.fault = fault


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
    on_epoch: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
    resume_folder: Path | None = None,
) -> Trained:
    """Train the network in place, from the weights that it has, and keep the epoch that is best on validation.

    With a resume folder each finished epoch is kept there, and the same call after a crash ends in the same bits.
    Raises `LeakError`, `MissingClassError`, `DeadRunError`, `TrainingStoppedError`, and `CheckpointError` when the
    resume folder holds another run.
    """
    refuse_leak(train, validation)
    _refuse_missing_class("training", train)
    _refuse_missing_class("validation", validation)
    with _reproducible(settings.threads):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = _Run(network, _optimizer(network, settings.weight_decay))
        if resume_folder is not None:
            run.open(resume_folder / EPOCH_FILE, _identity(network, train, validation, settings))
        pixels, labels = torch.from_numpy(train.pixels).unsqueeze(1), torch.from_numpy(train.labels)
        steps = math.ceil(len(train) / settings.batch)
        peak = settings.learning_rate or ARCHITECTURES[network.architecture].learning_rate

        for epoch in range(len(run.history) + 1, settings.epochs + 1):
            started = time.monotonic()
            torch.manual_seed(_epoch_seed(settings.seed, epoch))
            network.train()
            pulse = _Pulse(epoch)
            for step, chosen in enumerate(_draw(labels, settings.balanced).tensor_split(steps), (epoch - 1) * steps):
                if stop is not None and stop.is_set():
                    raise TrainingStoppedError(epoch - 1)
                rate = peak * _schedule(step / (steps * settings.epochs), settings.warmup_share)
                run.set_learning_rate(rate)
                grey = network.reduce(pixels[chosen])
                logits, _, _ = network.read(augmented(grey) if settings.augment else grey)
                loss = F.cross_entropy(logits, labels[chosen])
                run.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(network.parameters(), _GRADIENT_NORM)
                pulse.feel(loss, norm, logits)
                run.optimizer.step()
            pulse.refuse_dead()
            answers = read_logits(network, validation.pixels)
            if not np.isfinite(answers).all():
                raise DeadRunError(epoch, "the answers on validation are NaN or infinite")
            progress = Progress(
                epoch=epoch,
                epochs=settings.epochs,
                train_loss=pulse.mean_loss,
                validation_loss=log_loss(answers, validation.labels),
                validation_balanced_accuracy=balanced_accuracy(answers, validation.labels),
                learning_rate=rate,
                seconds=time.monotonic() - started,
            )
            run.finish(progress)
            on_epoch(progress)

        network.load_state_dict(run.best_weights)
        return Trained(network.eval(), tuple(run.history), read_logits(network, validation.pixels))


def read_logits(network: Network, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits [n, 3] for prepared slices uint8 [n, 256, 256], in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        slices = torch.from_numpy(pixels).unsqueeze(1)
        starts = range(0, len(slices), _READ_BATCH)
        return np.concatenate([network(slices[at : at + _READ_BATCH])[0].numpy() for at in starts])


def best_epoch(history: Sequence[Progress]) -> Progress:
    """Return the epoch of the highest balanced accuracy on validation, among equals the least loss, then the first."""
    return max(history, key=lambda progress: (progress.validation_balanced_accuracy, -progress.validation_loss))


def augmented(grey: Tensor) -> Tensor:
    """Vary a batch float [n, 1, px, px], 0..1, as scanners and windows do: place, size, tilt, greys, blur, noise."""
    n = len(grey)
    grey = torch.where(_chance(n, 0.5), grey.flip(3), grey)
    grey = F.grid_sample(grey, F.affine_grid(_affine(n), list(grey.shape), align_corners=False), align_corners=False)
    grey = grey.clamp(min=0) ** torch.exp(_uniform(n, -0.2, 0.2))
    grey = (grey - 0.5) * _uniform(n, 0.92, 1.08) + 0.5 + _uniform(n, -0.04, 0.04)
    blurred = F.avg_pool2d(grey, 3, stride=1, padding=1, count_include_pad=False)
    grey = torch.lerp(grey, blurred, _uniform(n, 0, 0.6) * _chance(n, 0.3))
    return (grey + torch.randn_like(grey) * _uniform(n, 0, 0.02)).clamp(0, 1)


class _Pulse:
    """Feels at every step whether an epoch is alive."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._losses: list[float] = []
        self._largest_spread = 0.0

    @property
    def mean_loss(self) -> float:
        return sum(self._losses) / len(self._losses)

    def feel(self, loss: Tensor, norm: Tensor, logits: Tensor) -> None:
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise DeadRunError(self._epoch, f"loss {loss.item():.3g}, gradient norm {norm.item():.3g}")
        self._losses.append(loss.item())
        spread = logits.detach().amax(0) - logits.detach().amin(0)
        self._largest_spread = max(self._largest_spread, spread.max().item())

    def refuse_dead(self) -> None:
        if self._largest_spread < _CONSTANT_SPREAD:
            raise DeadRunError(self._epoch, f"the same answer to every slice (loss {self.mean_loss:.3g})")


@dataclass
class _Run:
    """What a training must not lose: weights, optimizer state, the best weights so far and the finished epochs.

    No random state is among it: every epoch is seeded by its number.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[Progress] = field(default_factory=list)
    _path: Path | None = None
    _identity: str = ""

    def open(self, path: Path, identity: str) -> None:
        """Keep every finished epoch in the file from now on; go on from the one that it holds."""
        self._path, self._identity = path, identity
        if path.exists():
            tensors, header = unpack(read_bytes(path))
            if header.get("run") != identity:
                raise CheckpointError(
                    f"{path} is of another run (weights, slices or settings differ): use another folder"
                )
            self._restore(tensors, header.get("history"))

    def set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def finish(self, progress: Progress) -> None:
        """Remember a finished epoch, in memory and, when a file is open, on the disk."""
        self.history.append(progress)
        if best_epoch(self.history) is progress:
            self.best_weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        if self._path is not None:
            history: list[JsonValue] = [epoch.model_dump(mode="json") for epoch in self.history]
            write_atomically(self._path, pack(self._tensors(), {"run": self._identity, "history": history}))

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best_weights.items()}
        for index, parameter in enumerate(self._parameters()):
            tensors |= {f"optimizer/{index}/{name}": value for name, value in self.optimizer.state[parameter].items()}
        return tensors

    def _restore(self, tensors: dict[str, Tensor], history: object) -> None:
        try:
            self.history = TypeAdapter(list[Progress]).validate_python(history)
            self.network.load_state_dict(_below("network/", tensors))
        except (ValidationError, RuntimeError) as error:
            raise CheckpointError(
                f"{self._path} cannot be gone on from ({error}): remove it and start again"
            ) from error
        self.best_weights = _below("best/", tensors)
        for index, parameter in enumerate(self._parameters()):
            state = _below(f"optimizer/{index}/", tensors)
            self.optimizer.state[parameter] = {name: _laid_out_as(parameter, value) for name, value in state.items()}


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """Give a state its parameter's memory format: another one would round otherwise, and the bits would differ."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def _refuse_missing_class(where: str, slices: SliceSet) -> None:
    missing = [label for label in LABELS if slices.count(label) == 0]
    if missing:
        raise MissingClassError(
            f"{where} has no slice of {', '.join(missing)} among {len(slices)}: "
            f"add patients with it, or split the patients with another seed or fraction"
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


def _optimizer(network: Network, weight_decay: float) -> torch.optim.Optimizer:
    """Decay weights, but neither biases nor the scales of a normalisation."""
    parameters = list(network.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    )


def _identity(network: Network, train: SliceSet, validation: SliceSet, settings: TrainSettings) -> str:
    """Return the hash of all that decides how a run ends."""
    story = f"{network.architecture} {network.input_px} {settings.model_dump_json()} {torch.__version__}"
    digest = hashlib.sha256(f"{story} {train.sha256()} {validation.sha256()}".encode())
    digest.update(pack(network.state_dict(), {}))
    return digest.hexdigest()


def _epoch_seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:7])


def _draw(labels: Tensor, balanced: bool) -> Tensor:
    """Return the order of an epoch: as many indices as slices, of every class as many if balanced."""
    if not balanced:
        return torch.randperm(len(labels))
    each = math.ceil(len(labels) / len(LABELS))
    classes = [_repeated(torch.nonzero(labels == index).flatten(), each) for index in range(len(LABELS))]
    drawn = torch.cat(classes)
    return drawn[torch.randperm(len(drawn))[: len(labels)]]


def _repeated(members: Tensor, times: int) -> Tensor:
    """Return so many members in random order; each comes before any comes again."""
    rounds = math.ceil(times / len(members))
    return torch.cat([members[torch.randperm(len(members))] for _ in range(rounds)])[:times]


def _schedule(done: float, warmup_share: float) -> float:
    """Return the learning rate's share of its peak when this share of all steps is done."""
    if done < warmup_share:
        return max(done / warmup_share, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup_share) / (1 - warmup_share)))


def _affine(n: int) -> Tensor:
    """Return matrices [n, 2, 3]: up to 8 degrees of tilt, 12 % of size, 6 % of the side of shift."""
    angle, scale = _uniform(n, -0.14, 0.14).flatten(), _uniform(n, 0.88, 1.12).flatten()
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    shift_x, shift_y = _uniform(n, -0.12, 0.12).flatten(), _uniform(n, -0.12, 0.12).flatten()
    return torch.stack([torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)], 1)


def _uniform(n: int, low: float, high: float) -> Tensor:
    return torch.empty(n, 1, 1, 1).uniform_(low, high)


def _chance(n: int, probability: float) -> Tensor:
    return torch.rand(n, 1, 1, 1) < probability
