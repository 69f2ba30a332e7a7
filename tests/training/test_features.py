"""Features are computed once, belong to one network and its slices, and survive a stop."""

import threading

import numpy as np
import pytest
import torch

from training.features import VIEWS, FeatureCacheError, FeaturesStoppedError, features_key, features_of
from training.networks import build


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build("baseline_cnn", 64)


@pytest.fixture(scope="module")
def pixels(toy):
    return toy(150, slices_each=1).pixels


def test_features_are_what_the_network_says(network, pixels, tmp_path):
    """Cached features equal the network's own, in memory and when they are mapped again."""
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(pixels[:5, None]))[1].numpy()
    mapped = features_of(network, pixels, cache_folder=tmp_path)
    assert isinstance(mapped, np.memmap)
    assert mapped.shape == (150, 50)
    np.testing.assert_allclose(mapped[:5], expected, atol=1e-5)
    np.testing.assert_array_equal(features_of(network, pixels), mapped)


def test_mirrored_view_is_that_of_mirrored_slices(network, pixels):
    """A view gives the features of the changed slice."""
    mirrored = features_of(network, np.ascontiguousarray(pixels[:4, :, ::-1]))
    np.testing.assert_allclose(features_of(network, pixels[:4], "mirrored"), mirrored, atol=1e-5)


def test_stopped_run_goes_on_without_what_is_done(network, pixels, tmp_path):
    """After a stop the same call computes the rest alone, and gives what an unharmed one gives."""
    stop = threading.Event()
    with pytest.raises(FeaturesStoppedError, match="128 of 150"):
        features_of(network, pixels, cache_folder=tmp_path, on_progress=lambda *_: stop.set(), stop=stop)
    (kept,) = tmp_path.rglob("*0.npy")
    marked = np.load(kept) + 1
    np.save(kept, marked)
    resumed = features_of(network, pixels, cache_folder=tmp_path)
    np.testing.assert_array_equal(resumed[:128], marked)
    np.testing.assert_array_equal(resumed[128:], features_of(network, pixels)[128:])
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_key_knows_body_pixels_view_and_side_but_not_the_head(network, pixels):
    """Another head finds the features again; anything else that changes them does not."""
    key = features_key(network, pixels, "original")
    torch.manual_seed(0)
    other = build("baseline_cnn", 64)
    torch.nn.init.zeros_(other.head.weight)
    assert features_key(other, pixels, "original") == key
    torch.nn.init.zeros_(other.net.fc1.weight)
    torch.manual_seed(0)
    different = [
        features_key(other, pixels, "original"),
        features_key(network, pixels[1:], "original"),
        features_key(build("baseline_cnn", 32), pixels, "original"),
        *(features_key(network, pixels, view) for view in VIEWS if view != "original"),
    ]
    assert len({key, *different}) == len(different) + 1


def test_damaged_or_unwritable_cache_is_named(network, pixels, tmp_path):
    """A cut-off file, and a folder that cannot be written, say what to do."""
    features_of(network, pixels[:2], cache_folder=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(FeatureCacheError, match="remove features-"):
        features_of(network, pixels[:2], cache_folder=tmp_path)
    with pytest.raises(FeatureCacheError, match="give another folder"):
        features_of(network, pixels[:2], cache_folder=file / "below")
