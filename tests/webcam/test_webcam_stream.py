"""A camera in the network works, stalls, dies, comes back, goes black or freezes; all of it over real HTTP."""

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest
from mjpeg_camera import MjpegCamera
from webcam_parts import Frame, Watcher, decoded, likeness, locate, phantom, scene, source

SLICE, OTHER = phantom(0), phantom(1)
QUICK = {"still_s": 0.1, "look_every_s": 0.04, "burst_frames": 2, "reconnect_max_s": 1.0, "settle_frames": 2}
LONG_S = 60.0


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    """A camera that shows a slice, with noise."""
    with MjpegCamera(lambda number: scene(SLICE, seed=number)) as camera:
        yield camera


def test_a_slice_before_a_camera_in_the_network_is_taken(camera: MjpegCamera) -> None:
    """An MJPEG stream gives a picture of each slice that is shown."""
    with source(camera.address, **QUICK, locate=locate) as webcam:
        watch = Watcher(webcam)
        watch.until(lambda: len(watch.frames) == 1)
        camera.draw = lambda number: scene(OTHER, seed=number)
        watch.until(lambda: len(watch.frames) == 2)
        shown = [likeness(decoded(frame), SLICE) > likeness(decoded(frame), OTHER) for frame in watch.frames]
        assert shown == [True, False]
        assert webcam.guidance
        assert webcam.seen is not None


def test_only_the_newest_frame_counts(camera: MjpegCamera) -> None:
    """However long nobody asks, the next picture is of now: older frames are dropped."""
    shown: list[int] = []

    def numbered(number: int) -> Frame:
        shown.append(number)
        frame = scene(SLICE, seed=number)
        frame[:40] = number % 256
        return frame

    camera.draw = numbered
    with source(camera.address, **{**QUICK, "burst_frames": 1, "settle_max_s": 0}, trigger="interval") as webcam:
        watch = Watcher(webcam)
        watch.until(lambda: len(watch.frames) == 1)
        first, busy = len(shown), Watcher(source("nowhere.avi"))
        busy.until(lambda: len(shown) > first + 40)
        count = len(shown)
        watch.until(lambda: len(watch.frames) == 2, step_s=5.0)
        assert decoded(watch.frames[1])[10, 10, 0] >= (count - 8) % 256


def test_a_stream_that_stalls_is_named_and_opened_again(camera: MjpegCamera) -> None:
    """When no frame comes for the stall timeout the source says so, connects anew, and goes on when frames do."""
    with source(camera.address, **QUICK, stall_timeout_s=5.0, locate=locate) as webcam:
        watch = Watcher(webcam)
        watch.until(lambda: len(watch.frames) == 1)
        camera.mode = "stall"
        watch.until_says("gave no frame for 5 s", step_s=0.5)
        camera.mode, camera.draw = "live", lambda number: scene(OTHER, seed=number)
        watch.until(lambda: len(watch.frames) == 2, step_s=0.02)
        assert camera.connections >= 2
        assert watch.problem == ""


def test_a_camera_that_dies_is_waited_for(camera: MjpegCamera) -> None:
    """When the camera hangs up and is away for a while, the source says so and tries until it is back."""
    with source(camera.address, **QUICK, locate=locate) as webcam:
        watch = Watcher(webcam)
        watch.until(lambda: len(watch.frames) == 1)
        camera.switch_off()
        watch.until_says("gives no more frames")
        watch.until_says("cannot be opened: check that it is on", step_s=0.2)
        camera.draw = lambda number: scene(OTHER, seed=number)
        camera.switch_on()
        watch.until(lambda: len(watch.frames) == 2, step_s=0.02)


def test_a_camera_that_is_away_from_the_start_is_waited_for() -> None:
    """The source starts before its camera does."""
    camera = MjpegCamera(lambda number: scene(SLICE, seed=number))
    camera.switch_on()
    camera.switch_off()
    with source(camera.address, **QUICK, locate=locate) as webcam:
        watch = Watcher(webcam)
        watch.until_says("cannot be opened", step_s=0.2)
        with camera:
            watch.until(lambda: len(watch.frames) == 1, step_s=0.02)


def test_a_camera_that_goes_black_is_named_and_opened_again(camera: MjpegCamera) -> None:
    """Black frames make no picture; when they go on, the source says so and opens the camera again."""
    with source(camera.address, **QUICK, trigger="interval", interval_s=0, black_after_s=3.0) as webcam:
        watch = Watcher(webcam)
        watch.until(lambda: len(watch.frames) >= 1)
        camera.draw = lambda number: scene(SLICE, seed=number, gain=0.0, noise=0.5)
        watch.until_says("black picture")
        assert all(decoded(frame).mean() > 30 for frame in watch.frames)
        camera.draw, count = lambda number: scene(SLICE, seed=number), len(watch.frames)
        watch.until(lambda: len(watch.frames) > count)
        assert watch.problem == ""
        assert camera.connections >= 2


def test_a_camera_that_freezes_is_named_and_opened_again(camera: MjpegCamera) -> None:
    """When bit for bit the same frame comes again and again the source says so, and opens the camera again."""
    with source(camera.address, **QUICK, frozen_after_s=5.0, locate=locate) as webcam:
        watch = Watcher(webcam)
        watch.until(lambda: len(watch.frames) == 1)
        camera.draw = lambda number: scene(OTHER)
        watch.until_says("same picture again and again", step_s=0.1)
        camera.draw = lambda number: scene(OTHER, seed=number)
        watch.until(lambda: not watch.problem and len(watch.frames) >= 2, step_s=0.02)


def test_a_rendered_stream_may_stand_still(camera: MjpegCamera) -> None:
    """With the check for frozen frames switched off, a stream of equal frames is as good as any."""
    camera.draw = lambda number: scene(SLICE)
    with source(camera.address, **QUICK, frozen_after_s=0, locate=locate) as webcam:
        watch = Watcher(webcam)
        watch.until(lambda: len(watch.frames) == 1)


@pytest.mark.timeout(30)
def test_a_stop_does_not_wait_for_a_camera_that_does_not_answer(camera: MjpegCamera) -> None:
    """A source whose camera holds it up in the driver for a minute is left at once."""
    camera.mode = "mute"
    with source(camera.address, open_timeout_s=LONG_S) as webcam:
        Watcher(webcam).until(lambda: camera.connections == 1)


def test_cameras_that_hang_are_given_up_but_not_without_end(camera: MjpegCamera) -> None:
    """An opening that hangs is named and tried again; with three that hang in the driver no further one is begun."""
    camera.mode, others = "mute", set(threading.enumerate())
    with source(camera.address, **QUICK, open_timeout_s=LONG_S) as webcam:
        watch = Watcher(webcam)
        watch.until_says("did not open within 60 s", step_s=10.0)
        watch.until_says("hangs in its driver (3 times)")
        for _ in range(50):
            watch.step()
        hanging = [thread for thread in set(threading.enumerate()) - others if thread.name == "camera"]
        assert len(hanging) == 3


def test_a_hanging_camera_does_not_keep_the_process(camera: MjpegCamera) -> None:
    """A process whose camera hangs in the driver ends when it is told to, without a fault."""
    camera.mode = "mute"
    script = f"""
        import time
        from edge_agent.capture.webcam import WebcamSource
        from edge_agent.capture.webcam_settings import WebcamSettings
        with WebcamSource(WebcamSettings(device={camera.address!r}, open_timeout_s=60), "boot") as webcam:
            webcam.step(time.monotonic())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=30, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_password_in_an_address_is_told_to_nobody() -> None:
    """What the source says of a camera holds its host and path, but neither user, password nor query."""
    camera = MjpegCamera(lambda number: scene())
    camera.switch_on()
    camera.switch_off()
    address = camera.address.replace("//", "//doctor:secret@") + "?token=hidden"
    with source(address) as webcam:
        watch = Watcher(webcam)
        watch.until_says("127.0.0.1")
        assert "video.mjpg" in watch.problem
        assert not any(word in watch.problem for word in ("doctor", "secret", "hidden"))


def test_a_live_camera_with_frames_of_no_use_is_named(camera: MjpegCamera) -> None:
    """A stream whose frames exceed the limit is refused when it opens, before a picture is made of one."""
    with source(camera.address, **QUICK, max_megapixels=0.2) as webcam:
        watch = Watcher(webcam)
        watch.until_says("640x360 px are 0.23 megapixels, the limit is 0.2")
        assert not watch.frames
