"""All slices of a data set in one piece, and what learns from some of them to read others."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.slices import SliceSet
from training.head import FeatureSet, fit_head
from training.networks import Network
from training.plan import TrainSettings
from training.train import read_logits, train

Mask = NDArray[np.bool_]
"""bool [n]: which slices of the pool."""
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Pool:
    """Slices and the split (train, val, test) of each."""

    slices: SliceSet
    splits: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.splits)

    def parts(self, without_sources: Sequence[str]) -> dict[str, SliceSet]:
        """Return the slices by split, those of some sources left out."""
        kept = ~self.of_sources(without_sources)
        return {split: self.slices.select(self.of_splits(split) & kept) for split in dict.fromkeys(self.splits)}

    def of_splits(self, *splits: str) -> Mask:
        """Return which slices are of these splits."""
        return np.isin(self.splits, splits)

    def of_sources(self, sources: Sequence[str]) -> Mask:
        """Return which slices are of these sources."""
        return np.isin(self.slices.sources, list(sources))

    def of_patients(self, patients: Sequence[str]) -> Mask:
        """Return which slices are of these patients."""
        return np.isin(self.slices.patients, list(patients))


class Learner(Protocol):
    """Learns from some slices of a pool and reads others; `same_each_time` where the seed changes nothing."""

    same_each_time: bool

    @property
    def settings(self) -> TrainSettings:
        """Return what it learns by."""
        ...

    def read_after(self, learn_from: Mask, validate_on: Mask, judge: Mask, seed: int) -> Logits:
        """Return the logits float32 [judged, 3]; raises what training raises."""
        ...


@dataclass(frozen=True)
class HeadLearner:
    """Fits a head on features that were computed once for the whole pool: seconds."""

    features: FeatureSet
    settings: TrainSettings
    stop: threading.Event | None = None
    same_each_time = True

    def read_after(self, learn_from: Mask, validate_on: Mask, judge: Mask, seed: int) -> Logits:
        """See `Learner`; the seed is not used, nothing here is random."""
        del seed
        select = self.features.select
        fitted = fit_head(select(learn_from), select(validate_on), self.settings, stop=self.stop)
        return fitted.head.logits(np.asarray(self.features.original[np.flatnonzero(judge)]))


@dataclass(frozen=True)
class FineTuneLearner:
    """Trains a new network of the same start each time: minutes or hours."""

    start: Callable[[], Network]
    slices: SliceSet
    settings: TrainSettings
    stop: threading.Event | None = None
    allow_leak: bool = False
    same_each_time = False

    def read_after(self, learn_from: Mask, validate_on: Mask, judge: Mask, seed: int) -> Logits:
        """See `Learner`; the seed decides new weights, order and augmentation."""
        torch.manual_seed(seed)
        trained = train(
            self.start(),
            self.slices.select(learn_from),
            self.slices.select(validate_on),
            self.settings.model_copy(update={"seed": seed}),
            stop=self.stop,
            allow_leak=self.allow_leak,
        )
        return read_logits(trained.network, self.slices.select(judge).pixels)
