"""A release takes the shortest way to an edge, is watched before it reads and after, and can be undone."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from edge_parts import (
    ASSIGNER,
    CHUNK_TIMEOUT_S,
    KEYS,
    NOW,
    PROBATION_SLICES,
    SIGNER,
    TalkingUpdater,
    TinyRelease,
    bytes_asked,
    filled_slot,
    large,
    network,
    reading_of,
    release,
    wait_until,
)
from securesystemslib.signer import CryptoSigner

from edge_agent.download import STALLS_TILL_ALONE, Way
from edge_agent.model_slot import ModelSlot
from edge_agent.trust import EdgeTrust
from protocol.chunks import describe
from protocol.manifest import MODEL_FILE, Delta, Manifest, manifest_digest
from protocol.messages import ModelPhase
from protocol.rotation import KeyRotation, bundle, sign_rotation
from protocol.signing import generate_signer, public_key_json, sign
from training.model.delta import Segment, make_delta

SHADOW_SLICES = 4
ENOUGH = 60


@pytest.fixture
def edge(tmp_path: Path) -> TalkingUpdater:
    """An updater whose slot runs release 1, and which watches a candidate silently first."""
    return TalkingUpdater(filled_slot(tmp_path / "models"), shadow_slices=SHADOW_SLICES, probation_slices=8)


def restarted(edge: TalkingUpdater) -> TalkingUpdater:
    trust = EdgeTrust(edge.slot.folder.parent / "trust", KEYS, site="site-a", edge="edge-1")
    trust.load()
    slot = ModelSlot(edge.slot.folder, trust.ever_trusted)
    slot.load_active()
    return TalkingUpdater(slot, shadow_slices=SHADOW_SLICES, probation_slices=8)


# Watched before the swap, and after it.


def test_a_candidate_reads_silently_first(edge: TalkingUpdater) -> None:
    """Until it has read enough slices beside the model in use, every reading is that one's; then they change places."""
    edge.bring(release(2))
    assert edge.phases[-1] is ModelPhase.SHADOW
    for _ in range(SHADOW_SLICES):
        assert edge.slot.running_version == 1
        edge.read_slices(1)
    assert edge.slot.running_version == 2
    assert edge.phases[-2:] == [ModelPhase.SHADOW, ModelPhase.PROBATION]
    edge.read_slices(8)
    assert edge.last.phase is ModelPhase.ACTIVE


def test_a_candidate_that_answers_otherwise_never_reads(tmp_path: Path) -> None:
    """One that calls everything Normal is refused in the shadow, with the reason, and is not tried again."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), shadow_slices=ENOUGH)
    bad = release(2, network((9.0, 0.0, 0.0)))
    edge.bring(bad)
    for _ in range(ENOUGH):
        edge.read_slices(1)
        assert edge.slot.running_version == 1
        if edge.last.phase is ModelPhase.REJECTED:
            break
    assert edge.last.phase is ModelPhase.REJECTED
    assert "beside the model in use" in edge.last.reason
    assert edge.last.banned == (2,)
    asked_before = len(edge.requests)
    edge.bring(bad)
    assert len(edge.requests) == asked_before
    assert "beside the model in use" in edge.last.reason
    edge.bring(release(3))
    edge.read_slices(ENOUGH)
    assert edge.slot.running_version == 3


def test_what_was_seen_in_the_shadow_counts_on_probation(tmp_path: Path) -> None:
    """The two networks change places, and the evidence goes on: a bad one is found as soon as if it never had."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), shadow_slices=ENOUGH)
    edge.bring(release(2, network((9.0, 0.0, 0.0))))
    edge.read_slices(ENOUGH)
    alone = edge.last.compared
    edge = TalkingUpdater(filled_slot(tmp_path / "others"), shadow_slices=alone - 2, probation_slices=ENOUGH)
    edge.bring(release(2, network((9.0, 0.0, 0.0))))
    edge.read_slices(alone - 2)
    assert edge.last.phase is ModelPhase.PROBATION
    edge.read_slices(2)
    assert edge.last.phase is ModelPhase.ROLLED_BACK


def test_a_candidate_that_fails_silently_never_reads(edge: TalkingUpdater) -> None:
    """A network without an answer to a live slice is refused in the shadow; the slice itself was read."""
    edge.bring(release(2, network(fault="dark")))
    model = edge.slot.current
    assert model is not None
    edge.updater.slice_was_read(1, reading_of(model, dark=True))
    edge.step()
    assert edge.last.phase is ModelPhase.REJECTED
    assert "NotFiniteError" in edge.last.reason


def test_a_model_that_answers_otherwise_in_use_is_taken_back(tmp_path: Path) -> None:
    """Without a shadow the same is found on probation: the predecessor reads again, and the version is banned."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), probation_slices=ENOUGH)
    edge.bring(release(2, network((9.0, 0.0, 0.0))))
    assert edge.slot.running_version == 2
    edge.read_slices(ENOUGH)
    assert edge.slot.running_version == 1
    assert ModelPhase.ROLLED_BACK in edge.phases
    assert edge.last.banned == (2,)
    assert restarted(edge).slot.running_version == 1


def test_a_candidate_gives_way_to_a_newer_one(edge: TalkingUpdater) -> None:
    """What is assigned meanwhile takes the candidate's place; the candidate was not bad, and is not banned."""
    edge.bring(release(2))
    edge.read_slices(1)
    edge.bring(release(3))
    edge.read_slices(SHADOW_SLICES)
    assert edge.slot.running_version == 3
    assert edge.last.banned == ()


def test_candidates_that_gave_way_do_not_fill_the_disk(edge: TalkingUpdater) -> None:
    """However many come before one of them reads: beside what has read there is the newest alone."""
    for version in range(2, 6):
        edge.bring(release(version))
        assert edge.last.phase is ModelPhase.SHADOW
    assert sorted(path.name for path in edge.slot.folder.glob("0*")) == ["00000001", "00000005"]


def test_a_candidate_is_dropped_when_the_assignment_returns(edge: TalkingUpdater) -> None:
    """An engineer who assigns the running version again stops the candidate before it reads."""
    first = release(1)
    edge.slot = filled_slot(edge.slot.folder, first)
    edge.bring(release(2))
    edge.offer(first)
    edge.read_slices(2 * SHADOW_SLICES)
    assert edge.slot.running_version == 1


def test_a_candidate_in_the_shadow_at_a_restart_is_not_fetched_again(edge: TalkingUpdater) -> None:
    """Its files are here: it is tried again, and goes on from there."""
    second = release(2)
    edge.bring(second)
    after = restarted(edge)
    assert after.slot.running_version == 1
    after.bring(second)
    assert after.requests == []
    after.read_slices(SHADOW_SLICES)
    assert after.slot.running_version == 2


# Trust.


def test_nothing_is_fetched_without_an_assignment(edge: TalkingUpdater) -> None:
    """A signed release alone moves no edge; after some time the edge says what it waits for."""
    edge.updater.offer(release(2).envelope, NOW)
    edge.step(0.0)
    edge.step(20.0)
    assert edge.requests == []
    assert "no assignment has come" in edge.last.reason
    assert edge.last.phase is ModelPhase.ACTIVE


def test_manifest_and_assignment_may_come_in_either_order(edge: TalkingUpdater) -> None:
    """Both are retained messages, and the broker says them as it likes."""
    second = release(2)
    edge.updater.offer(second.envelope, NOW)
    edge.assign(second)
    edge.give_wanted(second)
    assert edge.last.phase is ModelPhase.SHADOW


def test_an_edge_says_when_news_is_kept_from_it(edge: TalkingUpdater) -> None:
    """When its assignment expires the edge reads on, and reports that it may be frozen; a fresh one ends it."""
    edge.bring(release(2))
    edge.read_slices(SHADOW_SLICES + 8)
    late = NOW + timedelta(days=4)
    edge.step(now=late)
    assert "FrozenError" in edge.last.reason
    assert "FrozenError" in edge.updater.trouble
    assert edge.slot.running_version == 2
    edge.assign(release(2), now=late)
    edge.step(now=late)
    assert edge.updater.trouble == ""


def test_keys_are_exchanged_and_the_running_model_goes_on(edge: TalkingUpdater) -> None:
    """After a rotation the new key releases and the old one no longer; what ran before still starts after a restart."""
    young = generate_signer()
    rotation = KeyRotation.model_validate(
        {
            "version": 2,
            "created_at": NOW,
            "release_keys": [_fields(young)],
            "release_threshold": 1,
            "assign_keys": [_fields(ASSIGNER)],
        }
    )
    edge.updater.hear_keys(bundle([sign_rotation(rotation, [SIGNER], [young])]), NOW)
    assert edge.last.keys_version == 2
    edge.bring(release(2))
    assert "WrongKeyError" in edge.last.reason
    after = restarted(edge)
    assert after.slot.running_version == 1
    assert after.trust.keys.version == 2
    after.bring(release(3, signer=young))
    after.read_slices(SHADOW_SLICES + 8)
    assert restarted(after).slot.running_version == 3


def exchanged(*assigners: CryptoSigner) -> bytes:
    """Return a rotation that leaves the release key, and makes these the workers' keys."""
    rotation = KeyRotation.model_validate(
        {
            "version": 2,
            "created_at": NOW,
            "release_keys": [_fields(SIGNER)],
            "release_threshold": 1,
            "assign_keys": [_fields(each) for each in assigners],
        }
    )
    return bundle([sign_rotation(rotation, [SIGNER], [])])


def test_an_assignment_holds_while_its_key_does(edge: TalkingUpdater) -> None:
    """A worker's key beside it changes nothing; without its own the edge awaits a new word, and says if it is late."""
    edge.assign(release(2))
    edge.updater.hear_keys(exchanged(ASSIGNER, generate_signer()), NOW)
    assert edge.trust.keys.version == 2
    assert edge.trust.assignment is not None
    other = TalkingUpdater(filled_slot(edge.slot.folder.parent / "other" / "models"))
    other.assign(release(2))
    other.updater.hear_keys(exchanged(generate_signer()), NOW)
    assert other.trust.assignment is None
    other.step(1.0, NOW + timedelta(days=2))
    assert not other.updater.trouble
    other.step(2.0, NOW + timedelta(days=4))
    assert "no assignment has come since the keys were exchanged" in other.updater.trouble
    assert "FrozenError" in other.last.reason


def test_why_a_release_failed_is_not_overwritten_by_its_ban(tmp_path: Path) -> None:
    """The worker offers it until it has heard: that it is banned says less than why."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"))
    made = release(2)
    edge.bring(made)
    edge.read_slices(1, fault="no answer to a slice")
    edge.offer(made)
    assert edge.last.reason == "no answer to a slice"
    again = restarted(edge)
    again.offer(made)
    assert "BannedVersionError" in again.last.reason


def test_a_signed_rollback_goes_back_at_once_and_bans(tmp_path: Path) -> None:
    """Withdrawn: without a shadow, in the midst of a probation, without fetching what is here; and it holds."""
    second = release(2)
    edge = TalkingUpdater(filled_slot(tmp_path / "models", second), shadow_slices=0, probation_slices=ENOUGH)
    third = release(3)
    edge.bring(third)
    assert edge.last.phase is ModelPhase.PROBATION
    asked = len(edge.requests)
    back = release(2, returns_from=(3,))
    edge.bring(back)
    assert edge.slot.running_version == 2
    assert len(edge.requests) == asked
    assert edge.last.phase is ModelPhase.ACTIVE
    assert edge.last.banned == (3,)
    edge.bring(third)
    assert "BannedVersionError" in edge.last.reason
    assert restarted(edge).slot.running_version == 2
    edge.bring(release(4))
    assert edge.slot.running_version == 4


def test_a_signed_rollback_bans_where_what_it_leads_away_from_never_read(tmp_path: Path) -> None:
    """An edge that still runs what the others go back to takes what was withdrawn no more, whoever assigns it."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models", release(2)), shadow_slices=SHADOW_SLICES)
    third = release(3)
    edge.bring(third)
    edge.bring(release(2, returns_from=(3,)))
    assert edge.last.phase is ModelPhase.ACTIVE
    assert edge.last.banned == (3,)
    edge.bring(third)
    assert "BannedVersionError" in edge.last.reason
    assert restarted(edge).slot.banned == (3,)


# The shortest way.


def test_what_is_here_already_is_not_fetched(edge: TalkingUpdater) -> None:
    """Of a release that shares its golden slices with the one in use only the network and the new lists come."""
    first = release(1, large(0))
    edge.slot = filled_slot(edge.slot.folder, first)
    edge = restarted(edge)
    second = release(2, large(0, head=5.0))
    edge.bring(second)
    assert edge.last.phase is ModelPhase.SHADOW
    assert bytes_asked(edge, second) < 0.3 * sum(map(len, second.files.values()))


def with_delta(version: int, base: bytes, model: bytes, delta: bytes | None = None) -> TinyRelease:
    """Make a release with a delta against a base."""
    base_sha256 = describe(base).file.sha256
    name = f"delta-{base_sha256[:16]}.sld"
    made = make_delta(base, model) if delta is None else delta
    return release(version, model, further={name: made}, deltas=(Delta(file=name, base_sha256=base_sha256),))


def test_a_delta_is_taken_where_it_is_shorter(tmp_path: Path) -> None:
    """The result is the very file: its hash is the manifest's, and the next release finds it as a base."""
    base = large(0)
    near = bytearray(large(0))
    near[200_000:900_000:5_000] = bytes(140)  # a little of every chunk
    slot = filled_slot(tmp_path / "models", release(1, base))
    edge = TalkingUpdater(slot)
    delta = make_delta(base, bytes(near), [Segment(0, 0, len(base), 1)])
    second = with_delta(2, base, bytes(near), delta)
    edge.bring(second)
    assert edge.slot.running_version == 2
    assert bytes_asked(edge, second) < 0.1 * len(base)
    assert edge.slot.current is not None
    assert edge.slot.current.ref.sha256 == describe(bytes(near)).file.sha256
    assert edge.slot.bases().keys() == {describe(base).file.sha256, describe(bytes(near)).file.sha256}


@pytest.mark.parametrize("delta", [b"SLD1garbage", make_delta(large(0), large(1)[: len(large(0))])[:-30]])
def test_a_delta_that_leads_elsewhere_costs_the_whole_file(tmp_path: Path, delta: bytes) -> None:
    """A delta that cannot be applied, or makes another file, is given up by itself, and the network is fetched."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models", release(1, large(0))))
    second = with_delta(2, large(0), large(1), delta)
    edge.bring(second)
    edge.give_wanted(second, CHUNK_TIMEOUT_S)
    assert edge.slot.running_version == 2


def test_a_delta_is_not_taken_without_its_base(tmp_path: Path) -> None:
    """An edge that runs something else fetches the network."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models", release(1)))
    second = with_delta(2, large(0), large(1))
    edge.bring(second)
    assert edge.slot.running_version == 2
    assert bytes_asked(edge, second) > len(large(1))


def test_chunks_for_all_are_heard_while_a_release_comes_and_not_longer(edge: TalkingUpdater) -> None:
    """An edge asks for shared chunks, hears them, and stops to hear when it has all."""
    second = release(2)
    edge.offer(second)
    edge.step()
    assert edge.shared == [True]
    assert edge.requests[0].shared
    edge.give_wanted(second, CHUNK_TIMEOUT_S)
    assert edge.shared == [True, False]


def test_where_shared_chunks_do_not_come_an_edge_asks_for_its_own(edge: TalkingUpdater) -> None:
    """A broker that does not let it hear them must not keep a release from it."""
    second = release(2)
    edge.offer(second)
    for round_ in range(STALLS_TILL_ALONE + 1):
        edge.step(round_ * CHUNK_TIMEOUT_S)
    assert [request.shared for request in edge.requests] == [True] * STALLS_TILL_ALONE + [False]
    edge.give_wanted(second, 10 * CHUNK_TIMEOUT_S)
    assert edge.last.phase is ModelPhase.SHADOW


def test_an_edge_with_a_limit_asks_for_no_more_and_for_its_own(tmp_path: Path) -> None:
    """Over any time an edge asks for no more bytes than its limit allows, and hears nobody else's."""
    limit = 100_000.0
    slot = filled_slot(tmp_path / "models")
    edge = TalkingUpdater(slot, way=Way(CHUNK_TIMEOUT_S, limit))
    second = release(2, large(3))
    edge.offer(second)
    for tenth in range(60):
        before = len(edge.requests)
        edge.step(tenth / 10)
        for request in edge.requests[before:]:
            for sha256 in second.wanted(request):
                edge.give(sha256, second.chunks[sha256])
    assert bytes_asked(edge, second) <= 6 * limit + 2 * 65_536
    assert bytes_asked(edge, second) >= 4 * limit
    assert not any(request.shared for request in edge.requests)
    assert edge.shared == []


# By URL.


class _Bucket(BaseHTTPRequestHandler):
    """Serves one file by range, as an object store does; `spoil` changes what it sends."""

    def __init__(self, data: bytes, spoil: str, *args: object) -> None:
        self._data, self._spoil = data, spoil
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
        body = self._data[first : last + 1]
        if self._spoil == "tampered":
            body = body[:70_000] + b"!" + body[70_001:]
        if self._spoil == "moved" and self.path != "/elsewhere":
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            return
        if self._spoil == "gone":
            self.send_error(403)
            return
        self.send_response(206)
        self.end_headers()
        try:
            self.wfile.write(body)
            while self._spoil == "endless":
                self.wfile.write(bytes(65_536))
        except OSError:
            pass  # the edge hung up, as it should

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Bucket, large(4), request.param))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/model"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("bucket", "by_mqtt"),
    [("", False), ("endless", False), ("tampered", True), ("gone", True), ("moved", True)],
    indirect=["bucket"],
)
def test_where_a_url_is_offered_the_network_comes_from_there(tmp_path: Path, bucket: str, by_mqtt: bool) -> None:
    """A presigned address spares the broker; what it does not give as promised comes over MQTT; no more is read."""
    edge = TalkingUpdater(filled_slot(tmp_path / "models"), urls=True)
    second = release(2, large(4))
    edge.assign(second, urls={MODEL_FILE: bucket})
    edge.updater.offer(second.envelope, NOW)

    def runs() -> bool:
        edge.give_wanted(second)
        return edge.slot.running_version == 2

    wait_until(runs, lambda: str(edge.last))
    asked = {sha256 for request in edge.requests for sha256 in second.wanted(request)}
    network_chunks = {chunk.sha256 for chunk in describe(large(4)).chunks}
    assert bool(asked & network_chunks) == by_mqtt
    assert all(bucket not in report.reason for report in edge.reports)


def test_a_release_says_what_runs(edge: TalkingUpdater) -> None:
    """Reports name the assignment and the keys that the edge follows."""
    edge.bring(release(2))
    assert (edge.last.assignment, edge.last.keys_version) == (1, KEYS.version)
    edge.read_slices(SHADOW_SLICES + 8)
    assert edge.last.phase is ModelPhase.ACTIVE
    assert PROBATION_SLICES < 8


def _fields(signer: object) -> dict[str, object]:
    import json

    return dict(json.loads(public_key_json(signer)))  # type: ignore[arg-type]


def test_a_resigned_manifest_is_the_same_release(edge: TalkingUpdater) -> None:
    """Signatures that are added later change no digest: the assignment still names it."""
    made = release(2)
    payload = made.manifest.model_dump_json().encode()
    twice = sign(payload, [SIGNER, generate_signer()])
    assert manifest_digest(twice) == manifest_digest(made.envelope)
    assert isinstance(made.manifest, Manifest)
