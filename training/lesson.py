"""What one step of a training shows: a batch of slices, some of them a second time as a camera gives them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.augment import augmented, augmented_pairs
from training.captured import CapturedViews, inconsistency
from training.data.slices import Pixels, SliceSet
from training.exchange import exchanged
from training.plan import TrainSettings

_SEEDS = 2**62


@dataclass(frozen=True)
class Lesson:
    """Slices uint8 [n, 1, 256, 256], captured views of the first m of them, and what both are, int64 [n + m]."""

    digital: Tensor
    captured: Tensor
    targets: Tensor

    def loss(self, logits: Tensor, settings: TrainSettings) -> Tensor:
        """Return the cross-entropy of logits [n + m, 3], and the weighted inconsistency of the m pairs: a sum."""
        targets = self.targets.to(logits.device)
        wrong = F.cross_entropy(logits, targets, label_smoothing=settings.label_smoothing, reduction="sum")
        pairs = len(self.captured)
        if not pairs:
            return wrong
        return wrong + settings.views_weight * inconsistency(logits[:pairs], logits[len(self.digital) :])


def lesson_of(slices: SliceSet, views: CapturedViews | None, at: Tensor, settings: TrainSettings) -> Lesson:
    """Take the slices at the indices, and with them one captured view of each of the first ones, by the share.

    Some slices are shown in another one's body, those with a view never: their views are of their own.
    """
    pairs = at[: round(settings.views_share * len(at))] if views else at[:0]
    alone = _shown(slices.pixels, at[len(pairs) :], settings.exchange)
    return Lesson(
        torch.cat([slices_at(slices.pixels, pairs), alone]),
        views.drawn(pairs) if views else alone[:0],
        torch.from_numpy(slices.labels)[torch.cat([at, pairs])],
    )


def varied(digital: Tensor, captured: Tensor, settings: TrainSettings) -> Tensor:
    """Augment reduced slices [n, 1, px, px] and views [m, ...] of the first m of them: joined [n + m, 1, px, px].

    A view is mirrored, moved, scaled and tilted as its slice is; greys, blur and noise are its own.
    """
    if not (settings.augment or settings.window):
        return torch.cat([digital, captured]) if len(captured) else digital
    pairs = len(captured)
    how = (settings.augment, settings.window, settings.greys)
    alone = augmented(digital[pairs:], *how) if pairs < len(digital) else digital[:0]
    if not pairs:
        return alone
    both = augmented_pairs(torch.cat([digital[:pairs], captured], dim=1), *how)
    return torch.cat([both[:, :1], alone, both[:, 1:]])


def slices_at(pixels: Pixels, at: Tensor) -> Tensor:
    """Return the slices at the indices as uint8 [n, 1, 256, 256]."""
    return torch.from_numpy(pixels[at.numpy()]).unsqueeze(1)


def _shown(pixels: Pixels, at: Tensor, exchange: float) -> Tensor:
    """Return the slices at the indices, some of them in another one's body."""
    if not (exchange and len(at)):
        return slices_at(pixels, at)
    generator = np.random.default_rng(int(torch.randint(_SEEDS, ())))
    return torch.from_numpy(exchanged(pixels[at.numpy()], pixels, exchange, generator)).unsqueeze(1)
