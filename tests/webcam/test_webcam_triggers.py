"""When a picture is taken: by itself when a new slice stands still, by the key, by the clock; once exposure settled."""

import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from webcam_parts import (
    FPS,
    TOP,
    WIDTH,
    Frame,
    Place,
    Watcher,
    area_of,
    decoded,
    likeness,
    locate,
    page,
    phantom,
    play,
    scene,
    shifted,
    source,
    video,
)

FAST = {"pace": "fast", "burst_frames": 3, "settle_max_s": 1.0}
ONE, OTHER = phantom(0), phantom(1)
NEXT_DOOR = phantom(0, 0.54)
"""The same patient, about a centimetre further down."""


def held(shown: Frame | None, frames: int, seed: int = 0, **how: float) -> Iterator[Frame]:
    """Give frames of a slice that is held still; each has noise of its own."""
    return (scene(shown, seed=1000 * seed + number, **how) for number in range(frames))


def waved(shown: Frame, frames: int) -> Iterator[Frame]:
    """Give frames of a slice that moves by 8 pixels each."""
    return (shifted(scene(shown, seed=number), 8 * (number % 8) - 28, 3 * (number % 5)) for number in range(frames))


def shot(path: Path, *parts: Iterator[Frame], **chosen: object) -> list[Frame]:
    """Return the pictures that are taken of a recording."""
    frames, refused = play(source(video(path, chain(*parts)), **{**FAST, **chosen}))
    assert not refused
    return [decoded(frame) for frame in frames]


def slices_of(pictures: list[Frame]) -> list[str]:
    """Name the slice that each picture shows most likely."""
    known = {"one": ONE, "other": OTHER, "next door": NEXT_DOOR}
    return [max(known, key=lambda name: likeness(picture, known[name])) for picture in pictures]


@pytest.mark.parametrize("finder", [locate, None])
def test_each_new_slice_that_stands_still_is_taken_once(tmp_path: Path, finder: object) -> None:
    """Of slices that are shown one after another each is taken once, though it stands there for long."""
    pictures = shot(
        tmp_path / "v.avi", held(ONE, 60), held(OTHER, 40, 1), held(NEXT_DOOR, 40, 2), held(ONE, 40, 3), locate=finder
    )
    assert slices_of(pictures) == ["one", "other", "next door", "one"]


def test_the_same_slice_is_not_taken_again(tmp_path: Path) -> None:
    """A slice that was taken away, moved a little, and shown darker is still the one that was taken last."""
    pictures = shot(
        tmp_path / "v.avi",
        held(ONE, 40),
        held(None, 20, 1),
        held(ONE, 30, 2, gain=0.8),
        (shifted(frame, 2, 1) for frame in held(ONE, 30, 3)),
        locate=locate,
    )
    assert slices_of(pictures) == ["one"]


def test_a_slice_that_moves_is_not_taken(tmp_path: Path) -> None:
    """While it is waved about no picture is taken; as soon as it stands still, one is."""
    assert shot(tmp_path / "moving.avi", waved(ONE, 60)) == []
    assert slices_of(shot(tmp_path / "then_still.avi", waved(ONE, 40), held(ONE, 40))) == ["one"]


def test_nothing_in_view_is_nothing_to_take(tmp_path: Path) -> None:
    """Where no slice is found, none is taken, however still the picture stands."""
    assert shot(tmp_path / "v.avi", held(None, 60), locate=locate) == []


def test_only_the_slice_has_to_stand_still(tmp_path: Path) -> None:
    """What moves beside the slice does not matter when its place is known; without it, the whole picture counts."""

    def busy() -> Iterator[Frame]:
        for number, frame in enumerate(held(ONE, 50)):
            left = 40 * (number // 4 % 2)
            frame[:, left : left + 80] = 255 - 200 * (number // 4 % 2)
            yield frame

    assert slices_of(shot(tmp_path / "known.avi", busy(), locate=locate)) == ["one"]
    assert shot(tmp_path / "unknown.avi", busy()) == []


def test_a_slice_that_moves_in_the_picture_is_not_still(tmp_path: Path) -> None:
    """The outline's way counts too: a slice that glides through the picture looks the same within its outline."""

    def gliding() -> Iterator[Frame]:
        return (shifted(frame, number - 30, 0) for number, frame in enumerate(held(ONE, 60)))

    def followed(frame: Frame) -> Place:
        grey = frame[TOP + 100 : TOP + 180, :, 1].astype(float)
        marked = np.flatnonzero(np.abs(np.diff(grey.mean(axis=0))) > 25)
        left = float(marked[0]) if len(marked) else 0.0
        quad = np.array([[left, 40], [left + 280, 40], [left + 280, 320], [left, 320]], np.float32)
        return Place(quad)

    assert shot(tmp_path / "v.avi", gliding(), locate=followed) == []


def test_a_refused_slice_is_taken_again_when_asked(tmp_path: Path) -> None:
    """A slice whose picture could not be used is taken again, after a pause, when the reader asks for it."""
    webcam = source(video(tmp_path / "v.avi", held(ONE, 120)), **FAST, retake_after_s=1.0, locate=locate)
    with webcam:
        watch = Watcher(webcam)
        watch.until(lambda: len(watch.frames) == 1)
        webcam.take_again()
        watch.until(lambda: webcam.finished)
        assert len(watch.frames) == 2


def test_a_slice_that_is_refused_again_and_again_is_taken_more_rarely_until_another_is_shown(tmp_path: Path) -> None:
    """After the fifth refusal in a row the pause is longer than the recording; an empty page ends it."""
    frames = chain(held(ONE, 60), held(None, 15), held(OTHER, 60, seed=1))
    webcam = source(video(tmp_path / "v.avi", frames), **FAST, retake_after_s=1.0, locate=locate)
    with webcam:
        watch = Watcher(webcam)
        watch.until(lambda: len(watch.frames) == 1)
        webcam.take_again(refused=5)
        watch.until(lambda: webcam.finished)
        assert slices_of([decoded(frame) for frame in watch.frames]) == ["one", "other"]


@pytest.mark.parametrize("trigger", ["key", "still"])
def test_the_key_takes_one_picture(tmp_path: Path, trigger: str) -> None:
    """A press takes one picture of whatever is there, and is taken back by it; without a press the key takes none."""
    press = threading.Event()
    path = video(tmp_path / "v.avi", waved(ONE, 40))
    with source(path, **FAST, trigger=trigger, press=press) as webcam:
        press.set()
        watch = Watcher(webcam)
        watch.until(lambda: webcam.finished)
        assert len(watch.frames) == 1
        assert not press.is_set()


def test_at_an_interval_pictures_come_by_the_frames_times(tmp_path: Path) -> None:
    """A picture each second: four of a recording of a little over three."""
    pictures = shot(
        tmp_path / "v.avi", held(ONE, 3 * FPS + 5), trigger="interval", interval_s=1.0, burst_frames=1, settle_max_s=0
    )
    assert len(pictures) == 4


def test_a_picture_waits_until_exposure_has_settled(tmp_path: Path) -> None:
    """While a camera brightens after its start no picture is taken: the first has the final brightness."""
    gains = [min(1.0, 0.2 + 0.03 * number) for number in range(60)]
    frames = (scene(ONE, seed=number, gain=gain) for number, gain in enumerate(gains))
    pictures = shot(tmp_path / "v.avi", frames, trigger="interval", interval_s=100.0, settle_max_s=3.0)
    assert len(pictures) == 1
    assert area_of(pictures[0]).mean() == pytest.approx(ONE.mean(), rel=0.03)


def test_the_wait_for_exposure_has_an_end(tmp_path: Path) -> None:
    """Under a light that flickers for ever a picture is taken all the same, after the longest wait."""
    frames = (scene(ONE, seed=number, gain=0.7 + 0.3 * (number % 2)) for number in range(60))
    assert len(shot(tmp_path / "v.avi", frames, trigger="interval", interval_s=100.0, settle_max_s=1.0)) == 1


def test_a_picture_has_less_noise_than_a_frame(tmp_path: Path) -> None:
    """A burst of frames with noise, held by a hand that shakes, becomes a picture with half of the noise."""
    moves = [(0.0, 0.0), (1.3, 0.4), (-0.8, 1.1), (0.2, -0.6), (1.9, 0.8)]
    frames = [
        np.clip(shifted(page(ONE), x, y) + np.random.default_rng(number).normal(0, 8, (360, 640, 3)), 0, 255)
        for number, (x, y) in enumerate(moves)
    ]
    burst = {"trigger": "interval", "settle_max_s": 0, "burst_frames": 5, "encoding": "png"}
    picture = shot(tmp_path / "v.avi", iter([frame.astype(np.uint8) for frame in frames]), **burst)[0]
    noise = [least_noise(frame) for frame in (picture.astype(float), frames[0])]
    assert noise[0] < 0.6 * noise[1]


def least_noise(frame: np.ndarray) -> float:
    """Return the deviation from the page, at whichever of the frames' places fits best, where it is smooth."""
    beside = slice(40, 320), slice(490, WIDTH - 20)
    return float((frame - page(ONE))[beside].std())
