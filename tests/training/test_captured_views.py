"""Captured views: made once of the slices that a training sees, learnt from beside them, and told in its report."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from full_disk import full_disk

from sliceloop.captured_views import ViewsRequest, capture_views, view_of
from sliceloop.training_run import TrainRequest, train_folder, train_settings
from training.bundle import read_bundle
from training.captured import CapturedViews, Views, inconsistency, open_views
from training.checkpoint import dumps
from training.data.dataset import load_split, open_dataset
from training.data.phantom import Cohort, write_phantoms
from training.growing_views import GrowingViews
from training.lesson import varied
from training.networks import build
from training.plan import Progress, TrainSettings
from training.run import best_epoch
from training.train import TrainingStoppedError, train
from training.views_story import ViewsError, ViewsRecipe, ViewsStory, ids_of, read_story

PLAN = TrainSettings(epochs=2, batch=8, exchange=0.5)
RECIPE = ViewsRecipe(split="train", family="training", severities=(0.6, 1.0), seed=0)


class StopAfter(threading.Event):
    """Is set once it was asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine phantom patients to learn from, three to judge by and three for the test, a slice each."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, [Cohort("site-a", split, n, 1) for split, n in {"train": 3, "val": 1, "test": 1}.items()], 1)
    return folder


@pytest.fixture(scope="module")
def made(phantoms: Path) -> Path:
    """The views of the phantoms, made in one go."""
    return views_of(phantoms, phantoms / "views")


def views_of(data: Path, out: Path, stop: threading.Event | None = None, **wanted: object) -> Path:
    capture_views(ViewsRequest(data, out, **{"severities": (0.8,), **wanted}), stop or threading.Event())
    return out


def slices_of(data: Path, split: str):
    return load_split(open_dataset(data), split)


def closest(view: np.ndarray, slices) -> int:
    """Return the slice that a view looks like most."""
    return int(np.abs(slices.pixels[:].astype(int) - view).mean((1, 2)).argmin())


def of_noise(slices, seed: int = 0) -> CapturedViews:
    """Return views that are the slices with noise, as a bad camera gives them."""
    noise = np.random.default_rng(seed).integers(0, 60, (len(slices), 2, 256, 256))
    pixels = np.clip(slices.pixels[:][:, None] + noise, 0, 255).astype(np.uint8)
    story = {
        **RECIPE.model_dump(),
        "n_slices": len(slices),
        "n_views": 2 * len(slices),
        "true_outlines": 0,
        "digital": 0,
    }
    return CapturedViews(pixels, np.arange(len(slices)), ViewsStory(**story, slice_ids=ids_of(slices)))


@pytest.fixture(scope="module")
def toys(toy):
    return toy(12, slices_each=1, seed=1), toy(6, slices_each=1, name="v", seed=2)


def network():
    torch.manual_seed(0)
    return build("squeezenet1_1_bn", 64)


def test_each_slice_that_a_training_sees_has_its_views(phantoms, made):
    """Views are made of the train and val slices, in their order, of no test slice, and say that they are simulated."""
    assert sorted(path.name for path in made.iterdir()) == ["train", "val"]
    for split, n in (("train", 9), ("val", 3)):
        story = json.loads((made / split / "views.json").read_text())
        slices = slices_of(phantoms, split)
        assert (story["simulated"], story["family"], story["severities"]) == (True, "training", [0.8])
        assert tuple(story["slice_ids"]) == ids_of(slices)
        views = open_views(made / split, slices)
        assert len(views) == n
        closest = [
            int(np.abs(view - slices.pixels[:].astype(int)).mean((1, 2)).argmin()) for view in views.each()[0][:]
        ]
        assert np.mean(np.equal(closest, range(n))) > 0.7


def test_no_view_is_of_a_patient_of_another_split(phantoms, made):
    """The views of one split are refused for the slices of another: who is not learnt from, has no view there."""
    for held_back in ("val", "test"):
        with pytest.raises(ViewsError, match="3 of 3 slices have no captured view"):
            open_views(made / "train", slices_of(phantoms, held_back))


def test_who_is_left_out_takes_the_views_along(phantoms, made):
    """A part of the slices finds its own views, so that a budget of patients needs no others."""
    slices = slices_of(phantoms, "train")
    part = slices.of_patients(slices.patients[4:])
    assert np.array_equal(
        open_views(made / "train", part).each()[0][:], open_views(made / "train", slices).each()[0][4:]
    )


def test_stopped_views_go_on_to_the_same_bytes(phantoms, made, tmp_path):
    """Stopped in the middle and started again, making views ends in the bytes of one go."""
    with pytest.raises(typer.Exit) as stopped:
        views_of(phantoms, tmp_path, StopAfter(10), splits=("train",))
    assert stopped.value.exit_code == 130
    with pytest.raises(ViewsError, match="no finished views"):
        open_views(tmp_path / "train", slices_of(phantoms, "train"))
    views_of(phantoms, tmp_path, splits=("train",))
    assert (tmp_path / "train" / "views.npy").read_bytes() == (made / "train" / "views.npy").read_bytes()
    assert read_story(tmp_path / "train") == read_story(made / "train")


def test_what_a_kill_leaves_half_written_is_written_over(tmp_path):
    """Bytes behind the last counted slice, as kill -9 leaves them, and a file cut short do no harm."""
    views = np.arange(3 * 2, dtype=np.uint8).repeat(256 * 256).reshape(3, 2, 256, 256)
    whole, cut = (growing(tmp_path / name) for name in ("whole", "cut"))
    grown(whole, views)
    cut.add(views[:1], 0, 0)
    with cut.path.open("ab") as file:
        file.write(b"debris" * 50_000)
    grown(growing(tmp_path / "cut"), views[1:])
    assert cut.path.read_bytes() == whole.path.read_bytes()
    with cut.path.open("r+b") as file:
        file.truncate(1000)
    again = growing(tmp_path / "cut")
    assert (again.progress.done, again.is_finished) == (0, False)


def growing(folder: Path) -> GrowingViews:
    """Open the views of three slices."""
    views = GrowingViews(folder, RECIPE, ("a", "b", "c"), "recipe")
    views.open()
    return views


def grown(views: GrowingViews, pixels: np.ndarray) -> None:
    for one in pixels:
        views.add(one[None], 0, 0)
    views.finish()


def test_a_full_disk_is_named_and_what_is_done_stays(tmp_path):
    """A disk that is full names the file; with room again, making views goes on where it was."""
    views, pixels = growing(tmp_path), np.ones((2, 2, 256, 256), np.uint8)
    views.add(pixels[:1], 0, 0)
    with full_disk(after_bytes=2 * 2 * 256 * 256), pytest.raises(OSError, match=r"what is done stays.*views\.npy"):
        views.add(pixels, 0, 0)
    assert growing(tmp_path).progress.done == 1


@pytest.mark.parametrize("other", [{"seed": 1}, {"severities": (0.8, 1.0)}, {"views": 2}])
def test_a_folder_of_other_views_is_refused(phantoms, made, other):
    """Another seed, severity or number of views does not write over the views that are there."""
    with pytest.raises(ViewsError, match="use another folder"):
        views_of(phantoms, made, **other)


def test_views_of_a_changed_data_set_are_refused(phantoms, made):
    """Where a slice has changed or come since, a training says how many have no view, and what to do."""
    changed = slices_of(phantoms, "train")
    changed.pixels[4] += 1
    with pytest.raises(ViewsError, match=r"1 of 9 slices have no captured view.*capture-views"):
        open_views(made / "train", changed)


def test_a_slice_that_no_camera_shows_still_has_its_view():
    """Of a slice that is black to a camera the digital one stands in, and is counted as such."""
    digital = np.full((256, 256), 7, np.uint8)
    view = view_of(np.zeros((256, 256), np.uint8), digital, 0.0, seed=3)
    assert view.digital
    assert np.array_equal(view.pixels, digital)


def test_views_teach_something_else_and_the_same_seed_the_same(toys):
    """A training with views ends in other weights than one without, and in the same ones when it is run again."""
    views = Views(of_noise(toys[0]), of_noise(toys[1], 1))
    plain, first, again, apart = (network() for _ in range(4))
    train(plain, *toys, PLAN)
    trained = train(first, *toys, PLAN, views=views)
    assert dumps(first) != dumps(plain)
    assert dumps(train(again, *toys, PLAN, views=views).network) == dumps(first)
    other_weight = PLAN.model_copy(update={"views_weight": 5.0})
    assert dumps(train(apart, *toys, other_weight, views=views).network) != dumps(first)
    assert len(trained.captured_logits) == 2
    assert all(progress.captured_balanced_accuracy is not None for progress in trained.history)


def test_a_share_of_none_learns_as_without_views(toys):
    """With a share of 0 no view is shown: the weights of each epoch are those of a training without views."""
    views = Views(of_noise(toys[0]), of_noise(toys[1], 1))
    plain, shown = network(), network()
    one_epoch = PLAN.model_copy(update={"epochs": 1, "views_share": 0.0})
    train(plain, *toys, one_epoch)
    assert dumps(train(shown, *toys, one_epoch, views=views).network) == dumps(plain)


def test_a_training_with_views_resumes_to_the_same_bits(toys, tmp_path):
    """Cut after an epoch, a training with views ends in the bits of one that was not; without them it is refused."""
    views = Views(of_noise(toys[0]), of_noise(toys[1], 1))
    whole = train(network(), *toys, PLAN, views=views)
    stop = threading.Event()
    with pytest.raises(TrainingStoppedError):
        train(network(), *toys, PLAN, views=views, on_epoch=lambda _: stop.set(), stop=stop, resume_folder=tmp_path)
    with pytest.raises(ValueError, match="another run"):
        train(network(), *toys, PLAN, resume_folder=tmp_path)
    resumed = train(network(), *toys, PLAN, views=views, resume_folder=tmp_path)
    assert dumps(resumed.network) == dumps(whole.network)


def test_equal_answers_are_consistent_and_others_are_drawn_together():
    """Inconsistency is 0 for equal answers, grows with their distance, and a step against it brings both nearer."""
    digital = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]], requires_grad=True)
    captured = (digital.detach() + torch.tensor([[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).requires_grad_()
    assert inconsistency(digital, digital + 3).item() == pytest.approx(0, abs=1e-6)
    near, far = (inconsistency(digital, digital + share * (captured - digital)) for share in (0.5, 1.0))
    assert 0 < near.item() < far.item()
    inconsistency(digital, captured).backward()
    moved = (logits.detach() - 0.1 * logits.grad for logits in (digital, captured))
    assert inconsistency(*moved).item() < far.item()
    for logits in (digital, captured):
        assert logits.grad[0].abs().max() > 0.01
        assert logits.grad[1].abs().max() == pytest.approx(0, abs=1e-6)


def test_a_view_is_moved_as_its_slice_is():
    """A slice and its view are mirrored, moved, scaled and tilted alike, while each has greys of its own."""
    torch.manual_seed(0)
    slices = torch.rand(6, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    seen = varied(slices.clone(), slices[:4].clone(), TrainSettings(augment=1.0)).flatten(1)
    assert seen.shape == (10, 64 * 64)
    alike, apart = (
        np.corrcoef(torch.cat(pair))[range(4), range(4, 8)]
        for pair in ((seen[:4], seen[6:]), (seen[:4], slices[:4].flatten(1)))
    )
    assert alike.min() > 0.95
    assert np.abs(apart).max() < 0.8
    assert (seen[:4].mean(1) - seen[6:].mean(1)).abs().min() > 1e-3


def test_the_epoch_is_chosen_by_the_loss_on_slices_and_views():
    """With views the epoch of the least mean loss of both is kept, without them that of the best balanced accuracy."""
    shared = dict.fromkeys(("train_loss", "train_accuracy", "validation_accuracy", "learning_rate", "seconds"), 0) | {
        "epochs": 3
    }
    losses, captured, accuracies = (0.5, 0.6, 0.4), (0.5, 0.3, 0.7), (0.9, 0.8, 0.7)
    digital = [
        Progress(epoch=at + 1, validation_loss=losses[at], validation_balanced_accuracy=accuracies[at], **shared)
        for at in range(3)
    ]
    both = [one.model_copy(update={"captured_loss": loss}) for one, loss in zip(digital, captured, strict=True)]
    assert (best_epoch(digital).epoch, best_epoch(both).epoch) == (1, 2)


def test_the_report_tells_of_the_views(phantoms, made, tmp_path):
    """A bundle says that simulated views taught it, how they were made, and what it is worth on them by severity."""
    request = TrainRequest(phantoms, tmp_path / "out", "baseline_cnn", 32, views=made)
    train_folder(request, train_settings(epochs=1, batch=4), threading.Event())
    told = read_bundle(tmp_path / "out").report.simulated_views
    assert told is not None
    assert (told.train.simulated, told.train.family, told.train.n_views, told.train.seed) == (True, "training", 9, 0)
    assert [(one.severity, one.n_slices, one.n_patients) for one in told.figures] == [(0.8, 3, 3)]


def test_a_head_learns_from_no_views(phantoms, made, tmp_path):
    """Views are refused for a head alone, whose features are of digital slices."""
    request = TrainRequest(phantoms, tmp_path, "baseline_cnn", 32, mode="head", views=made)
    with pytest.raises(ViewsError, match="finetune"):
        train_folder(request, train_settings(epochs=1), threading.Event())
