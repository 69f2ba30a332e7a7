"""The reading loop takes frames from the folder to the outbox; what stands in the way is said, and loses nothing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from edge_parts import (
    NOW,
    TRUSTED,
    TinyRelease,
    assigned,
    body,
    dark_slice,
    dicom_file,
    filled_slot,
    golden,
    golden_slices,
    image_file,
    named,
    network,
    png_claiming,
    quiet_link,
    release,
    slice_file,
)

from broker.errors import WindowFullError
from broker.messages import Outbound
from broker.session import Session
from edge_agent.app import MAX_FAILURES, ReadingLoop
from edge_agent.capture.replay import ReplaySource
from edge_agent.inlet import FolderInlet
from edge_agent.link import Link
from edge_agent.model_slot import ModelSlot
from edge_agent.outbox import Outbox
from edge_agent.reading import EdgeIdentity, OriginalsPolicy
from edge_agent.settings import EdgeSettings, ReplaySettings
from protocol.codec import decode
from protocol.messages import ModelPhase, ModelReported, SliceRead
from protocol.topics import Kind
from training.model.reader import Calibration, OnnxReader


@dataclass
class Bench:
    """One edge without its two threads: every round is a call, at a time that the test chooses."""

    inbox: Path
    slot: ModelSlot
    outbox: Outbox
    link: Link
    loop: ReadingLoop
    now_s: float = 0.0
    assigned: int = 0

    def rounds(self, count: int) -> list[str]:
        """Do so many rounds, a second apart; return what stood in the way."""
        said = []
        for _ in range(count):
            said.append(self.loop.step(self.now_s))
            self.link.updater.step(self.now_s, NOW)
            self.now_s += 1.0
        return said

    def read(self) -> list[SliceRead]:
        """Decode the slices in the outbox, in the order in which they were read."""
        slices = [
            decode(each.kind, each.payload, each.user_properties).message
            for each in self.outbox.pending(100)
            if each.kind is Kind.SLICE
        ]
        return sorted(slices, key=lambda each: each.sequence)

    def bring(self, offered: TinyRelease) -> None:
        """Let a release arrive; nobody answers its reports, since there is no broker."""
        updater = self.link.updater
        self.assigned += 1
        updater.hear_assignment(assigned(offered, self.assigned), NOW)
        updater.offer(offered.envelope, NOW)
        for chunks in (offered.pieces, offered.chunks):
            for sha256, chunk in chunks.items():
                updater.chunk(sha256, chunk, self.now_s)
            updater.step(self.now_s, NOW)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with ExitStack() as stack:

        def make(slot: ModelSlot | None = None, *, follow: bool = True, max_rows: int = 1000) -> Bench:
            inbox = tmp_path / "inbox"
            inbox.mkdir(exist_ok=True)
            slot = slot or filled_slot(tmp_path / "models")
            replay = ReplaySettings(folder=inbox, interval_s=0, follow=follow)
            settings = EdgeSettings(
                site="site-a",
                edge="edge-1",
                data_dir=tmp_path,
                replay=replay,
                trusted_keys_dir=tmp_path,
                shadow_slices=0,
                probation_slices=5,
            )
            identity = EdgeIdentity("site-a", "edge-1", "boot-1", b"a secret of the site")
            outbox = stack.enter_context(Outbox(tmp_path / "outbox", max_rows=max_rows, max_bytes=10_000_000))
            link = quiet_link(settings, identity, outbox, slot)
            originals = OriginalsPolicy(send=False, send_dicom=False, max_bytes=0)
            inlet = FolderInlet(ReplaySource(replay, outbox.is_captured, max_file_bytes=1_000_000), outbox)
            return Bench(inbox, slot, outbox, link, ReadingLoop(inlet, slot, outbox, link, identity, originals))

        yield make


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"", "0 bytes are neither"),
        ("a.png", b"this is a text, not an image", "neither PNG, JPEG nor DICOM"),
        ("a.png", slice_file()[:3000], "damaged or cut off"),
        ("a.jpg", image_file(body(), "JPEG")[:500], "damaged or cut off"),
        ("a.dcm", dicom_file()[:500], "DICOM"),
        ("a.dcm", slice_file()[:200], "damaged or cut off"),
        ("a.png", image_file(np.zeros((1, 1), np.uint8)), "1x1 px is no slice"),
        ("a.png", png_claiming(20_000, 20_000), "exceeds 64,000,000 pixels"),
        ("a.png", png_claiming(9_000, 9_000), "9000x9000 px exceed"),
        ("a.png", image_file(np.zeros((256, 256), np.uint8)), "one grey"),
        ("a.png", bytes(1_000_001), "edge.max_file_bytes"),
    ],
)
def test_what_is_no_slice_is_refused_and_the_next_one_is_read(
    bench: Callable[..., Bench], name: str, content: bytes, reason: str
) -> None:
    """A bad file is recorded with its reason, once, and holds nobody up."""
    edge = bench()
    (edge.inbox / name).write_bytes(content)
    (edge.inbox / "b.png").write_bytes(slice_file())
    assert edge.rounds(4) == [""] * 4
    ((key, why),) = edge.outbox.refused()
    assert named(key) == name
    assert reason in why
    assert [slice_.sequence for slice_ in edge.read()] == [1]


def test_a_file_that_cannot_be_read_is_refused_and_the_next_one_is_read(bench: Callable[..., Bench]) -> None:
    """A file that the system does not give is recorded with its reason."""
    unreadable = Path("/proc/self/mem")
    if not unreadable.exists():
        pytest.skip("this system has no /proc/self/mem, a file that nobody can read from its start")
    edge = bench()
    (edge.inbox / "a.png").symlink_to(unreadable)
    (edge.inbox / "b.png").write_bytes(slice_file())
    edge.rounds(3)
    assert [named(key) for key, _ in edge.outbox.refused()] == ["a.png"]
    assert len(edge.read()) == 1


def test_slices_are_numbered_without_a_gap(bench: Callable[..., Bench]) -> None:
    """Numbers count the slices that were kept; refused files take none, and a restart goes on counting."""
    edge = bench()
    for number in range(4):
        (edge.inbox / f"{number}.png").write_bytes(slice_file(number) if number != 1 else b"garbage")
    edge.rounds(6)
    again = bench(edge.slot)
    (edge.inbox / "9.png").write_bytes(slice_file(9))
    again.rounds(3)
    assert [slice_.sequence for slice_ in again.read()] == [1, 2, 3, 4]


def test_a_full_outbox_refuses_the_slice_and_reads_it_later(bench: Callable[..., Bench]) -> None:
    """A full outbox is said; after a receipt the slice that waited is kept, in its order, and none is lost."""
    edge = bench(max_rows=2)
    for number in range(3):
        (edge.inbox / f"{number}.png").write_bytes(slice_file(number))
    said = edge.rounds(5)
    assert said[:2] == ["", ""]
    assert all("outbox full (2 of 2 rows): new slice refused" in problem for problem in said[2:])
    edge.outbox.delete([edge.outbox.pending(1)[0].message_id])
    assert edge.rounds(1) == [""]
    assert len(edge.read()) == 2
    assert edge.read()[-1].sequence == 3


def test_without_a_model_frames_wait(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A new edge reads nothing and says what it waits for; the first release reads what lay there."""
    edge = bench(ModelSlot(tmp_path / "none", [TRUSTED]))
    (edge.inbox / "a.png").write_bytes(slice_file())
    assert "waiting for a signed release" in edge.rounds(1)[0]
    edge.bring(release(1))
    assert edge.rounds(1) == [""]
    assert [slice_.reading.model.version for slice_ in edge.read()] == [1]


def test_a_missing_and_an_empty_folder_are_said(bench: Callable[..., Bench]) -> None:
    """What stands in the way is said in words, and when it is gone the reading goes on."""
    edge = bench()
    assert "holds no PNG, JPEG or DICOM file yet" in edge.rounds(1)[0]
    edge.inbox.rmdir()
    assert "does not exist" in edge.rounds(1)[0]
    edge.inbox.mkdir()
    (edge.inbox / "a.png").write_bytes(slice_file())
    assert edge.rounds(1) == [""]
    assert len(edge.read()) == 1


def test_a_swap_misses_no_slice(bench: Callable[..., Bench]) -> None:
    """Slices before the swap are read by the old model, those after it by the new one, and none by neither."""
    edge = bench()
    for number in range(10):
        (edge.inbox / f"{number}.png").write_bytes(slice_file(number))
    edge.rounds(4)
    edge.bring(release(2))
    edge.rounds(6)
    assert [slice_.reading.model.version for slice_ in edge.read()] == [1] * 4 + [2] * 6
    assert [slice_.sequence for slice_ in edge.read()] == list(range(1, 11))
    assert edge.link.updater.reported.phase is ModelPhase.ACTIVE


def test_a_model_that_fails_on_a_slice_is_rolled_back_and_the_slice_is_read(bench: Callable[..., Bench]) -> None:
    """The network passes its golden slices and answers NaN on a real one: the old model reads that slice."""
    broken, slices = network(fault="dark"), golden_slices()
    answers = OnnxReader(broken, Calibration()).logits(slices)
    assert np.isfinite(answers).all()
    edge = bench()
    edge.bring(release(2, broken, golden(answers, slices)))
    assert edge.slot.running_version == 2
    (edge.inbox / "a.png").write_bytes(dark_slice())
    said = edge.rounds(2)
    assert "the network failed on a slice; it is read again" in said[0]
    assert said[1] == ""
    assert edge.link.updater.reported.phase is ModelPhase.ROLLED_BACK
    assert "NotFiniteError" in edge.link.updater.reported.reason
    assert [slice_.reading.model.version for slice_ in edge.read()] == [1]


def test_a_picture_that_cannot_be_prepared_says_nothing_of_the_network(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever preparation raises on a model's probation: the picture is refused in the end, and the model stays."""
    edge = bench()
    edge.bring(release(2))
    (edge.inbox / "a.png").write_bytes(slice_file(0))

    def fail(_inlet: FolderInlet, _data: bytes) -> None:
        raise cv2.error("(-215:Assertion failed) !_src.empty()")

    with monkeypatch.context() as spoiled:
        spoiled.setattr(FolderInlet, "prepare", fail)
        said = edge.rounds(MAX_FAILURES)
    assert "a slice could not be prepared; it is read again" in said[0]
    assert said[-1] == ""
    assert edge.outbox.refused_count() == 1
    assert edge.slot.running_version == 2
    assert edge.slot.banned == ()


def test_a_report_that_finds_no_room_on_the_line_is_said_later(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While slices fill the window of a slow line a release may come to its end: its rollout waits for that report."""
    link, full, said = bench().link, [True], list[ModelReported]()

    def publish(_session: Session, outbound: Outbound) -> None:
        if full:
            raise WindowFullError(50)
        if outbound.topic.endswith(Kind.MODEL_REPORTED):
            message = decode(Kind.MODEL_REPORTED, outbound.payload, outbound.user_properties).message
            assert isinstance(message, ModelReported)
            said.append(message)

    monkeypatch.setattr(Session, "connected", True)
    monkeypatch.setattr(Session, "publish", publish)
    link.updater.offer(b"garbage", NOW)
    link.step(0.0)
    full.clear()
    link.step(1.0)
    link.step(2.0)
    assert [report.phase for report in said] == [ModelPhase.REJECTED]
