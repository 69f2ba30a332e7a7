"""A released network says how unlike a slice is to what it learnt from, and is believed only as far as validation."""

import numpy as np
import onnxruntime as ort
import pytest
import torch

from training.export import ParityError, check_parity, export_onnx
from training.learn import learn
from training.likeness import Likeness, fit_likeness, likeness_of, with_unlikeness
from training.model.reader import Calibration, OnnxReader
from training.networks import build
from training.plan import TrainSettings
from training.quantize import quantize

RANDOM = np.random.default_rng(0)
PLANE = np.linalg.qr(RANDOM.normal(size=(100, 3)))[0].T
"""Three directions in 100 features: what the slices of these tests vary in."""


def features(count: int, seed: int) -> np.ndarray:
    """Features near a plane, with a little noise beside it."""
    random = np.random.default_rng(seed)
    return (random.normal(0, (4, 2, 1), (count, 3)) @ PLANE + random.normal(0, 0.05, (count, 100))).astype(np.float32)


def test_the_border_is_what_nearly_all_judged_slices_stay_below():
    """Of slices like those that were learnt about 1 % lie beyond each of the two borders."""
    likeness = fit_likeness(features(800, 1), features(800, 2))
    assert 0 < (likeness.unlikeness(features(800, 2)) > 1).mean() <= 0.02
    assert (likeness.unlikeness(features(4000, 3)) > 1).mean() < 0.05


@pytest.mark.parametrize("where", ["along", "aside"])
def test_what_lies_far_along_or_aside_is_beyond_the_border(where):
    """Many deviations along a direction that was learnt are unlike, and so is a step into one that was not."""
    likeness = fit_likeness(features(800, 1), features(800, 2))
    beside = RANDOM.normal(size=100)
    beside -= beside @ PLANE.T @ PLANE
    step = 100 * PLANE[0] if where == "along" else 3 * beside / np.linalg.norm(beside)
    moved = (features(50, 4) + step).astype(np.float32)
    assert likeness.unlikeness(moved).min() > 2


def test_features_that_never_vary_give_no_false_alarm_and_no_nan():
    """A network that sees the same in all slices finds each of them as like as any other."""
    same = np.full((9, 100), 3, np.float32)
    assert (fit_likeness(same, same).unlikeness(same) == 0).all()
    assert np.isfinite(fit_likeness(same, same).unlikeness(same + 1)).all()


@pytest.fixture(scope="module")
def measured(toy):
    """A small network, its file, what it learnt from, and the file that tells its unlikeness."""
    torch.manual_seed(0)
    network, slices = build("squeezenet1_1", 64), toy(24)
    plain = export_onnx(network)
    likeness = likeness_of(plain, slices, toy(12, name="v", seed=1))
    return network, plain, likeness, with_unlikeness(plain, likeness), slices


def test_the_file_answers_as_before_and_tells_unlikeness_besides(measured):
    """The first three outputs keep their bits; the fourth is one number a slice, as the formula gives it for torch."""
    network, plain, likeness, model, slices = measured
    pixels = slices.pixels[:5]
    assert check_parity(network, model, pixels, likeness=likeness) < 1e-3
    before, after = (
        ort.InferenceSession(one, providers=["CPUExecutionProvider"]).run(None, {"slice": pixels[:, None]})
        for one in (plain, model)
    )
    assert all(np.array_equal(one, other) for one, other in zip(before, after[:3], strict=True))
    assert after[3].shape == (5,)
    assert OnnxReader(model, Calibration()).read(pixels[2]).unlikeness == pytest.approx(after[3][2], rel=1e-4)


def test_noise_is_beyond_the_border_and_slices_are_within(measured):
    """An untrained network's features tell discs from noise already."""
    _, _, _, model, slices = measured
    reader = OnnxReader(model, Calibration())
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    assert reader.read(noise).unlikeness > 2
    assert reader.read(slices.pixels[0]).unlikeness < 1.5


def test_another_likeness_breaks_parity(measured):
    """A file that measures otherwise than was fitted is refused, and the output is named."""
    network, _, likeness, model, slices = measured
    other = Likeness(likeness.mean + 1, likeness.directions, likeness.deviations, 1.0, 1.0)
    with pytest.raises(ParityError, match="in unlikeness"):
        check_parity(network, model, slices.pixels[:2], likeness=other)


def test_int8_gets_a_measure_of_its_own_features(measured, toy):
    """The rounded network's unlikeness takes the place of the float one's, and keeps its border."""
    _, _, _, model, slices = measured
    small = quantize(model, slices.pixels[:24])
    judged = toy(12, name="v", seed=1)
    refitted = with_unlikeness(small, likeness_of(small, slices, judged))
    assert len(refitted) < len(small) + 100
    told = [OnnxReader(refitted, Calibration()).read(one).unlikeness for one in judged.pixels]
    assert max(told) == pytest.approx(1, abs=0.3)


def test_a_training_leaves_a_network_that_tells(toy):
    """Whoever trains, the bundle's network has the output; the same training gives the same file."""
    settings = TrainSettings(epochs=1, batch=8, augment=0)
    models = []
    for _ in range(2):
        torch.manual_seed(1)
        bundle = learn(build("repaired_cnn", 64), toy(12), toy(6, name="v"), settings, on_epoch=lambda _: None)
        models.append(bundle.model)
    assert models[0] == models[1]
    assert bundle.reader().read(toy(1).pixels[0]).unlikeness > 0
