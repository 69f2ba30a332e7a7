"""A retraining from request to release, step by step, with its objects in a real store and no trainer but this file."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Signature
from worker_parts import (
    ARCHITECTURE,
    CHECKPOINT,
    NOW,
    add_labelled,
    cohort,
    constant_network,
    later,
    network,
    patient_key,
    release,
    trusted_by,
    wait_until,
)

from cloud_worker.ledger import Ledger, Rollout
from cloud_worker.object_store import ObjectStore, S3Settings
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.releasing import ReleaseDesk
from cloud_worker.retrain import Side, side_of
from cloud_worker.retraining import READ_BATCH, Retraining
from cloud_worker.settings import GateSettings, RetrainSettings, WorkerSettings
from protocol.chunks import check_file, sha256_of
from protocol.labels import Label
from protocol.manifest import MODEL_FILE
from protocol.messages import Dataset, RetrainRequest, RetrainResult, UploadedFile
from protocol.signing import generate_signer, payload_of, sign
from sliceloop.release_run import WATCH_S, Places, watch_candidates

POLICY = RetrainSettings(min_new_labels=3, min_patients_per_class=1, cooldown_s=600, silence_s=60)
SETTINGS = WorkerSettings(retrain=POLICY, gate=GateSettings(min_held_back_patients=3))
SIGNER = generate_signer()
PATIENTS = cohort(12)
LEARNT = b"weights after learning"
Files = dict[str, bytes]


@dataclass
class Loop:
    """Everything about one worker's retraining; the incumbent calls every slice Normal."""

    store: ObjectStore
    ledger: Ledger
    retraining: Retraining

    def request(self, now: datetime = NOW) -> RetrainRequest:
        """Step until a retraining is asked for."""
        (request,) = self.retraining.step(now)
        self.ledger.touch_request(request.request_id, published_at=now)
        return request

    def answer(self, request: RetrainRequest, files: Files, now: datetime = NOW) -> list[str]:
        """Upload the files, say so, and let the gate decide; return what it says."""
        put_all(request, files)
        self.retraining.take_result(result(request, files), now)
        return verdicts(self.retraining.step(now))

    def sign(self, now: datetime = NOW) -> list[int]:
        """Sign the candidate that waits, as an engineer does; return what was released."""
        desk = ReleaseDesk(ReleaseSettings(), self.store, self.ledger, [SIGNER])
        return [manifest.version for manifest in desk.release_candidates(now)]

    def again(self) -> Retraining:
        """Return the worker's retraining after a restart."""
        return Retraining(SETTINGS, self.store, self.ledger)


@pytest.fixture
def loop(store: ObjectStore, ledger: Ledger) -> Loop:
    add_labelled(store, ledger, PATIENTS)
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    return Loop(store, ledger, Retraining(SETTINGS, store, ledger))


def trained(model: bytes | None = None) -> Files:
    """Return what a trainer uploads; by default a network that reads every slice rightly."""
    return {
        "model.onnx": network() if model is None else model,
        "checkpoint.safetensors": LEARNT,
        "report.json": b"{}",
    }


def result(request: RetrainRequest, files: Files) -> RetrainResult:
    return RetrainResult(
        request_id=request.request_id,
        outcome="candidate",
        at=NOW,
        trainer="trainer-test",
        architecture=ARCHITECTURE,
        files={name: UploadedFile(sha256=sha256_of(data), size=len(data)) for name, data in files.items()},
        temperature=1.5,
        training_data_sha256="1" * 64,
        split_sha256="2" * 64,
    )


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def put(url: str, data: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, data=data, method="PUT"), timeout=10) as answer:
        assert answer.status == 200


def put_all(request: RetrainRequest, files: Files) -> None:
    for name, data in files.items():
        put(request.upload_urls[name], data)


def verdicts(said: Sequence[RetrainRequest | RetrainResult]) -> list[str]:
    """Return the gate's verdicts, which are all that is said."""
    assert all(isinstance(each, RetrainResult) for each in said)
    return [each.verdict for each in said if isinstance(each, RetrainResult)]


def reasons(ledger: Ledger) -> list[str]:
    return [decision.reason for decision in ledger.decisions()]


def test_the_policy_fires_once_and_every_decision_is_on_record(store: ObjectStore, ledger: Ledger) -> None:
    """Each new reason for waiting is recorded once, the firing too; while a request is open there is no second one."""
    retraining = Retraining(SETTINGS, store, ledger)
    assert [*retraining.step(NOW), *retraining.step(later(1))] == []
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    assert retraining.step(later(2)) == []
    add_labelled(store, ledger, PATIENTS)
    (request,) = retraining.step(later(3))
    ledger.touch_request(request.request_id, published_at=later(3))
    assert retraining.step(later(4)) == []
    beginnings = ("nothing released yet", "fewer than 3 new labels", "36 new labels", "a retraining is under way")
    assert len(reasons(ledger)) == len(beginnings)
    assert all(reason.startswith(text) for reason, text in zip(reasons(ledger), beginnings, strict=True))
    assert [decision.fired for decision in ledger.decisions()] == [False, False, True, False]
    assert [stored.request_id for stored in ledger.requests_open()] == [request.request_id]


def test_workers_that_decide_at_once_ask_once(loop: Loop) -> None:
    """However many workers decide in the same moment, what they publish is one request, the one in the ledger."""
    asked: list[RetrainRequest] = []
    together = threading.Barrier(4)

    def decide() -> None:
        with Ledger(loop.ledger.url) as ledger:
            retraining = Retraining(SETTINGS, loop.store, ledger)
            together.wait()
            asked.extend(said for said in retraining.step(NOW) if isinstance(said, RetrainRequest))

    threads = [threading.Thread(target=decide) for _ in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (open_one,) = loop.ledger.requests_open()
    assert {request.request_id for request in asked} == {open_one.request_id}


def test_the_data_set_has_every_slice_but_those_of_held_back_patients(loop: Loop) -> None:
    """The data set lists the labelled slices of patients to learn from, on their side, and no held-back patient."""
    request = loop.request()
    data = fetch(request.dataset_url)
    assert sha256_of(data) == request.dataset_sha256
    dataset = Dataset.model_validate_json(data)
    sides = {patient_key(each.patient): side_of(patient_key(each.patient), POLICY) for each in PATIENTS}
    assert set(sides.values()) == set(Side)
    assert {entry.patient_key: entry.split for entry in dataset.slices} == {
        patient: side.value for patient, side in sides.items() if side is not Side.HELD_BACK
    }
    assert {entry.label for entry in dataset.slices} == set(Label)
    assert dataset.held_back is not None, "a trainer must know whom it may not learn from by other ways"
    assert (dataset.held_back.share, dataset.held_back.seed) == (POLICY.held_back_share, POLICY.seed)


def test_a_trainer_needs_no_key_of_the_store(loop: Loop) -> None:
    """Every URL of a request, and of its data set, works for urllib as it is, and not without its signature."""
    request = loop.request()
    assert fetch(request.base_checkpoint_url) == CHECKPOINT
    assert sha256_of(CHECKPOINT) == request.base_checkpoint_sha256
    dataset = Dataset.model_validate_json(fetch(request.dataset_url))
    for entry in dataset.slices:
        assert sha256_of(fetch(entry.url)) == entry.image_sha256
    for name, url in request.upload_urls.items():
        put(url, name.encode())
    for url in (request.dataset_url, request.base_checkpoint_url, dataset.slices[0].url):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(url.split("?")[0])
        assert refused.value.code == 403


def test_a_better_candidate_becomes_the_next_release(loop: Loop) -> None:
    """What passes the gate is version 2: signed, with the figures that it passed by, its files stored, and said."""
    add_labelled(loop.store, loop.ledger, cohort(30, "more"), first=len(PATIENTS))
    request = loop.request()
    put_all(request, trained())
    loop.retraining.take_result(result(request, trained()), later(60))
    assert loop.retraining.step(later(60)) == [], "it waits for an engineer"
    assert loop.sign(later(60)) == [2]
    (said,) = loop.retraining.step(later(61))
    assert isinstance(said, RetrainResult)
    assert (said.request_id, said.outcome, said.verdict) == (request.request_id, "candidate", "released")
    assert said.released_version == 2
    released = loop.ledger.latest_release()
    assert released is not None
    manifest = trusted_by(SIGNER, released.envelope)
    assert (manifest.version, manifest.architecture, manifest.temperature) == (2, ARCHITECTURE, 1.5)
    assert manifest.metrics["gate"]["accepted"]
    assert manifest.metrics["gate"]["candidate"]["value"] == 1
    assert manifest.metrics["gate"]["n_slices"] > READ_BATCH
    for name, described in manifest.files.items():
        check_file(name, described, loop.store.get(released.files[name]))
    assert loop.store.get(released.files[MODEL_FILE]) == trained()["model.onnx"]
    assert loop.store.get(released.checkpoint_key) == LEARNT
    assert released.request_id == request.request_id
    assert loop.again().step(later(120)) == []
    assert [each.version for each in loop.ledger.releases()] == [1, 2]


def test_a_watch_signs_one_rollout_at_a_time(loop: Loop, s3_settings: S3Settings) -> None:
    """While release 1 is on its way, a candidate waits and the watch says so, once; then it is signed."""
    loop.answer(loop.request(), trained())
    said: list[str] = []
    with watching(Places(loop.ledger.url, s3_settings, ReleaseSettings()), said):
        wait_until(lambda: len(said) == 1, "it waits")
        assert "until the rollout of release 1 has ended: it is not begun" in said[0]
        running = Rollout(1, "running", 0, NOW)
        assert loop.ledger.save_rollout(running, None)
        wait_until(lambda: len(said) == 2, "it still waits")
        assert "it is running" in said[1]
        assert loop.ledger.next_version() == 2
        assert loop.ledger.save_rollout(replace(running, state="complete"), running)
        wait_until(lambda: loop.ledger.next_version() == 3, "it is signed")
    assert len(said) == 3


def test_a_watch_waits_for_no_release_of_before_there_were_rollouts(loop: Loop, s3_settings: S3Settings) -> None:
    """A release of manifest major 1 is rolled out by nobody: after an upgrade its candidate would wait for ever."""
    old = loop.ledger.release(1)
    stated = json.loads(payload_of(old.envelope))
    for file in stated["files"].values():
        file |= {"index": [], "chunk_count": 0}
    envelope = sign(json.dumps({**stated, "major": 1}).encode(), [SIGNER])
    assert loop.ledger.replace_release_envelope(1, old.envelope, envelope)
    loop.answer(loop.request(), trained())
    said: list[str] = []
    with watching(Places(loop.ledger.url, s3_settings, ReleaseSettings()), said):
        wait_until(lambda: bool(said), "it says what it does")
    assert said[0].startswith("release 2 of sliceloop-edge")


def test_a_watch_goes_on_when_somebody_else_is_quicker(loop: Loop, s3_settings: S3Settings) -> None:
    """Two engineers sign one candidate at the same moment: one release comes of it, and both watches go on."""
    assert loop.ledger.save_rollout(Rollout(1, "complete", 0, NOW), None)
    loop.answer(loop.request(), trained())
    said: list[str] = []
    places, other = Places(loop.ledger.url, s3_settings, ReleaseSettings()), Overtaken(loop.sign)
    with watching(places, said, other) as watch:
        wait_until(lambda: loop.ledger.next_version() == 3, "the other one signed")
        watch.join(2 * WATCH_S)
        assert watch.is_alive()
    assert [each.version for each in loop.ledger.releases()] == [1, 2]
    assert said == []


class Overtaken(CryptoSigner):
    """A key whose owner is slow: before it signs for the first time, something else happens."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        key = load_pem_private_key(SIGNER.private_bytes, None)
        assert isinstance(key, Ed25519PrivateKey)
        super().__init__(key)
        self._meanwhile: Callable[[], object] | None = meanwhile

    def sign(self, payload: bytes) -> Signature:
        """Sign, too late."""
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().sign(payload)


@contextmanager
def watching(places: Places, said: list[str], signer: CryptoSigner = SIGNER) -> Iterator[threading.Thread]:
    """Let somebody watch for candidates."""
    stop = threading.Event()
    watch = threading.Thread(target=watch_candidates, args=(places, [signer], None, said.append, stop))
    watch.start()
    try:
        yield watch
    finally:
        stop.set()
        watch.join()


def test_the_next_retraining_starts_from_the_new_release(loop: Loop) -> None:
    """After a release, new labels and the cooldown, the next request is based on version 2."""
    loop.answer(loop.request(), trained())
    assert loop.sign() == [2]
    assert verdicts(loop.retraining.step(later(1))) == ["released"]
    add_labelled(loop.store, loop.ledger, cohort(2, "new"), first=len(PATIENTS))
    assert loop.retraining.step(later(599)) == []
    request = loop.request(later(600))
    assert request.base_version == 2
    assert fetch(request.base_checkpoint_url) == LEARNT


REFUSED: dict[str, tuple[Files, Files, str]] = {
    "wrong hash": (trained(), {**trained(), "model.onnx": b"another"}, "HashMismatchError: model.onnx"),
    "wrong checkpoint": (trained(), {**trained(), "checkpoint.safetensors": b"x"}, "HashMismatchError: checkpoint"),
    "missing upload": (trained(), {"report.json": b"{}"}, "ObjectMissingError"),
    "a file not named": ({"report.json": b"{}"}, {"report.json": b"{}"}, "the trainer named no model.onnx"),
    "broken network": (trained(b"no network"), trained(b"no network"), "UnreadableNetworkError"),
    "failing network": (trained(network(reshape_to=7)),) * 2 + ("the network fails on a slice",),
    "not finite": (trained(network((float("nan"),) * 3)),) * 2 + ("values that are not finite",),
    "no better": (trained(constant_network(Label.NORMAL)),) * 2 + ("is not above the incumbent's",),
}


@pytest.mark.parametrize(("named", "uploaded", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_candidate_that_cannot_be_released_is_refused_with_its_reason(
    loop: Loop, named: Files, uploaded: Files, reason: str
) -> None:
    """A candidate that is not what it says, is no network of ours or no better is refused, and that is said once."""
    request = loop.request()
    put_all(request, uploaded)
    loop.retraining.take_result(result(request, named), NOW)
    (said,) = loop.retraining.step(later(1))
    assert isinstance(said, RetrainResult)
    assert (said.request_id, said.outcome, said.verdict) == (request.request_id, "failed", "refused")
    assert said.reason.startswith("refused by the gate: ")
    assert reason in said.reason
    assert [*loop.retraining.step(later(2)), *loop.again().step(later(2))] == []
    (candidate,) = loop.ledger.candidates()
    assert candidate.verdict == "refused"
    assert reason in candidate.reason
    assert loop.ledger.requests_open() == []
    assert len(loop.ledger.releases()) == 1


def test_what_is_released_is_what_was_judged(loop: Loop) -> None:
    """Files that are uploaded anew after the gate's decision change nothing about the release."""
    request = loop.request()
    assert loop.answer(request, trained()) == []
    for name in trained():
        put(request.upload_urls[name], b"something else")
    assert loop.sign(later(60)) == [2]
    released = loop.ledger.releases()[1]
    assert loop.store.get(released.files[MODEL_FILE]) == trained()["model.onnx"]
    assert loop.store.get(released.checkpoint_key) == LEARNT


def test_a_candidate_waits_for_a_signature_and_is_released_once(loop: Loop) -> None:
    """Nothing is released however often worker and successor step; an engineer who signs twice releases once."""
    request = loop.request()
    assert loop.answer(request, trained()) == []
    assert [*loop.retraining.step(later(1)), *loop.again().step(later(2))] == []
    assert [each.request_id for each in loop.ledger.accepted_unreleased()] == [request.request_id]
    assert [loop.sign(later(3)), loop.sign(later(4))] == [[2], []]
    assert verdicts(loop.retraining.step(later(5))) == ["released"]
    assert [each.version for each in loop.ledger.releases()] == [1, 2]


def test_a_candidate_that_was_judged_against_another_release_is_not_signed(loop: Loop) -> None:
    """What was better than version 1 may be worse than version 2: it is refused, with the reason."""
    loop.answer(loop.request(), trained())
    release(loop.store, loop.ledger, SIGNER, network())
    assert loop.sign() == []
    (candidate,) = loop.ledger.candidates()
    assert candidate.verdict == "refused"
    assert candidate.reason == "not signed: judged against version 1, and since then version 2 stands"
    assert loop.ledger.accepted_unreleased() == []


def test_a_candidate_without_a_release_to_compare_with_is_refused(loop: Loop) -> None:
    """When the last release was withdrawn while its candidate was trained, the worker says so, and goes on."""
    request = loop.request()
    ReleaseDesk(ReleaseSettings(), loop.store, loop.ledger, [SIGNER]).withdraw(1, "bad", None, later(1))
    assert loop.answer(request, trained(), later(2)) == ["refused"]
    assert loop.ledger.pending_candidates() == []
    assert loop.again().step(later(3)) == []


def failed(request_id: str) -> RetrainResult:
    return RetrainResult(request_id=request_id, outcome="failed", at=NOW, trainer="t", reason="no luck")


def test_a_failed_retraining_is_asked_for_again_after_the_cooldown(loop: Loop) -> None:
    """A failed result closes its request; its labels count again, and after the cooldown there is a new request."""
    request = loop.request()
    loop.retraining.take_result(failed(request.request_id), later(10))
    assert loop.ledger.request(request.request_id).state == "failed"
    assert loop.ledger.new_labels() == len(PATIENTS)
    assert loop.retraining.step(later(599)) == []
    assert loop.request(later(600)).request_id != request.request_id


@pytest.mark.parametrize(
    "said",
    [lambda _: failed("nobodys"), lambda request: result(request, trained()).model_copy(update={"request_id": "x"})],
)
def test_a_result_that_nobody_asked_for_changes_nothing(
    loop: Loop, said: Callable[[RetrainRequest], RetrainResult]
) -> None:
    """Results of unknown requests leave no trace, and the open request stays open."""
    request = loop.request()
    before = loop.ledger.counts()
    loop.retraining.take_result(said(request), NOW)
    assert loop.ledger.counts() == before
    assert [each.request_id for each in loop.ledger.requests_open()] == [request.request_id]


def test_a_result_that_comes_twice_counts_once(loop: Loop) -> None:
    """The same result again, or a failure after it, changes nothing once the candidate is decided."""
    request = loop.request()
    loop.answer(request, trained())
    before = loop.ledger.counts()
    loop.retraining.take_result(result(request, trained()), later(1))
    loop.retraining.take_result(failed(request.request_id), later(1))
    assert loop.retraining.step(later(2)) == []
    assert loop.ledger.request(request.request_id).state == "candidate"
    assert loop.ledger.counts() == before | {"retrain_decisions": loop.ledger.counts()["retrain_decisions"]}


def test_a_silent_request_is_asked_again(loop: Loop) -> None:
    """A request that was not published, or whose trainer fell silent, is asked for again, and not before."""
    (request,) = loop.retraining.step(NOW)
    assert loop.retraining.step(later(1)) == [request]
    loop.ledger.touch_request(request.request_id, published_at=later(1))
    assert loop.retraining.step(later(61)) == []
    loop.ledger.touch_request(request.request_id, heard_at=later(30))
    assert loop.retraining.step(later(90)) == []
    assert loop.retraining.step(later(91)) == [request]
    assert loop.again().step(later(91)) == [request]


def test_a_request_asked_again_has_urls_that_hold(loop: Loop) -> None:
    """Before its URLs expire a silent request is given fresh ones, in its data set too, and is otherwise the same."""
    request = loop.request()
    halfway = NOW + loop.store.presign_expiry / 2
    (renewed,) = loop.retraining.step(halfway)
    assert renewed.dataset_sha256 != request.dataset_sha256
    fixed = {"request_id", "base_version", "base_checkpoint_sha256", "architecture", "seed", "requested_at", "reason"}
    assert renewed.model_dump(include=fixed) == request.model_dump(include=fixed)
    before, after = (Dataset.model_validate_json(fetch(each.dataset_url)) for each in (request, renewed))
    assert after.created_at == halfway
    bare = {"slices": {"__all__": {"url"}}, "created_at": True}
    assert after.model_dump(exclude=bare) == before.model_dump(exclude=bare)
    assert sha256_of(fetch(after.slices[0].url)) == after.slices[0].image_sha256
    assert loop.ledger.request(request.request_id).message == renewed
    assert loop.again().step(halfway) == [renewed]
    loop.answer(renewed, trained(), halfway)
    assert loop.sign(halfway) == [2]


def test_a_request_whose_data_set_is_gone_is_given_up(loop: Loop) -> None:
    """A silent request whose data set the store has lost is closed as failed, and a new one takes its place."""
    request = loop.request()
    lost = request.model_copy(update={"dataset_sha256": "0" * 64})
    loop.ledger.touch_request(request.request_id, message=lost)
    (fresh,) = loop.retraining.step(later(600))
    assert loop.ledger.request(request.request_id).state == "failed"
    assert fresh.request_id != request.request_id
