"""A release that is offered is verified, fetched, tested, swapped in and watched; one that must not run never is."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from edge_parts import (
    CHUNK_TIMEOUT_S,
    NOW,
    PROBATION_SLICES,
    TRUSTED,
    TalkingUpdater,
    TinyRelease,
    die_reading,
    filled_slot,
    golden,
    golden_slices,
    network,
    release,
)
from numpy.typing import NDArray

from edge_agent.download import FIRST_WINDOW_BYTES
from edge_agent.model_slot import ACTIVE_FILE, MAX_DEATHS_ON_PROBATION, ModelSlot
from protocol.manifest import GOLDEN_FILE, MODEL_FILE
from protocol.messages import ModelPhase
from protocol.signing import generate_signer
from training.model.preprocess import INPUT_PX

Making = Callable[[], TinyRelease]
SWAPPED = [ModelPhase.DOWNLOADING, ModelPhase.TESTING, ModelPhase.PROBATION]


@pytest.fixture
def edge(tmp_path: Path) -> TalkingUpdater:
    """An updater whose slot runs release 1."""
    return TalkingUpdater(filled_slot(tmp_path / "models"))


def restart(edge: TalkingUpdater) -> TalkingUpdater:
    """Start again on the same folder."""
    slot = ModelSlot(edge.slot.folder, [TRUSTED])
    slot.load_active()
    return TalkingUpdater(slot)


def distinct_slices(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, INPUT_PX, INPUT_PX), np.uint8)


# The whole way.


def test_a_release_goes_from_offer_to_active(edge: TalkingUpdater) -> None:
    """Fetched, staged, tested, swapped in, watched for some slices: then it is active, also after a restart."""
    second = release(2)
    edge.bring(second)
    assert edge.phases == SWAPPED
    assert edge.slot.running == second.manifest.model_ref
    edge.read_slices(PROBATION_SLICES - 1)
    assert edge.last.phase is ModelPhase.PROBATION
    edge.read_slices(1)
    assert edge.last.phase is ModelPhase.ACTIVE
    assert edge.last.running == second.manifest.model_ref
    assert restart(edge).slot.running_version == 2


def test_the_first_release_needs_no_predecessor(tmp_path: Path) -> None:
    """A new edge says that it has none, and takes its first release the same way."""
    edge = TalkingUpdater(ModelSlot(tmp_path / "models", [TRUSTED]))
    assert edge.updater.reported.phase is ModelPhase.NONE
    edge.bring(release(1))
    assert edge.phases == SWAPPED
    edge.read_slices(PROBATION_SLICES)
    assert edge.last.phase is ModelPhase.ACTIVE


def test_progress_is_counted_in_chunks(edge: TalkingUpdater) -> None:
    """The reports of a download tell how many chunks are there, of how many, and no oftener than once a second."""
    second = release(2)
    edge.offer(second)
    for _ in range(3):
        edge.step()
    edge.give_wanted(second, CHUNK_TIMEOUT_S)
    loading = [report for report in edge.reports if report.phase is ModelPhase.DOWNLOADING]
    assert [report.chunks_done for report in loading] == [0, 0]
    assert {report.desired_version for report in loading} == {2}
    assert all(report.running is not None and report.running.version == 1 for report in loading)


def test_chunks_are_asked_for_in_windows_and_again_after_a_time(tmp_path: Path) -> None:
    """A bounded number of bytes is on its way; what does not come is asked for again after the timeout."""
    edge = TalkingUpdater(ModelSlot(tmp_path / "models", [TRUSTED]))
    large = release(1, golden_file=golden([[0, 0, 0]] * 40, distinct_slices(40)))
    edge.offer(large)
    edge.step()
    for sha256 in large.wanted(edge.requests.pop()):
        edge.give(sha256, large.chunks[sha256])
    edge.step(0.1)
    edge.step(CHUNK_TIMEOUT_S)
    (first,) = edge.requests
    asked = large.wanted(first)
    assert sum(len(large.chunks[sha256]) for sha256 in asked) <= FIRST_WINDOW_BYTES
    assert len(asked) < len(large.chunks) / 3
    edge.step(0.1 + CHUNK_TIMEOUT_S)
    again = large.wanted(edge.requests[1])
    assert set(again) < set(asked)
    edge.give_wanted(large, 0.1 + 2 * CHUNK_TIMEOUT_S)
    assert edge.slot.running_version == 0
    assert "SelfTestError" in edge.last.reason


def test_after_a_cut_line_all_that_was_on_its_way_is_asked_for_at_once(edge: TalkingUpdater) -> None:
    """A new connection starts with empty hands, and nobody waits for a timeout."""
    second = release(2)
    edge.offer(second)
    edge.step()
    edge.updater.line_was_cut()
    edge.step(0.1)
    assert [second.wanted(request) for request in edge.requests] == [second.wanted(edge.requests[0])] * 2


def test_a_release_that_is_offered_again_changes_nothing(edge: TalkingUpdater) -> None:
    """The retained message comes with each connection: a download goes on, a running release is not fetched."""
    second = release(2)
    edge.offer(second)
    edge.step(0.0)
    edge.offer(second)
    edge.step(0.1)
    assert len(edge.requests) == 1
    edge.give_wanted(second, CHUNK_TIMEOUT_S)
    edge.read_slices(PROBATION_SLICES)
    asked = len(edge.requests)
    edge.bring(second)
    assert len(edge.requests) == asked
    assert edge.last.phase is ModelPhase.ACTIVE


def test_a_newer_release_takes_the_place_of_a_download(edge: TalkingUpdater) -> None:
    """While one release is on its way a newer one may come; chunks that both share are not fetched twice."""
    second, third = (release(version, network((1, 2, 3)), temperature=1.0 + version) for version in (2, 3))
    asked = begun(edge, second)
    for sha256 in asked:
        edge.give(sha256, second.chunks[sha256])
    edge.requests.clear()
    edge.bring(third)
    assert edge.slot.running_version == 3
    assert asked
    assert not {sha256 for request in edge.requests for sha256 in third.wanted(request)} & set(asked)


# What must not run.


@pytest.mark.parametrize(
    ("made", "fault", "version"),
    [
        (lambda: release(2, signer=generate_signer()), "WrongKeyError: signed by no trusted key", 0),
        (lambda: release(2, expires_at=NOW - timedelta(seconds=1)), "ExpiredManifestError", 2),
        (lambda: release(2, preprocessing_version=2), "OtherPreprocessingError: version 2 needs preprocessing 2", 2),
    ],
)
def test_a_release_that_is_not_trusted_is_not_fetched(
    edge: TalkingUpdater, made: Making, fault: str, version: int
) -> None:
    """A foreign signature, a passed expiry or a need that we do not have: reported once with its reason.

    Under its version, or under none where no trusted signature says which it is; never under the one in use.
    """
    bad = made()
    for _ in range(3):
        edge.bring(bad)
    assert edge.requests == []
    assert [report.phase for report in edge.reports] == [ModelPhase.REJECTED]
    assert fault in edge.last.reason
    assert edge.last.desired_version == version
    assert edge.slot.running_version == 1


def test_an_older_release_is_refused(tmp_path: Path) -> None:
    """Versions only grow: a signed release of yesterday is no way back."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models", release(4), release(5)))
    edge.bring(release(4))
    assert "OldVersionError: version 4" in edge.last.reason
    assert edge.last.desired_version == 4
    assert edge.requests == []
    assert edge.slot.running_version == 5


@pytest.mark.parametrize(
    "garbage", [b"\0", b"garbage", b"{}", b"[]", b"null", b'{"payload": 1}', release(2).envelope[:-20], bytes(200_000)]
)
def test_garbage_on_the_model_update_topic_is_reported(edge: TalkingUpdater, garbage: bytes) -> None:
    """Bytes that are no envelope are named as such, and the model in use goes on."""
    edge.updater.offer(garbage, NOW)
    edge.step(0.0)
    assert "EnvelopeError" in edge.last.reason
    assert edge.last.phase is ModelPhase.REJECTED
    assert edge.last.desired_version == 0
    assert edge.slot.running_version == 1
    edge.bring(release(2))
    assert edge.slot.running_version == 2


def test_chunks_that_nobody_asked_for_are_dropped(edge: TalkingUpdater) -> None:
    """A chunk without a download, or of another release, is not kept."""
    second, third = release(2), release(3)
    edge.give("0" * 64, b"garbage")
    edge.offer(second)
    foreign = next(sha256 for sha256 in third.chunks if sha256 not in second.chunks)
    edge.give(foreign, third.chunks[foreign])
    edge.give("../../escape", b"garbage")
    kept = [path for path in edge.slot.folder.rglob("*") if path.is_file() and "incoming" in path.parts]
    assert kept == []


@pytest.mark.parametrize("garbage", [b"", b"garbage", bytes(70_000)])
def test_a_chunk_with_another_hash_is_dropped_and_asked_for_again(edge: TalkingUpdater, garbage: bytes) -> None:
    """Bytes that are not the chunk's do not count: it is asked for again, and the release still arrives."""
    second = release(2)
    edge.offer(second)
    edge.step()
    for sha256 in second.wanted(edge.requests[0]):
        edge.give(sha256, garbage)
    edge.step(CHUNK_TIMEOUT_S)
    assert second.wanted(edge.requests[1]) == second.wanted(edge.requests[0])
    edge.give_wanted(second, 2 * CHUNK_TIMEOUT_S)
    assert edge.slot.running_version == 2


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (lambda: release(2, described={MODEL_FILE: b"other"}), "HashMismatchError: model.onnx"),
        (lambda: release(2, described={GOLDEN_FILE: b"other"}), "HashMismatchError: golden.cbor"),
        (lambda: release(2, golden_file=golden([[0, 0, 9]] * 3, golden_slices())), "SelfTestError: logits"),
        (lambda: release(2, golden_file=b"garbage"), "SelfTestError: the golden slices cannot be read"),
        (lambda: release(2, b"no network", golden([[0, 0, 9]] * 3, golden_slices())), "UnreadableNetworkError"),
        (lambda: release(2, network()[:-40], golden([[0, 0, 9]] * 3, golden_slices())), "UnreadableNetworkError"),
        (lambda: release(2, network(fault="index"), golden([[0, 0, 9]] * 3, golden_slices())), "SelfTestError"),
        (lambda: release(2, network((float("nan"), 0, 0)), golden([[0, 0, 9]] * 3, golden_slices())), "not finite"),
    ],
)
def test_a_release_that_does_not_hold_what_it_says_is_not_swapped_in(
    edge: TalkingUpdater, made: Making, fault: str
) -> None:
    """Wrong hashes, a broken network, golden slices that disagree: rejected with the reason, and not fetched again."""
    bad = made()
    edge.bring(bad)
    assert edge.phases == [ModelPhase.DOWNLOADING, ModelPhase.TESTING, ModelPhase.REJECTED]
    assert edge.last.desired_version == 2
    assert fault in edge.last.reason
    assert edge.slot.running_version == 1
    asked = len(edge.requests)
    edge.bring(bad)
    assert len(edge.requests) == asked
    assert edge.last.desired_version == 2
    assert restart(edge).slot.running_version == 1
    edge.bring(release(3))
    assert edge.slot.running_version == 3


# Probation.


def test_a_model_that_fails_on_slices_is_rolled_back(edge: TalkingUpdater) -> None:
    """One failed reading in probation brings the predecessor back, with the reason; the release is not tried again."""
    second = release(2)
    edge.bring(second)
    edge.read_slices(1)
    edge.read_slices(1, fault="NotFiniteError: the logits are nan")
    assert edge.last.phase is ModelPhase.ROLLED_BACK
    assert edge.last.reason == "NotFiniteError: the logits are nan"
    assert edge.last.desired_version == 2
    assert edge.slot.running_version == 1
    assert restart(edge).slot.running_version == 1
    edge.bring(second)
    assert edge.slot.running_version == 1
    edge.bring(release(3))
    edge.read_slices(PROBATION_SLICES)
    assert edge.slot.running_version == 3
    assert edge.last.phase is ModelPhase.ACTIVE


def test_the_end_of_a_probation_is_reported_under_its_own_version(edge: TalkingUpdater) -> None:
    """While the next release waits for it, what became of the one on probation is not said of the next."""
    edge.bring(release(2))
    edge.bring(release(3))
    edge.read_slices(PROBATION_SLICES)
    said = [(report.phase, report.desired_version) for report in edge.reports[-3:]]
    assert said == [(ModelPhase.ACTIVE, 2), (ModelPhase.TESTING, 3), (ModelPhase.PROBATION, 3)]


@pytest.mark.parametrize("version", [1, 2])
def test_a_first_model_that_was_left_out_may_come_again(tmp_path: Path, version: int) -> None:
    """An edge whose process died on its only model takes it once more when it is offered, or the next one."""
    edge = TalkingUpdater(ModelSlot(tmp_path / "models", [TRUSTED]))
    edge.bring(release(1))
    for _ in range(MAX_DEATHS_ON_PROBATION):
        die_reading(edge.slot)
        edge = restart(edge)
    assert edge.slot.current is None
    edge.bring(release(version))
    edge.read_slices(PROBATION_SLICES)
    assert edge.last.phase is ModelPhase.ACTIVE
    assert edge.slot.running_version == version


def test_readings_of_the_predecessor_do_not_count(edge: TalkingUpdater) -> None:
    """A slice that the old model was reading while the new one came in says nothing of the new one."""
    edge.bring(release(2))
    for _ in range(PROBATION_SLICES):
        edge.updater.slice_was_read(1)
    edge.updater.slice_was_read(1, fault="a fault of the old model")
    edge.step(0.0)
    assert edge.last.phase is ModelPhase.PROBATION
    assert edge.slot.running_version == 2


class Interrupted(ModelSlot):
    """A slot with something that happens between any two of its steps."""

    between: Callable[[], None] = staticmethod(lambda: None)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        self.between()


def test_a_fault_of_the_predecessor_in_the_midst_of_the_swap_does_not_count(tmp_path: Path) -> None:
    """The reading thread may fail with the old model at any moment of the swap: that is not the new one's fault."""
    filled_slot(tmp_path / "models")
    slot = Interrupted(tmp_path / "models", [TRUSTED])
    slot.load_active()
    edge = TalkingUpdater(slot)
    slot.__dict__["between"] = lambda: edge.updater.slice_was_read(1, fault="a fault of the old model")
    edge.bring(release(2))
    edge.step()
    assert edge.last.phase is ModelPhase.PROBATION
    assert slot.running_version == 2


@pytest.mark.parametrize(
    "disturbance",
    [release(3, signer=generate_signer()), release(1), release(2), release(3)],
    ids=["a stranger's", "an older one", "itself", "a newer one"],
)
def test_nothing_that_is_offered_ends_a_probation(edge: TalkingUpdater, disturbance: TinyRelease) -> None:
    """Whatever is assigned and brought in the midst of it, good or bad: a model that fails is still rolled back."""
    edge.bring(release(2))
    edge.updater.offer(b"garbage", NOW)
    edge.bring(disturbance)
    assert edge.slot.running_version == 2
    edge.read_slices(1, fault="NotFiniteError")
    assert ModelPhase.ROLLED_BACK in edge.phases
    assert edge.last.banned == (2,)
    assert edge.slot.running_version in (1, 3)


@pytest.mark.parametrize("disturbance", [b"garbage", release(1).envelope])
def test_a_probation_that_was_disturbed_still_ends_well(edge: TalkingUpdater, disturbance: bytes) -> None:
    """After a refused offer the clean readings still count, and the model is reported as active."""
    edge.bring(release(2))
    edge.updater.offer(disturbance, NOW)
    edge.read_slices(PROBATION_SLICES)
    assert edge.last.phase is ModelPhase.ACTIVE
    assert edge.slot.running_version == 2


# Restarts and disks.


def begun(edge: TalkingUpdater, made: TinyRelease) -> list[str]:
    """Bring a release so far that its chunks are asked for; return them."""
    edge.offer(made)
    edge.step()
    for sha256 in made.wanted(edge.requests[-1]):
        edge.give(sha256, made.chunks[sha256])
    edge.step()
    return made.wanted(edge.requests[-1])


def test_a_download_goes_on_after_a_restart(edge: TalkingUpdater) -> None:
    """With half of the chunks on disk only the other half is asked for."""
    second = release(2)
    asked = begun(edge, second)
    half = asked[: len(asked) // 2]
    for sha256 in half:
        edge.give(sha256, second.chunks[sha256])
    after = restart(edge)
    assert after.slot.running_version == 1
    after.bring(second)
    assert [sha256 for request in after.requests for sha256 in second.wanted(request)] == asked[len(half) :]
    assert after.slot.running_version == 2


def test_a_chunk_that_was_damaged_on_disk_is_fetched_again(edge: TalkingUpdater) -> None:
    """A kept chunk that is no longer what it was costs one more request, not the release."""
    second = release(2)
    first, *others = begun(edge, second)
    for sha256 in (first, *others[:-1]):
        edge.give(sha256, second.chunks[sha256])
    (edge.slot.folder / "incoming" / first).write_bytes(b"damaged")
    after = restart(edge)
    after.bring(second)
    assert [set(second.wanted(request)) for request in after.requests] == [{others[-1], first}]
    assert after.slot.running_version == 2


def test_a_chunk_that_is_damaged_under_way_is_fetched_again(edge: TalkingUpdater) -> None:
    """What changes on the disk between its arrival and its use is found before it is used."""
    second = release(2)
    first, *others = begun(edge, second)
    edge.give(first, second.chunks[first])
    (edge.slot.folder / "incoming" / first).write_bytes(b"damaged")
    for sha256 in others:
        edge.give(sha256, second.chunks[sha256])
    edge.step()
    assert edge.slot.running_version == 1
    edge.give_wanted(second, CHUNK_TIMEOUT_S)
    assert edge.slot.running_version == 2


def test_a_chunk_that_the_disk_does_not_take_is_asked_for_again(edge: TalkingUpdater) -> None:
    """While chunks cannot be written the model in use goes on; once they can, the release arrives."""
    second = release(2)
    blocked = edge.slot.folder / "incoming"
    blocked.write_text("a file where the folder should be")
    edge.offer(second)
    edge.step()
    for sha256 in second.wanted(edge.requests[0]):
        edge.give(sha256, second.chunks[sha256])
    edge.step(1.0)
    assert edge.last.phase is ModelPhase.DOWNLOADING
    assert edge.slot.running_version == 1
    blocked.unlink()
    edge.give_wanted(second, CHUNK_TIMEOUT_S)
    assert edge.slot.running_version == 2


@pytest.mark.parametrize("blocked", ["00000002", f"{ACTIVE_FILE}.part"])
def test_a_release_that_the_disk_does_not_take_may_come_again(edge: TalkingUpdater, blocked: str) -> None:
    """When staging or swapping cannot be written that is reported; offered again after the repair, the release runs."""
    place = edge.slot.folder / blocked
    if blocked == "00000002":
        place.write_text("a file where the release's folder should be")
    else:
        place.mkdir()
    second = release(2)
    edge.bring(second)
    assert edge.last.phase is ModelPhase.TESTING
    assert "cannot be stored" in edge.last.reason
    assert edge.last.desired_version == 2
    assert edge.last.banned == ()
    assert edge.slot.running_version == 1
    assert restart(edge).slot.running_version == 1
    place.unlink() if place.is_file() else place.rmdir()
    edge.bring(second)
    assert edge.slot.running_version == 2


def test_a_roll_back_needs_no_disk(edge: TalkingUpdater) -> None:
    """A failing model leaves the slot although active.json cannot be written, and the updater goes on."""
    edge.bring(release(2))
    (edge.slot.folder / f"{ACTIVE_FILE}.part").mkdir()
    edge.read_slices(1, fault="NotFiniteError")
    assert edge.slot.running_version == 1
    assert edge.last.phase is ModelPhase.ROLLED_BACK


def test_the_end_of_a_probation_needs_no_disk(edge: TalkingUpdater) -> None:
    """It is said once, and the next release may come, although active.json cannot be written."""
    edge.bring(release(2))
    full = edge.slot.folder / f"{ACTIVE_FILE}.part"
    full.mkdir()
    edge.read_slices(PROBATION_SLICES + 3)
    assert [report.phase for report in edge.reports].count(ModelPhase.ACTIVE) == 1
    assert not edge.slot.on_probation
    full.rmdir()
    edge.bring(release(3))
    assert edge.slot.running_version == 3


def test_the_slot_is_never_without_a_model(edge: TalkingUpdater) -> None:
    """Between any two things that the updater does there is a model to read with, good releases and bad ones alike."""
    slices = golden_slices(1)
    bad = release(3, golden_file=golden([[0, 0, 9]] * 3, golden_slices()))
    for each in (release(2), bad, release(4, b"no network", b"x"), release(5, signer=generate_signer()), release(6)):
        edge.offer(each)
        for now_s in range(4):
            edge.step(now_s * CHUNK_TIMEOUT_S)
            for sha256, data in list(each.chunks.items())[:: 2 if now_s == 0 else 1]:
                edge.give(sha256, data)
                assert edge.slot.current is not None
            edge.step(now_s * CHUNK_TIMEOUT_S)
            assert edge.slot.current is not None
            assert edge.slot.current.reader.logits(slices).shape == (1, 3)
        edge.read_slices(1, fault="a fault" if each.manifest.version == 2 else "")
        assert edge.slot.current is not None
    assert edge.slot.running_version == 6
