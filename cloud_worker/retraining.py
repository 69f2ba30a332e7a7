"""Carry a retraining through: request, candidate, gate; after a crash each step is found in the ledger.

What the gate accepts waits there for an engineer's key: `releasing` signs it, and this end says that it was.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import ValidationError

from cloud_worker.expected_changes import answers, expected_changes, probabilities
from cloud_worker.gate import GateVerdict, HeldBack, judge
from cloud_worker.ledger import Candidate, LabelledSlice, Ledger, StoredRequest
from cloud_worker.ledger import Release as StoredRelease
from cloud_worker.object_store import ObjectMissingError, ObjectStore, dataset_key, image_key, model_key, upload_key
from cloud_worker.retrain import RetrainFacts, Side, count_patients, decide, side_of
from cloud_worker.settings import WorkerSettings
from protocol.chunks import sha256_of
from protocol.errors import HashMismatchError
from protocol.labels import LABELS
from protocol.manifest import MODEL_FILE, shown_manifest
from protocol.messages import Dataset, DatasetSlice, HeldBackRule, RetrainRequest, RetrainResult
from training.bundle import CHECKPOINT_FILE, REPORT_FILE
from training.model.decode import ImageError, decode_image
from training.model.reader import Calibration, OnnxReader, UnreadableNetworkError

log = structlog.get_logger()

INCUMBENT = "incumbent_version"
"""Among a gate's figures: the release that the candidate was judged against."""
CHANGES = "changes"
"""Among a gate's figures: how often the candidate answered otherwise, as `ExpectedChanges` says it."""
UPLOADS = (MODEL_FILE, CHECKPOINT_FILE, REPORT_FILE)
MAX_HELD_BACK_SLICES = 5_000
MAX_REASON = 2_000
READ_BATCH = 32
"""Held-back slices that a network reads at once: a SqueezeNet takes some 10 MB of memory for each."""


class Retraining:
    """The retraining half of the desk; `step` returns what is to be published."""

    def __init__(self, settings: WorkerSettings, store: ObjectStore, ledger: Ledger) -> None:
        """Remember where things are kept."""
        self._settings, self._store, self._ledger = settings, store, ledger
        self._waiting: set[str] = set()
        self._unsaid: list[RetrainResult] = []

    def step(self, now: datetime) -> Sequence[RetrainRequest | RetrainResult]:
        """Judge candidates, ask again where a trainer fell silent, and ask anew where it is due."""
        for candidate in self._ledger.pending_candidates():
            self._judge(candidate, now)
        self._note_released(now)
        requests = [*self._silent(now), *self._due(now)]
        # Taken out last: what raises above leaves them for the next step. A verdict lost after that is lost to the eye
        # alone: the ledger has it.
        verdicts, self._unsaid = self._unsaid, []
        return [*verdicts, *requests]

    def take_result(self, result: RetrainResult, now: datetime) -> None:
        """Record what a trainer said; a result that nobody asked for, or that came before, changes nothing."""
        if result.request_id not in {request.request_id for request in self._ledger.requests_open()}:
            log.info("result ignored", request_id=result.request_id, reason="no such request is open")
            return
        if result.outcome == "failed":
            log.error("retraining failed", request_id=result.request_id, reason=result.reason)
            self._ledger.close_request(result.request_id, "failed", now)
            return
        self._ledger.add_candidate(result, now)
        log.info("candidate received", request_id=result.request_id, architecture=result.architecture)

    def _silent(self, now: datetime) -> list[RetrainRequest]:
        limit = timedelta(seconds=self._settings.retrain.silence_s)
        silent = [request for request in self._ledger.requests_open() if now - _last_sign(request) > limit]
        return [message for request in silent if (message := self._refreshed(request, now)) is not None]

    def _refreshed(self, request: StoredRequest, now: datetime) -> RetrainRequest | None:
        """Return a request whose URLs hold for a while, its data set's too; None, and closed, when that is gone."""
        message = request.message
        try:
            dataset = Dataset.model_validate_json(self._store.get(dataset_key(message.dataset_sha256)))
            base = next(stored for stored in self._ledger.releases() if stored.version == message.base_version)
        except (ObjectMissingError, ValidationError, StopIteration) as error:
            log.error("request given up", request_id=request.request_id, reason=str(error))
            self._ledger.close_request(request.request_id, "failed", now)
            return None
        if now - dataset.created_at < self._store.presign_expiry / 2:
            return message
        slices = tuple(
            entry.model_copy(update={"url": self._store.presign_get(image_key(entry.image_sha256))})
            for entry in dataset.slices
        )
        dataset_sha256 = self._put_dataset(dataset.model_copy(update={"created_at": now, "slices": slices}))
        message = message.model_copy(update=self._urls(message.request_id, base, dataset_sha256))
        self._ledger.touch_request(request.request_id, message=message)
        log.info("request renewed", request_id=request.request_id, reason="its URLs were about to expire")
        return message

    def _due(self, now: datetime) -> list[RetrainRequest]:
        latest = self._ledger.standing_release()
        new_labels = self._ledger.new_labels()
        enough = new_labels >= self._settings.retrain.min_new_labels
        labelled = self._ledger.labelled_slices() if enough else []  # the policy looks at patients last
        decision = decide(
            RetrainFacts(
                now=now,
                has_release=latest is not None,
                new_labels=new_labels,
                patients=count_patients(((s.patient_key, s.label) for s in labelled), self._settings.retrain),
                last_request_at=self._ledger.last_request_at(),
                open_requests=len(self._ledger.requests_open()),
            ),
            self._settings.retrain,
        )
        self._ledger.record_decision(now, decision.fire, decision.reason, new_labels)
        if not decision.fire or latest is None:
            return []
        request = self._request(decision.reason, latest, labelled, now)
        if request is None:
            return []
        log.info("retraining requested", request_id=request.request_id, reason=decision.reason)
        return [request]

    def _request(
        self, reason: str, latest: StoredRelease, labelled: Sequence[LabelledSlice], now: datetime
    ) -> RetrainRequest | None:
        """Enter a request in the ledger; None when another worker was quicker."""
        sha256, request_id = self._put_dataset(self._dataset(labelled, now)), uuid.uuid4().hex
        request = RetrainRequest.model_validate(
            {
                "request_id": request_id,
                "reason": reason,
                "requested_at": now,
                "architecture": latest.architecture,
                "base_version": latest.version,
                "base_checkpoint_sha256": latest.checkpoint_sha256,
                "seed": self._settings.retrain.seed,
                **self._urls(request_id, latest, sha256),
            }
        )
        labels_used = max(stored.label_id for stored in labelled)
        opened = self._ledger.open_request(request, dataset_key=dataset_key(sha256), labels_used=labels_used)
        return request if opened else None

    def _urls(self, request_id: str, base: StoredRelease, dataset_sha256: str) -> dict[str, Any]:
        return {
            "base_checkpoint_url": self._store.presign_get(base.checkpoint_key),
            "dataset_url": self._store.presign_get(dataset_key(dataset_sha256)),
            "dataset_sha256": dataset_sha256,
            "upload_urls": {name: self._store.presign_put(upload_key(request_id, name)) for name in UPLOADS},
        }

    def _put_dataset(self, dataset: Dataset) -> str:
        data = dataset.model_dump_json().encode()
        sha256 = sha256_of(data)
        self._store.put(dataset_key(sha256), data, "application/json")
        return sha256

    def _dataset(self, labelled: Sequence[LabelledSlice], now: datetime) -> Dataset:
        sides = {Side.TRAIN: "train", Side.VAL: "val"}
        return Dataset(
            created_at=now,
            slices=tuple(
                DatasetSlice.model_validate(
                    {
                        "image_sha256": stored.image_sha256,
                        "url": self._store.presign_get(stored.image_key),
                        "label": stored.label,
                        "patient_key": stored.patient_key,
                        "source": stored.source,
                        "split": sides[side],
                    }
                )
                for stored in labelled
                if (side := side_of(stored.patient_key, self._settings.retrain)) in sides
            ),
            held_back=HeldBackRule(share=self._settings.retrain.held_back_share, seed=self._settings.retrain.seed),
        )

    def _judge(self, candidate: Candidate, now: datetime) -> None:
        """Decide on a candidate; the decision is in the ledger before anything is released."""
        incumbent = self._ledger.standing_release()
        if incumbent is None:  # there was one when the request was made
            self._refuse(candidate, "no release stands that it could be compared with: release one by hand", now)
            return
        try:
            uploads = {name: self._uploaded(candidate, name) for name in UPLOADS}
            verdict, changes = self._gate(incumbent, candidate, uploads[MODEL_FILE])
        except (ObjectMissingError, HashMismatchError, UnreadableNetworkError, ImageError) as error:
            self._refuse(candidate, f"{type(error).__name__}: {error}", now)
            return
        word: Literal["accepted", "refused"] = "accepted" if verdict.accepted else "refused"
        if verdict.accepted:  # what was judged is kept by its hash: a trainer may still write to its upload URLs
            for name in (MODEL_FILE, CHECKPOINT_FILE):
                key = model_key(sha256_of(uploads[name]), name)
                self._store.put(key, uploads[name], "application/octet-stream")
        reason = "; ".join(verdict.reasons)
        figures = {**verdict.model_dump(mode="json"), INCUMBENT: incumbent.version, CHANGES: changes}
        self._ledger.decide_candidate(candidate.request_id, word, reason, figures, now)
        log.info("candidate judged", request_id=candidate.request_id, verdict=word, reason=reason)
        if verdict.accepted:  # spoken of when an engineer has signed it
            self._waiting.add(candidate.request_id)
            log.info("candidate waits", request_id=candidate.request_id, next="`sliceloop release --candidates`")
        else:
            self._say_refused(candidate, reason, now)

    def _refuse(self, candidate: Candidate, reason: str, now: datetime) -> None:
        """Refuse what cannot be judged."""
        self._ledger.decide_candidate(candidate.request_id, "refused", reason, {}, now)
        log.error("candidate refused", request_id=candidate.request_id, reason=reason)
        self._say_refused(candidate, reason, now)

    def _say_refused(self, candidate: Candidate, reason: str, now: datetime) -> None:
        self._unsaid.append(
            RetrainResult(
                request_id=candidate.request_id,
                outcome="failed",
                at=now,
                trainer=self._settings.name,
                reason=f"refused by the gate: {reason}"[:MAX_REASON],
                verdict="refused",
            )
        )

    def _note_released(self, now: datetime) -> None:
        """Say of each candidate that waited for a signature that it is released."""
        waiting = {candidate.request_id for candidate in self._ledger.accepted_unreleased()}
        gone = self._waiting - waiting
        for release in self._ledger.releases() if gone else ():
            if release.request_id in gone:
                self._unsaid.append(self._released(release, now))
                log.info("candidate released", request_id=release.request_id, version=release.version)
        self._waiting = waiting

    def _released(self, release: StoredRelease, now: datetime) -> RetrainResult:
        reasons = (release.gate or {}).get("reasons", ())
        return RetrainResult.model_validate(
            {
                "request_id": release.request_id,
                "outcome": "candidate",
                "at": now,
                "trainer": self._settings.name,
                "reason": "; ".join(map(str, reasons))[:MAX_REASON],
                "verdict": "released",
                "released_version": release.version,
            }
        )

    def _uploaded(self, candidate: Candidate, name: str) -> bytes:
        described = candidate.files.get(name)
        if described is None:
            raise HashMismatchError(f"the trainer named no {name}")
        data = self._store.get(upload_key(candidate.request_id, name))
        if sha256_of(data) != described.sha256:
            raise HashMismatchError(f"{name} in the object store is not what the trainer said it uploaded")
        return data

    def _gate(
        self, incumbent: StoredRelease, candidate: Candidate, candidate_model: bytes
    ) -> tuple[GateVerdict, dict[str, float] | None]:
        held_back = self._held_back()
        if not len(held_back.labels):
            nothing = np.zeros((0, len(LABELS)), np.float32)
            return judge(nothing, nothing, held_back, self._settings.gate), None
        theirs = self._logits(self._store.get(incumbent.files[MODEL_FILE]), held_back.pixels)
        ours = self._logits(candidate_model, held_back.pixels)
        manifest = shown_manifest(incumbent.envelope)
        changes = expected_changes(
            answers(probabilities(theirs, manifest.temperature), manifest.uncertain_below),
            answers(probabilities(ours, candidate.temperature), manifest.uncertain_below),
            held_back.labels,
            held_back.patients,
        )
        verdict = judge(theirs, ours, held_back, self._settings.gate)
        return verdict, changes.model_dump() if changes is not None else None

    def _logits(self, model: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        reader = OnnxReader(model, Calibration(), threads=self._settings.threads)
        try:
            batches = [reader.logits(pixels[at : at + READ_BATCH]) for at in range(0, len(pixels), READ_BATCH)]
            return np.concatenate(batches).reshape(len(pixels), len(LABELS))
        except Exception as error:  # onnxruntime's error classes share no public base
            raise UnreadableNetworkError(f"the network fails on a slice: {str(error)[:200]}") from error

    def _held_back(self) -> HeldBack:
        chosen = [
            stored
            for stored in self._ledger.labelled_slices()
            if side_of(stored.patient_key, self._settings.retrain) is Side.HELD_BACK
        ][-MAX_HELD_BACK_SLICES:]
        frames = [decode_image(self._store.get(stored.image_key)) for stored in chosen]
        return HeldBack(
            np.array(frames, np.uint8),
            np.array([LABELS.index(stored.label) for stored in chosen], np.int64),
            [stored.patient_key for stored in chosen],
            [stored.source for stored in chosen],
        )


def _last_sign(request: StoredRequest) -> datetime:
    """Return when a request was last published, or its trainer last heard; a request never published is long silent."""
    if request.last_published_at is None:
        return datetime.min.replace(tzinfo=UTC)
    return max(request.last_published_at, request.last_heard_at or request.last_published_at)
