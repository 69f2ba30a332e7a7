"""Train the intake network: one loop, some minutes on one core."""

import math
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from pydantic import JsonValue
from torch import Tensor
from torch.nn import functional as F

from training.intake.augment import varied
from training.intake.examples import Examples, IntakeStoppedError
from training.intake.network import VIEW_NAMES, IntakeNetwork, evened, upright_view

WARM_UP_SHARE = 0.15
_UPRIGHT, _MIRRORED = 0, VIEW_NAMES.index("rotated-0-mirrored")
_TURNED = [view for view in range(len(VIEW_NAMES)) if view not in (_UPRIGHT, _MIRRORED)]


@dataclass(frozen=True)
class IntakePlan:
    """How the intake network learns."""

    people: int = 1800
    epochs: int = 12
    batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    seed: int = 0

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the plan as it stands in the network's story."""
        return asdict(self)


def train_intake(
    examples: Examples,
    plan: IntakePlan,
    *,
    on_epoch: Callable[[int, float], None] = lambda _, __: None,
    stop: threading.Event | None = None,
) -> IntakeNetwork:
    """Train a network on one core and return it in evaluation mode; the same arguments give the same bits.

    `on_epoch` hears the epoch, from 1, and its mean loss. Raises `IntakeStoppedError`.
    """
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    network = IntakeNetwork().train()
    pictures, is_chest = torch.from_numpy(examples.pictures)[:, None], torch.from_numpy(examples.is_chest)
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    steps = max(1, len(examples) // plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.learning_rate, total_steps=plan.epochs * steps, pct_start=WARM_UP_SHARE
    )
    for epoch in range(1, plan.epochs + 1):
        total = 0.0
        for batch in torch.randperm(len(examples)).tensor_split(steps):
            if stop is not None and stop.is_set():
                raise IntakeStoppedError
            loss = _loss(network, varied(pictures[batch].float() / 255), is_chest[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        on_epoch(epoch, total / steps)
    return network.eval()


def _loss(network: IntakeNetwork, grey: Tensor, is_chest: Tensor) -> Tensor:
    """Ask which of three views is upright, or none: the upright one, the mirrored one, and one that is turned.

    Three of the eight cost less than half and teach the same; the turned one stands for all six, by its log odds. What
    is no chest is shown any way round.
    """
    even = evened(grey)
    way = int(torch.randint(len(VIEW_NAMES), ()))
    even = torch.where(is_chest.view(-1, 1, 1, 1), even, upright_view(even, way))
    turned = _TURNED[int(torch.randint(len(_TURNED), ()))]
    logits = network.logits([upright_view(even, view) for view in (_UPRIGHT, _MIRRORED, turned)])
    logits = logits + torch.tensor([0.0, 0.0, math.log(len(_TURNED)), 0.0])
    return F.cross_entropy(logits, torch.where(is_chest, 0, logits.shape[1] - 1))
