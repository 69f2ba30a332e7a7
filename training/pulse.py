"""Whether a training is alive, felt at every step, and what an epoch was on the slices it learnt from."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.parallel import Team

_CONSTANT_SPREAD = 1e-6
"""In logits, of the largest where that is above 1: a network whose answers differ by less from slice to slice does not
look at the slice."""


class DeadRunError(RuntimeError):
    """Training no longer changes anything, or the numbers are broken; `epoch` and `fault` say when and how."""

    def __init__(self, epoch: int, fault: str) -> None:
        super().__init__(
            f"epoch {epoch}: {fault}; nothing to release. Lower the learning rate or start from other weights"
        )
        self.epoch = epoch
        self.fault = fault


class Pulse:
    """Feels one epoch: at each step this process's part, at the end all processes together."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._loss = 0.0
        self._correct = 0
        self._n = 0
        self._largest_spread = 0.0

    def feel(self, logits: Tensor, targets: Tensor, loss: float, norm: float | None) -> None:
        """Remember a step's logits [n, 3], targets [n] and mean loss; a broken loss or gradient norm is the end."""
        if not (math.isfinite(loss) and (norm is None or math.isfinite(norm))):
            raise DeadRunError(
                self._epoch, f"loss {loss:.3g}, gradient norm {'not taken' if norm is None else f'{norm:.3g}'}"
            )
        logits = logits.detach()
        self._loss += loss * len(targets)
        self._correct += int((logits.argmax(1) == targets).sum())
        self._n += len(targets)
        self._largest_spread = max(self._largest_spread, (logits.amax(0) - logits.amin(0)).max().item())

    def ended(self, team: Team) -> tuple[float, float]:
        """Return the epoch's mean loss and its accuracy, 0..1; raises `DeadRunError` if all answers were the same."""
        loss, correct, n, varied = team.sum(
            torch.tensor(
                [self._loss, self._correct, self._n, self._largest_spread > _CONSTANT_SPREAD], dtype=torch.float64
            )
        ).tolist()
        if not varied:
            raise DeadRunError(self._epoch, f"the same answer to every slice (loss {loss / n:.3g})")
        return loss / n, correct / n


def refuse_constant(epoch: int, answers: NDArray[np.float32]) -> None:
    """Raise `DeadRunError` when all logits [n, 3] are the same; those of training differ by dropout alone, too."""
    if np.ptp(answers, axis=0).max() <= _CONSTANT_SPREAD * max(1.0, float(np.abs(answers).max())):
        raise DeadRunError(epoch, "the same answer to every validation slice")
