"""What a training must not lose, kept on the disk after each epoch: after a crash it goes on to the same bits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from pydantic import JsonValue, TypeAdapter, ValidationError
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from training.captured import Views
from training.checkpoint import CheckpointError, pack, read_bytes, unpack
from training.data.slices import SliceSet
from training.durable import write_atomically
from training.networks import Network
from training.plan import Progress, TrainSettings

EPOCH_FILE = "epoch.safetensors"


def best_epoch(history: Sequence[Progress]) -> Progress:
    """Return the epoch of the highest balanced accuracy on validation, among equals the least loss, then the first.

    Where captured views are judged too, it is that of the least mean loss of both: balanced accuracy on few patients
    picked an early epoch by luck, which lost three times as much between slice and camera as the last one.
    """
    return max(history, key=_worth)


def _worth(progress: Progress) -> tuple[float, float]:
    if progress.captured_loss is None:
        return progress.validation_balanced_accuracy, -progress.validation_loss
    return -(progress.validation_loss + progress.captured_loss) / 2, progress.validation_balanced_accuracy


def out_of_patience(history: Sequence[Progress], patience: int | None) -> bool:
    """Tell whether so many epochs have passed since the best one."""
    return patience is not None and bool(history) and history[-1].epoch - best_epoch(history).epoch >= patience


def run_identity(
    network: Network,
    train: SliceSet,
    validation: SliceSet,
    settings: TrainSettings,
    processes: int,
    views: Views | None = None,
) -> str:
    """Return the hash of all that decides how a run ends."""
    decisive = settings.model_dump_json(exclude={"half"})  # of the file that is written in the end
    story = f"{network.architecture} {network.input_px} {decisive} {torch.__version__} {processes}"
    if views is not None:
        story += f" {views.train.story.model_dump_json()} {views.validation.story.model_dump_json()}"
    digest = hashlib.sha256(f"{story} {train.sha256()} {validation.sha256()}".encode())
    digest.update(pack(network.state_dict(), {}))
    return digest.hexdigest()


@dataclass
class Run:
    """Weights, their average, optimizer state, the best weights so far and the finished epochs.

    No random state is among it: every epoch is seeded by its number.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[Progress] = field(default_factory=list)
    _path: Path | None = None
    _identity: str = ""
    _writes: bool = True

    @property
    def judged(self) -> Network:
        """Return the network that is judged and kept: the average where there is one."""
        return self.network if self.average is None else cast(Network, self.average.module)

    def open(self, path: Path, identity: str, *, writes: bool = True) -> None:
        """Keep every finished epoch in the file from now on, if we write; go on from the one that it holds."""
        self._path, self._identity, self._writes = path, identity, writes
        if path.exists():
            tensors, header = unpack(read_bytes(path))
            if header.get("run") != identity:
                raise CheckpointError(
                    f"{path} is of another run (weights, slices, settings or the number of processes differ): "
                    "use another folder"
                )
            self._restore(tensors, header.get("history"))

    def finish(self, progress: Progress) -> None:
        """Remember a finished epoch, in memory and, when a file is open, on the disk."""
        self.history.append(progress)
        if best_epoch(self.history) is progress:
            self.best_weights = {name: tensor.clone() for name, tensor in self.judged.state_dict().items()}
        if self._path is not None and self._writes:
            history: list[JsonValue] = [epoch.model_dump(mode="json") for epoch in self.history]
            write_atomically(self._path, pack(self._tensors(), {"run": self._identity, "history": history}))

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best_weights.items()}
        if self.average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        for index, parameter in enumerate(self._parameters()):
            tensors |= {f"optimizer/{index}/{name}": value for name, value in self.optimizer.state[parameter].items()}
        return tensors

    def _restore(self, tensors: dict[str, Tensor], history: object) -> None:
        try:
            self.history = TypeAdapter(list[Progress]).validate_python(history)
            self.network.load_state_dict(_below("network/", tensors))
            if self.average is not None:
                self.average.load_state_dict(_below("average/", tensors))
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
