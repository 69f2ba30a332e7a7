"""A head on frozen features: it reads unseen patients, stands in the network, and moves nothing else."""

import threading

import numpy as np
import pytest
import torch

from training.data.slices import LeakError
from training.features import FeaturesStoppedError
from training.head import (
    STRENGTHS,
    Head,
    NotLinearError,
    balanced_weights,
    feature_set,
    head_epoch_seconds,
    put_head,
    train_head,
)
from training.networks import ARCHITECTURES, build
from training.plan import TrainSettings
from training.pulse import DeadRunError
from training.run import best_epoch
from training.train import MissingClassError, read_logits

SETTINGS = TrainSettings(balanced="class-source")


def network(name: str = "squeezenet1_1_bn"):
    torch.manual_seed(0)
    return build(name, 32)


@pytest.fixture(scope="module")
def slices(toy):
    return toy(18, seed=1), toy(9, name="v", seed=2)


def test_head_reads_unseen_patients_and_the_body_stays(slices, tmp_path):
    """Even on random features a fitted head reads new patients; all other weights keep their bits."""
    start, net = network().state_dict(), network()
    told = []
    trained = train_head(net, *slices, SETTINGS, cache_folder=tmp_path, on_epoch=told.append)
    assert trained.best.validation_balanced_accuracy > 0.9
    assert trained.history == tuple(told) and len(told) == len(STRENGTHS)
    assert trained.best == best_epoch(told)
    changed = {key for key, value in trained.network.state_dict().items() if not torch.equal(value, start[key])}
    assert changed == {"net.classifier.1.weight", "net.classifier.1.bias"}


def test_network_answers_what_the_head_answered(slices):
    """The standardisation lies in the last layer's weights: the whole network gives the logits that were judged."""
    trained = train_head(network(), *slices, SETTINGS)
    np.testing.assert_allclose(read_logits(trained.network, slices[1].pixels), trained.validation_logits, atol=1e-3)


@pytest.mark.parametrize("name", [name for name, known in ARCHITECTURES.items() if known.linear_in_features])
def test_head_fits_every_architecture(name, toy):
    """A head put into any network makes its logits, by the features that the network gives."""
    slices = toy(2, slices_each=1)
    net = network(name)
    features = feature_set(net, slices).original
    random = np.random.default_rng(0)
    head = Head(random.normal(0, 1, (3, features.shape[1])).astype(np.float32), np.float32([1, 2, 3]))
    put_head(net, head)
    np.testing.assert_allclose(read_logits(net, slices.pixels), head.logits(features), rtol=1e-3, atol=1e-3)


def test_seeds_squeezenet_takes_no_head(slices):
    """A network with more than a last layer behind its features says so."""
    with pytest.raises(NotLinearError, match="fine-tune it"):
        train_head(network("seed_squeezenet1_0"), *slices, SETTINGS)


def test_same_call_gives_the_same_bits_from_the_cache_and_without(slices, tmp_path):
    """Nothing in it is random, and a cached feature is the feature."""
    first, again, uncached = (
        train_head(network(), *slices, SETTINGS, cache_folder=folder).validation_logits
        for folder in (tmp_path, tmp_path, None)
    )
    assert (first == again).all() and (first == uncached).all()


def test_weights_balance_classes_and_sources_within_them():
    """Each class weighs a third, each of its sources an equal part of that; without balance every slice the same."""
    labels, sources = np.array([0, 0, 0, 1, 2, 2]), ("a", "a", "b", "a", "a", "b")
    weights = balanced_weights(labels, sources, "class-source")
    np.testing.assert_allclose(weights * 12, [1, 1, 2, 4, 2, 2])
    np.testing.assert_allclose(balanced_weights(labels, sources, "class") * 18, [2, 2, 2, 6, 3, 3])
    np.testing.assert_allclose(balanced_weights(labels, sources, "none"), 1 / 6)


def test_what_would_make_the_figures_lies_is_refused(slices, toy):
    """A patient on both sides, a missing class and broken features are named before anything is fitted."""
    train, validation = slices
    with pytest.raises(LeakError, match="p003"):
        train_head(network(), train, validation.concat(train.of_patients(["p003"])), SETTINGS)
    with pytest.raises(MissingClassError, match="training has no slice of Pneumonia"):
        train_head(network("baseline_cnn"), train.select(train.labels != 1), validation, SETTINGS)
    broken = network("baseline_cnn")
    torch.nn.init.constant_(broken.net.fc2.bias, float("nan"))
    with pytest.raises(DeadRunError, match="NaN"):
        train_head(broken, train, validation, SETTINGS)


def test_stop_is_heard(slices):
    """A stop ends it by name, before a feature is computed."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(FeaturesStoppedError):
        train_head(network("baseline_cnn"), *slices, SETTINGS, stop=stop)


def test_an_epoch_over_cached_features_takes_less_than_two_seconds():
    """The issue's figure, on as many features of SqueezeNet's width as it names."""
    from training.head import FeatureSet

    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 2000)
    features = random.normal(0, 1, (2000, 512)).astype(np.float32)
    names = tuple(map(str, range(2000)))
    epoch_s, _ = head_epoch_seconds(FeatureSet((features,), labels, names, names), TrainSettings())
    assert epoch_s < 2
