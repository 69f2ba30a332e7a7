"""`sliceloop aim` shows what the camera sees, where the slice lies, and what to do."""

import json
import threading
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from mjpeg_camera import MjpegCamera
from rich.console import Console
from webcam_parts import FPS, QUAD, Frame, Place, locate, phantom, scene, settings, video

from cloud_worker.dashboard.palette import GOOD
from edge_agent.capture.frame import SourceError
from edge_agent.capture.guidance import READY
from edge_agent.refusal import Refusal, sentence
from sliceloop.aim_run import Aim, aim_at, picture, run_aim, screen

SLICE = phantom(0)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A slice that stands still for a while, and is then taken away."""
    shown = [scene(SLICE, seed=number) for number in range(12)]
    return video(tmp_path / "v.avi", [*shown, *(scene(seed=number) for number in range(12))], fps=FPS)


def said(device: object, finder: object = locate, **how: object) -> str:
    """Return what is written elsewhere than on a terminal."""
    console = Console(file=StringIO(), width=200)
    run_aim(settings(device, settle_frames=2), finder, threading.Event(), console=console, **how)
    return console.file.getvalue()


def test_once_prints_one_state_as_json(recording: Path) -> None:
    """With `--once` the outline, brightness, sharpness and sentence come as one JSON object."""
    told = json.loads(said(recording, once=True))
    assert told["found"] is True
    assert np.allclose(told["quad"], QUAD)
    assert (told["width"], told["height"], told["score"]) == (640, 360, 1.0)
    assert told["guidance"] == sentence(Refusal.TOO_SMALL)
    assert {"device", "reason", "brightness", "clipped_share", "sharpness"} <= set(told)


def test_once_works_without_anybody_to_find_the_slice(recording: Path) -> None:
    """Without a finder there is no outline, and the measures are those of the whole picture."""
    told = json.loads(said(recording, None, once=True))
    assert (told["found"], told["quad"], told["guidance"]) == (False, None, READY)


def test_once_without_a_camera_says_what_is_wrong() -> None:
    """Where there is no camera `--once` ends with the sentence that says so."""
    with pytest.raises(SourceError, match=r"nowhere\.avi does not exist"):
        said("nowhere.avi", once=True)


def test_each_new_sentence_is_a_line_where_there_is_no_terminal(recording: Path) -> None:
    """Into a file or a pipe each sentence is written when it changes, until the recording ends."""
    lines = said(recording).splitlines()
    assert lines[0].endswith(sentence(Refusal.TOO_SMALL))
    assert lines[-1].endswith((sentence(Refusal.NO_SLICE), sentence(Refusal.TOO_SMALL)))
    assert len(lines) == len(set(lines))


def test_the_screen_shows_picture_measures_and_sentence() -> None:
    """On a terminal there are the picture, a bar for each measure, and the sentence, within its size."""
    state = aim_at(scene(SLICE), locate)
    lines = drawn(state, 80, 30)
    assert len(lines) <= 30
    assert any("▀" in line for line in lines)
    for word in ("camera 0", "640x360", "brightness", "sharpness", "outline", "closer"):
        assert any(word in line for line in lines), word


def test_the_screen_says_why_there_is_no_picture() -> None:
    """Without a camera its fault stands where the picture was."""
    assert any("unplugged" in line for line in drawn("camera 0 is unplugged", 80, 30))


def drawn(state: Aim | str, width: int, height: int) -> list[str]:
    """Return the screen as lines."""
    console = Console(file=StringIO(), width=width, height=height, color_system=None)
    console.print(screen(state, "camera 0", width, height))
    return console.file.getvalue().splitlines()


def test_the_outline_is_drawn_where_it_lies() -> None:
    """The quad's corners are in colour in the picture; without a quad nothing is."""
    columns = 64
    shown = picture(scene(SLICE), QUAD, columns)
    marked = {span.start for span in shown.spans if span.end == span.start + 1 and GOOD in str(span.style)}
    rows = shown.plain.count("\n") + 1
    cells = {(start // (columns + 1), start % (columns + 1)) for start in marked}
    for x, y in QUAD:
        row, column = y / 360 * rows - 0.5, x / 640 * columns - 0.5
        assert min(np.hypot(row - at[0], column - at[1]) for at in cells) < 1.0
    assert not [span for span in picture(scene(SLICE), None, columns).spans if GOOD in str(span.style)]


def test_motion_between_two_looks_is_seen() -> None:
    """A slice whose corners moved since the last look is to be held still."""

    def large(quad_shift: float) -> Aim:
        quad = np.array([[20, 10], [350, 10], [350, 340], [20, 340]], np.float32) + np.float32(quad_shift)
        return aim_at(scene(SLICE), lambda frame: Place(quad), before)

    before: Aim | None = None
    before = large(0.0)
    assert large(0.0).guidance != "Hold still."
    assert large(14.0).guidance == "Hold still."


def test_a_live_camera_is_shown_until_the_stop() -> None:
    """Of a camera in the network the state is shown on a terminal until somebody stops it."""
    stop = threading.Event()
    looks = 0

    def find(frame: Frame) -> Place:
        nonlocal looks
        looks += 1
        if looks == 3:
            stop.set()
        return locate(frame)

    console = Console(file=StringIO(), force_terminal=True, width=80, height=30)
    with MjpegCamera(lambda number: scene(SLICE, seed=number)) as camera:
        run_aim(settings(camera.address), find, stop, console=console)
    assert "outline" in console.file.getvalue()
    assert looks == 3
