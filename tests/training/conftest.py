"""A small data set that a network can learn in seconds: a disc whose place in the slice is its class."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from protocol.labels import LABELS
from training.data.slices import SliceSet
from training.model.preprocess import INPUT_PX

_CENTRES = ((64, 128), (128, 128), (192, 128))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy() -> Callable[..., SliceSet]:
    return toy_slices


def toy_slices(patients: int, *, slices_each: int = 2, name: str = "p", seed: int = 0) -> SliceSet:
    """Return slices of so many patients, the classes in turn."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % len(LABELS), slices_each).astype(np.int64)
    names = tuple(f"{name}{patient:03d}" for patient in range(patients) for _ in range(slices_each))
    return SliceSet(np.stack([_slice(random, label) for label in labels]), labels, names, ("toy",) * len(labels))


def _slice(random: np.random.Generator, label: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:INPUT_PX, :INPUT_PX]
    top, left = np.array(_CENTRES[label]) + random.integers(-12, 13, 2)
    disc = (rows - top) ** 2 + (columns - left) ** 2 < random.integers(25, 40) ** 2
    return np.clip(60 + 120 * disc + random.normal(0, 12, disc.shape), 0, 255).astype(np.uint8)
