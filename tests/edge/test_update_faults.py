"""What is the box's, the clock's or the line's fault bans no release and stops no edge; what is not assigned stops."""

import errno
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
import structlog
from edge_parts import (
    ASSIGNER,
    CHUNK_TIMEOUT_S,
    KEYS,
    NOW,
    PROBATION_SLICES,
    SIGNER,
    TRUSTED,
    AtOnce,
    TalkingUpdater,
    assigned,
    die_loading,
    filled_slot,
    reading_of,
    release,
    untried,
    wait_until,
)
from securesystemslib.signer import CryptoSigner

from edge_agent.by_url import Run, UrlFetch
from edge_agent.delivery import PATIENCE_S
from edge_agent.download import MOST_WINDOW_BYTES, Way
from edge_agent.model_slot import MAX_DEATHS_LOADING, ModelSlot, SelfTestError, ServedModel
from edge_agent.probation import Role
from edge_agent.staging import Trial
from edge_agent.trial import TrialDiedError, TrialStoppedError, TrialTimeoutError
from edge_agent.trust import ASSIGNED_FILE, KEYS_FILE, EdgeTrust
from edge_agent.updater import Pace, Proving, Updater, Voice
from edge_agent.watch import Known
from protocol.chunks import Chunk, sha256_of
from protocol.errors import ReplayedAssignmentError
from protocol.manifest import MODEL_FILE, Manifest
from protocol.messages import ModelPhase
from protocol.rotation import KeyRotation, bundle, sign_rotation
from protocol.signing import MAX_ENVELOPE_BYTES, generate_signer, public_key_json
from training.model.reader import OutOfMemoryError


@pytest.fixture
def edge(tmp_path: Path) -> TalkingUpdater:
    """An updater whose slot runs release 1."""
    return TalkingUpdater(filled_slot(tmp_path / "models"))


# Clock and news.


def test_a_fresh_assignment_ends_a_freeze(edge: TalkingUpdater) -> None:
    """The release that was refused while news stayed away is taken as soon as a fresh assignment names it."""
    second, late = release(2), NOW + timedelta(days=4)
    edge.assign(second)
    edge.updater.offer(second.envelope, late)
    assert "FrozenError" in edge.last.reason
    edge.updater.hear_assignment(assigned(second, 2, now=late), late)
    edge.give_wanted(second)
    assert edge.slot.running_version == 2


def test_a_freeze_stops_a_download(edge: TalkingUpdater) -> None:
    """When the assignment expires under way nothing more is fetched; once news is fresh again the rest is."""
    second, late = release(2), NOW + timedelta(days=4)
    edge.offer(second)
    edge.step()
    for sha256 in second.wanted(edge.requests[0]):
        edge.give(sha256, second.chunks[sha256])
    asked = len(edge.requests)
    edge.step(CHUNK_TIMEOUT_S, late)
    edge.step(2 * CHUNK_TIMEOUT_S, late)
    assert len(edge.requests) == asked
    assert "FrozenError" in edge.last.reason
    edge.give_wanted(second, 3 * CHUNK_TIMEOUT_S)  # the clock was wrong, and is right again
    assert edge.slot.running_version == 2


def test_a_freeze_stops_a_candidate(tmp_path: Path) -> None:
    """What nobody stands for any more does not take the place of the model in use, however long it is watched."""
    edge, second = TalkingUpdater(filled_slot(tmp_path / "models"), shadow_slices=2), release(2)
    late = NOW + timedelta(days=4)
    edge.bring(second)
    edge.step(1.0, late)
    model = edge.slot.current
    assert model is not None
    for number in range(5):
        edge.updater.slice_was_read(1, reading_of(model, number))
        edge.step(now=late)
    assert edge.slot.running_version == 1
    edge.assign(second, late)
    edge.step(now=late)
    for number in range(2):
        edge.updater.slice_was_read(1, reading_of(model, number))
        edge.step(now=late)
    assert edge.slot.running_version == 2


def test_a_clock_that_was_wrong_is_set_right(edge: TalkingUpdater) -> None:
    """A release that seemed to have expired is taken at the next word of the cloud, once the clock is right."""
    second = release(2)
    edge.offer(second, NOW + timedelta(days=400))
    assert "ExpiredManifestError" in edge.last.reason
    reports = len(edge.reports)
    edge.updater.offer(second.envelope, NOW + timedelta(days=400))
    assert len(edge.reports) == reports
    edge.bring(second)
    assert edge.slot.running_version == 2


# The box.


def failing(errors: list[Exception]) -> Callable[[Path, Manifest], None]:
    """Return a trial that raises these one after another, and then finds nothing."""

    def trial(_folder: Path, _manifest: Manifest) -> None:
        if errors:
            raise errors.pop(0)

    return trial


def test_a_trial_that_the_agents_end_stopped_bans_nothing(tmp_path: Path) -> None:
    """It found nothing out: after the restart the release is tried again."""
    slot = filled_slot(tmp_path / "models")
    edge = TalkingUpdater(slot, trial=failing([TrialStoppedError("stopped")]))
    edge.bring(release(2))
    assert edge.slot.banned == ()
    after = TalkingUpdater(slot)
    after.bring(release(2))
    assert after.slot.running_version == 2


@pytest.mark.parametrize(
    "error",
    [
        TrialTimeoutError("no answer"),
        TrialDiedError("killed"),
        MemoryError(),
        OutOfMemoryError("no memory to load the network"),
        OSError(errno.EAGAIN, "fork"),
    ],
)
def test_a_box_that_was_busy_or_full_for_a_while_bans_nothing(tmp_path: Path, error: Exception) -> None:
    """A trial without an answer says little of the network: it is tried again a minute later, without the cloud."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), trial=failing([error]))
    edge.bring(release(2))
    assert edge.slot.banned == ()
    assert edge.slot.running_version == 1
    assert edge.last.phase is not ModelPhase.REJECTED
    edge.step(61.0)
    edge.give_wanted(release(2))
    assert edge.slot.running_version == 2


def test_a_network_that_never_answers_is_banned_in_the_end(tmp_path: Path) -> None:
    """After three trials without an answer the edge believes that it is the network."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), trial=failing([TrialTimeoutError("no answer")] * 3))
    edge.bring(release(2))
    edge.step(61.0)
    assert edge.slot.banned == ()
    edge.step(122.0)
    assert edge.slot.banned == (2,)
    assert edge.last.phase is ModelPhase.REJECTED
    assert "TrialTimeoutError" in edge.last.reason


def test_a_release_that_ends_the_agent_when_it_is_loaded_is_banned_in_the_end(tmp_path: Path) -> None:
    """Its trial goes well, since it is alone there; beside the model in use it is too much: the edge reads on."""
    slot, second = filled_slot(tmp_path / "models"), release(2)
    slot.store(second.manifest, second.envelope, second.files, {})
    for _ in range(MAX_DEATHS_LOADING):
        slot = opened(tmp_path / "models")
        die_loading(slot, 2)
    edge = TalkingUpdater(opened(tmp_path / "models"))
    edge.bring(second)
    assert edge.last.phase is ModelPhase.REJECTED
    assert "LoadingDiedError" in edge.last.reason
    assert edge.last.banned == (2,)
    assert edge.slot.running_version == 1


def opened(folder: Path) -> ModelSlot:
    """Start on a slot's folder."""
    slot = ModelSlot(folder, [TRUSTED])
    slot.load_active()
    return slot


def test_a_disk_that_fails_to_read_costs_bytes_and_no_agent(
    edge: TalkingUpdater, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of chunks that a bad place on the disk does not give back are fetched again."""
    second = release(2)
    read, failed = Path.read_bytes, set[Path]()

    def failing_read(path: Path) -> bytes:
        if path not in failed and (path.name in second.pieces or path.suffix == ".index"):
            failed.add(path)
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing_read)
    edge.bring(second)
    edge.give_wanted(second, CHUNK_TIMEOUT_S)
    assert edge.slot.running_version == 2
    assert {path.suffix for path in failed} == {"", ".index"}


def test_what_was_given_up_does_not_fill_the_disk(edge: TalkingUpdater, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of releases that came to nothing are kept for the next one, up to a bound; then they are deleted."""
    monkeypatch.setattr("edge_agent.delivery.MAX_INCOMING_BYTES", 9_000)
    incoming = edge.slot.folder / "incoming"
    incoming.mkdir()
    for number in (1, 2):
        data = bytes([number]) * 4_000 * number
        (incoming / sha256_of(data)).write_bytes(data)
        edge.offer(release(1 + number))
        assert incoming.exists() == (number == 1)
    edge.give_wanted(release(3))
    assert edge.slot.running_version == 3


def test_an_assignment_is_written_as_soon_as_there_is_room(edge: TalkingUpdater) -> None:
    """One that came while the disk was full counts at once; when it comes again it is kept, and replays are refused."""
    folder = edge.slot.folder.parent / "trust"
    full = folder / f"{ASSIGNED_FILE}.part"
    full.mkdir(parents=True)
    newest = assigned(release(3), 9)
    edge.updater.hear_assignment(newest, NOW)
    assert edge.last.assignment == 9
    assert "free some space" in edge.last.reason
    full.rmdir()
    edge.updater.hear_assignment(newest, NOW)
    after = EdgeTrust(folder, KEYS, site="site-a", edge="edge-1")
    after.load()
    with pytest.raises(ReplayedAssignmentError):
        after.hear_assignment(assigned(release(2), 8), NOW)


def handed_on(young: CryptoSigner) -> bytes:
    """Return the rotation by which a young key takes the release key's place."""
    rotation = KeyRotation.model_validate(
        {
            "version": 2,
            "created_at": NOW,
            "release_keys": [json.loads(public_key_json(young))],
            "release_threshold": 1,
            "assign_keys": [json.loads(public_key_json(ASSIGNER))],
        }
    )
    return sign_rotation(rotation, [SIGNER], [young])


def test_new_keys_count_though_the_disk_did_not_take_them(edge: TalkingUpdater) -> None:
    """A release by new keys is not banned because these could not be written; they are written when there is room."""
    young = generate_signer()
    said = bundle([handed_on(young)])
    full = edge.slot.folder.parent / "trust" / f"{KEYS_FILE}.part"
    full.mkdir(parents=True)
    edge.updater.hear_keys(said, NOW)
    assert edge.last.keys_version == 2
    edge.bring(release(2, signer=young))
    assert edge.slot.running_version == 2
    full.rmdir()
    edge.updater.hear_keys(said, NOW)
    after = EdgeTrust(edge.slot.folder.parent / "trust", KEYS, site="site-a", edge="edge-1")
    after.load()
    assert after.keys.version == 2


def padded(link: dict[str, object]) -> dict[str, object]:
    """Say besides what makes a chain that may just be heard too long to be written: letters that JSON spells out."""
    room = MAX_ENVELOPE_BYTES - len(json.dumps(link | {"unsigned": ""}))
    spelt_out = chr(233) * 10
    return link | {"unsigned": spelt_out + "x" * (room - len(json.dumps(spelt_out)) + 2)}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda link: [link, {}],
        lambda link: [padded(link)],
    ],
    ids=["garbage behind it", "larger when it is written"],
)
def test_a_chain_that_was_spoiled_on_its_way_bans_no_release(
    edge: TalkingUpdater, spoil: Callable[[dict[str, object]], list[dict[str, object]]]
) -> None:
    """Whoever carries the message may add to it: the edge has the old keys, or the new ones wherever they count."""
    young = generate_signer()
    spoiled = json.dumps({"rotations": spoil(json.loads(handed_on(young)))}, ensure_ascii=False).encode()
    edge.updater.hear_keys(spoiled, NOW)
    edge.updater.hear_keys(bundle([handed_on(young)]), NOW)
    edge.bring(release(2, signer=young))
    assert edge.slot.banned == ()
    assert edge.slot.running_version == 2


def test_a_trial_may_say_whatever_it_likes(tmp_path: Path) -> None:
    """What a process that was taken over answers is no text perhaps; it is reported all the same."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), trial=failing([SelfTestError("half a character: \udcff")]))
    edge.bring(release(2))
    assert edge.last.phase is ModelPhase.REJECTED
    assert edge.last.reason == "SelfTestError: half a character: ?"


# What is not assigned any more.


def test_a_release_that_is_no_longer_assigned_goes_no_further(tmp_path: Path) -> None:
    """When the assignment names another one, a candidate stops, though what follows it has not come yet."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), shadow_slices=2)
    second, third = release(2), release(3)
    edge.bring(second)
    assert edge.last.phase is ModelPhase.SHADOW
    edge.assign(third)
    edge.read_slices(5)
    assert edge.slot.running_version == 1
    edge.step(0.0)
    edge.step(20.0)
    assert edge.last.phase is ModelPhase.ACTIVE
    assert "UnassignedReleaseError" in edge.last.reason
    edge.updater.offer(third.envelope, NOW)
    edge.give_wanted(third)
    edge.read_slices(2)
    assert edge.slot.running_version == 3


def test_a_download_that_is_no_longer_assigned_is_not_swapped_in(edge: TalkingUpdater) -> None:
    """What comes of it later is left; its chunks stay, should it be assigned again."""
    second = release(2)
    edge.offer(second)
    edge.step()
    for sha256 in second.wanted(edge.requests[0]):
        edge.give(sha256, second.chunks[sha256])
    edge.assign(release(3))
    edge.give_wanted(second)
    assert edge.slot.running_version == 1
    edge.offer(second)
    edge.give_wanted(second)
    assert edge.slot.running_version == 2


class Later:
    """A background that works when it is told to."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[ServedModel | None], Callable[[], ServedModel | None]]] = []

    def submit(self, work: Callable[[], ServedModel | None], /) -> "Future[ServedModel | None]":
        """Let it wait."""
        self._waiting.append((Future(), work))
        return self._waiting[-1][0]

    def work(self) -> None:
        """Do all that waits."""
        while self._waiting:
            future, work = self._waiting.pop(0)
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001  as a pool does
                future.set_exception(error)


def on_probation(folder: Path, later: Later, trial: Trial = untried) -> TalkingUpdater:
    """Return an edge with release 3 on probation after 2, which stages when it is told to."""
    edge = TalkingUpdater(filled_slot(folder / "models", release(2)), probation_slices=20)
    edge.bring(release(3))
    edge.updater = Updater(
        edge.slot,
        edge.trust,
        Pace(0, 20, Way(CHUNK_TIMEOUT_S)),
        Voice(edge.reports.append, edge.requests.append, edge.shared.append),
        Proving(later, trial, AtOnce),
    )
    return edge


def test_a_way_back_that_the_edge_took_by_itself_meanwhile_is_no_news(tmp_path: Path) -> None:
    """While the predecessor is tried again, the edge rolls back to it: it is not put on probation beside itself."""
    later = Later()
    edge = on_probation(tmp_path, later)
    back = release(2, returns_from=(3,))
    edge.offer(back)
    edge.read_slices(1, fault="NotFiniteError")
    assert edge.slot.running_version == 2
    later.work()
    edge.step()
    assert not edge.slot.on_probation
    assert edge.last.banned == (3,)
    assert edge.last.phase is ModelPhase.ACTIVE


def test_after_a_model_that_failed_its_trial_in_use_the_next_one_has_its_probation(tmp_path: Path) -> None:
    """Only a signed rollback spares it: the edge rolled back by itself to a model that was just banned."""
    later = Later()
    edge = on_probation(tmp_path, later, failing([SelfTestError("another answer")]))
    edge.offer(release(2, returns_from=(3,)))
    edge.read_slices(1, fault="NotFiniteError")
    later.work()
    edge.step()
    assert edge.last.banned == (3, 2)
    edge.bring(release(4))
    later.work()
    edge.step()
    assert edge.slot.running_version == 4
    assert edge.slot.on_probation


# By URL.


@pytest.fixture
def slow() -> Iterator[str]:
    """A server that sends a byte of each answer and then nothing, without hanging up."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as lines:

        def drip() -> None:
            with suppress(OSError):
                while True:
                    line = lines.enter_context(server.accept()[0])
                    line.sendall(b"HTTP/1.1 206 Partial Content\r\n\r\n!")

        threading.Thread(target=drip, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/model"
        server.shutdown(socket.SHUT_RDWR)


def test_a_server_that_sends_next_to_nothing_is_left(tmp_path: Path, slow: str) -> None:
    """Nothing is asked for over MQTT while a URL serves; so one that drips is not waited for."""
    edge, second = TalkingUpdater(filled_slot(tmp_path / "models"), urls=True), release(2)
    edge.assign(second, urls={MODEL_FILE: slow})
    edge.updater.offer(second.envelope, NOW)
    edge.give_wanted(second, 1.0)
    edge.give_wanted(second, 30.0)
    assert edge.slot.running_version == 1
    edge.give_wanted(second, 1.0 + PATIENCE_S + 1.0)
    assert edge.slot.running_version == 2


def test_data_without_end_is_nothing_against_a_release(tmp_path: Path, slow: str) -> None:
    """What a stranger sends too much of is counted, and the last straw may come from anywhere: nothing is banned."""
    edge, second = TalkingUpdater(filled_slot(tmp_path / "models"), urls=True), release(2)
    edge.assign(second, urls={MODEL_FILE: slow})
    edge.updater.offer(second.envelope, NOW)
    edge.step()
    wanted = second.wanted(edge.requests[0])
    for sha256 in wanted:
        edge.give(sha256, second.chunks[sha256])
    limit = 4 * sum(map(len, second.files.values())) + MOST_WINDOW_BYTES
    for _ in range(limit // 65_536):
        edge.give("f" * 64, bytes(65_536))
    assert not any("EndlessDataError" in report.reason for report in edge.reports)
    late = [("f" * 64, bytes(65_536))]
    with patch.object(UrlFetch, "take", lambda _: late.pop() if late else None):
        edge.step()
        edge.step()
    assert edge.slot.banned == ()
    assert "EndlessDataError" in edge.last.reason
    edge.give_wanted(second, 1.0 + PATIENCE_S + 1.0)
    assert edge.slot.running_version == 2


def test_an_address_is_not_logged_even_when_it_is_none() -> None:
    """A library may quote what it cannot understand; a presigned address is a credential."""
    data = b"a chunk"
    run = Run("http://127.0.0.1:1/model onnx?X-Amz-Signature=secret", 0, [Chunk(sha256_of(data), len(data))])
    fetch = UrlFetch([run], None)
    with structlog.testing.capture_logs() as logs:
        fetch.start()
        wait_until(lambda: not fetch.alive, "the fetch's end")
    assert "InvalidURL" in [each["reason"] for each in logs]
    assert "secret" not in str(logs)


def test_an_edge_that_restarts_often_ends_its_probation(tmp_path: Path) -> None:
    """What earlier lives read counts, or no later release would ever come; what the shadow compared does not."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), shadow_slices=2)
    made = release(2)
    edge.bring(made)
    lives = 0
    while edge.slot.on_probation or edge.slot.running_version == 1:
        lives += 1
        assert lives <= PROBATION_SLICES + 4
        edge.read_slices(1)
        edge.step(edge.now_s + 2)
        slot = ModelSlot(edge.slot.folder, [TRUSTED])
        slot.load_active()
        edge = TalkingUpdater(slot, shadow_slices=2)
        edge.bring(made)
    assert lives >= PROBATION_SLICES + 2


def test_an_edge_leaves_a_withdrawn_release_though_a_later_one_failed_here(tmp_path: Path) -> None:
    """The signed way back begins at what runs."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models", release(1), release(2)))
    edge.bring(release(3))
    edge.read_slices(1, fault="no answer")
    assert edge.slot.running_version == 2
    edge.bring(release(1, returns_from=(2,)))
    assert edge.slot.running_version == 1


def test_clean_readings_of_one_release_are_not_those_of_the_next(tmp_path: Path) -> None:
    """What a shadow notes says nothing of a probation that has not begun: a power cut at the swap may come between."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), shadow_slices=9)
    edge.bring(release(2))
    for _ in range(9 + PROBATION_SLICES):
        edge.read_slices(1)
    assert (edge.slot.running_version, edge.slot.on_probation) == (2, False)
    edge.bring(release(3))
    edge.read_slices(1)
    edge.step(edge.now_s + 2)
    noted = Known.model_validate_json(edge.slot.noted_comparison(3))
    assert (noted.phase, noted.clean) == (Role.CANDIDATE, 0)
