"""Evened slices: what a camera does to their light drops out, what is in them stays."""

import pytest
import torch

from training.networks import build
from training.networks.evened import evened


@pytest.fixture
def slices() -> torch.Tensor:
    torch.manual_seed(0)
    return 0.2 + 0.6 * torch.rand(3, 1, 16, 16).repeat_interleave(4, 2).repeat_interleave(4, 3)


@pytest.mark.parametrize("gain, veil", [(0.7, 0.0), (1.0, 0.15), (0.6, 0.2)], ids=["gain", "veil", "both"])
def test_exposure_and_veil_hardly_change_an_evened_slice(slices, gain, veil):
    """A darker picture, or one under a veil of light, is evened out to nearly the same as the slice."""
    assert (evened(gain * slices + veil) - evened(slices)).abs().mean() < 0.02


def test_a_gradient_of_light_is_evened_out(slices):
    """Light that falls off from one side to the other leaves less than a fifth of what it changed."""
    shaded = slices * torch.linspace(0.6, 1, 64)
    assert (evened(shaded) - evened(slices)).abs().mean() < 0.2 * (shaded - slices).abs().mean()


def test_what_is_in_a_slice_stays(slices):
    """Slices stay as different from each other as they were, and a black one is finite and of one grey."""
    assert torch.corrcoef(torch.cat([evened(slices), slices]).flatten(1))[range(3), range(3, 6)].min() > 0.9
    black = evened(torch.zeros(1, 1, 64, 64))
    assert black.isfinite().all() and black.std() < 1e-5


def test_the_network_for_cameras_hardly_minds_the_light(slices):
    """Its answer to a slice under a veil moves less than that of the network that sees the greys as they are."""
    moved = {}
    for name in ("squeezenet1_1", "squeezenet1_1_evened"):
        torch.manual_seed(0)
        network = build(name, 64).eval()
        with torch.inference_mode():
            clear, veiled, other = (network.read(each)[0] for each in (slices, 0.6 * slices + 0.2, slices.flip(0)))
        moved[name] = (veiled - clear).norm() / (other - clear).norm()
    assert moved["squeezenet1_1_evened"] < moved["squeezenet1_1"]
