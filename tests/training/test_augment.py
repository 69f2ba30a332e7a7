"""Augmentation varies slices, as strongly as it is told to, and keeps them slices."""

import numpy as np
import torch
from torch import Tensor

from training.augment import augmented


def picture() -> Tensor:
    """Return eight times the same lopsided picture."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    disc = ((rows - 0.4) ** 2 + (columns - 0.3) ** 2 < 0.04).float()
    return (0.2 + 0.5 * disc).expand(8, 1, 64, 64).contiguous()


def varied(strength: float, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return augmented(picture(), strength)


def test_augmentation_varies_slices_and_keeps_them_slices():
    """Augmented slices differ from one another, keep their shape, and stay between 0 and 1; the batch is untouched."""
    grey = picture()
    torch.manual_seed(0)
    result = augmented(grey)
    assert result.shape == grey.shape
    assert result.min() >= 0
    assert result.max() <= 1
    assert np.unique([round(slice_.mean().item(), 4) for slice_ in result]).size == 8
    assert torch.equal(grey, picture())


def test_same_seed_same_bits():
    """Augmentation depends on torch's seed alone."""
    assert torch.equal(varied(1), varied(1))
    assert not torch.equal(varied(1), varied(1, seed=1))


def test_strength_scales_what_changes():
    """Twice as strong moves slices further from what they were, and none only mirrors them."""
    unchanged = varied(0)
    mirrored = picture().flip(3)
    for slice_, original, mirror in zip(unchanged, picture(), mirrored, strict=True):
        assert min((slice_ - original).abs().max(), (slice_ - mirror).abs().max()) < 1e-4

    def change(strength: float) -> float:
        result = varied(strength)
        apart = torch.minimum((result - picture()).abs().mean((1, 2, 3)), (result - mirrored).abs().mean((1, 2, 3)))
        return apart.mean().item()

    assert change(0.25) < change(1) < change(2)


def test_about_half_are_mirrored():
    """The disc is on its own side in some slices and on the other in some."""
    left = varied(0)[:, :, :, :32].mean((1, 2, 3)) > varied(0)[:, :, :, 32:].mean((1, 2, 3))
    assert 0 < left.sum() < 8


def test_another_window_spreads_the_greys_of_some():
    """About the chosen share of the slices comes in a narrower window: brighter tissue or darker air, nothing else."""
    torch.manual_seed(0)
    batch = picture().repeat(32, 1, 1, 1)
    shown = augmented(batch, 0, window=0.5)
    span = (shown.amax((1, 2, 3)) - shown.amin((1, 2, 3)) - 0.5).abs()
    assert 0.35 < (span > 0.01).float().mean() < 0.65
    assert torch.equal(shown, shown.clamp(0, 1))
