"""The reading loop with a camera: simulated frames on a real recording, through the whole path to the outbox."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from edge_parts import filled_slot, quiet_link
from numpy.typing import NDArray
from pydantic import ValidationError

from edge_agent.app import ReadingLoop
from edge_agent.capture.webcam import WebcamSource
from edge_agent.capture.webcam_settings import WebcamSettings
from edge_agent.develop import Development, DevelopmentSettings
from edge_agent.inlet import TAKEN, CameraInlet, InletFileError, load_calibration, load_intake
from edge_agent.locate import locate
from edge_agent.outbox import Outbox
from edge_agent.reading import EdgeIdentity, OriginalsPolicy
from edge_agent.refusal import Refusal, sentence
from edge_agent.refused_pictures import RefusedPictures, kept_pictures
from edge_agent.settings import EdgeSettings
from protocol.codec import decode
from protocol.labels import Label
from protocol.messages import SliceRead
from protocol.topics import Kind
from training.data.phantom import SITES, render_slice
from training.model.preprocess import prepare
from training.screen_camera import EmptyScene, Family, empty_scene, shoot
from training.screen_camera.named import NamedFrame, named_frame

Frame = NDArray[np.uint8]
FPS, SHOWN_FRAMES = 25, 40
EACH_FRAME = {"trigger": "interval", "interval_s": 0, "burst_frames": 1, "settle_max_s": 0}


def phantom(patient: int) -> Frame:
    return render_slice(seed=3, site=SITES["site-a"], label=Label.NORMAL, patient=patient, z=0.5)


def shown(patient: int) -> Frame:
    """A slice before a simulated webcam, as a careful person shows it."""
    return shoot(phantom(patient), severity=0.6, seed=patient, family=Family.TRAINING).frame


def desk() -> Frame:
    return empty_scene(EmptyScene.DESK, severity=0.6, seed=1, family=Family.TRAINING)


def recording(path: Path, frames: Sequence[Frame], each: int = SHOWN_FRAMES) -> Path:
    """Write a video that shows each frame for so long, with a little noise."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (1280, 720))
    grains = np.random.default_rng(0).integers(-3, 4, (4, *frames[0].shape), np.int16)
    for frame in frames:
        for number in range(each):
            writer.write(np.clip(frame + grains[number % 4], 0, 255).astype(np.uint8))
    writer.release()
    return path


@dataclass
class Camera:
    """One edge with a camera, without its threads: every round is a call."""

    inlet: CameraInlet
    source: WebcamSource
    outbox: Outbox
    loop: ReadingLoop
    kept: Path
    now_s: float = 0.0

    def play(self) -> list[SliceRead]:
        """Take the recording to its end; return the slices in the outbox, in the order in which they were read."""
        while not self.source.finished:
            assert self.loop.step(self.now_s) == ""
            self.now_s += 0.02
        pending = self.outbox.pending(100)
        slices = [
            decode(each.kind, each.payload, each.user_properties).message for each in pending if each.kind is Kind.SLICE
        ]
        return sorted(slices, key=lambda each: each.sequence)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Callable[..., Camera]]:
    with ExitStack() as stack:

        def make(frames: Sequence[Frame], each: int = SHOWN_FRAMES, budget: int = 10_000_000, **chosen: Any) -> Camera:
            video = recording(tmp_path / "recording.avi", frames, each)
            webcam = WebcamSettings.model_validate({"device": str(video), "pace": "fast", **chosen})
            settings = EdgeSettings(
                site="site-a", edge="edge-1", data_dir=tmp_path, webcam=webcam, trusted_keys_dir=tmp_path
            )
            identity = EdgeIdentity("site-a", "edge-1", "boot-1", b"a secret of the site")
            slot = filled_slot(tmp_path / "models")
            outbox = stack.enter_context(Outbox(tmp_path / "outbox", max_rows=100, max_bytes=10_000_000))
            source = stack.enter_context(WebcamSource(webcam, "boot-1", locate=locate))
            development = Development(DevelopmentSettings(), None, load_intake(None))
            inlet = CameraInlet(source, development, RefusedPictures(tmp_path / "kept", budget))
            link = quiet_link(settings, identity, outbox, slot)
            originals = OriginalsPolicy(send=False, send_dicom=False, max_bytes=0)
            loop = ReadingLoop(inlet, slot, outbox, link, identity, originals)
            return Camera(inlet, source, outbox, loop, tmp_path / "kept")

        yield make


def test_slices_that_are_shown_one_after_the_other_are_each_read_once(camera: Callable[..., Camera]) -> None:
    """Two slices, a desk between them: two readings, of pictures that look like the slices that were shown."""
    edge = camera([shown(1), desk(), shown(2)])
    first, second = edge.play()
    assert edge.inlet.guidance == TAKEN
    assert edge.inlet.refusals == {}
    for read, patient in ((first, 1), (second, 2)):
        assert read.source == "webcam"
        pixels = cv2.imdecode(np.frombuffer(read.image, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.corrcoef(pixels.ravel(), prepare(phantom(patient)).ravel())[0, 1] > 0.9


def test_a_desk_is_not_taken_and_the_person_is_told_what_to_show(camera: Callable[..., Camera]) -> None:
    """Where no slice is in view no picture is taken by itself, and nothing is refused."""
    edge = camera([desk()])
    assert edge.play() == []
    assert edge.inlet.guidance == sentence(Refusal.NO_SLICE)
    assert edge.inlet.refusals == {}


def test_a_refused_picture_is_kept_with_its_reason_and_never_sent(camera: Callable[..., Camera]) -> None:
    """Pictures of a desk that are taken all the same are counted and kept; nothing of them waits to be sent."""
    edge = camera([desk()], each=3, **EACH_FRAME)
    assert edge.play() == []
    assert edge.outbox.depth() == 0
    assert edge.outbox.refused() == []
    assert edge.inlet.refusals == {"no-slice": 3}
    kept = list(kept_pictures(edge.kept))
    assert [reason for _, reason in kept] == [sentence(Refusal.NO_SLICE)] * 3
    assert cv2.imread(str(kept[0][0])).shape == (720, 1280, 3)
    assert json.loads(kept[0][0].with_suffix(".json").read_text())["codes"] == ["no-slice"]


def test_the_oldest_refused_pictures_give_way_within_the_budget(camera: Callable[..., Camera]) -> None:
    """A camera that looks at a desk for a week does not fill the disk."""
    budget = 700_000
    edge = camera([desk()], each=8, budget=budget, **EACH_FRAME)
    edge.play()
    assert edge.inlet.refusals == {"no-slice": 8}
    assert sum(path.stat().st_size for path in edge.kept.iterdir()) <= budget
    assert 0 < len(list(kept_pictures(edge.kept))) < 8


def test_a_mirrored_slice_is_refused_and_said(camera: Callable[..., Camera]) -> None:
    """Left and right of a patient are not to be mixed up: it is refused, and the person is told why."""
    mirrored = named_frame(NamedFrame.MIRRORED, phantom(5), seed=5, family=Family.TRAINING).frame
    edge = camera([mirrored], each=1, **EACH_FRAME)
    assert edge.play() == []
    assert edge.inlet.refusals == {"mirrored": 1}
    assert next(iter(kept_pictures(edge.kept)))[1] == sentence(Refusal.MIRRORED)


def test_a_refused_slice_is_taken_again_by_itself(camera: Callable[..., Camera]) -> None:
    """The same slice, first out of focus and then sharp: it is refused, taken again, and read."""
    edge = camera([cv2.GaussianBlur(shown(1), (0, 0), 6), shown(1)], each=60)
    (read,) = edge.play()
    assert read.sequence == 1
    assert set(edge.inlet.refusals) == {"not-sharp"}


@pytest.mark.parametrize("sources", [{}, {"replay": {"folder": "inbox"}, "webcam": {"device": 0}}])
def test_an_edge_has_exactly_one_source(tmp_path: Path, sources: dict[str, Any]) -> None:
    """No source, or two, is a fault of the configuration that is named at the start."""
    with pytest.raises(ValidationError, match="needs one source of slices"):
        EdgeSettings.model_validate(
            {"site": "site-a", "edge": "edge-1", "data_dir": tmp_path, "trusted_keys_dir": tmp_path, **sources}
        )


def test_a_broken_calibration_or_intake_file_is_named(tmp_path: Path) -> None:
    """The message names the file that the settings point to."""
    broken = tmp_path / "broken"
    broken.write_text("neither")
    with pytest.raises(InletFileError, match=rf"calibration {broken}: not JSON .*; calibrate again"):
        load_calibration(broken)
    with pytest.raises(InletFileError, match=rf"intake network {broken}: no readable intake network"):
        load_intake(broken)
