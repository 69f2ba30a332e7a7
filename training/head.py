"""The feature extractor's mode: the body stays as it is, and a new last layer is fitted to cached features."""

import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import nn

from protocol.labels import LABELS
from training.data.slices import SliceSet, refuse_leak
from training.evaluate import balanced_accuracy, log_loss
from training.features import ORIGINAL, Features, Told, features_of
from training.networks import ARCHITECTURES, Network
from training.plan import Balance, Progress, TrainSettings
from training.pulse import DeadRunError, refuse_constant
from training.run import best_epoch
from training.train import MissingClassError, Trained, TrainingStoppedError

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Of the L2 penalty on the mean loss, over standardised features; the one that is best on validation is kept."""
AUGMENTED_VIEWS = (ORIGINAL, "mirrored")
"""The mirror image gained one to two points on validation; size and intensity, tried beside it, nothing more."""

_MAX_ITERATIONS = 500
_LEAST_SPREAD = 0.01
"""Of the median feature's standard deviation: a feature that hardly varies is not blown up to the others' size."""


class NotLinearError(ValueError):
    """The network's logits are not linear in its features, so that no head can be fitted apart."""


@dataclass(frozen=True)
class FeatureSet:
    """Features float32 [n, d] of the same slices in each view, labels int64 [n], patient and source of each slice."""

    views: tuple[Features, ...]
    labels: NDArray[np.int64]
    patients: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def original(self) -> Features:
        """Return the features of the slices as they are."""
        return self.views[0]

    def concat(self, other: "FeatureSet") -> "FeatureSet":
        """Return the slices of both, in memory."""
        return FeatureSet(
            tuple(np.concatenate(pair) for pair in zip(self.views, other.views, strict=True)),
            np.concatenate([self.labels, other.labels]),
            self.patients + other.patients,
            self.sources + other.sources,
        )

    def select(self, mask: NDArray[np.bool_]) -> "FeatureSet":
        """Return the slices under the mask bool [n], in memory."""
        at = np.flatnonzero(mask)
        return FeatureSet(
            tuple(np.asarray(view[at]) for view in self.views),
            self.labels[at],
            tuple(self.patients[i] for i in at),
            tuple(self.sources[i] for i in at),
        )


@dataclass(frozen=True)
class Head:
    """A last layer: weight float32 [3, d] and bias float32 [3], for features as the network gives them."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: Features) -> NDArray[np.float32]:
        """Return the logits float32 [n, 3] of features [n, d]."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)


@dataclass(frozen=True)
class FittedHead:
    """The head that was best on validation, what each strength gave, and how many passes over the slices it took."""

    head: Head
    history: tuple[Progress, ...]
    passes: int


def train_head(
    network: Network,
    train: SliceSet,
    validation: SliceSet,
    settings: TrainSettings,
    *,
    cache_folder: Path | None = None,
    on_progress: Told = lambda _done, _total: None,
    on_epoch: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
    allow_leak: bool = False,
) -> Trained:
    """Fit a new last layer to the frozen network's features, and put it into the network.

    Of the settings only `augment` (0 leaves the mirrored view out), `balanced` and `threads` matter; an "epoch" of the
    history is one strength of the penalty. Nothing is random. `on_progress` hears of the slices of each set and view.
    Raises `LeakError`, `MissingClassError`, `NotLinearError`, `DeadRunError`, `TrainingStoppedError`, and
    `FeatureCacheError`.
    """
    if not allow_leak:
        refuse_leak(train, validation)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        learnt, judged = (
            feature_set(network, slices, of, cache_folder=cache_folder, on_progress=on_progress, stop=stop)
            for slices, of in ((train, _views(settings)), (validation, (ORIGINAL,)))
        )
    finally:
        torch.set_num_threads(threads_before)
    fitted = fit_head(learnt, judged, settings, on_epoch=on_epoch, stop=stop)
    put_head(network, fitted.head)
    answers = fitted.head.logits(judged.original)
    return Trained(network.eval(), fitted.history, answers, used_settings(settings))


def feature_set(
    network: Network,
    slices: SliceSet,
    views: Sequence[str] = AUGMENTED_VIEWS,
    *,
    cache_folder: Path | None = None,
    on_progress: Told = lambda _done, _total: None,
    stop: threading.Event | None = None,
) -> FeatureSet:
    """Return the slices' features in these views, the original first; raises `NotLinearError`, see `features_of`."""
    if not ARCHITECTURES[network.architecture].linear_in_features:
        raise NotLinearError(
            f"{network.architecture} puts more than a last layer behind its features: fine-tune it, or take another"
        )
    features = tuple(
        features_of(network, slices.pixels, view, cache_folder=cache_folder, on_progress=on_progress, stop=stop)
        for view in views
    )
    return FeatureSet(features, slices.labels, slices.patients, slices.sources)


def fit_head(
    train: FeatureSet,
    validation: FeatureSet,
    settings: TrainSettings,
    *,
    on_epoch: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> FittedHead:
    """Fit a multinomial logistic regression for each strength, and keep the best on validation.

    The best is chosen as in training: highest balanced accuracy, then least loss. Raises `MissingClassError`,
    `DeadRunError`, `TrainingStoppedError`.
    """
    for where, features in (("training", train), ("validation", validation)):
        refuse_missing_class(where, features.labels)
    with threadpool_limits(settings.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = _Fit(train, settings.balanced)
        heads: list[Head] = []
        history: list[Progress] = []
        for epoch, strength in enumerate(STRENGTHS, start=1):
            if stop is not None and stop.is_set():
                raise TrainingStoppedError(epoch - 1)
            started_s = time.monotonic()
            heads.append(fit.at(strength))
            history.append(_progress(epoch, heads[-1], train, validation, time.monotonic() - started_s))
            on_epoch(history[-1])
    best = best_epoch(history).epoch
    refuse_constant(best, heads[best - 1].logits(validation.original))
    return FittedHead(heads[best - 1], tuple(history), fit.passes)


def put_head(network: Network, head: Head) -> None:
    """Write the head into the network's last layer."""
    layer = network.head
    if not isinstance(layer, nn.Linear | nn.Conv2d) or layer.bias is None:
        raise NotLinearError(f"the last layer of {network.architecture} is a {type(layer).__name__} and takes no head")
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight).reshape(layer.weight.shape))
        layer.bias.copy_(torch.from_numpy(head.bias))


def used_settings(settings: TrainSettings) -> dict[str, JsonValue]:
    """Return what a head is fitted by: no epochs, no optimizer."""
    return {
        "mode": "head",
        "views": list(_views(settings)),
        "strengths": list(STRENGTHS),
        **settings.model_dump(mode="json", include={"balanced", "threads", "seed", "half"}),
    }


def refuse_missing_class(where: str, labels: NDArray[np.int64]) -> None:
    """Raise `MissingClassError` when a class has no slice."""
    missing = [label for index, label in enumerate(LABELS) if not (labels == index).any()]
    if missing:
        raise MissingClassError(f"{where} has no slice of {', '.join(missing)} among {len(labels)}: add such patients")


def balanced_weights(labels: NDArray[np.int64], sources: Sequence[str], balanced: Balance) -> NDArray[np.float64]:
    """Return the weight of each slice [n], together 1: equal for each slice, class, or source within its class."""
    kinds = {
        "none": [(0, "")] * len(labels),
        "class": [(label, "") for label in labels.tolist()],
        "class-source": list(zip(labels.tolist(), sources, strict=True)),
    }[balanced]
    slices_of_kind = Counter(kinds)
    kinds_of_class = Counter(label for label, _ in slices_of_kind)
    weights = np.array([1 / (slices_of_kind[kind] * kinds_of_class[kind[0]]) for kind in kinds])
    return np.asarray(weights / weights.sum())


def head_epoch_seconds(features: FeatureSet, settings: TrainSettings) -> tuple[float, float]:
    """Return the seconds of one pass over the features while a head is fitted, and of the whole fit."""
    started_s = time.perf_counter()
    fitted = fit_head(features, features, settings)
    seconds = time.perf_counter() - started_s
    return seconds / fitted.passes, seconds


def _views(settings: TrainSettings) -> tuple[str, ...]:
    return AUGMENTED_VIEWS if settings.augment else (ORIGINAL,)


class _Fit:
    """One set of standardised features, fitted again and again, each fit beginning where the last one ended."""

    def __init__(self, train: FeatureSet, balanced: Balance) -> None:
        features = np.concatenate(train.views)
        self._mean, spread = features.mean(0), features.std(0)
        if not np.isfinite(self._mean).all():
            raise DeadRunError(0, "the network's features are NaN or infinite")
        self._spread = np.maximum(spread, _LEAST_SPREAD * np.median(spread[spread > 0]) if spread.any() else 1)
        self._features = (features - self._mean) / self._spread
        self._labels = np.tile(train.labels, len(train.views))
        self._weights = np.tile(balanced_weights(train.labels, train.sources, balanced), len(train.views))
        self._weights /= self._weights.sum()
        self._regression = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True)
        self.passes = 0

    def at(self, strength: float) -> Head:
        """Return the head of this strength of the penalty, with the standardisation folded into its weights."""
        self._regression.C = 1 / strength
        self._regression.fit(self._features, self._labels, sample_weight=self._weights)
        self.passes += int(self._regression.n_iter_.max())
        weight = self._regression.coef_ / self._spread
        bias = self._regression.intercept_ - weight @ self._mean
        return Head(weight.astype(np.float32), bias.astype(np.float32))


def _progress(epoch: int, head: Head, train: FeatureSet, validation: FeatureSet, seconds: float) -> Progress:
    learnt, judged = head.logits(train.original), head.logits(validation.original)
    return Progress(
        epoch=epoch,
        epochs=len(STRENGTHS),
        train_loss=log_loss(learnt, train.labels),
        train_accuracy=float((learnt.argmax(1) == train.labels).mean()),
        validation_loss=log_loss(judged, validation.labels),
        validation_accuracy=float((judged.argmax(1) == validation.labels).mean()),
        validation_balanced_accuracy=balanced_accuracy(judged, validation.labels),
        learning_rate=0.0,
        seconds=seconds,
    )
