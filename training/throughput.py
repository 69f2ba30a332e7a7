"""How many slices a second training reads, our way and the plain way, measured in turns in one run.

Ours is the real loop (`training.train.train`) over the mapped cache. Plain is what a tutorial shows: ImageFolder, a
DataLoader with worker processes, torchvision's transforms on each image. Network, optimizer, input side, batch and
threads are the same, and so is what the transforms vary: place, size, tilt, mirror, brightness, contrast.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler

from training import vision
from training.augment import augmented
from training.data.dataset import load_split, open_dataset
from training.data.slices import Pixels, SliceSet
from training.lesson import slices_at
from training.memory import keep_freed_memory
from training.model.preprocess import INPUT_PX
from training.networks import ARCHITECTURES, Network, build
from training.plan import Step, TrainSettings
from training.train import train

WORKERS = 2
WARMUP_STEPS = 5
"""More than the batches that the loader's workers prefetch (two each)."""
_TILT_DEGREES, _SHIFT, _SCALES = 8, (0.06, 0.06), (0.88, 1.12)
_BRIGHTNESS, _CONTRAST = 0.04, 0.08
"""As in training.augment."""
_PARTS_REPEATS = 3


@dataclass(frozen=True)
class Race:
    """What is measured: the same for both ways."""

    architecture: str
    input_px: int
    batch: int
    threads: int
    steps: int
    """Timed steps a round."""
    warmup_steps: int
    """Steps before them, enough to empty the loader's queue of prefetched batches."""
    rounds: int


@dataclass(frozen=True)
class Course:
    """The same images for both ways: a data set with its train split, its cache, and a folder for each class."""

    data: Path
    cache: Path
    by_class: Path
    patient_rule: str | None = None

    def slices(self) -> SliceSet:
        """Map the train split's slices."""
        return load_split(open_dataset(self.data, patient_rule=self.patient_rule), "train", cache=self.cache)


class Round(BaseModel):
    """One round: images a second of both ways, one after the other."""

    model_config = ConfigDict(frozen=True)
    ours: float
    plain: float

    @property
    def ratio(self) -> float:
        """Return how many times faster ours is."""
        return self.ours / self.plain


class Throughput(BaseModel):
    """What was measured, on what."""

    model_config = ConfigDict(frozen=True)
    architecture: str
    input_px: int
    batch: int
    threads: int
    workers: int
    steps: int
    n_images: int
    rounds: tuple[Round, ...]
    ratio_median: float
    ratio_low: float
    """Of the rounds."""
    ratio_high: float
    milliseconds: dict[str, float]
    """CPU time of each part for one image, measured alone on one thread."""
    hardware: dict[str, JsonValue]
    commit: str | None
    versions: dict[str, str]


def race(
    course: Course, plan: Race, on_round: Callable[[int, Round], None] = lambda _, __: None
) -> tuple[tuple[Round, ...], dict[str, float]]:
    """Measure both ways in turns, each round in the other order; return the rounds, and the parts' milliseconds.

    Each way has a process of its own, so that neither inherits the other's memory, threads or caches.
    """
    fresh = get_context("spawn")
    with ProcessPoolExecutor(1, fresh) as our_process, ProcessPoolExecutor(1, fresh) as plain_process:
        ways = ((our_process, ours), (plain_process, plain))
        rounds = []
        for number in range(plan.rounds):
            speeds = {}
            for process, way in ways if number % 2 == 0 else ways[::-1]:
                speeds[way] = process.submit(way, course, plan).result()
            rounds.append(Round(ours=speeds[ours], plain=speeds[plain]))
            on_round(number + 1, rounds[-1])
        costs = our_process.submit(our_parts, course, plan).result()
        costs |= plain_process.submit(plain_parts, course, plan).result()
    return tuple(rounds), costs


def ours(course: Course, plan: Race) -> float:
    """Return the images a second of the real loop."""
    slices = course.slices()
    stamps: list[float] = []

    def stamp(_: Step) -> None:
        stamps.append(time.perf_counter())

    many = _repeated(slices, (plan.warmup_steps + plan.steps) * plan.batch)
    settings = TrainSettings(epochs=1, batch=plan.batch, threads=plan.threads, device="cpu")
    train(_network(plan), many, _judges(slices), settings, on_step=stamp, allow_leak=True)
    return plan.steps * plan.batch / (stamps[-1] - stamps[plan.warmup_steps - 1])


def plain(course: Course, plan: Race) -> float:
    """Return the images a second of the plain way."""
    torch.set_num_threads(plan.threads)
    network, batches = _network(plan).train(), iter(_loader(course, plan))
    optimizer = torch.optim.AdamW(network.parameters(), lr=ARCHITECTURES[plan.architecture].learning_rate)
    read = ARCHITECTURES[plan.architecture].read
    started_s = 0.0
    for step in range(plan.warmup_steps + plan.steps):
        if step == plan.warmup_steps:
            started_s = time.perf_counter()
        images, targets = next(batches)
        loss = F.cross_entropy(read(network.net, images)[0], targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        loss.item()
    return plan.steps * plan.batch / (time.perf_counter() - started_s)


def our_parts(course: Course, plan: Race) -> dict[str, float]:
    """Return the milliseconds of CPU time an image of each part of our way, one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    network = _network(plan).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    slices = course.slices()
    chosen = torch.arange(plan.batch) % len(slices)
    pixels = slices_at(slices.pixels, chosen)
    grey = network.reduce(pixels)
    return {
        "ours: take from the cache": _cpu_ms(lambda: slices_at(slices.pixels, chosen), plan.batch),
        "ours: reduce": _cpu_ms(lambda: network.reduce(pixels), plan.batch),
        "ours: augment": _cpu_ms(lambda: augmented(grey), plan.batch),
        "ours: forward and backward": _cpu_ms(lambda: torch.autograd.backward(network.read(grey)[0].sum()), plan.batch),
    }


def plain_parts(course: Course, plan: Race) -> dict[str, float]:
    """Return the milliseconds of CPU time an image of each part of the plain way, one thread."""
    torch.set_num_threads(1)
    network = _network(plan).train()
    images = _images(course, plan)
    read = ARCHITECTURES[plan.architecture].read
    chosen = [at % len(images) for at in range(plan.batch)]
    batch = torch.stack([images[at][0] for at in chosen])
    learn = lambda: torch.autograd.backward(read(network.net, batch)[0].sum())  # noqa: E731
    return {
        "plain: decode": _cpu_ms(lambda: [images.loader(images.samples[at][0]) for at in chosen], plan.batch),
        "plain: decode and transform": _cpu_ms(lambda: [images[at] for at in chosen], plan.batch),
        "plain: forward and backward": _cpu_ms(learn, plan.batch),
    }


class _Repeated:
    """Slices uint8 [n, 256, 256] over and over, still where they are."""

    def __init__(self, pixels: Pixels, n: int) -> None:
        self._pixels = pixels
        self._n = n

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._n, INPUT_PX, INPUT_PX)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, at: NDArray[np.intp] | slice) -> NDArray[np.uint8]:
        return self._pixels[np.arange(self._n)[at] % len(self._pixels)]


def _repeated(slices: SliceSet, n: int) -> SliceSet:
    """Return n slices: all of them over and over, or some from everywhere, as folders come class by class."""
    if n < len(slices):
        slices = slices.select(np.linspace(0, len(slices) - 1, n).astype(np.intp))
    at = np.arange(n) % len(slices)
    patients, sources = (tuple(names[i] for i in at) for names in (slices.patients, slices.sources))
    return SliceSet(_Repeated(slices.pixels, n), slices.labels[at], patients, sources)


def _judges(slices: SliceSet) -> SliceSet:
    """Return one slice a class: the loop needs some to judge by, outside the timed steps."""
    return slices.select([int(np.flatnonzero(slices.labels == label)[0]) for label in np.unique(slices.labels)])


def _network(plan: Race) -> Network:
    torch.manual_seed(0)
    return build(plan.architecture, plan.input_px)


def _images(course: Course, plan: Race) -> Any:
    vision.models()  # the guard: from here on torchvision imports
    datasets, transforms = import_module("torchvision.datasets"), import_module("torchvision.transforms")
    known = ARCHITECTURES[plan.architecture]
    steps = [
        transforms.Resize((plan.input_px, plan.input_px)),
        transforms.RandomAffine(_TILT_DEGREES, _SHIFT, _SCALES),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(_BRIGHTNESS, _CONTRAST),
        transforms.ToTensor(),
        transforms.Normalize(known.mean, known.std),
    ]
    if len(known.mean) == 1:
        steps.insert(0, transforms.Grayscale())
    return datasets.ImageFolder(course.by_class, transforms.Compose(steps))


def _loader(course: Course, plan: Race) -> "DataLoader[Any]":
    images = _images(course, plan)
    n = (plan.warmup_steps + plan.steps) * plan.batch
    sampler = RandomSampler(images, replacement=True, num_samples=n)
    return DataLoader(
        images,
        batch_size=plan.batch,
        sampler=sampler,
        num_workers=WORKERS,
        multiprocessing_context="fork",  # Linux's default; a spawned worker would import torchvision past the guard
    )


def _cpu_ms(part: Callable[[], object], images: int) -> float:
    """Return the CPU time, the kernel's included: on a busy machine the wall's would tell of the neighbours."""
    part()
    started_s = time.process_time()
    for _ in range(_PARTS_REPEATS):
        part()
    return (time.process_time() - started_s) * 1000 / _PARTS_REPEATS / images
