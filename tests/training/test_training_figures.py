"""The curves show what the epochs were, and a leaked run cannot hide."""

import re

from training.figures import curves_png, draw_curves, throughput_image
from training.plan import Progress
from training.throughput import Round, Throughput

HISTORY = tuple(
    Progress(
        epoch=epoch,
        epochs=4,
        train_loss=1 / epoch,
        train_accuracy=0.2 * epoch,
        validation_loss=1.1 / epoch,
        validation_accuracy=0.15 * epoch,
        validation_balanced_accuracy=balanced,
        learning_rate=1e-3,
        seconds=1,
    )
    for epoch, balanced in ((1, 0.3), (2, 0.7), (3, 0.6), (4, 0.5))
)


def test_curves_hold_loss_and_accuracy_of_both_sides():
    """Each side's loss and accuracy stand against the epoch, and the kept epoch is marked."""
    loss, accuracy = draw_curves(HISTORY, "title").axes
    drawn = {
        (axes.get_ylabel(), line.get_label()): list(line.get_ydata())
        for axes in (loss, accuracy)
        for line in axes.lines
    }
    assert drawn["loss (nats)", "training"] == [progress.train_loss for progress in HISTORY]
    assert drawn["loss (nats)", "validation"] == [progress.validation_loss for progress in HISTORY]
    assert drawn["accuracy", "training"] == [progress.train_accuracy for progress in HISTORY]
    assert drawn["accuracy", "validation"] == [progress.validation_accuracy for progress in HISTORY]
    assert ("accuracy", "kept: epoch 2") in drawn


def test_leaked_run_says_so_in_the_picture():
    """Only a leaked run's picture says that it is."""
    assert "LEAKED: 3 patients" in draw_curves(HISTORY, "title", 3).get_supxlabel()
    assert draw_curves(HISTORY, "title").get_supxlabel() == ""
    assert curves_png(HISTORY, "title").startswith(b"\x89PNG")


def test_throughput_is_drawn_with_its_spread():
    """The picture of a comparison names both ways, and the ratio with its spread."""
    result = Throughput(
        architecture="resnet18",
        input_px=64,
        batch=2,
        threads=1,
        workers=2,
        steps=1,
        n_images=3,
        rounds=(Round(ours=4, plain=2), Round(ours=6, plain=2)),
        ratio_median=2.5,
        ratio_low=2,
        ratio_high=3,
        milliseconds={},
        hardware={},
        commit=None,
        versions={},
    )
    svg = throughput_image(result, "svg").decode()
    assert re.search(r"resnet18.*2\.50 times \(2\.00 to 3\.00\)", svg)
    assert "ImageFolder" in svg
