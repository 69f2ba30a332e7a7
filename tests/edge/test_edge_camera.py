"""`sliceloop edge` as a real process before a camera in the network, whose pictures are simulated."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edge_parts import DEADLINE_S, EdgeProcess, filled_slot, trusted_folder, wait_until, write_edge_config
from mjpeg_camera import MjpegCamera
from numpy.typing import NDArray

from broker.embedded import EmbeddedBroker
from broker.session import Session
from broker.settings import BrokerSettings
from edge_agent.refusal import Refusal, sentence
from protocol.codec import decode
from protocol.labels import Label
from protocol.messages import SliceRead, Status
from protocol.topics import Kind, parse
from training.data.phantom import SITES, render_slice
from training.screen_camera import EmptyScene, Family, empty_scene, shoot
from training.screen_camera.named import NamedFrame, named_frame

Frame = NDArray[np.uint8]
ROOT = "sliceloop/v1/site-a/edge-1"


def phantom(patient: int) -> Frame:
    return render_slice(seed=3, site=SITES["site-a"], label=Label.NORMAL, patient=patient, z=0.5)


def shown(patient: int) -> Frame:
    return shoot(phantom(patient), severity=0.6, seed=patient, family=Family.TRAINING).frame


class Theatre:
    """A camera that shows one frame with a little noise, and what is heard of the edge that looks at it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._noise = np.random.default_rng(0).integers(-3, 4, (8, 720, 1280, 3), np.int16)
        self.frame: Frame = empty_scene(EmptyScene.DESK, severity=0.6, seed=1, family=Family.TRAINING)
        self.camera = MjpegCamera(self._draw)
        self.session = Session(
            BrokerSettings(port=port),
            "tests-theatre",
            subscriptions=[f"{ROOT}/{kind}" for kind in (Kind.SLICE, Kind.STATUS)],
            clean_start=True,
        )
        self.slices: list[SliceRead] = []
        self.status: Status | None = None

    def _draw(self, number: int) -> Frame:
        return np.clip(self.frame + self._noise[number % 8], 0, 255).astype(np.uint8)

    def listen(self) -> None:
        while (inbound := self.session.receive(0.02)) is not None:
            self.session.ack(inbound)
            kind = parse(inbound.topic).kind
            message = decode(kind, inbound.payload, inbound.user_properties).message
            if isinstance(message, SliceRead):
                if message.slice_id not in {each.slice_id for each in self.slices}:
                    self.slices.append(message)
            elif isinstance(message, Status):
                self.status = message

    def until_said(self, words: str, edge: EdgeProcess) -> None:
        """Wait until the status gives this guidance, or names this problem."""

        def is_said() -> bool:
            self.listen()
            return self.status is not None and words in f"{self.status.guidance} {self.status.problem}"

        wait_until(is_said, lambda: f"{words!r} not in {self.status}; {edge.said}")

    def until_read(self, count: int, edge: EdgeProcess) -> None:
        """Wait until so many slices were published."""

        def is_read() -> bool:
            self.listen()
            return len(self.slices) >= count

        wait_until(is_read, lambda: edge.said)


@pytest.fixture
def theatre() -> Iterator[Theatre]:
    with EmbeddedBroker() as broker:
        theatre = Theatre(broker.port)
        with theatre.session, theatre.camera:
            assert theatre.session.wait_connected(DEADLINE_S)
            yield theatre


def test_a_camera_is_read_guides_its_person_and_comes_back(theatre: Theatre, tmp_path: Path) -> None:
    """A desk, a slice, a mirrored slice, the cable pulled, another slice: two readings, and each time it says why."""
    trusted_folder(tmp_path / "trusted")
    filled_slot(tmp_path / "data" / "models")
    config = write_edge_config(tmp_path, port=theatre.port, camera=theatre.camera.address)
    with EdgeProcess(config) as edge:
        theatre.until_said(sentence(Refusal.NO_SLICE), edge)
        theatre.frame = shown(1)
        theatre.until_read(1, edge)
        theatre.frame = named_frame(NamedFrame.MIRRORED, phantom(6), seed=6, family=Family.TRAINING).frame
        theatre.until_said(sentence(Refusal.MIRRORED), edge)
        theatre.camera.switch_off()
        theatre.until_said("camera", edge)
        theatre.frame = shown(2)
        theatre.camera.switch_on()
        theatre.until_read(2, edge)
        assert edge.terminate() == 0
    assert theatre.status is not None
    assert theatre.status.refusals["mirrored"] >= 1
    assert [each.source for each in theatre.slices] == ["webcam", "webcam"]
    assert list((tmp_path / "data" / "refused-pictures").glob("*-mirrored.jpg"))
