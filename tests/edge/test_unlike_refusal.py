"""A picture that is unlike what the network learnt from is kept and taken again; a file is read whatever it is."""

import math
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from edge_parts import filled_slot, network, quiet_link, release, slice_file

from edge_agent.app import ReadingLoop
from edge_agent.capture.frame import CapturedFrame
from edge_agent.capture.replay import ReplaySource
from edge_agent.capture.webcam import WebcamSource
from edge_agent.capture.webcam_settings import WebcamSettings
from edge_agent.crop import crop
from edge_agent.develop import Development, DevelopmentSettings, PictureRefusedError
from edge_agent.inlet import CameraInlet, FolderInlet, Inlet
from edge_agent.locate import locate
from edge_agent.model_slot import ModelSlot
from edge_agent.outbox import Outbox
from edge_agent.reading import EdgeIdentity, OriginalsPolicy, read_slice
from edge_agent.refusal import Refusal, sentence
from edge_agent.refused_pictures import RefusedPictures, kept_pictures
from edge_agent.settings import EdgeSettings, ReplaySettings
from protocol.labels import Label
from training.data.phantom import SITES, render_slice
from training.likeness import Likeness, with_unlikeness
from training.model.decode import decode_image
from training.screen_camera import Family, shoot

IDENTITY = EdgeIdentity("site-a", "edge-1", "boot-1", b"a secret of the site")
ORIGINALS = OriginalsPolicy(send=False, send_dicom=False, max_bytes=0)


def learnt(grey: float) -> bytes:
    """Return a network that learnt from slices of this mean grey (0..1): a tenth beside it is ten borders away."""
    one = np.ones(1, np.float32)
    return with_unlikeness(network(), Likeness(grey * one, one[None], 0.01 * one, 1.0, 1.0))


@pytest.fixture
def far_off(tmp_path: Path) -> ModelSlot:
    """A slot whose network learnt from slices as white as none is."""
    return filled_slot(tmp_path / "models", release(1, learnt(1.0)))


def loop_of(inlet: Inlet, slot: ModelSlot, outbox: Outbox, settings: EdgeSettings) -> ReadingLoop:
    link = quiet_link(settings, IDENTITY, outbox, slot)
    return ReadingLoop(inlet, slot, outbox, link, IDENTITY, ORIGINALS)


@pytest.mark.parametrize(("limit", "refused"), [(1.5, 2), (math.inf, 0)])
def test_an_unlike_picture_is_kept_and_counted_and_not_sent(
    tmp_path: Path, far_off: ModelSlot, limit: float, refused: int
) -> None:
    """Two pictures of a good slice, of a kind that was not learnt: refused with a sentence; inf lets them through."""
    slice_ = render_slice(seed=3, site=SITES["site-a"], label=Label.NORMAL, patient=1, z=0.5)
    shown = shoot(slice_, severity=0.6, seed=1, family=Family.TRAINING).frame
    video = cv2.VideoWriter(str(tmp_path / "slice.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (1280, 720))
    for _ in range(2):
        video.write(shown)
    video.release()
    webcam = WebcamSettings(
        device=str(tmp_path / "slice.avi"),
        pace="fast",
        trigger="interval",
        interval_s=0,
        burst_frames=1,
        settle_max_s=0,
    )
    settings = EdgeSettings(site="site-a", edge="edge-1", data_dir=tmp_path, webcam=webcam, trusted_keys_dir=tmp_path)
    with ExitStack() as stack:
        outbox = stack.enter_context(Outbox(tmp_path / "outbox", max_rows=100, max_bytes=10_000_000))
        source = stack.enter_context(WebcamSource(webcam, "boot-1", locate=locate))
        development = Development(DevelopmentSettings(unlikeness=limit))
        inlet = CameraInlet(source, development, RefusedPictures(tmp_path / "kept", 10_000_000))
        loop = loop_of(inlet, far_off, outbox, settings)
        rounds = 0
        while not source.finished:
            assert loop.step(rounds * 10.0) == ""
            rounds += 1
        assert inlet.refusals.get(Refusal.UNLIKE_LEARNT, 0) == inlet.refusals.total() == refused
        kept = [reason for _, reason in kept_pictures(tmp_path / "kept")] if refused else []
        assert kept == [sentence(Refusal.UNLIKE_LEARNT)] * refused
        assert (outbox.depth() == 0) == (refused > 0)


def test_an_unlike_file_is_read_all_the_same(tmp_path: Path, far_off: ModelSlot) -> None:
    """What comes from a folder cannot be taken again, so the limit of cameras does not hold for it."""
    replay = ReplaySettings(folder=tmp_path / "inbox", interval_s=0)
    replay.folder.mkdir()
    (replay.folder / "a.png").write_bytes(slice_file())
    settings = EdgeSettings(site="site-a", edge="edge-1", data_dir=tmp_path, replay=replay, trusted_keys_dir=tmp_path)
    with Outbox(tmp_path / "outbox", max_rows=100, max_bytes=10_000_000) as outbox:
        inlet = FolderInlet(ReplaySource(replay, outbox.is_captured, max_file_bytes=1_000_000), outbox)
        loop = loop_of(inlet, far_off, outbox, settings)
        assert [loop.step(at) for at in (0.0, 1.0)] == ["", ""]
        assert outbox.depth() == 1
        assert outbox.refused() == []


@pytest.mark.parametrize("model", [learnt(0.3), network()], ids=["near", "of-an-earlier-release"])
def test_a_like_slice_and_one_of_unknown_likeness_are_read(tmp_path: Path, model: bytes) -> None:
    """A slice near what was learnt is read, and so is every slice by a network that does not tell."""
    frame = CapturedFrame("a.png", slice_file(), "image/png", "here", "", datetime(2026, 3, 1, tzinfo=UTC))
    served = filled_slot(tmp_path / "models", release(1, model)).current
    assert served is not None
    limit = 50.0
    read = read_slice(frame, served, IDENTITY, 1, ORIGINALS, lambda data: crop(decode_image(data)).pixels, limit)
    assert read.sequence == 1
    far = filled_slot(tmp_path / "far", release(1, learnt(5.0))).current
    assert far is not None
    with pytest.raises(PictureRefusedError, match="unlike anything"):
        read_slice(frame, far, IDENTITY, 1, ORIGINALS, lambda data: crop(decode_image(data)).pixels, limit)
